"""Which points of a long curve draw the same picture as all of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cmp.core.curves import Floats, Integers


def thin(steps: Integers, values: Floats, most: int) -> Integers:
    """Positions, ascending, of at most `most` points (never under 5) that draw the same picture.

    They hold the first and the last point and, of each of equal stretches of the step axis, the lowest, the highest and the first
    that is not finite. Only points that exist: nothing is averaged. `steps` must ascend.
    """
    size = int(steps.size)
    most = max(most, 5)
    if size <= most:
        return np.arange(size)
    stretches = (most - 2) // 3
    span = float(steps[-1]) - float(steps[0])
    place = np.minimum((steps.astype(np.float64) - float(steps[0])) / (span or 1.0) * stretches, stretches - 1).astype(np.int64)
    return np.unique(np.concatenate([np.array([0, size - 1]), *_picks(place, values)]))


def thin_within(x: Floats, values: Floats, low: float, high: float, stretches: int) -> Integers:
    """Positions, ascending, that draw `values` over `x` between `low` and `high`: at most `stretches` + 2 stretches, 4 points in each.

    Of each stretch stay the lowest, the highest, the last, and the first that is not finite, and beside the window the nearest point on
    either side, to which the line leads. A window of no more points than a picture of it would have stays whole. The stretches are as
    wide as a power of two and begin at its multiples: two curves with the same `x` keep their last points at the same places, and a
    curve that grows keeps what it had until the width doubles. `x` must ascend.
    """
    first, end = _inside(x, low, high)
    beside = np.arange(max(first - 1, 0), min(end + 1, int(x.size)))
    if end - first <= 2 * max(stretches, 1):
        return beside
    place = _places(x[first:end], low, high, stretches)
    return np.unique(np.concatenate([beside[[0, -1]], first + np.concatenate([_ends(place), *_picks(place, values[first:end])])]))


def ends_within(x: Floats, low: float, high: float, stretches: int) -> Integers | None:
    """Of the points that `thin_within` gives, the last of each stretch; None where it gives all.

    Only these may be compared between curves: which others stay was chosen by how high or low they are.
    """
    first, end = _inside(x, low, high)
    if end - first <= 2 * max(stretches, 1):
        return None
    return first + _ends(_places(x[first:end], low, high, stretches))


def _inside(x: Floats, low: float, high: float) -> tuple[int, int]:
    return int(np.searchsorted(x, low)), int(np.searchsorted(x, high, side="right"))


def _places(x: Floats, low: float, high: float, stretches: int) -> Integers:
    """The number of the stretch that each point lies in."""
    return np.floor(x / _power_of_two((high - low) / max(stretches, 1))).astype(np.int64)


def _ends(place: Integers) -> Integers:
    return np.append(np.flatnonzero(np.diff(place)), place.size - 1)


def _power_of_two(least: float) -> float:
    """The smallest power of two that is not under `least`."""
    return math.ldexp(1.0, math.ceil(math.log2(least))) if least > 0 else 1.0


def _picks(place: Integers, values: Floats) -> list[Integers]:
    """Of every stretch of equal `place`: the first that is not finite, the lowest, the highest."""
    first = np.append(0, np.flatnonzero(np.diff(place)) + 1)
    group = np.cumsum(np.append(0, np.diff(place) != 0))
    finite = np.isfinite(values)
    picks = [_first_of_group(~finite, group)]
    for signed in (values, -values):
        filled = np.where(finite, signed, np.inf)
        lowest = np.minimum.reduceat(filled, first)
        picks.append(_first_of_group(finite & (filled == lowest[group]), group))
    return picks


def _first_of_group(wanted: NDArray[np.bool_], group: Integers) -> Integers:
    where = np.flatnonzero(wanted)
    return where[np.unique(group[where], return_index=True)[1]]
