"""What could go of a run, and what must stay whatever is asked: checkpoints as wholes, converted forms, optimizers, dumps to compact."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cmp.core.pace import duration_text
from cmp.core.runs import Checkpoint, Run
from cmp.core.stages import UNREAD
from cmp.core.storage import Choice, Item, Rules, Unit, choose, trash_name
from cmp.disk.checkpoint import open_weights
from cmp.disk.compact_planning import Against, candidates, dumps_of, place_of, referred_to, why_declined
from cmp.disk.planning import plan_conversion
from cmp.disk.store import Store
from cmp.disk.tensors import Header, identify
from cmp.disk.trash import Trashed
from cmp.disk.usage import files_below, freed_by, mark, newest
from cmp.errors import CmpError, NotFound, Refused, Unreadable

_OPTIMIZER = re.compile(r"(?:optimizer|scheduler)(?:_[0-9]{1,3})?\.(?:bin|pt|safetensors)\Z", re.ASCII)
_A_TENSOR = 300  # bytes of a manifest that speak of one tensor, about


@dataclass(frozen=True, slots=True)
class Subject:
    """A run with what holds parts of it: `stars` are ids of checkpoints, `now` is Unix seconds.

    `others` is what compacted dumps of all known runs refer to (see referred_to): a base model of another run may lie in this one.
    """

    run: Run
    stars: Collection[str]
    now: float
    rules: Rules
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def training(self) -> bool:
        return self.run.state(self.now) == "training"

    def referred(self) -> dict[str, str]:
        """What compacted dumps of this run and of all known ones refer to, see referred_to. Reads the run's manifests."""
        return {**self.others, **referred_to(self.run.folder)}


def units_of(subject: Subject) -> tuple[Unit, ...]:
    """A run's checkpoints as wholes, in the order of their steps, each with what keeps it."""
    run = subject.run
    outer = [c for c in run.checkpoints if not any(other.path in c.path.parents for other in run.checkpoints)]
    referred = subject.referred()
    units = []
    for checkpoint in outer:
        inner = [c for c in run.checkpoints if c.path == checkpoint.path or checkpoint.path in c.path.parents]
        ids = tuple(name for c in inner for name in (c.id, *c.aliases))
        guards = tuple(_guards(subject, checkpoint, inner, ids, referred))
        units.append(Unit(checkpoint.path, ids, checkpoint.step, freed_by([checkpoint.path]), guards, _is_final(checkpoint)))
    return tuple(units)


def _is_final(checkpoint: Checkpoint) -> bool:
    return checkpoint.key.partition("~")[0] == "final"


def _guards(
    subject: Subject, checkpoint: Checkpoint, inner: Iterable[Checkpoint], ids: Collection[str], referred: Mapping[str, str]
) -> Iterator[str]:
    path, inner = checkpoint.path, tuple(inner)
    if subject.training:
        yield "the run is being trained"
    if set(ids) & set(subject.stars):
        yield "starred"
    if _is_final(checkpoint):
        yield "what the training ended with"
    if flaw := next((c.flaw or "it is not read yet" for c in inner if c.flaw or c.layout == UNREAD), None):
        yield f"nobody can say what it holds: {flaw}"
    if why := too_young(path, subject):
        yield why
    if path != subject.run.folder and any(place.is_symlink() for place in (path, *path.parents) if subject.run.folder in place.parents):
        yield "it lies behind a link"
    if other := next((other for file in files_below(path) if (other := _depends(file, path, referred))), None):
        yield f"{other} was compacted against it"


def too_young(path: Path, subject: Subject) -> str | None:
    age = subject.now - newest(path)
    return f"written less than {duration_text(subject.rules.min_age)} ago" if age < subject.rules.min_age else None


def _depends(file: Path, unit: Path, referred: Mapping[str, str]) -> str | None:
    """Which other checkpoint's folder cannot do without a file, None if none."""
    if not referred:
        return None
    with suppress(Unreadable):
        folder = referred.get(place_of(file))
        return folder if folder and unit != Path(folder) and unit not in Path(folder).parents else None
    return None


# -- items -----------------------------------------------------------------------------------------------------------------


