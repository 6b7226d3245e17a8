"""Smoothing of a logged curve: TensorBoard's exponential mean, which lags behind, and a centred one, which does not."""

from __future__ import annotations

import math

import numpy as np

from cmp.core.curves import Floats
from cmp.errors import BadInput

WAYS = ("past", "centred")
DEFAULT = 0.6  # TensorBoard's own


def smooth(values: Floats, weight: float) -> Floats:
    """TensorBoard's smoothing of `values`: the debiased exponential mean, 0 <= weight < 1 (0 changes nothing).

    s_n = sum_i w^(n-i) x_i / sum_i w^(n-i) over the finite values. A value that is not finite stays as it is and does not count,
    so it never spreads (tensorboard/webapp/widgets/line_chart_v2, `classicSmoothing`). Raises BadInput for another weight.
    """
    out, finite, scaled = _prepared(values, weight)
    if weight == 0 or scaled.size == 0:
        return out
    sums = _decayed(scaled, float(weight))
    out[finite] = sums / -np.expm1(np.arange(1, scaled.size + 1) * math.log(weight))
    return out


def smooth_centred(values: Floats, weight: float) -> Floats:
    """The same kernel to both sides: s_n = sum_i w^|n-i| x_i / sum_i w^|n-i| over the finite values.

    A straight line stays where it is, so that a bend is not drawn too late; in return a point changes when later ones are logged.
    """
    out, finite, scaled = _prepared(values, weight)
    if weight == 0 or scaled.size == 0:
        return out
    w = float(weight)
    sums = _decayed(scaled, w) + _decayed(scaled[::-1], w)[::-1] - scaled
    one_sided = -np.expm1(np.arange(1, scaled.size + 1) * math.log(w))  # (1 - w) times the kernel's sum over the past
    out[finite] = sums / (one_sided + one_sided[::-1] - (1 - w))
    return out


def smoothed(values: Floats, weight: float, way: str = "past") -> Floats:
    """One of `WAYS`; raises BadInput for another."""
    if way not in WAYS:
        raise BadInput(f"the way of smoothing is {way!r}", f"Use {' or '.join(WAYS)}.")
    return smooth(values, weight) if way == "past" else smooth_centred(values, weight)


def _prepared(values: Floats, weight: float) -> tuple[Floats, np.ndarray, Floats]:
    """A copy, which of it is finite, and these values times (1 - weight), so that sums of huge values cannot overflow."""
    if not 0 <= weight < 1:
        raise BadInput(f"smoothing is {weight!r}", "Give a number from 0 (none) to below 1, for example 0.9.")
    out = np.array(values, dtype=np.float64)
    finite = np.isfinite(out)
    return out, finite, out[finite] * (1 - weight)


def _decayed(values: Floats, weight: float) -> Floats:
    """sum_{i<=n} weight^(n-i) x_i of every n. Each pass doubles how far back a sum reaches: log2(n) passes instead of n steps."""
    sums = np.array(values)
    shift, decay = 1, weight
    while shift < sums.size and decay > 0:
        sums[shift:] += decay * sums[:-shift]
        shift, decay = 2 * shift, decay * decay
    return sums
