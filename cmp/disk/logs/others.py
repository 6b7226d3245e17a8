"""Finds the logs of a run that are no event files: in its folder, beside it under its name, or beside it with settings that name it.

Names alone are looked at where a name says it all; of tables and text a first piece is read, since a run also holds lists of images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from cmp.disk.folders import Folder, list_folder
from cmp.disk.logs.kinds import kind_of
from cmp.disk.logs.loss_db import NAME as LOSS_DB
from cmp.disk.logs.records import opened
from cmp.disk.logs.tfevents import read_name
from cmp.disk.logs.trainer_state import NAME as TRAINER_STATE
from cmp.disk.logs.wandb_file import read_config
from cmp.errors import CmpError

Named = Callable[[str], bool]
Told = tuple[Path, tuple[Path, ...], str]  # folder, files, and what makes them the run's

_TEXT = (".log", ".out", ".csv", ".tsv", ".jsonl")
_WORDS = ("log", "train", "console", "output")
_IN_RUN = ("", "logs", "log", "trackio", ".trackio")
_CHECKPOINTS = ("", "checkpoints")
_FILES = frozenset(("wandb", "mlruns", "dvclive", "lightning_logs", "csv_logs"))
_DEEPEST = 6
_MOST_FOLDERS = 2000
_START = re.compile(r"[0-9]{9,11}\.[0-9]+", re.ASCII)


def logs_inside(run_folder: Path) -> Iterator[Told]:
    """The other logs in a run's folder."""
    why = "it lies in the run's folder"
    for name in _IN_RUN:
        if (folder := _listed(run_folder, name)) and (files := tuple(path for path in _candidates(folder) if _is_log(path))):
            yield folder.path, files, why
    states = tuple(_trainer_states(run_folder))
    if states:
        yield run_folder, states, "transformers wrote them into the run and its checkpoints"
    top = _listed(run_folder)
    for name in sorted(top.folders & _FILES) if top else ():
        for folder in _below(run_folder / name):
            if files := tuple(path for path in _files_of(folder) if _is_log(path)):
                yield folder.path, files, why


def logs_beside(run_folder: Path) -> Iterator[Told]:
    """Files beside a run that bear its name, such as `RUN.log`."""
    if above := _listed(run_folder.parent):
        names = [run_folder.name + ending for ending in (*_TEXT, ".txt") if run_folder.name + ending in above.files]
        for name in names:
            if _is_log(above.path / name):
                yield above.path, (above.path / name,), f"{name} bears the run's name"


def logs_named(top: Path, named: Named) -> Iterator[Told]:
    """Logs of wandb or MLflow in a folder beside a run, by the output folder in their settings."""
    if top.name not in _FILES:
        return
    for folder in _below(top):
        for path in _files_of(folder):
            told = _output_dir(path)
            if told is not None and named(told):
                files = (path,) if path.suffix == ".wandb" else tuple(_mlflow_tags(folder.path))
                yield folder.path, files, f"its settings name the output folder {told}"
                break


def logs_in(place: Path) -> tuple[Told, ...]:
    """Every log below a folder, by folder, event files among them; the file itself if `place` is one. For what is opened on its own."""
    if place.is_file():
        return ((place.parent, (place,), "it was given"),)
    found: dict[Path, list[Path]] = {}
    for folder in _below(place):
        if _START.fullmatch(folder.path.name):  # Accelerate's settings of one start, with an event file of their own
            continue
        for path in (folder.path / name for name in sorted(folder.files) if not name.startswith(".")):
            if read_name(path) or (_may_be_log(path) and _is_log(path)):
                found.setdefault(_owner(path, place), []).append(path)
    return tuple((folder, tuple(files), "it lies in the folder that was given") for folder, files in found.items())


def _owner(path: Path, top: Path) -> Path:
    """The folder of the training that a log is of: MLflow and DVCLive have a file for each tag, transformers one for each checkpoint."""
    folder = path.parent
    if path.name == TRAINER_STATE and folder.name.startswith("checkpoint-") and folder != top:
        return folder.parent
    if "metrics" in (inner := folder.relative_to(top).parts):
        return top.joinpath(*inner[: inner.index("metrics")])
    return folder


def _may_be_log(path: Path) -> bool:
    named = path.name in (TRAINER_STATE, LOSS_DB) or path.suffix in (*_TEXT, ".txt", ".db", ".wandb")
    return named or "metrics" in path.parts[:-1]


def _candidates(folder: Folder) -> Iterator[Path]:
    for name in sorted(folder.files):
        path = folder.path / name
        worded = path.suffix == ".txt" and any(word in name.lower() for word in _WORDS)
        if not name.startswith(".") and (path.suffix in _TEXT or worded or (path.suffix == ".db" and name != LOSS_DB)):
            yield path


def _files_of(folder: Folder) -> Iterator[Path]:
    """What may be a log in a folder of a program that keeps them. `metrics` are MLflow's and DVCLive's, one file for each tag."""
    for name in sorted(folder.files):
        path = folder.path / name
        if path.suffix == ".wandb" or "metrics" in folder.path.parts or name == "metrics.csv" or folder.path.name == "params":
            yield path


def _trainer_states(run_folder: Path) -> Iterator[Path]:
    for name in _CHECKPOINTS:
        if folder := _listed(run_folder, name):
            if TRAINER_STATE in folder.files:
                yield folder.path / TRAINER_STATE
            for inner in sorted(folder.folders):
                if inner.startswith("checkpoint-") and (below := _listed(folder.path, inner)) and TRAINER_STATE in below.files:
                    yield below.path / TRAINER_STATE


def _is_log(path: Path) -> bool:
    try:
        kind = kind_of(path)
        return kind is not None and (kind.name != "trackio" or bool(kind.read(path, None).tags))
    except CmpError:
        return False


def _output_dir(path: Path) -> str | None:
    """The output folder in the settings that belong to a log."""
    try:
        if path.suffix == ".wandb":
            told = read_config(path).get("output_dir")
        elif path.name == "output_dir" and path.parent.name == "params":
            with opened(path) as (file, _):
                told = file.read(4096).decode("utf-8", "replace").strip()
        else:
            return None
    except CmpError:
        return None
    return told if isinstance(told, str) and told else None


def _mlflow_tags(params: Path) -> Iterator[Path]:
    run = _listed(params.parent)
    for folder in _below(params.parent / "metrics") if run and "metrics" in run.folders else ():
        yield from (folder.path / name for name in sorted(folder.files))


def _listed(place: Path, name: str = "") -> Folder | None:
    """A folder, None if there is none: it is not asked for then, as a scan would look for it again and again."""
    try:
        folder = list_folder(place)
        return folder if not name else list_folder(place / name) if name in folder.folders else None
    except CmpError:
        return None


def _below(top: Path) -> Iterator[Folder]:
    level, count = [top], 0
    for _ in range(_DEEPEST):
        deeper: list[Path] = []
        for path in level:
            count += 1
            if count <= _MOST_FOLDERS and (folder := _listed(path)):
                yield folder
                deeper.extend(path / name for name in sorted(folder.folders) if not name.startswith("."))
        level = deeper
