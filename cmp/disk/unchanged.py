"""Finds weights under a checkpoint's name that are a base model's: some converters load nothing of a checkpoint, and do not say so."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cmp.core.conversion import Base
from cmp.core.fitting import RECOMPUTED, find_tensor
from cmp.core.present import path_text
from cmp.core.progress import Progress, run_through
from cmp.core.runs import Checkpoint, Run
from cmp.disk.base_proof import is_same, pipeline_around
from cmp.disk.bases import Component, find_base, pipelines_below, read_component
from cmp.disk.checkpoint import TRAINED_PARTS, Opened, find_files, open_weights
from cmp.disk.converted import is_ours
from cmp.disk.folders import list_folder
from cmp.disk.raw import RawReader
from cmp.disk.ready import open_checkpoint, remembered_answers
from cmp.disk.store import Store
from cmp.errors import CmpError, Refused

_PAIR, _KIND = "is-component-of-base", "is-base"  # of what the store remembers


@dataclass(frozen=True, slots=True)
class Unchanged:
    """All `tensors` tensors of some components equal those of the base model at `base` to the bit."""

    base: str
    components: tuple[str, ...]
    tensors: int

    def as_json(self) -> dict[str, object]:
        return {"base": self.base, "components": list(self.components), "tensors": self.tensors}


def unchanged_checkpoint(
    run: Run, checkpoint: Checkpoint, places: Iterable[Path], store: Store, given: str | None = None
) -> Unchanged | None:
    """Which base model the whole weights of a checkpoint are, None if they are of none at hand.

    Reads until the first tensor that is another. Compared is the base `given` or the run's own, or where none is known every one in
    `places`.
    """
    with suppress(CmpError):
        return _unchanged(run, open_checkpoint(checkpoint), tuple(places), store, given)
    return None


def unchanged_pipelines(run: Run, places: Iterable[Path], store: Store) -> Iterator[tuple[Path, Unchanged]]:
    """The pipelines that another program made of the run's checkpoints and that are the base model."""
    for index in sorted((run.folder / "checkpoint_pipelines").glob("*/model_index.json")):
        if not is_ours(index.parent):
            with suppress(CmpError, OSError):
                opened = open_weights(*find_files(list_folder(index.parent)))
                if found := _unchanged(run, opened, tuple(places), store):
                    yield index.parent, found


def told_unchanged(run: Run, store: Store) -> Run:
    """The run with a warning for each checkpoint of which is remembered that it is the base model; no weights are read."""
    warnings = []
    for checkpoint in run.checkpoints:
        if checkpoint.holds == "full" and checkpoint.flaw is None and checkpoint.file is not None:
            with suppress(CmpError):
                if isinstance(base := store.get(_KIND, open_weights(*checkpoint.files).header.subject), str):
                    warnings.append(f"{checkpoint.key}: its weights ARE the base model's, {base}")
    return replace(run, warnings=(*run.warnings, *warnings)) if warnings else run


def _unchanged(run: Run, opened: Opened, places: tuple[Path, ...], store: Store, given: str | None = None) -> Unchanged | None:
    weights = opened.weights
    names = tuple(name for name in weights.components if name in TRAINED_PARTS)
    if not names or weights.adapted or weights.embeddings:
        return None
    for base in _candidates(run, opened, places, store, given):
        with suppress(CmpError):
            if all(run_through(_is_remembered(opened, name, read_component(base, name), store)) for name in names):
                found = Unchanged(path_text(base), names, sum(len(weights.plain_of(name)) for name in names))
                with suppress(Refused):
                    store.put(_KIND, opened.header.subject, found.base)
                return found
    return None


def _candidates(run: Run, opened: Opened, places: tuple[Path, ...], store: Store, given: str | None) -> Iterator[Path]:
    """The base that is given or that the run names, or else every pipeline that lies where base models do and is none of the run's own."""
    own = pipeline_around(opened)
    known: Base | None = None
    with suppress(CmpError):
        known = find_base(run, places, given, remembered_answers(run, store).base)
    if known is not None:
        yield known.path
        return
    inside = run.folder.parent if run.folder.name == "checkpoint_pipelines" else run.folder
    for folder in pipelines_below(places):
        if folder != own and not _lies_in(folder, inside) and not is_ours(folder):
            yield folder


def _lies_in(folder: Path, inside: Path) -> bool:
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(inside))


def _is_remembered(opened: Opened, name: str, base: Component, store: Store) -> Generator[Progress, None, bool]:
    subject = f"{name}|{opened.header.subject}|{base.header.subject}"
    if not isinstance(known := store.get(_PAIR, subject), bool):
        known = yield from _is_component(opened, name, base)
        with suppress(Refused):
            store.put(_PAIR, subject, known)
    return known


def _is_component(opened: Opened, name: str, base: Component) -> Generator[Progress, None, bool]:
    """Whether the checkpoint has every tensor of a base's component, to the bit, and no other; ends at the first that is not."""
    plain, there = opened.weights.plain_of(name), base.header.tensors
    known = {stored: find_tensor(inner, there) for stored, inner in plain.items()}
    pairs = [(stored, inner) for stored, inner in known.items() if inner is not None]
    absent = set(there) - set(known.values()) - {inner for inner in there if inner.endswith(RECOMPUTED)}
    if absent or len(pairs) < len(plain) or any(there[inner].shape != opened.header.tensors[stored].shape for stored, inner in pairs):
        return False
    with RawReader(opened.header) as ours, RawReader(base.header) as theirs:
        for number, (stored, inner) in enumerate(pairs):
            so_far = Progress(number, len(pairs), f"comparing {name} with the base")
            yield so_far
            if not (yield from is_same(ours, stored, theirs, inner, so_far)):
                return False
    return bool(pairs)
