"""Which event files belong to which run.

What lies inside a run's folder is its own. Where the logs lie beside the outputs (`training/logs`, `training/outputs/RUN`) one
log folder may serve several runs, so a file there needs evidence. Accelerate leaves it: beside the log
`TRACKER/events…TIME.HOST.PID.0` each start of a training writes `TRACKER/TIME/events…TIME.HOST.PID.1` and, a moment later,
`TRACKER/TIME/hparams.yml`, which names the output folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from cmp.disk.folders import Folder, list_folder
from cmp.disk.logs.hparams import Value, read_hparams, read_output_dir
from cmp.disk.logs.others import logs_beside, logs_inside, logs_named
from cmp.disk.logs.sessions import Begun, Session, logs_of_session
from cmp.disk.logs.tfevents import EventFileName, oldest_first, read_name
from cmp.errors import CmpError

_LOG_FOLDERS = ("logs", "log", "tensorboard", "tb_logs", "runs")
_BESIDE = frozenset(("logs", "log", "tensorboard", "wandb", "mlruns"))
_NO_LOGS = frozenset(("checkpoints", "checkpoint_pipelines", "converted", "validation", "samples", "sample", "final_pipeline"))
_DEEPEST = 4
_MOST_FOLDERS = 4000
_SOON = 5.0  # seconds within which one start writes all its files
_START_FOLDER = re.compile(r"[0-9]{9,11}\.[0-9]+", re.ASCII)  # str(time.time())


@dataclass(frozen=True, slots=True)
class LogFolder:
    """Logs of one run that lie in one folder, event files oldest first, and the settings of its newest start.

    `hparams` is None where none could be read, `flaw` says why. `why` says what makes the files this run's.
    """

    path: Path
    event_files: tuple[Path, ...]
    why: str
    hparams: Mapping[str, Value] | None = None
    hparams_file: Path | None = None
    flaw: str | None = None
    starts: tuple[tuple[Path, Mapping[str, Value]], ...] = ()  # the settings of every start with their file, oldest first


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a training: its event file and its settings, each None if there is none. `time` is in Unix seconds."""

    time: float
    event_file: Path | None
    hparams_file: Path | None
    output_dir: str | None = None


@dataclass(frozen=True, slots=True)
class Tracker:
    """A folder of event files as a trainer leaves it; starts oldest first."""

    path: Path
    starts: tuple[Start, ...]


def logs_of_run(
    run_folder: Path, known: dict[Path, tuple[Tracker, ...]] | None = None, sessions: Sequence[Session] = (), *, alone: bool = True
) -> tuple[LogFolder, ...]:
    """The log folders of a run, the one with the newest start last. Links are not followed; what cannot be listed is passed over.

    `known` keeps what was found in folders that several runs share: hand the same dict to all calls of one scan. `sessions` are the
    times at which the run was trained, by its weights files. Without `alone` other runs have their files in the same folder, and only
    such times tell whose logs are whose.
    """
    inner = tuple(_inside(run_folder))
    inside = [_log_folder(tracker.path, tracker.starts, "it lies in the run's folder") for tracker in inner if alone]
    beside: list[LogFolder] = [] if alone else list(_begun_with(sessions, inner))
    others = [*logs_inside(run_folder), *logs_beside(run_folder)] if alone else []
    for top in sibling_folders(run_folder):
        trackers = known.get(top) if known is not None else None
        if trackers is None:
            trackers = tuple(_trackers(_folders_below(top, _DEEPEST), with_output_dir=True))
        if known is not None:
            known[top] = trackers
        if alone:
            beside.extend(_named_in_settings(run_folder, top, trackers))
            others.extend(logs_named(top, partial(_is_output, run_folder=run_folder, top=top)))
        named = {log.path for log in beside}
        beside.extend(log for log in _begun_with(sessions, trackers) if log.path not in named)
        if alone and not inside and not beside:
            beside.extend(_named_alike(run_folder, top, trackers))
    return tuple(sorted([*(LogFolder(*told) for told in others), *inside, *beside], key=_newest))


