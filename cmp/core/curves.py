"""Loss curves: one value per step out of what several starts of a training logged, and the arithmetic to draw them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Best first. The names that trainers use for the loss of the training step itself.
_LOSS_NAMES = (
    "loss",
    "train_loss",
    "train/loss",
    "loss/train",
    "training_loss",
    "training/loss",
    "loss/current",
    "loss/train_step",
    "step_loss",
    "loss/step",
    "train/step_loss",
    "train_loss_step",
    "train/loss_step",
    "loss/loss",
    "total_loss",
    "loss/total",
    "diffusion_loss",
)
_OTHER_LOSS = frozenset(("val", "valid", "validation", "eval", "evaluation", "test", "lr", "for"))
_SMOOTHED = frozenset(("avg", "avr", "average", "mean", "smooth", "smoothed", "moving", "ema"))


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one start of a training logged under one tag, as it was written.

    `begins` is a step from which on this part replaces older ones even where it has no points yet: a SessionLog START, or the
    step at which the same start logged its loss. None: the part's own first step decides.
    """

    steps: Integers
    values: Floats
    wall_times: Floats | None
    source: Path
    begins: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """Points that a later start overwrote, ascending by step; to be drawn faint if at all. `wall_times`: None where some are not known."""

    steps: Integers
    values: Floats
    wall_times: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LossCurve:
    """One tag of one run: `steps` ascend and are unique, `values` may hold nan and inf, `wall_times` are Unix seconds.

    `source` is the newest file that gave points. `notes` say in words what was repaired.
    """

    run_id: str
    tag: str
    steps: Integers
    values: Floats
    wall_times: Floats | None
    source: Path
    notes: tuple[str, ...] = ()
    abandoned: tuple[Branch, ...] = ()

    @property
    def non_finite(self) -> tuple[tuple[int, str], ...]:
        """(step, "nan" | "inf" | "-inf") of every point that is not finite."""
        where = np.flatnonzero(~np.isfinite(self.values))
        return tuple((int(self.steps[i]), str(float(self.values[i]))) for i in where)


def merge(run_id: str, tag: str, parts: Sequence[Part]) -> LossCurve:
    """One curve out of parts given oldest first: a later part wins at every step from its beginning on.

    A training that is resumed logs some steps again, and what the older file holds behind them belongs to weights that no longer
    exist; it moves to `abandoned`. Raises ValueError without parts.
    """
    if not parts:
        raise ValueError("merge needs at least one part")
    kept: list[Part] = []
    abandoned: list[Branch] = []
    notes: list[str] = []
    for part in parts:
        part = _tidied(part, notes)
        begin = _beginning(part)
        if begin is None:
            continue
        lost = _cut(kept, begin)
        if lost.steps.size:
            abandoned.append(lost)
            notes.append(f"{part.source.name} starts again at step {begin}: {_points(lost.steps.size)} of older files dropped")
        if part.steps.size:
            kept.append(part)
    steps = _one([part.steps for part in kept] or [np.empty(0, np.int64)])
    values = _one([part.values for part in kept] or [np.empty(0)])
    times = [part.wall_times for part in kept if part.wall_times is not None]
    wall_times = _one(times) if times and len(times) == len(kept) else None
    source = (kept or parts)[-1].source
    curve = LossCurve(run_id, tag, steps, values, wall_times, source, (), tuple(abandoned))
    return LossCurve(run_id, tag, steps, values, wall_times, source, (*notes, *_say_non_finite(curve)), tuple(abandoned))


