"""Whose logs lie in a folder that names no run: told by when they were begun.

kohya's sd-scripts logs to `LOGGING_DIR/<prefix><YYYYMMDDHHMMSS>/network_train`, the time being that of the trainer's own clock and
zone; its weights files say when their training began and when they were written (Unix seconds).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

_SLACK = 2.0  # seconds by which a log may seem older than the training, which rounds its times down
_SOON = 60.0  # seconds within which a training begins to log, unless it prepares its images first
_STAMP = re.compile(r".*([0-9]{14})", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Session:
    """One training as its weights files tell it: when it began, and when the last of them was written, in Unix seconds."""

    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class Begun:
    """A folder of logs and when its oldest file was begun, in Unix seconds."""

    path: Path
    time: float


def merged(sessions: Iterable[Session]) -> tuple[Session, ...]:
    """One session for each beginning, oldest first."""
    ends: dict[float, float] = {}
    for session in sessions:
        ends[session.started] = max(session.finished, ends.get(session.started, session.started))
    return tuple(Session(*times) for times in sorted(ends.items()))


def logs_of_session(session: Session, logs: Sequence[Begun]) -> Begun | None:
    """The logs of this training, None if none were begun while it ran or several are equally likely.

    Those begun within a minute of the training's beginning, by the time in their folder's name or in their own, go before the others:
    between the two a training may spend hours on preparing its images.
    """
    during = [log for log in logs if session.started - _SLACK <= log.time <= session.finished + _SLACK]
    soon = [log for log in during if any(-_SLACK <= time - session.started <= _SOON for time in (log.time, *_stamps(log.path)))]
    found = soon or during
    return found[0] if len(found) == 1 else None


def _stamps(path: Path) -> Iterator[float]:
    """What the times in the folders' names may mean: in this computer's zone, or in none."""
    for part in path.parts[-3:]:
        if found := _STAMP.fullmatch(part):
            try:
                time = datetime.strptime(found[1], "%Y%m%d%H%M%S")
                yield from (time.timestamp(), time.replace(tzinfo=timezone.utc).timestamp())
            except (ValueError, OverflowError, OSError):
                continue