def _newest(log: LogFolder) -> tuple[int, str]:
    names = [read_name(path) for path in log.event_files[-1:]]
    return (max((name.time for name in names if name), default=0), str(log.path))


def _log_folder(path: Path, starts: Iterable[Start], why: str) -> LogFolder:
    starts = tuple(starts)
    files = oldest_first(start.event_file for start in starts if start.event_file)
    read = [read_hparams(start.hparams_file) for start in starts if start.hparams_file]
    told = tuple((found.path, found.values) for found in read if found.flaw is None)
    if told:
        return LogFolder(path, files, why, told[-1][1], told[-1][0], starts=told)
    flaw = read[-1] if read else None
    return LogFolder(path, files, why, None, flaw.path if flaw else None, flaw.flaw if flaw else None)


def _inside(run_folder: Path) -> Iterator[Tracker]:
    """Trackers in the run's own folder: its files, those one level down, and all below a folder named for logs."""
    folders = list(_folders_below(run_folder, 0))
    for name in sorted(folders[0].folders) if folders else []:
        if name.startswith((".", "checkpoint-")) or name in _NO_LOGS:
            continue
        folders.extend(_folders_below(run_folder / name, _DEEPEST if name in _LOG_FOLDERS else 0))
    return _trackers(folders)


def _begun_with(sessions: Iterable[Session], trackers: Sequence[Tracker]) -> Iterator[LogFolder]:
    logs = [Begun(tracker.path, tracker.starts[0].time) for tracker in trackers if tracker.starts]
    mine = {begun.path for session in sessions if (begun := logs_of_session(session, logs))}
    for tracker in trackers:
        if tracker.path in mine:
            yield _log_folder(tracker.path, tracker.starts, "it was begun when the training of these weights began")


def sibling_folders(run_folder: Path) -> Iterator[Path]:
    """The folders beside a run, and beside its parent, that may hold its logs."""
    for parent in dict.fromkeys((run_folder.parent, run_folder.parent.parent)):
        for folder in _folders_below(parent, 0):
            tops = (parent / name for name in sorted(folder.folders & _BESIDE))
            yield from (top for top in tops if run_folder != top and top not in run_folder.parents)


def _folders_below(top: Path, depth: int) -> Iterator[Folder]:
    """`top` and the folders down to `depth` levels below it, parents first."""
    level = [top]
    count = 0
    for left in range(depth, -1, -1):
        deeper: list[Path] = []
        for path in level:
            count += 1
            if count > _MOST_FOLDERS:
                return
            try:
                folder = list_folder(path)
            except CmpError:
                continue
            yield folder
            if left:
                deeper.extend(path / name for name in sorted(folder.folders))
        level = deeper


def _trackers(folders: Iterable[Folder], with_output_dir: bool = False) -> Iterator[Tracker]:
    """Folders that hold event files or settings, each with the folders `TIME` that its starts left below it."""
    logs: dict[Path, list[Path]] = {}
    second: dict[Path, list[Path]] = {}
    settings: dict[Path, list[Path]] = {}
    for folder in folders:
        of_start = _START_FOLDER.fullmatch(folder.path.name) is not None
        tracker = folder.path.parent if of_start else folder.path
        files = [folder.path / name for name in sorted(folder.files) if read_name(Path(name))]
        (second if of_start else logs).setdefault(tracker, []).extend(files)
        if of_start and "hparams.yml" in folder.files:
            settings.setdefault(tracker, []).append(folder.path / "hparams.yml")
    for path in dict.fromkeys((*logs, *second)):
        # Without a log in the tracker's own folder the files below it are the logs.
        main = logs.get(path) or second.get(path, [])
        if main or path in settings:
            yield Tracker(path, _starts(main, second.get(path, []), settings.get(path, []), with_output_dir))


