"""Knows measured checkpoints again after their files have become others: by the digest of what was trained, a few MB of a LoRA."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import suppress
from pathlib import Path

from cmp.core.picking import candidates
from cmp.core.progress import Progress
from cmp.core.runs import Checkpoint, Run, plain_text
from cmp.disk.held import all_held, files_of, held, hold
from cmp.disk.measures import Measures
from cmp.disk.ready import Answers, digesting, knows_digest, open_checkpoint, readying, trained_tensors
from cmp.disk.store import Store, subject_of
from cmp.errors import CmpError

_MOST_ELSEWHERE = 1 << 30  # bytes that are read to see whether a run that was never measured here was measured elsewhere


class TooMuch(Exception):
    """More would have to be read than is to be."""


def recognising(run: Run, bases: Iterable[Path], store: Store, most: int | None = None) -> Generator[Progress, None, bool]:
    """Looks into the files of a run that were others when they were measured; whether all was looked at that can be.

    At most `most` bytes are read, None for all. Checkpoints of which nothing was noted in this place may have been measured in another,
    where the run was copied or moved from: they are looked for by their weights.
    """
    left = [float("inf") if most is None else float(most)]
    noted, place = Measures(store).files_noted(), subject_of(run.place)
    own = [(c, noted.get((place, plain_text(c.key)), set())) for c in candidates(run)] if noted else []
    whole = True
    for checkpoint, before in own:
        try:
            for then in before - {files_of(checkpoint)}:
                yield from _looking(checkpoint, held(store, then), store, left)
        except TooMuch:
            whole = False
        except CmpError:
            continue  # as long as it cannot be read nobody knows
    left[0] = min(left[0], _MOST_ELSEWHERE)
    with suppress(TooMuch):
        yield from _adopting(run, [c for c, before in own if not before], tuple(bases), store, left)
    return whole


def _looking(checkpoint: Checkpoint, wanted: Iterable[str], store: Store, left: list[float]) -> Generator[Progress, None, dict[str, str]]:
    """What the files hold now, in the components that are `wanted` whole; raises TooMuch, and Unreadable or Refused."""
    files, wanted = files_of(checkpoint), set(wanted)
    known = held(store, files)
    if missing := wanted - known.keys():
        opened = open_checkpoint(checkpoint)
        for names in sorted(missing):
            parts = tuple(filter(None, names.split(",")))
            if not knows_digest(opened, store, parts):
                left[0] -= sum(e.end - e.start for e in map(opened.header.tensors.__getitem__, trained_tensors(opened, parts)))
                if left[0] < 0:
                    raise TooMuch
            known[names] = yield from digesting(opened, store, parts)
        if files == files_of(checkpoint):
            hold(store, files, known)
    return known


def _adopting(
    run: Run, unknown: Iterable[Checkpoint], bases: tuple[Path, ...], store: Store, left: list[float]
) -> Generator[Progress, None, None]:
    """Notes what was measured of the same weights in another place: of all that can be found or, rather than of a part, of none."""
    measures, found = Measures(store), []
    unknown = tuple(unknown)
    noted = {files for each in measures.files_noted().values() for files in each} if unknown else set()
    elsewhere = {tuple(sorted(told.items())) for files, told in all_held(store).items() if files in noted}
    for checkpoint in unknown:
        with suppress(CmpError):
            own = yield from _looking(checkpoint, {name for told in elsewhere for name, _ in told}, store, left)
            files = files_of(checkpoint)
            for told in (told for told in elsewhere if dict(told).items() <= own.items()):
                ready = yield from readying(run, checkpoint, bases, store, Answers(), need_base=False)  # which says at which scale
                found += [(checkpoint, files, ready.worn(digest)) for _, digest in told]
    for each in found:
        measures.adopt(run, *each)
