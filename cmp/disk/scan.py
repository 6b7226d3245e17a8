"""Finds every run below the given folders. Only names and headers are read; nothing is followed out of the roots.

A run's id is the path of its folder below the root. Where a folder holds the files of several runs (see `trainers/loose.py`) each is
called `FOLDER/NAME` by the name of its files, with `~files` behind it if a folder of that name lies there too; `Run.folder` stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

from cmp.core.runs import Checkpoint, Library, Problem, Run, Setting, run_id, with_unique_ids, with_unique_keys
from cmp.core.samples import dated
from cmp.disk.converted import converted_forms
from cmp.disk.folders import Folder, Look, list_folder, looking, size_below, without_collecting
from cmp.disk.logs.curves import read_latest
from cmp.disk.logs.match import LogFolder, Tracker, logs_of_run, sibling_folders
from cmp.disk.plain_pipeline import is_plain_pipeline, places_below, told_as_pipeline
from cmp.disk.samples import read_samples
from cmp.disk.trainers import accelerate, ai_toolkit, by_name, loose, onetrainer, simpletuner, textual_inversion
from cmp.disk.trainers.configs import base_model, without_repeats
from cmp.disk.trainers.found import Found
from cmp.errors import CmpError

DEEPEST = 8  # levels below a root; runs lie two or three deep
_NEVER_RUNS = {"checkpoints", "checkpoint_pipelines", "converted", "validation", "samples", "sample", "__pycache__", "node_modules"}
# In this order: the first that says "mine" has the folder, and only loose files beside it may be further runs.
_READERS = (ai_toolkit.recognise, onetrainer.recognise, textual_inversion.recognise, simpletuner.recognise, accelerate.recognise)
SharedLogs = dict[Path, tuple[Tracker, ...]]
Logs = tuple[LogFolder, ...]
_CONVERTED = ("converted", "checkpoint_pipelines")
_PIPELINE = "model_index.json"  # beside a component it says where that was loaded from


def scan(roots: Iterable[Path], bases: Iterable[Path] = ()) -> Library:
    """All runs below `roots`, ids unique; folders that could not be read are listed as problems and take nothing else down.

    Whole pipelines in the folders of base models are none.
    """
    return Scanner().scan(roots, bases=bases)


@dataclass(frozen=True, slots=True)
class Reading:
    """The runs in one folder. Its folders `claimed`, and with `whole` all of them, are no places for further runs."""

    runs: tuple[Run, ...] = ()
    claimed: frozenset[str] = frozenset()
    whole: bool = False


@dataclass(slots=True)
class _Kept:
    """What one folder held at a turn of the look, `beside` and `around` what lay outside it then that it also depends on.

    `complete`: headers were read as well.
    """

    turn: int
    beside: object
    complete: bool = True
    found: tuple[Found, ...] = ()
    reading: Reading = Reading()
    around: object = None
    fault: str | None = None


class Scanner:
    """Scans again and again, and reads only what has changed since. For one thread at a time."""

    def __init__(self) -> None:
        self._look = Look()
        self._kept: dict[tuple[Path, Path], _Kept] = {}
        self._unread: dict[tuple[Path, Path], None] = {}
        self._visited: set[tuple[Path, Path]] = set()
        self._shared: SharedLogs = {}
        self._bases: tuple[Path, ...] = ()
        self._last: tuple[object, int, Library] | None = None

    @property
    def unread(self) -> int:
        """How many folders wait for `read_on`."""
        return len(self._unread)

    def scan(self, roots: Iterable[Path], *, headers: bool = True, bases: Iterable[Path] = ()) -> Library:
        """See `scan`; the very same Library if nothing has changed. Without `headers`, what is new is told by names and sizes for now."""
        roots = tuple(dict.fromkeys(Path(os.path.abspath(root)) for root in roots))
        self._bases = tuple(bases)
        asked = roots, self._bases
        self._look.refresh()
        if headers and self._unread:
            self._last = None
        if self._last is None or self._last[:2] != (asked, self._look.last_change):
            self._shared = {top: logs for top, logs in self._shared.items() if self._look.changed(top) < self._look.turn}
            with without_collecting() if not (headers or self._kept) else nullcontext():
                library = self._collect(roots, headers)
            self._last = (asked, self._look.last_change, library)
            if any(kept.fault for kept in self._kept.values()):  # what was met beside the listings does not show in them when it goes
                self._last = None
            return library
        return self._last[2]

    def read_on(self, folder: Path | None = None) -> bool:
        """Reads the headers in one more folder, or in this one, so that the next scan has them; False if none is left."""
        place = next((place for place in self._unread if folder in (None, place[0])), None)
        if place is None:
            return False
        del self._unread[place]
        self._last = None
        try:
            with looking(self._look), suppress(CmpError, OSError):  # a folder that went
                self._read(list_folder(place[0]), place[1], True)
        except SystemError:  # another thread goes through all objects, and met a tuple that was still being filled: it is read again
            self._unread[place] = None
        return True

    def _collect(self, roots: tuple[Path, ...], headers: bool) -> Library:
        runs: list[Run] = []
        problems: list[Problem] = []
        self._visited = set()
        for root in roots:
            with looking(self._look):
                found = list(self._below(root, root, 0, problems, headers))
            if not found and not self._is_waiting(root) and not any(p.path == root for p in problems):
                problems.append(Problem(root, "no training run lies below this folder"))
            known = {run.folder for run in runs}  # a root may lie below another
            runs.extend(run for run in found if run.folder not in known)
        self._kept = {place: kept for place, kept in self._kept.items() if place in self._visited}
        self._unread = {place: None for place, kept in self._kept.items() if not kept.complete}
        return Library(with_unique_ids(_without_claimed_logs(runs)), tuple(problems), len(self._unread))

    def _is_waiting(self, root: Path) -> bool:
        """Whether a folder below it was not read yet, which may be a run."""
        return any(below == root and not self._kept[path, below].complete for path, below in self._visited)

    def _below(self, path: Path, root: Path, depth: int, problems: list[Problem], headers: bool) -> Iterator[Run]:
        try:
            folder = list_folder(path)
        except CmpError as fault:
            problems.append(Problem(path, fault.message))
            return
        kept = self._read(folder, root, headers)
        self._visited.add((path, root))
        if kept.fault:
            problems.append(Problem(path, kept.fault))
            return
        reading = kept.reading
        yield from (run for run in reading.runs if (run.checkpoints or reading.whole) and not self._is_base(run))
        if reading.whole:
            return
        inner: list[Run] = []
        if depth < DEEPEST:
            for name in sorted(folder.folders - reading.claimed):
                if not name.startswith(".") and name not in _NEVER_RUNS:
                    inner.extend(self._below(path / name, root, depth + 1, problems, headers))
        if not reading.runs and (unread := _unread_weights(folder)):
            problems.append(Problem(path, f"weights of a layout that is not read yet: {', '.join(unread[:3])}{' …' if unread[3:] else ''}"))
        for run in reading.runs:
            if not run.checkpoints and _is_one_log(run, inner):
                inner = []  # RUN/logs/TRACKER before the first checkpoint: the run is RUN, as it will be called afterwards
            if not run.checkpoints and not inner:  # logs alone are a run only if no run below is the one they belong to
                yield run
        yield from inner

    def _is_base(self, run: Run) -> bool:
        return bool(self._bases) and is_plain_pipeline(run) and any(map(run.folder.is_relative_to, places_below(run.root, self._bases)))

    def _read(self, folder: Folder, root: Path, headers: bool) -> _Kept:
        """What a folder holds, read anew only where something has changed; with headers, once they were read."""
        kept = self._kept.get((folder.path, root))
        beside = self._look.known(folder.path.parent / _PIPELINE)
        same = kept and kept.fault is None and kept.turn >= self._look.changed(folder.path) and kept.beside == beside
        if kept and same and (kept.complete or not headers):
            if kept.complete and kept.around != (around := self._around(folder, kept.found)):
                kept.around, kept.reading = around, _reading(folder, root, kept.found, self._shared)
            return kept
        hasty = not headers and not (kept and kept.complete)
        new = self._kept[(folder.path, root)] = _Kept(self._look.turn, beside)
        try:
            if hasty:
                new.complete, new.found = False, by_name.recognise(run_id(folder.path, root), folder)
                new.reading = _as_reading(folder, root, new.found)
            else:
                new.found = _recognise(folder, root)
                new.around = self._around(folder, new.found)
                new.reading = _reading(folder, root, new.found, self._shared)
        except CmpError as fault:
            new.fault = fault.message
        except OSError as fault:  # met beside the listing: a file went, or a folder in the run may not be entered
            new.fault = f"cannot read {fault.filename or folder.path}: {fault.strerror}"
        except RecursionError:
            new.fault = "its files are nested too deeply"
        return new

    def _around(self, folder: Folder, found: tuple[Found, ...]) -> object:
        """What a run's logs depend on outside its folder."""
        tops = tuple(sibling_folders(folder.path)) if found or _has_logs(folder) else ()
        return tuple((top, self._look.changed(top)) for top in tops), list_folder(folder.path.parent).folders if tops else None