def _one(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """All in one array, which is the very same where there is one only: a long log is not copied each time it has grown."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _points(count: int) -> str:
    return f"{count} point" if count == 1 else f"{count} points"


def _beginning(part: Part) -> int | None:
    """The step from which on a tidied part replaces older ones; None if it says nothing."""
    begins = [] if part.begins is None else [part.begins]
    if part.steps.size:
        begins.append(int(part.steps[0]))
    return min(begins, default=None)


def _tidied(part: Part, notes: list[str]) -> Part:
    """The part sorted by step with the last value of each step; what was repaired is added to `notes`."""
    steps = part.steps
    gaps = np.diff(steps)
    if gaps.size == 0 or gaps.min() > 0:
        return part
    order = np.argsort(steps, kind="stable")
    ascending = steps[order]
    last = np.append(np.diff(ascending) > 0, True)
    doubled = int(steps.size - last.sum())
    if doubled:
        notes.append(f"{part.source.name}: {doubled} of {steps.size} values repeat a step; the last one of each step is used")
    if gaps.min() < 0:
        notes.append(f"{part.source.name}: steps are out of order; sorted")
    take = order[last]
    times = None if part.wall_times is None else part.wall_times[take]
    return Part(ascending[last], part.values[take], times, part.source, part.begins)


def _cut(kept: list[Part], begin: int) -> Branch:
    """Takes the points at `begin` and later out of `kept` (in place) and returns them."""
    lost: deque[Part] = deque()
    while kept and kept[-1].steps[-1] >= begin:
        part = kept.pop()
        at = int(np.searchsorted(part.steps, begin))
        times = part.wall_times
        lost.appendleft(Part(part.steps[at:], part.values[at:], None if times is None else times[at:], part.source))
        if at:
            kept.append(Part(part.steps[:at], part.values[:at], None if times is None else times[:at], part.source))
            break
    if not lost:
        return Branch(np.empty(0, np.int64), np.empty(0))
    known = [part.wall_times for part in lost if part.wall_times is not None]
    times = _one(known) if len(known) == len(lost) else None
    return Branch(_one([part.steps for part in lost]), _one([part.values for part in lost]), times)


def _say_non_finite(curve: LossCurve) -> tuple[str, ...]:
    where = np.flatnonzero(~np.isfinite(curve.values))
    if not where.size:
        return ()
    verb = "is" if where.size == 1 else "are"
    return (f"{where.size} of {_points(curve.values.size)} {verb} not finite, first at step {curve.steps[where[0]]}",)


def is_epoch_axis(tag: str) -> bool:
    """True if the tag's "steps" are epoch numbers, so that it must not share an axis with steps or be joined to checkpoints.

    Kohya's `loss/epoch_average` and `loss/epoch` are such; `epoch` and `train/epoch` hold the epoch as their value, by step, and
    `loss_epoch` is Lightning's, by step as well.
    """
    segments = tag.lower().split("/")
    if any(segment.startswith("epoch_") for segment in segments) or "per_epoch" in segments[-1]:
        return True
    return "epoch" in segments and any("loss" in segment for segment in segments)


def loss_tag(tags: Iterable[str]) -> str | None:
    """The tag of the training loss by step, or None: a validation loss, a rate or a mean by epoch is never passed off as it."""
    by_name = {tag.lower(): tag for tag in sorted(tags) if not is_epoch_axis(tag)}
    for name in _LOSS_NAMES:
        if name in by_name:
            return by_name[name]
    candidates = []
    for name, tag in by_name.items():
        words = set(re.split(r"[^a-z0-9]+", name))
        if "loss" in words and not words & _OTHER_LOSS:
            candidates.append((bool(words & _SMOOTHED), len(tag), tag))
    return min(candidates)[2] if candidates else None


def as_json(curve: LossCurve) -> dict[str, object]:
    """The contract's value of one curve; always valid JSON: a value that is not finite is null and stands in `non_finite`."""
    finite = np.isfinite(curve.values)
    values: list[float | None] = curve.values.tolist()
    for i in np.flatnonzero(~finite).tolist():
        values[i] = None
    times = curve.wall_times
    return {
        "tag": curve.tag,
        "steps": curve.steps.tolist(),
        "values": values,
        "non_finite": [{"step": step, "kind": kind} for step, kind in curve.non_finite],
        "wall_times": times.tolist() if times is not None and np.isfinite(times).all() else None,
        "source": "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in str(curve.source)),
    }


def table_cell(text: str) -> str:
    """Text for a table: what a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
