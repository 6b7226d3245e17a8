"""Which of several checkpoints cannot be told from the best: comparisons that hold together, so that a tie is rarely taken for a win.

The leader is chosen by the data, and each other is held against it. What counts as a difference must therefore be more than what
the largest of all differences comes to by chance: the 95 % quantile of a maximum. Once some are known to be worse, chance has fewer
left to play with, and the rest is judged again (Romano and Wolf 2005). With 95 % probability all that are truly best stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cmp.core.curves import Floats

LEVEL = 0.95
NORMAL = 1.959964  # a normal value lies within so many standard errors with this probability
FEWEST_ITEMS = 5  # of fewer nothing is told apart
_DRAWS = 2000
_MANY_ITEMS = 400  # from so many on a draw need not be measured by its own spread
_AT_ONCE = 4_000_000  # numbers of a chunk of draws
_ROUNDING = 1e-12  # of the largest value: less is no scatter


@dataclass(frozen=True, slots=True)
class Judged:
    """What holds of k checkpoints, by their place. `window` has the best first.

    `low` and `high` are the 95 % interval of each value by itself. `gaps` say how much worse than the leader each is, with intervals
    that hold together: an interval above zero and a place outside the window are the same thing.
    """

    leader: int
    window: tuple[int, ...]
    low: Floats
    high: Floats
    gaps: Floats
    gap_low: Floats
    gap_high: Floats


def judge_paired(values: Floats, lower_is_better: bool, seed: int = 0) -> Judged | None:
    """Judges scores of the same items, (checkpoints, items), by a paired bootstrap: items are drawn anew, all checkpoints with them.

    Items must be independent of each other: several draws of one image are averaged before. Each draw is measured by its own spread
    (bootstrap-t), as few items need it, and no difference counts that Student's t would not let pass. All values must be finite; None
    without a checkpoint or an item.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 2 or not scores.size:
        return None
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    means, items = scores.mean(axis=1), scores.shape[1]
    worse = means if lower_is_better else -means
    if items < FEWEST_ITEMS:
        return _undecided(means, worse)
    signed = scores if lower_is_better else -scores
    centred = signed - signed.mean(axis=0)  # what an item adds to all of them is in no difference
    centred = centred - centred.mean(axis=1, keepdims=True)
    covariance = centred @ centred.T / (items - 1) / items
    rng = np.random.default_rng(seed)
    errors = _errors(covariance, _ROUNDING * float(np.abs(scores).max()))
    tops = (_paired_tops(centred, errors, rng), _normal_tops(covariance, errors, items - 1, rng))
    own = scores.std(axis=1, ddof=1) / math.sqrt(items) * t_quantile(items - 1)
    return _judged(means, worse, own, errors, *tops)


def judge_apart(values: Floats, covariance: Floats, lower_is_better: bool, freedom: float | None = None, seed: int = 0) -> Judged:
    """Judges values whose errors are normal and known by their covariance, or estimated with so many degrees of `freedom`.

    Under two degrees nothing is told apart.
    """
    values = np.asarray(values, dtype=np.float64)
    worse = values if lower_is_better else -values
    if freedom is not None and freedom < 2:
        return _undecided(values, worse)
    errors = _errors(covariance, _ROUNDING * float(np.abs(values).max(initial=0)))
    tops = _normal_tops(covariance, errors, freedom, np.random.default_rng(seed))
    return _judged(values, worse, np.sqrt(np.diag(covariance)) * t_quantile(freedom), errors, tops)


def t_quantile(freedom: float | None) -> float:
    """Between minus and plus this lie 95 % of Student's t with two or more degrees of freedom, or for None of a normal value.

    The expansion of Abramowitz and Stegun, 26.7.5; it errs by 3 % at two degrees and by under 0.1 % from five on.
    """
    z, n = NORMAL, freedom
    if n is None:
        return z
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / n + second / n**2 + third / n**3 + fourth / n**4


def _undecided(values: Floats, worse: Floats) -> Judged:
    """Where too little is known: all stay, and nothing has an interval."""
    unknown = np.full(values.size, np.nan)
    order = tuple(map(int, np.argsort(worse, kind="stable")))
    return Judged(order[0], order, unknown, unknown, worse - worse.min(), unknown, unknown)


def _judged(values: Floats, worse: Floats, own: Floats, errors: Floats, *tops: Floats) -> Judged:
    leader = int(np.argmin(worse))
    gaps, error = worse - worse[leader], errors[:, leader]
    stays = np.ones(values.size, dtype=bool)
    limits = np.zeros(values.size)
    while True:
        limit = max(float(np.quantile(drawn[:, stays].max(axis=1), LEVEL)) for drawn in tops)
        limits[stays] = limit
        leaves = stays & (gaps > limit * error)
        if not leaves.any():
            break
        stays &= ~leaves
    wide = limits * error
    wide[leader] = 0.0
    window = tuple(int(i) for i in np.argsort(worse, kind="stable") if stays[i])
    return Judged(leader, window, values - own, values + own, gaps, gaps - wide, gaps + wide)


def _errors(covariance: Floats, floor: float) -> Floats:
    """The standard error of each difference; where there is none it is `floor`, so that equal values are equal."""
    spread = np.diag(covariance)
    found: Floats = np.sqrt(np.maximum(spread[:, None] + spread[None, :] - 2 * covariance, 0))
    return np.maximum(found, floor or 1e-300)


def _normal_tops(covariance: Floats, errors: Floats, freedom: float | None, rng: np.random.Generator) -> Floats:
    """(draws, k): how far each lies above the one that it lies farthest above, in standard errors, where all are truly equal."""
    size = covariance.shape[0]
    strengths, ways = np.linalg.eigh(covariance)
    drawn = rng.standard_normal((_DRAWS, size)) * np.sqrt(np.maximum(strengths, 0)) @ ways.T
    if freedom is not None:
        drawn /= np.sqrt(rng.chisquare(freedom, (_DRAWS, 1)) / freedom)
    return np.concatenate([_tops(drawn[part], errors) for part in _chunks(size * size)])


def _paired_tops(centred: Floats, errors: Floats, rng: np.random.Generator) -> Floats:
    """The same by drawing the items anew; few items are measured by the spread that the draw itself has."""
    size, items = centred.shape
    found = []
    for part in _chunks(size * max(size, items)):
        counts = rng.multinomial(items, np.full(items, 1 / items), part.stop - part.start).astype(np.float64)
        means = counts @ centred.T / items
        if items >= _MANY_ITEMS:
            found.append(_tops(means, errors))
            continue
        products = (counts[:, None, :] * centred) @ centred.T / items - means[:, :, None] * means[:, None, :]
        spread = np.diagonal(products, axis1=1, axis2=2)
        variances = np.maximum(spread[:, :, None] + spread[:, None, :] - 2 * products, 0) / (items - 1)
        found.append(_tops(means, np.maximum(np.sqrt(variances), 1e-9 * errors)))
    return np.concatenate(found)


def _tops(drawn: Floats, errors: Floats) -> Floats:
    apart = (drawn[:, :, None] - drawn[:, None, :]) / errors
    top: Floats = apart.max(axis=2)
    return top


def _chunks(size: int) -> Iterator[slice]:
    step = max(1, _AT_ONCE // max(size, 1))
    return (slice(at, min(at + step, _DRAWS)) for at in range(0, _DRAWS, step))
