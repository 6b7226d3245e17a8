"""Looks for what does not fit: on this machine for `doctor`, in one folder for `doctor PATH`. `core.misfits` says what it means."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import cmp
from cmp.core import misfits as judge
from cmp.core.misfits import Misfit
from cmp.core.present import path_text
from cmp.core.progress import run_through
from cmp.core.runs import Checkpoint, Library, Run
from cmp.disk.base_proof import base_otherwise
from cmp.disk.bases import find_base, named_below, read_component, read_index
from cmp.disk.checkpoint import Opened
from cmp.disk.machine import (
    existing,
    file_system,
    graphics_cards,
    is_of_another_machine,
    memory_available,
    memory_total,
    torch_build,
    versions_beside,
)
from cmp.disk.plain_pipeline import is_plain_pipeline
from cmp.disk.planning import plan_conversion
from cmp.disk.ready import open_checkpoint, remembered_answers
from cmp.disk.store import Store
from cmp.disk.unchanged import unchanged_checkpoint, unchanged_pipelines
from cmp.errors import CmpError, NotFound, Refused, why_not

REQUIREMENTS = Path(cmp.__file__).resolve().parents[1] / "requirements.txt"
_PROBE = "doctor"  # a kind of facts of which there are none


def machine_misfits(
    library: Library, roots: Iterable[Path], bases: tuple[Path, ...], store: Store, wanted: str, works: bool | None
) -> tuple[Misfit, ...]:
    """All misfits of this machine and the runs on it. `wanted` is the device asked for, `works` whether torch finds a CUDA card."""
    cards = graphics_cards()
    device = judge.device_misfit([card.name for card in cards], torch_build(), works, wanted)
    found_bases, missing = _bases_of(library.runs, bases, store)
    card = next((card.bytes for card in cards), None) if works and wanted not in ("cpu", "mps") else None
    return (
        *([device] if device else []),
        *_memory(found_bases, card),
        *missing,
        *_home(store),
        *_roots(roots),
        *_disks(library.runs, (store.home, *roots)),
        *(judge.version_misfit(v.name, v.wanted, v.installed) for v in versions_beside(REQUIREMENTS) if not v.fits),
    )


def folder_misfits(path: Path, runs: Sequence[Run], roots: Iterable[Path], bases: tuple[Path, ...], store: Store) -> tuple[Misfit, ...]:
    """What the runs in one folder are up against: not listed, silently not loaded, no base model, too large for the disk or for memory."""
    real = Path(os.path.realpath(path))
    listed = any(real.is_relative_to(os.path.realpath(root)) for root in roots)
    listing = judge.listing_misfit(path_text(path), listed, len(runs))
    found_bases, missing = _bases_of(runs, bases, store)
    each = [*map(_silent, runs), *(found for run in runs for found in _empty(run, bases, store))]
    space = [_space(run, bases, store) for run in runs]
    return (*filter(None, [listing, *each]), *missing, *filter(None, space), *_memory(found_bases, None))


# -- base models and memory ------------------------------------------------------------------------------------------------


def _bases_of(runs: Iterable[Run], bases: tuple[Path, ...], store: Store) -> tuple[list[Path], list[Misfit]]:
    """The base models that runs need: those that are there, and a misfit for each that is not."""
    found: dict[Path, None] = {}
    missing: dict[str | None, list[Run]] = {}
    for run in runs:
        if not _usable(run) or is_plain_pipeline(run):
            continue
        remembered = remembered_answers(run, store).base
        try:
            found[find_base(run, bases, None, remembered).path] = None
        except NotFound:
            other = _proven(run, bases, store, remembered or run.base_model)
            if other is None:
                missing.setdefault(remembered or run.base_model, []).append(run)
            else:
                found[other] = None
    return list(found), [_missing(base, its) for base, its in missing.items()]


def _missing(base: str | None, runs: list[Run]) -> Misfit:
    below = next((folder for run in {run.root: run for run in runs}.values() for folder in named_below(run, base)), None)
    return judge.base_misfit(base, [run.id for run in runs], _usable(runs[0])[-1].id, path_text(below) if below else "")


def _usable(run: Run) -> list[Checkpoint]:
    return [c for c in run.checkpoints if c.flaw is None and c.file is not None]


def _proven(run: Run, bases: tuple[Path, ...], store: Store, wanted: str | None) -> Path | None:
    """The base that a full dump proves by its own tensors, or the trained pipeline that the weights lie in."""
    with suppress(CmpError):
        base = run_through(base_otherwise(open_checkpoint(_usable(run)[-1]), bases, store, named_below(run, wanted)))
        return base.path if base else None
    return None


def _memory(bases: Iterable[Path], card: int | None) -> Iterator[Misfit]:
    total, free = memory_total(), memory_available()
    for base in bases:
        found = judge.memory_misfit(path_text(base), parameters_of(base), total, free, card)
        if found:
            yield found


def parameters_of(base: Path) -> int:
    """How many numbers a base model's components hold, by their headers; those that cannot be read count nothing."""
    count = 0
    with suppress(CmpError):
        for name in read_index(base):
            with suppress(CmpError):
                count += sum(math.prod(shape) for shape in read_component(base, name).shapes.values())
    return count


