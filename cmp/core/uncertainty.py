"""How sure a mean of logged losses is: neighbouring points resemble each other, so that they count for fewer than they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cmp.core.curves import Floats

LEVEL = 0.95
FEWEST = 20  # points; fewer say too little about how they hang together
_DRAWS = 1000
_MOST_BLOCKS = 150  # a draw; sums of more are scaled from these, since they are as good as normal
_TOLD_APART = 1.96 + 0.84  # standard errors: a difference so large is found at 95 % in four of five windows


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean of `n` points, or the difference of two, and where it lies at `LEVEL`; `effective` points without memory would say as much."""

    value: float
    low: float
    high: float
    n: int
    effective: float

    @property
    def holds_zero(self) -> bool:
        return self.low <= 0 <= self.high


def mean_interval(values: Floats, seed: int = 0) -> Interval | None:
    """The mean of the finite `values` and its interval, by a moving block bootstrap of what a straight line leaves; the same for a seed.

    None for under `FEWEST` points. Blocks keep the memory of the noise (Künsch 1989), their length is that of Politis and White (2004,
    corrected 2009). The line is taken out first, or a falling loss would be taken for noise. The spread is widened for what short blocks
    cut off and a line takes along: without it 95 % would cover 90 % and less.
    """
    kept = values[np.isfinite(values)]
    if kept.size < FEWEST:
        return None
    drawn = _deviations(kept, seed)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = float(kept.mean())
    return Interval(mean, mean + float(low), mean + float(high), int(kept.size), _effective(kept))


def difference_interval(before: Floats, after: Floats, seed: int = 0) -> Interval | None:
    """The mean of `after` minus that of `before`, two windows that share no point; None where one of them is too short."""
    first, second = (values[np.isfinite(values)] for values in (before, after))
    if min(first.size, second.size) < FEWEST:
        return None
    drawn = _deviations(second, seed) - _deviations(first, seed + 1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(second.mean() - first.mean())
    return Interval(value, value + float(low), value + float(high), int(first.size + second.size), _effective(first) + _effective(second))


def points_needed(difference: float, *windows: Floats) -> float:
    """How many points each of two windows must have for a difference of their means to be found; inf for no difference."""
    variances = [long_run_variance(values[np.isfinite(values)]) for values in windows]
    if difference == 0 or not variances:
        return math.inf
    return 2 * float(np.mean(variances)) * (_TOLD_APART / difference) ** 2


def long_run_variance(values: Floats) -> float:
    """n times the variance of the mean of n points, for large n: the variance, with what neighbours have in common counted in."""
    left = residuals(values)
    length = block_length(left)
    sums = _block_sums(left, length)
    return float(sums.var() / length) * _widening(left, length) ** 2


def residuals(values: Floats) -> Floats:
    """What a straight line through the points, which are taken as evenly spaced, leaves."""
    at = np.arange(values.size) - (values.size - 1) / 2
    centred: Floats = values - values.mean()
    return centred - at * (float(at @ centred) / max(float(at @ at), 1.0))


def block_length(values: Floats) -> int:
    """How many neighbours a block of the bootstrap holds: Politis and White's rule, from how far the points remember each other."""
    n = int(values.size)
    covariances = _covariances(values, min(n - 1, 4 * math.isqrt(n) + 20))
    if covariances[0] <= 0:
        return 1
    limit, run = 2 * math.sqrt(math.log10(n) / n), max(5, math.isqrt(math.ceil(math.log10(n))))
    small = np.abs(covariances[1:] / covariances[0]) < limit
    quiet = np.convolve(small, np.ones(run), "valid") >= run
    memory = int(np.argmax(quiet)) if quiet.any() else covariances.size // 2
    lags = np.arange(1, min(2 * max(memory, 1), covariances.size - 1) + 1)
    flat = np.clip(2 * (1 - lags / (lags[-1] + 1)), 0, 1) * covariances[lags]  # the flat-top window
    density = covariances[0] + 2 * float(flat.sum())
    slope = 2 * float((lags * flat).sum())
    if density <= 0:
        return 1
    wanted = (1.5 * slope**2 / density**2 * n) ** (1 / 3)
    return max(1, min(math.ceil(wanted), math.ceil(min(3 * math.sqrt(n), n / 5))))


def _covariances(values: Floats, lags: int) -> Floats:
    size = 1 << (values.size + lags).bit_length()
    spectrum = np.fft.rfft(values - values.mean(), size)
    found: Floats = np.fft.irfft(spectrum * spectrum.conj(), size)[: lags + 1] / values.size
    return found


def _block_sums(values: Floats, length: int) -> Floats:
    """The sums of all blocks of neighbours, which may overlap."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    sums: Floats = total[length:] - total[:-length]
    return sums


def _deviations(values: Floats, seed: int) -> Floats:
    """How far the mean lies off in each of the bootstrap's draws."""
    left = residuals(values)
    length = block_length(left)
    sums = _block_sums(left, length)
    sums = sums - sums.mean()
    blocks = left.size / length
    taken = min(max(round(blocks), 1), _MOST_BLOCKS)
    drawn = sums[np.random.default_rng(seed).integers(0, sums.size, (_DRAWS, taken))].sum(axis=1)
    deviations: Floats = drawn * math.sqrt(blocks / taken) / left.size * _widening(left, length)
    return deviations


def _widening(left: Floats, length: int) -> float:
    """How much wider the mean's true spread is than that of blocks, where the noise is of first order: by what its memory, which is
    found too short in few points, still holds beyond a block, and by what the line has taken away.
    """
    n, spread = left.size, float(left @ left)
    found = float(left[1:] @ left[:-1]) / spread if spread > 0 else 0.0
    memory = min(max(found + (2 + 4 * max(found, 0.0)) / n, 0.0), 1 - 4 / n)  # the bias of Kendall (1954), with a line
    lags = np.arange(1, length)
    within = 1 + 2 * float(((1 - lags / length) * memory**lags).sum())
    whole = (1 + memory) / (1 - memory)
    line = 1 - min(2 * whole / n, 0.75)  # the share of the noise that a fitted line leaves
    return math.sqrt(whole / within / line) * (1 + 0.5 * length / n)


def _effective(values: Floats) -> float:
    variance, long = float(residuals(values).var()), long_run_variance(values)
    return min(float(values.size), values.size * variance / long) if long > 0 else float(values.size)
