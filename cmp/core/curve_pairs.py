"""Two runs that saw the same batches and noise: their losses rise and fall together, and their difference tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cmp.core.curves import Floats, Integers, LossCurve
from cmp.core.smoothing import smooth_centred
from cmp.core.uncertainty import Interval, mean_interval

FEWEST = 50  # equal steps; fewer may agree by chance
_AT_LEAST = 0.5
_TREND = 0.9  # the weight of the smoothing that is taken off, so that two losses that merely both fall do not count
_BY_CHANCE = 6.0  # standard errors of a correlation of nothing
_GLANCE = 4000  # points that tell at once that two runs have nothing in common


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs with the same noise. `quieter` says how many times less their difference scatters than either; inf if it does not.

    `same_until` is the last step up to which both logged the very same values, None without such a beginning. `ahead` is the mean of
    second minus first over the last tenth of the equal steps.
    """

    first: str
    second: str
    common: int
    correlation: float
    quieter: float
    same_until: int | None = None
    identical: bool = False
    ahead: Interval | None = None


def difference(first: LossCurve, second: LossCurve) -> LossCurve:
    """`second` minus `first` at the steps that both logged, as a curve of the second run."""
    steps, i, j = _common(first, second)
    times = None if second.wall_times is None else second.wall_times[j]
    with np.errstate(invalid="ignore"):  # inf minus inf is no number, and stays one that is shown as a gap
        values = second.values[j] - first.values[i]
    return replace(second, steps=steps, values=values, wall_times=times, notes=(), abandoned=())


def _common(first: LossCurve, second: LossCurve) -> tuple[Integers, Integers, Integers]:
    """The steps of both, and where they stand in either."""
    if first.steps.size == second.steps.size and bool((first.steps == second.steps).all()):
        every = np.arange(first.steps.size)
        return first.steps, every, every
    steps, i, j = np.intersect1d(first.steps, second.steps, assume_unique=True, return_indices=True)
    return steps, i, j


def find_pair(first: LossCurve, second: LossCurve) -> Pair | None:
    """What two runs have in common beside falling: None unless their noise is the same, judged at the steps that both logged.

    What they share from the beginning on to the bit, as a run does with the one it was resumed from, is no evidence for the rest.
    """
    steps, i, j = _common(first, second)
    one, two = first.values[i], second.values[j]
    finite = np.isfinite(one) & np.isfinite(two)
    steps, one, two = steps[finite], one[finite], two[finite]
    if steps.size < FEWEST:
        return None
    differs = np.flatnonzero(one != two)
    shared = int(differs[0]) if differs.size else int(steps.size)
    until = int(steps[shared - 1]) if shared >= FEWEST else None
    if shared == steps.size:
        return Pair(first.run_id, second.run_id, int(steps.size), 1.0, float("inf"), until, identical=True)
    begin = shared if until is not None else 0
    found = _same_noise(one[begin:], two[begin:]) if steps.size - begin >= FEWEST else None
    if found is None:
        return None if until is None else Pair(first.run_id, second.run_id, int(steps.size), 0.0, 1.0, until)
    tail = (two - one)[-max(steps.size // 10, FEWEST) :]
    return Pair(first.run_id, second.run_id, int(steps.size), *found, until, ahead=mean_interval(tail))


def _same_noise(one: Floats, two: Floats) -> tuple[float, float] | None:
    """Correlation of what scatters, and how many times less the difference does; None where chance would do."""
    jumps = [np.diff(values[-_GLANCE:]) for values in (one, two)]
    size = float(np.sqrt((jumps[0] @ jumps[0]) * (jumps[1] @ jumps[1])))
    if size == 0 or float(jumps[0] @ jumps[1]) / size < _AT_LEAST / 2:
        return None
    a, b, c = (values - smooth_centred(values, _TREND) for values in (one, two, two - one))
    spread = np.sqrt(float(a @ a) * float(b @ b))
    correlation = float(a @ b) / spread if spread > 0 else 0.0
    if correlation < max(_AT_LEAST, _BY_CHANCE / np.sqrt(one.size)):
        return None
    left = float(c @ c)
    return correlation, float(np.sqrt(min(float(a @ a), float(b @ b)) / left)) if left > 0 else float("inf")


def find_pairs(curves: Sequence[LossCurve]) -> tuple[Pair, ...]:
    """All pairs among the curves, one of each run."""
    return tuple(pair for first, second in combinations(curves, 2) if (pair := find_pair(first, second)))


def pair_text(pair: Pair, first: str, second: str) -> str:
    """What a pair means, in words, with what the runs are called."""
    if pair.identical:
        return f"{first} and {second} logged the same {pair.common:,} values: one is a copy of the other, or both are."
    begin = f"{first} and {second} are the same training up to step {pair.same_until:,}." if pair.same_until is not None else ""
    if pair.correlation == 0:
        return f"{begin} After it their noise differs."
    times = f"{pair.quieter:.2g} times" if np.isfinite(pair.quieter) else "infinitely many times"
    told = (
        f"{first} and {second} saw the same batches and noise: their losses rise and fall together (correlation {pair.correlation:.3f} at "
        f"{pair.common:,} equal steps). Compare them by their difference, which scatters {times} less than either curve."
    )
    return " ".join(filter(None, [begin, told, _ahead_text(pair.ahead, first, second)]))


def _ahead_text(ahead: Interval | None, first: str, second: str) -> str:
    if ahead is None:
        return ""
    where = f"{ahead.value:+.3g} ({ahead.low:+.3g} to {ahead.high:+.3g}, 95 %)"
    judged = "they cannot be told apart" if ahead.holds_zero else f"{second if ahead.value < 0 else first} has the lower loss"
    return f"Over the last tenth {second} minus {first} is {where}: {judged} there."