def _starts(main: list[Path], second: list[Path], settings: list[Path], with_output_dir: bool) -> tuple[Start, ...]:
    """Joins each log with the settings of the same start."""
    names = {path: read_name(path) or EventFileName(0) for path in (*main, *second)}
    found: dict[Path, list[Path]] = {path: [] for path in main}
    starts: list[Start] = []
    for file in sorted(settings, key=lambda path: float(path.parent.name)):
        log = _log_of_settings(float(file.parent.name), main, second, names)
        if log is None:
            starts.append(Start(float(file.parent.name), None, file, read_output_dir(file) if with_output_dir else None))
        else:
            found[log].append(file)
    for log, files in found.items():
        file_or_none = files[-1] if files else None
        output_dir = read_output_dir(files[-1]) if files and with_output_dir else None
        starts.append(Start(names[log].time, log, file_or_none, output_dir))
    return tuple(sorted(starts, key=lambda start: (start.time, str(start.event_file))))


def _log_of_settings(time: float, main: list[Path], second: list[Path], names: Mapping[Path, EventFileName]) -> Path | None:
    """The log of the process that wrote settings at `time`; None if two are equally likely.

    The process is known by the second event file, in a folder whose name is a moment older than that of the settings.
    """
    moments = {path: time - float(path.parent.name) for path in second if _START_FOLDER.fullmatch(path.parent.name)}
    before = [path for path, moment in moments.items() if 0 <= moment <= _SOON]
    if before:
        process = names[min(before, key=moments.__getitem__)]
        same = [path for path in main if (names[path].host, names[path].pid) == (process.host, process.pid)]
        if same:  # in a container each start may have the same number
            return min(same, key=lambda path: abs(names[path].time - time))
    near = sorted((abs(names[path].time - time), str(path), path) for path in main)
    if not near or near[0][0] > _SOON or (len(near) > 1 and near[1][0] == near[0][0]):
        return None
    return near[0][2]


def _named_in_settings(run_folder: Path, top: Path, trackers: Iterable[Tracker]) -> Iterator[LogFolder]:
    for tracker in trackers:
        mine = [start for start in tracker.starts if start.output_dir and _is_output(start.output_dir, run_folder, top)]
        if mine:
            yield _log_folder(tracker.path, mine, f"its settings name the output folder {mine[-1].output_dir}")


def _is_output(output_dir: str, run_folder: Path, top: Path) -> bool:
    """True if settings that were found below `top` mean this run by `output_dir`.

    The name decides, because folders get moved. If another folder of that name lies where the settings say, they mean that one.
    """
    output = PurePosixPath(output_dir.replace("\\", "/"))
    if not output.name or output.name != run_folder.name:
        return False
    nearer = output.parent.name
    if nearer in ("", ".", "..") or nearer == run_folder.parent.name:
        return True
    return not any((place / nearer / output.name).is_dir() for place in (top.parent, run_folder.parent, run_folder.parent.parent))


def _named_alike(run_folder: Path, top: Path, trackers: Iterable[Tracker]) -> Iterator[LogFolder]:
    """Trackers without settings that carry the run's name, as long as nothing else could be meant."""
    runs = [name for folder in _folders_below(run_folder.parent, 0) for name in folder.folders]
    alike: list[tuple[bool, str, Tracker]] = []
    for tracker in trackers:
        parts = tracker.path.relative_to(top).parts
        if not parts or any(start.output_dir for start in tracker.starts):
            continue
        owners = [(part == run, len(run), run, part) for part in parts for run in runs if _holds_name(part, run)]
        equal, _, owner, part = max(owners, default=(False, 0, "", ""))
        if owner == run_folder.name:
            alike.append((equal, part, tracker))
    best = [(part, tracker) for equal, part, tracker in alike if equal] or [(part, tracker) for _, part, tracker in alike]
    if len({part for part, _ in best}) == 1:
        for part, tracker in best:
            yield _log_folder(tracker.path, tracker.starts, f"the log folder {part!r} carries the run's name")


def _holds_name(text: str, name: str) -> bool:
    """True if `name` stands in `text` and no letter or digit touches it: "run1" is not in "run10"."""
    return re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", text) is not None
