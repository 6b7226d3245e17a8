"""The losses at given steps, as they are told beside a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from cmp.core.curves import LossCurve, loss_tag
from cmp.core.evidence import held_out_tags
from cmp.core.smoothing import smooth

SMOOTHING = 0.6  # as the chart's


def losses_at(curves: Sequence[LossCurve], steps: Iterable[int]) -> dict[int, float]:
    """The smoothed training loss at each of the steps, without what is not known.

    At a step that was not logged it is that of the last one before. A run that logs every tenth step ends a little before its last
    checkpoint; where the log ends long before, nothing is known.
    """
    tag = loss_tag(curve.tag for curve in curves)
    curve = next((curve for curve in curves if curve.tag == tag), None)
    if curve is None or not len(curve.steps):
        return {}
    smoothed = smooth(curve.values, SMOOTHING)
    places = {step: int(np.searchsorted(curve.steps, step, side="right")) - 1 for step in steps}
    end = curve.steps[-1] + 0.05 * (curve.steps[-1] - curve.steps[0])
    return {step: float(smoothed[at]) for step, at in places.items() if at >= 0 and step <= end and math.isfinite(smoothed[at])}


def held_out_losses(curves: Iterable[LossCurve], steps: Iterable[int]) -> dict[int, float]:
    """Step → held-out loss, of those steps at which a trainer logged one; of several such curves the one that stands for all."""
    wanted = set(steps)
    known = {curve.tag: curve for curve in curves}
    for curve in (known[tag] for tag in held_out_tags(tuple(known))):
        pairs = zip(curve.steps.tolist(), curve.values.tolist(), strict=True)
        if found := {step: value for step, value in pairs if step in wanted and math.isfinite(value)}:
            return found
    return {}
