"""*How to read this curve*: what its own figures allow to say, and what they do not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cmp.core.curves import Floats, LossCurve
from cmp.core.smoothing import smooth_centred
from cmp.core.uncertainty import FEWEST, Interval, difference_interval, mean_interval, points_needed

_TENTHS = 10
_TREND = 0.95
_ENDING = "A lower training loss does not by itself mean better pictures: it can go on falling while a model learns its images by heart."


def read_curve(curve: LossCurve, checkpoints: Sequence[int] = (), held: LossCurve | None = None) -> tuple[str, ...]:
    """The paragraph, a statement each; `held` is the loss on images that were held out. Empty for a curve without a finite value."""
    finite = np.isfinite(curve.values)
    steps, values = curve.steps[finite], curve.values[finite]
    if not values.size:
        return ()
    if values.size < 2 * FEWEST:
        return (f"{values.size} values are too few to say how sure this curve is; {2 * FEWEST} would do.", *_broken(curve), _ENDING)
    every = float(np.median(np.diff(steps)))
    parts = (_scatter(values), _level(steps, values), _settled(steps, values), *_checkpoints(steps, values, every, checkpoints))
    return (*parts, *_held_out(held), *_broken(curve), _ENDING)


def number(value: float, width: float = 0.0) -> str:
    """Three digits, as a figure in a sentence has them; more where they are needed to tell apart what lies `width` apart."""
    more = math.floor(math.log10(abs(value))) - math.floor(math.log10(width)) + 2 if value and width > 0 else 3
    return f"{value:.{min(max(more, 3), 8)}g}"


def about(value: float) -> str:
    """Two digits, with thousands apart: 41,000."""
    digits = 10 ** max(math.floor(math.log10(max(value, 1.0))) - 1, 0)
    return f"{round(value / digits) * digits:,}"


def _range(found: Interval) -> str:
    width = found.high - found.low
    return f"{number(found.value, width)} ({number(found.low, width)} to {number(found.high, width)}, 95 %)"


def _scatter(values: Floats) -> str:
    spread = float(np.std(values - smooth_centred(values, _TREND)))
    level = float(np.mean(values[-max(values.size // _TENTHS, FEWEST) :]))
    if spread <= 1e-9 * abs(level):
        return "Its values do not scatter at all: it was averaged before it was logged, or it is constant."
    share = f", {_percent(100 * spread / abs(level))} % of its level at the end" if level else ""
    return (
        f"Single values scatter by {number(spread)} around the trend{share}. Most of that is which images, timesteps and noise a batch "
        "drew, so one high or low point says nothing."
    )


def _level(steps: np.ndarray, values: Floats) -> str:
    last = values[-max(values.size // _TENTHS, FEWEST) :]
    found = mean_interval(last)
    assert found is not None, "there are enough"
    hang = "" if found.effective > 0.8 * found.n else f" Its {found.n:,} values hang together and count as about {about(found.effective)}."
    return f"Over the last steps, {steps[-last.size]:,} to {steps[-1]:,}, the mean is {_range(found)}.{hang}"


def _settled(steps: np.ndarray, values: Floats) -> str:
    """From where on no stretch differs from the last one, as far as can be seen."""
    pieces = np.array_split(np.arange(values.size), max(min(_TENTHS, values.size // FEWEST), 2))
    last = values[pieces[-1]]
    found = [difference_interval(values[piece], last, seed) for seed, piece in enumerate(pieces[:-1])]
    still = [i for i, gap in enumerate(found) if gap is not None and not gap.holds_zero]
    if not still:
        return "From beginning to end no stretch of it differs from the last one by more than their noise."
    nearest = found[still[-1]]
    if still[-1] == len(found) - 1 and nearest is not None:
        moves = "falling" if nearest.value < 0 else "rising"
        return f"It is still {moves} at the end: the last stretch lies {number(abs(nearest.value))} {_side(nearest)} the one before it."
    return f"From about step {steps[pieces[still[-1] + 1][0]]:,} on no stretch differs from the last one by more than their noise."


def _side(gap: Interval) -> str:
    return "below" if gap.value < 0 else "above"


def _checkpoints(steps: np.ndarray, values: Floats, every: float, checkpoints: Sequence[int]) -> Iterator[str]:
    """The lowest checkpoint, those that cannot be told from it, and what it would take; each is judged by the steps just before it."""
    windows = _windows(steps, values, sorted(set(checkpoints)))
    if len(windows) < 2:
        return
    best = min(windows, key=lambda step: float(windows[step].mean()))
    gaps = {step: difference_interval(windows[best], found) for step, found in windows.items() if step != best}
    tied = [step for step, gap in gaps.items() if gap is None or gap.holds_zero]
    if not tied:
        yield f"Of the checkpoints, step {best:,} has the lowest loss before it, and all others lie above it by more than their noise."
        return
    nearest = max(tied)
    gap = gaps[nearest]
    others = ", ".join(f"{step:,}" for step in tied[-6:])
    told = f"Steps {min(best, nearest):,} and {max(best, nearest):,} cannot be told apart by this loss"
    if gap is None:
        yield f"{told}: too little was logged between the checkpoints."
        return
    needed = points_needed(gap.value, windows[best], windows[nearest]) * every
    took = f"that would take about {about(needed)} steps a window" if needed < 1e9 else "no number of steps would do"
    yield f"{told}: the means of the steps before them differ by {number(abs(gap.value))}, and {took}."
    if len(tied) > 1:
        yield f"Nor can {others} be told from step {best:,}."


def _windows(steps: np.ndarray, values: Floats, checkpoints: Sequence[int]) -> dict[int, Floats]:
    """The values logged since the checkpoint before each; equally many of every one, so that none has the advantage of a longer window."""
    spans = {}
    before = int(steps[0]) - 1
    for step in checkpoints:
        low, high = np.searchsorted(steps, (before, step), side="right")
        if high - low >= FEWEST:
            spans[step] = (int(low), int(high))
            before = step
    least = min((high - low for low, high in spans.values()), default=0)
    return {step: values[high - least : high] for step, (_, high) in spans.items()}


def _held_out(held: LossCurve | None) -> Iterator[str]:
    if held is None or np.isfinite(held.values).sum() < 2:
        return
    finite = np.isfinite(held.values)
    steps, values = held.steps[finite], held.values[finite]
    low = int(np.argmin(values))
    if low == values.size - 1:
        yield f"The held-out loss ({held.tag}) is lowest at its last step, {steps[low]:,}: it does not show learning by heart."
        return
    yield (
        f"The held-out loss ({held.tag}) was lowest at step {steps[low]:,} ({number(float(values[low]))}) and has come to "
        f"{number(float(values[-1]))}: what was gained since may be the training images alone."
    )


def _broken(curve: LossCurve) -> Iterator[str]:
    where = np.flatnonzero(~np.isfinite(curve.values))
    if where.size:
        verb = "is" if where.size == 1 else "are"
        first = f"first at step {curve.steps[where[0]]:,}"
        yield f"{where.size:,} of {curve.values.size:,} values {verb} not finite, {first}; they count in no mean."


def _percent(value: float) -> str:
    """Two digits that count, and never a power of ten."""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.2g}" if value >= 1e-4 else "under 0.0001"