def _unread_weights(folder: Folder) -> list[str]:
    """Weights files that no reader takes. A component of a model, which has its config beside it, is no training's result."""
    if "config.json" in folder.files or "model_index.json" in folder.files:
        return []
    return [name for ending in (".safetensors", ".ckpt") for name in folder.ending(ending)]


def _is_one_log(run: Run, inner: list[Run]) -> bool:
    return len({file.parent for file in run.logs}) == 1 and not any(below.checkpoints for below in inner)


def read_folder(folder: Folder, root: Path) -> Reading:
    """The runs in one folder; nothing below it is searched for further ones."""
    return _reading(folder, root, _recognise(folder, root), None)


def _recognise(folder: Folder, root: Path) -> tuple[Found, ...]:
    name = run_id(folder.path, root)
    found = next((mine for read in _READERS if (mine := read(name, folder))), ())
    return found + loose.recognise(name, folder, found)


def _reading(folder: Folder, root: Path, found: tuple[Found, ...], shared: SharedLogs | None) -> Reading:
    """What was recognised, with its logs."""
    if found:
        return _as_reading(folder, root, found, [logs_of_run(folder.path, shared, f.sessions, alone=f.series is None) for f in found])
    only_logs = logs_of_run(folder.path, shared) if _has_logs(folder) else ()
    return Reading((_run(folder, root, Found("unknown", (), whole=False), only_logs),)) if only_logs else Reading()