def retention(subject: Subject, units: Iterable[Unit], best: Collection[str]) -> tuple[Choice, ...]:
    """What the rules make of the checkpoints."""
    units = tuple(units)
    if subject.rules.asked:
        return choose(units, subject.rules, best)
    return tuple(Choice(unit, True, unit.guards[0] if unit.guards else "nothing was asked of it") for unit in units)


def going(subject: Subject, choices: Iterable[Choice]) -> Iterator[Item]:
    """What the rules take, and after it what they leave."""
    ordered = sorted(choices, key=lambda choice: choice.stays)
    for choice in ordered:
        unit = choice.unit
        if choice.stays:
            yield Item(unit.path, "keep", choice.why, unit.bytes, checkpoint=unit.ids[0], home=subject.run.folder)
        else:
            names = tuple(trash_name(subject.run, name.removeprefix(f"{subject.run.id}@")) for name in unit.ids)
            yield replace(_to_trash(unit.path, choice.why, subject.run.folder, unit.ids[0], unit.bytes), names=names)


def _to_trash(path: Path, why: str, home: Path, checkpoint: str, size: int | None = None) -> Item:
    size = freed_by([path]) if size is None else size
    return Item(path, "trash", why, size, "restore with its trash id", None, checkpoint, home, mark(path))


def dropped_forms(subject: Subject, staying: Iterable[Checkpoint], bases: tuple[Path, ...], store: Store) -> Iterator[Item]:
    """The converted forms that could be made again to the same end; the others stay, with the reason."""
    referred = subject.referred()
    for checkpoint in staying:
        for form, target in checkpoint.converted:
            home = subject.run.folder if target.is_relative_to(subject.run.folder) else store.stand_in(subject.run.place)
            try:
                again = plan_conversion(subject.run, checkpoint, form, bases, store).done
                why = "it was made of other weights or in another way than it would be now"
            except CmpError as fault:
                again, why = None, fault.message
            if subject.training:
                again, why = None, "the run is being trained"
            if other := next((other for file in files_below(target) if (other := _depends(file, target, referred))), None):
                again, why = None, f"{other} was compacted against it"
            if again:
                yield _to_trash(target, f"it can be made again: convert {checkpoint.id} --to {form}", home, checkpoint.id)
            else:
                why = why if other else f"it could not be made again: {why}"
                yield Item(target, "keep", why, freed_by([target]), checkpoint=checkpoint.id, home=home)


def dropped_optimizers(subject: Subject, choices: Iterable[Choice]) -> Iterator[Item]:
    """The state of optimizers and schedulers of the checkpoints that stay."""
    for choice in choices:
        if not choice.stays or subject.training or too_young(choice.unit.path, subject):
            continue
        for file in optimizer_files(choice.unit.path):
            yield _to_trash(file, "without it no training can be resumed from this checkpoint", subject.run.folder, choice.unit.ids[0])


def optimizer_files(path: Path) -> list[Path]:
    """What is needed in a checkpoint to resume, and for nothing else."""
    return [file for file in files_below(path) if _OPTIMIZER.match(file.name) and file != path]


def compactions(
    subject: Subject, choices: Iterable[Choice], bases: tuple[Path, ...], store: Store
) -> Iterator[tuple[Item, tuple[Against, ...]]]:
    """The dumps that can be compacted, each with what against; and why the others are not.

    Where no base holds what is frozen the newest dump stays whole, and the others are compacted against it. So it comes first: whether
    a base that looks right is the one shows only in its bytes.
    """
    paths = {choice.unit.path for choice in choices if choice.stays}
    checkpoints = [c for c in reversed(subject.run.checkpoints) if c.path in paths]
    dumps = [(c, raw) for c in checkpoints for raw in dumps_of(c)]
    referred = referred_to(subject.run.folder)
    whys = {raw: _why_not(subject, c, raw, referred) for c, raw in dumps}
    whole = [raw for _, raw in dumps if place_of(raw) in referred]
    for name in {raw.name for _, raw in dumps}:  # of several models each has its own
        if not any(raw.name == name for raw in whole):
            whole += [raw for _, raw in dumps if raw.name == name and not whys[raw]][:1]
    for checkpoint, raw in dumps:
        why = whys[raw]
        against = () if why else _against(subject.run, raw, bases, store, () if raw in whole else whole)
        if raw in whole and not against and len([other for _, other in dumps if other.name == raw.name]) > 1:
            why = why or "no base model here has its frozen tensors; the other dumps are compacted against it"
        yield _compaction(subject, checkpoint, raw, against, why)
    for checkpoint in checkpoints:
        if not dumps_of(checkpoint) and (why := why_declined(checkpoint)):
            yield Item(checkpoint.path, "keep", why, checkpoint.bytes, checkpoint=checkpoint.id, home=subject.run.folder), ()


