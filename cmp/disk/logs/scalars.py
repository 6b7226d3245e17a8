"""What any log gives, whatever its format: the values of each tag in the order written, and where in the file each of them stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cmp.core.curves import Floats, Integers, loss_tag

_FEW_STARTS, _SELDOM = 3, 10


@dataclass(frozen=True, slots=True, eq=False)
class TagScalars:
    """The values of one tag in the order written. `offsets`: where in the file each one's record starts.

    `wall_times` are Unix seconds, nan where the log says none.
    """

    steps: Integers
    values: Floats
    wall_times: Floats
    offsets: Integers


@dataclass(frozen=True, slots=True)
class SessionStart:
    """A start of the training at `offset` of the file: what was logged before it at `step` and later is void."""

    offset: int
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class EventScalars:
    """What bytes `start` to `end` of a log hold. Reading can go on at `end`; a half-written record lies behind it.

    `state` is what a reader must know of the bytes before `end` to go on there, as JSON can hold it. `written`: when the file was
    changed last (Unix seconds), 0 if nobody asked.
    """

    path: Path
    tags: Mapping[str, TagScalars]
    starts: tuple[SessionStart, ...]
    start: int
    end: int
    notes: tuple[str, ...] = ()
    state: Mapping[str, object] = field(default_factory=dict)
    written: float = 0.0


@dataclass(slots=True, eq=False)
class Rows:
    """Values met one by one while a log is read. `before` is the last step of the training loss in what was read earlier."""

    before: int | None = None
    tags: dict[str, tuple[list[int], list[float], list[float], list[int]]] = field(default_factory=dict)

    def add(self, tag: str, step: int, value: float, time: float, offset: int) -> None:
        columns = self.tags.get(tag)
        if columns is None:
            columns = self.tags[tag] = ([], [], [], [])
        columns[0].append(step)
        columns[1].append(value)
        columns[2].append(time)
        columns[3].append(offset)

    def told(self) -> dict[str, TagScalars]:
        return {tag: columns(*lists) for tag, lists in self.tags.items()}

    @property
    def last(self) -> int | None:
        """The last step of the training loss."""
        tag = loss_tag(self.tags)
        return self.tags[tag][0][-1] if tag is not None else self.before

    def starts(self) -> tuple[SessionStart, ...]:
        """Where the training was started again: its loss is told for an earlier step than before. Other tags may count something else.

        Rows that go back all the time are not in the order of the training, and tell no starts.
        """
        tag = loss_tag(self.tags)
        if tag is None:
            return ()
        steps, _, _, offsets = self.tags[tag]
        ahead = steps if self.before is None else [self.before, *steps[:-1]]
        pairs = zip(ahead, steps if self.before is not None else steps[1:], offsets[self.before is None :], strict=False)
        found = tuple(SessionStart(offset, step) for last, step, offset in pairs if step < last)
        return found if len(found) <= max(_FEW_STARTS, len(steps) // _SELDOM) else ()


def columns(steps: Sequence[int], values: Sequence[float], times: Sequence[float], offsets: Sequence[int]) -> TagScalars:
    return TagScalars(np.array(steps, np.int64), np.array(values, np.float64), np.array(times, np.float64), np.array(offsets, np.int64))


def joined(parts: Sequence[TagScalars]) -> TagScalars:
    """All of one tag in the order of the file."""
    offsets = np.concatenate([part.offsets for part in parts])
    whole = TagScalars(
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.wall_times for part in parts]),
        offsets,
    )
    if offsets.size < 2 or (np.diff(offsets) >= 0).all():
        return whole
    order = np.argsort(offsets, kind="stable")
    return TagScalars(whole.steps[order], whole.values[order], whole.wall_times[order], offsets[order])


def continued(earlier: EventScalars, more: EventScalars) -> EventScalars:
    """What was read before and what was read behind it, as one."""
    tags = dict(earlier.tags)
    for tag, new in more.tags.items():
        tags[tag] = joined([tags[tag], new]) if tag in tags else new
    notes = tuple(dict.fromkeys(earlier.notes + more.notes))
    return replace(more, tags=tags, starts=earlier.starts + more.starts, start=earlier.start, notes=notes)