def _as_reading(folder: Folder, root: Path, found: tuple[Found, ...], logs: Iterable[Logs | None] = repeat(None)) -> Reading:
    runs = [_run(folder, root, each, its) for each, its in zip(found, logs, strict=False)]
    return Reading(tuple(runs), frozenset().union(*(each.claimed for each in found)), any(each.whole for each in found))


def _run(folder: Folder, root: Path, found: Found, given: Logs | None) -> Run:
    logs = given or ()
    settings = without_repeats(_settings(logs), found.settings)
    starts = tuple({k: Setting(v, str(file)) for k, v in values.items()} for log in logs for file, values in log.starts)
    samples = dated(read_samples(folder, found.series, found.checkpoints, settings)) if given is not None else ()
    images = {sample.step: sample.path for sample in reversed(samples) if sample.step is not None}
    files = (*(file for log in logs for file in log.event_files), *found.logs)
    latest = read_latest(files)
    run = Run(
        id=_id(folder, root, found.series),
        folder=folder.path,
        root=root,
        trainer=found.trainer,
        base_model=base_model(settings),
        settings=settings,
        starts=starts or ({},),
        logs=files,
        samples=samples,
        bytes=size_below(folder.path) if found.whole else sum(c.bytes for c in found.checkpoints),
        last_loss=latest.loss if latest else None,
        last_logged=latest.wall_time if latest else None,
        warnings=found.warnings,
        series=found.series,
    )
    made = [size_below(folder.path / name) for name in _CONVERTED if name in folder.folders]  # so that a change there is noticed
    run = replace(run, checkpoints=tuple(_finished(run, c, images, bool(made)) for c in with_unique_keys(found.checkpoints)))
    return told_as_pipeline(run)


def _id(folder: Folder, root: Path, series: str | None) -> str:
    if series is None:
        return run_id(folder.path, root)
    return run_id(folder.path / series, root) + ("~files" if series in folder.folders else "")


def _finished(run: Run, checkpoint: Checkpoint, images: dict[int, Path], made: bool) -> Checkpoint:
    """The checkpoint with its picture and, where forms may have been `made`, those."""
    image = images.get(checkpoint.step) if checkpoint.step is not None else None
    if image or checkpoint.run_id != run.id:
        checkpoint = replace(checkpoint, run_id=run.id, image=image)
    return replace(checkpoint, converted=converted_forms(run, checkpoint)) if made else checkpoint


def _has_logs(folder: Folder) -> bool:
    return "logs" in folder.folders or any("tfevents" in name for name in folder.files)


def _settings(logs: Iterable[LogFolder]) -> dict[str, Setting]:
    """What the run recorded; where it was started several times the newest start says what holds."""
    settings: dict[str, Setting] = {}
    for log in logs:
        for key, value in (log.hparams or {}).items():
            settings[key] = Setting(value, str(log.hparams_file or log.path))
    return settings


def _without_claimed_logs(runs: list[Run]) -> list[Run]:
    """Without the runs that are only logs and whose logs belong to a run with checkpoints elsewhere in the tree."""
    claimed = {os.fspath(file) for run in runs if run.checkpoints for file in run.logs}
    return [run for run in runs if run.checkpoints or not run.logs or not claimed.issuperset(map(os.fspath, run.logs))]