def _why_not(subject: Subject, checkpoint: Checkpoint, raw: Path, referred: Mapping[str, str]) -> str | None:
    if subject.training:
        return "the run is being trained"
    if checkpoint.flaw:
        return f"nobody can say what it holds: {checkpoint.flaw}"
    if any(place.is_symlink() for place in (raw, *raw.parents) if subject.run.folder in place.parents):
        return "it lies behind a link"
    if identify(raw).names > 1:
        return f"it has {identify(raw).names} names (hard links): removing one of them frees nothing"
    if folder := referred.get(place_of(raw)):
        return f"{folder} was compacted against it"
    return too_young(checkpoint.path, subject)


def _against(run: Run, raw: Path, bases: tuple[Path, ...], store: Store, kept: Iterable[Path]) -> tuple[Against, ...]:
    try:
        opened = open_weights(raw)
    except CmpError:
        return ()
    least = _A_TENSOR * len(opened.header.tensors)
    return tuple(one for one in candidates(run, raw, opened, bases, store, kept) if one.bytes > max(least, _bytes(opened.header) // 10))


def _bytes(header: Header) -> int:
    return sum(entry.end - entry.start for entry in header.tensors.values())


def _compaction(
    subject: Subject, checkpoint: Checkpoint, raw: Path, against: tuple[Against, ...], why: str | None
) -> tuple[Item, tuple[Against, ...]]:
    size = identify(raw).size
    if not against or why:
        told = why or "nothing would be saved: no base model here has its frozen tensors, and no other dump of the run"
        return Item(raw, "keep", told, size, checkpoint=checkpoint.id, home=subject.run.folder), ()
    saves = against[0].bytes - _A_TENSOR * len(open_weights(raw).header.tensors)
    where = against[0].path if against[0].kind == "base" else against[0].path.parent
    told = f"what was not trained is held by {against[0].id} ({where}), which must stay; resuming a training from it needs `restore`"
    return Item(raw, "compact", told, saves, f"restore {checkpoint.id}", None, checkpoint.id, subject.run.folder, mark(raw)), against


def emptied(trashed: Iterable[Trashed], now: float, older: float | None, starred: Collection[tuple[Path, str]] = ()) -> Iterator[Item]:
    """What is deleted for good: all, or what has lain there for so many seconds. `starred` are homes and names (see trash_name) of what is
    starred and lies nowhere else.
    """
    for each in trashed:
        lain = duration_text(max(0.0, now - each.moved_at))
        if any((each.home, name) in starred for name in each.names):
            why = "starred, and no longer in the run: restore it, or take its star away there"
            yield Item(each.place, "keep", why, each.bytes, f"restore {each.id}", each.id, None, each.home)
        elif older is None or now - each.moved_at >= older:
            why = f"in the trash since {lain}; deleted for good"
            yield Item(each.place, "delete", why, each.bytes, None, each.id, None, each.home, mark(each.place))


def require_free(item: Item, others: Iterable[Path] = ()) -> None:
    """Raises Refused if a compacted checkpoint, of this run or in `others`, has come to depend on what an item takes away."""
    assert item.home is not None
    referred = referred_to(item.home, *others)
    if other := next((other for file in files_below(item.path) if (other := _depends(file, item.path, referred))), None):
        raise Refused(f"{item.path} stays: {other} was compacted against it", "Restore that one first.")


def still_there(item: Item) -> None:
    """Raises NotFound or Unreadable if what an item is about is gone, or is not what it was when the plan was made."""
    if not os.path.lexists(item.path):
        raise NotFound(f"{item.path} is gone", "Another process may have removed it; plan again.")
    if mark(item.path) != item.mark:
        raise Unreadable(f"{item.path} has changed since the plan was made", "Plan again when nothing writes to it.")
