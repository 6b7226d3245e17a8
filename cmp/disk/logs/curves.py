"""Loss curves out of the logs of one run, and what was logged last."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np

from cmp.core.curves import LossCurve, Part, loss_tag, merge
from cmp.disk.logs.kinds import CONSOLE, KINDS, Kind, kind_of, read_log
from cmp.disk.logs.loss_db import is_loss_db, read_loss_db
from cmp.disk.logs.records import opened
from cmp.disk.logs.scalars import EventScalars, TagScalars
from cmp.disk.logs.tfevents import EventFileName, oldest_first, read_name, read_tail
from cmp.disk.logs.trainer_state import without_beginnings
from cmp.errors import Unreadable

Reader: TypeAlias = Callable[[Path], tuple[Kind, EventScalars]]

_TAILS = (64 << 10, 1 << 20, 16 << 20)
_LAST_STEPS = 200
_NOTHING = TagScalars(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Latest:
    """What was logged last: the newest wall time (Unix seconds) of any tag, and the training loss of the highest step; None if not told.

    `loss` is None if none was found; it may be nan or infinite.
    """

    wall_time: float | None
    tag: str | None = None
    step: int | None = None
    loss: float | None = None


def read_curves(run_id: str, files: Iterable[Path], read: Reader = read_log) -> tuple[tuple[LossCurve, ...], tuple[str, ...]]:
    """The curves of a run's logs, as `to_curves` gives them, and notes on what could not be read or is told twice.

    Logs of one kind follow each other. Those of several kinds tell of the same training: each tag is taken from the most exact kind.
    """
    logs: dict[Kind, list[EventScalars]] = {}
    notes: list[str] = []
    for path in oldest_first(files):
        try:
            kind, found = read(path)
        except Unreadable as fault:
            notes.append(fault.message)
        else:
            logs.setdefault(kind, []).append(found)
            notes.extend(found.notes)
    curves: dict[str, LossCurve] = {}
    for kind in sorted(logs, key=KINDS.index):
        own = without_beginnings(logs[kind]) if kind.name == "trainer_state" else logs[kind]
        rounded = kind is CONSOLE and loss_tag(curves) is not None
        for curve in to_curves(run_id, own):
            tag = f"console/{curve.tag}" if rounded else curve.tag
            if tag in curves:
                notes.append(f"{tag} is told by {curve.source.name} too; shown is what {curves[tag].source.name} says")
            else:
                curves[tag] = replace(curve, tag=tag)
    first = loss_tag(curves)
    return tuple(curves[tag] for tag in sorted(curves, key=lambda tag: (tag != first, tag))), tuple(notes)


def read_latest(files: Iterable[Path]) -> Latest | None:
    """What was logged last in these logs, None if they hold no scalar.

    Reads only their ends, a few ms however long they are. Looks back until it finds a training loss, at most 16 MiB into each of
    the four newest event files; other logs are asked where those tell no loss. Files that cannot be read are passed over.
    """
    files = oldest_first(files)
    event_files = [path for path in files if read_name(path) or is_loss_db(path)]
    found = _latest_event(event_files)
    if found is not None and found.loss is not None:
        return found
    others = [_latest_other(path) for path in files[::-1] if path not in event_files]
    times = [one.wall_time for one in (found, *others) if one is not None and one.wall_time is not None]
    best = next((one for one in others if one is not None and one.loss is not None), found)
    return replace(best, wall_time=max(times, default=None)) if best else None


def _latest_event(files: Sequence[Path]) -> Latest | None:
    newest: float | None = None
    for path in files[:-5:-1]:
        for wanted in _TAILS:
            try:
                tail = read_loss_db(path, _LAST_STEPS) if is_loss_db(path) else read_tail(path, wanted)
            except Unreadable:
                break
            seen = [float(scalars.wall_times.max()) for scalars in tail.tags.values()]
            newest = max(seen) if seen and newest is None else newest
            if newest is not None and (tag := loss_tag(tail.tags)) is not None:
                return _last_of(tail, tag, newest)
            if tail.start == 0:
                break
    return None if newest is None else Latest(newest)


def _latest_other(path: Path) -> Latest | None:
    """The same of a log of another kind, from its end where it is text, and from all of it where it is short."""
    try:
        with opened(path) as (file, size):
            start = max(0, size - _TAILS[0])
            file.seek(start)
            cut = len(re.match(rb"[^\r\n]*[\r\n]*", file.read(_TAILS[0]))[0]) if start else 0  # type: ignore[index]
        kind = kind_of(path)
        whole = kind is None or not kind.appended or kind.name == "wandb"
        if whole and size > _TAILS[-1]:
            return None
        behind = EventScalars(path, {}, (), start + cut, start + cut) if start and not whole else None
        _, tail = read_log(path, kind, behind)
    except Unreadable:
        return None
    times = [float(t) for scalars in tail.tags.values() for t in scalars.wall_times[-1:] if np.isfinite(t)]
    tag = loss_tag(tail.tags)
    return _last_of(tail, tag, max(times, default=None)) if tag is not None else Latest(max(times, default=None))


def _last_of(tail: EventScalars, tag: str, time: float | None) -> Latest:
    loss = tail.tags[tag]
    last = loss.steps.size - 1 - int(np.argmax(loss.steps[::-1]))
    return Latest(time, tag, int(loss.steps[last]), float(loss.values[last]))


def to_curves(run_id: str, logs: Sequence[EventScalars]) -> tuple[LossCurve, ...]:
    """One curve per tag out of the logs of one kind of one run, in any order; the training loss first, then by name."""
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
    times = [float(scalars.wall_times[0]) for scalars in log.tags.values() if np.isfinite(scalars.wall_times[0])]
    return (name.time, min(times, default=log.written), log.path.name)


def _part(log: EventScalars, tag: str, low: int, high: int, begins: int | None) -> Part:
    """What the file logged under `tag` between two offsets."""
    scalars = log.tags.get(tag, _NOTHING)
    at = slice(*np.searchsorted(scalars.offsets, (low, high)).tolist())
    return Part(scalars.steps[at], scalars.values[at], scalars.wall_times[at], log.path, begins)