# -- folders and disks -----------------------------------------------------------------------------------------------------


def _home(store: Store) -> list[Misfit]:
    fault = None
    try:
        store.put(_PROBE, "", None)  # forgets what was never kept: nothing changes, and it fails where nothing can be written
        if not os.access(existing(store.home), os.W_OK | os.X_OK):
            fault = "its folder cannot be written"
    except Refused as refused:
        fault = refused.message
    kind = file_system(existing(store.home))
    return judge.home_misfits(path_text(store.home), fault, kind if is_of_another_machine(kind) else "")


def _roots(roots: Iterable[Path]) -> Iterator[Misfit]:
    for root in roots:
        try:
            os.listdir(root)
        except OSError as fault:
            yield judge.runs_misfit(path_text(root), why_not(fault))


def _disks(runs: Sequence[Run], places: Iterable[Path]) -> Iterator[Misfit]:
    seen: set[int] = set()
    for place in map(existing, places):
        with suppress(OSError):
            device = os.stat(place).st_dev
            if device in seen:
                continue
            seen.add(device)
            largest = max((c.bytes for run in runs for c in run.checkpoints if _lies_on(run.folder, device)), default=0)
            found = judge.disk_misfit(path_text(place), shutil.disk_usage(place).free, largest)
            if found:
                yield found


def _lies_on(folder: Path, device: int) -> bool:
    try:
        return os.stat(folder).st_dev == device
    except OSError:
        return False


# -- one run ---------------------------------------------------------------------------------------------------------------


def _silent(run: Run) -> Misfit | None:
    """What other tools say of the run's weights while they load nothing; by the first checkpoint of which that is known."""
    for checkpoint in _usable(run):
        with suppress(CmpError):
            opened = open_checkpoint(checkpoint)
            found = judge.silent_misfit(run.id, checkpoint.id, opened.weights.layout, len(opened.header.tensors), _of_adapter(opened))
            if found:
                return found
    return None


def _empty(run: Run, bases: tuple[Path, ...], store: Store) -> Iterator[Misfit]:
    """Checkpoints, and pipelines that another converter made of them, that are the base model still."""
    for checkpoint in _usable(run):
        if checkpoint.holds == "full" and (found := unchanged_checkpoint(run, checkpoint, bases, store)):
            yield judge.empty_checkpoint_misfit(checkpoint.id, path_text(checkpoint.path), found.base, found.components, found.tensors)
    for pipeline, found in unchanged_pipelines(run, bases, store):
        yield judge.empty_misfit(run.id, path_text(pipeline), found.base, found.components, found.tensors)


def _of_adapter(opened: Opened) -> int:
    return len({stored for module in opened.weights.adapted for stored in module.parts.values()})


def _space(run: Run, bases: tuple[Path, ...], store: Store) -> Misfit | None:
    """Whether pipelines of all checkpoints that have none would fit."""
    open_ones = [c for c in _usable(run) if "pipeline" not in dict(c.converted)]
    for checkpoint in reversed(open_ones):
        with suppress(CmpError, OSError):
            plan = plan_conversion(run, checkpoint, "pipeline", bases, store)
            place = existing(plan.target)
            return judge.space_misfit(run.id, len(open_ones), plan.bytes, shutil.disk_usage(place).free, path_text(place))
    return None
