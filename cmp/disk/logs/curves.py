"""Loss curves out of the logs of one run, and what was logged last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from cmp.core.curves import LossCurve, Part, loss_tag, merge
from cmp.disk.logs.loss_db import is_loss_db, read_loss_db
from cmp.disk.logs.tfevents import EventFileName, EventScalars, TagScalars, oldest_first, read_name, read_scalars, read_tail
from cmp.errors import Unreadable

_TAILS = (64 << 10, 1 << 20, 16 << 20)
_LAST_STEPS = 200
_NOTHING = TagScalars(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Latest:
    """What was logged last: the newest wall time (Unix seconds) of any tag, and the training loss of the highest step.

    `loss` is None if none was found; it may be nan or infinite.
    """

    wall_time: float
    tag: str | None = None
    step: int | None = None
    loss: float | None = None


def read_curves(run_id: str, files: Iterable[Path]) -> tuple[tuple[LossCurve, ...], tuple[str, ...]]:
    """The curves of a run's event files and loss databases, as `to_curves` gives them, and notes on what could not be read."""
    logs: list[EventScalars] = []
    notes: list[str] = []
    for path in oldest_first(files):
        try:
            logs.append(read_loss_db(path) if is_loss_db(path) else read_scalars(path))
        except Unreadable as fault:
            notes.append(fault.message)
        else:
            notes.extend(logs[-1].notes)
    return to_curves(run_id, logs), tuple(notes)


def read_latest(files: Iterable[Path]) -> Latest | None:
    """What was logged last in these event files, None if they hold no scalar.

    Reads only their ends, a few ms however long they are. Looks back until it finds a training loss, at most 16 MiB into each of
    the four newest files. Files that cannot be read are passed over.
    """
    newest: float | None = None
    for path in oldest_first(files)[:-5:-1]:
        for wanted in _TAILS:
            try:
                tail = read_loss_db(path, _LAST_STEPS) if is_loss_db(path) else read_tail(path, wanted)
            except Unreadable:
                break
            seen = [float(scalars.wall_times.max()) for scalars in tail.tags.values()]
            newest = max(seen) if seen and newest is None else newest
            if newest is not None and (tag := loss_tag(tail.tags)) is not None:
                loss = tail.tags[tag]
                last = loss.steps.size - 1 - int(np.argmax(loss.steps[::-1]))
                return Latest(newest, tag, int(loss.steps[last]), float(loss.values[last]))
            if tail.start == 0:
                break
    return None if newest is None else Latest(newest)


def to_curves(run_id: str, logs: Sequence[EventScalars]) -> tuple[LossCurve, ...]:
    """One curve per tag out of the event files of one run, in any order; the training loss first, then by name."""
    logs = sorted(logs, key=_age)
    parts: dict[str, list[Part]] = {tag: [] for log in logs for tag in log.tags}
    for log in logs:
        loss = loss_tag(log.tags)
        starts = sorted(log.starts, key=lambda start: start.offset)
        bounds = [log.start, *(start.offset for start in starts), log.end]
        for piece, (low, high) in enumerate(pairwise(bounds)):
            begins = [starts[piece - 1].step] if piece else []
            if loss is not None and (first := _part(log, loss, low, high, None)).steps.size:
                begins.append(int(first.steps.min()))
            for tag, found in parts.items():
                found.append(_part(log, tag, low, high, min(begins, default=None)))
    first_tag = loss_tag(parts)
    return tuple(merge(run_id, tag, parts[tag]) for tag in sorted(parts, key=lambda tag: (tag != first_tag, tag)))


def _age(log: EventScalars) -> tuple[int, float, str]:
    name = read_name(log.path) or EventFileName(0)
    times = [float(scalars.wall_times[0]) for scalars in log.tags.values()]
    return (name.time, min(times, default=0.0), log.path.name)


def _part(log: EventScalars, tag: str, low: int, high: int, begins: int | None) -> Part:
    """What the file logged under `tag` between two offsets."""
    scalars = log.tags.get(tag, _NOTHING)
    at = slice(*np.searchsorted(scalars.offsets, (low, high)).tolist())
    return Part(scalars.steps[at], scalars.values[at], scalars.wall_times[at], log.path, begins)
