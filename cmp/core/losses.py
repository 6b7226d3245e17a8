"""The training loss at given steps, as it is told beside a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from cmp.core.curves import LossCurve, loss_tag
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
