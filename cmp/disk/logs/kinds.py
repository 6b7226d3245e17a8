"""The kinds of logs that are read, the most exact first. Each knows its own files, and declines all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cmp.disk.logs.console import is_console, read_console
from cmp.disk.logs.loss_db import is_loss_db, read_loss_db
from cmp.disk.logs.records import opened
from cmp.disk.logs.scalars import EventScalars
from cmp.disk.logs.tables import is_json_lines, is_mlflow, is_table, read_json_lines, read_mlflow, read_table
from cmp.disk.logs.tfevents import read_more, read_name, read_scalars
from cmp.disk.logs.trackio import is_trackio, read_trackio
from cmp.disk.logs.trainer_state import is_trainer_state, read_trainer_state
from cmp.disk.logs.wandb_file import is_wandb, read_wandb
from cmp.errors import Unreadable

_HEAD = 64 << 10


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of log is known and read.

    `recognise` is given the file's first bytes. `read` is given what was read before, where only bytes behind its `end` are to be read.
    `appended`: the file only grows, so that this is right; else it is read anew whenever it has changed.
    """

    name: str
    recognise: Callable[[Path, bytes], bool]
    read: Callable[[Path, EventScalars | None], EventScalars]
    appended: bool = True


KINDS = (
    Kind("event file", lambda path, head: read_name(path) is not None, lambda path, e: read_more(e) if e else read_scalars(path)),
    Kind("wandb", is_wandb, read_wandb),
    Kind("ai-toolkit", lambda path, head: is_loss_db(path), lambda path, e: read_loss_db(path), appended=False),
    Kind("trackio", is_trackio, read_trackio, appended=False),
    Kind("trainer_state", is_trainer_state, read_trainer_state, appended=False),
    Kind("MLflow", is_mlflow, read_mlflow),
    Kind("JSON lines", is_json_lines, read_json_lines),
    Kind("table", is_table, read_table),
    Kind("console", is_console, read_console),
)
CONSOLE = KINDS[-1]
_HINT = (
    "Read are event files, wandb and trackio files, loss_log.db, trainer_state.json, MLflow and DVCLive folders, CSV, TSV and JSON lines"
    " with a column `step`, and saved console output."
)


def kind_of(path: Path) -> Kind | None:
    """The kind of log that a file is, None if it is none that is read; raises Unreadable if the file cannot be opened."""
    by_name = next((kind for kind in KINDS if kind.recognise(path, b"")), None)
    if by_name is not None:
        return by_name
    with opened(path) as (file, _):
        head = file.read(_HEAD)
    return next((kind for kind in KINDS if kind.recognise(path, head)), None)


def read_log(path: Path, kind: Kind | None = None, earlier: EventScalars | None = None) -> tuple[Kind, EventScalars]:
    """What a log holds and what kind it is; raises Unreadable, also for a file that is no log."""
    kind = kind or kind_of(path)
    if kind is None:
        raise Unreadable(f"{path} is no log that is known here", _HINT)
    found = kind.read(path, earlier)
    try:
        return kind, replace(found, written=path.stat().st_mtime)
    except OSError:
        return kind, found
