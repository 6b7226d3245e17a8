"""The loss that is told beside a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmp.core.curves import LossCurve
from cmp.core.losses import losses_at
from cmp.core.smoothing import smooth


def curve(tag: str, steps: list[int], values: list[float]) -> LossCurve:
    return LossCurve("r", tag, np.array(steps, np.int64), np.array(values), None, Path("log"))


def test_the_loss_is_the_smoothed_one_of_the_training_and_of_the_last_step_that_was_logged() -> None:
    lines = [curve("lr", [10, 20], [1e-4, 1e-4]), curve("train_loss", [10, 20, 30, 40], [4.0, 3.0, 2.0, 1.0])]
    smoothed = smooth(lines[1].values, 0.6)
    assert losses_at(lines, [20, 35]) == {20: pytest.approx(smoothed[1]), 35: pytest.approx(smoothed[2])}


def test_nothing_is_told_where_nothing_is_known() -> None:
    line = curve("loss", [10, 20, 30], [1.0, float("nan"), float("nan")])
    assert losses_at([line], [5, 40, 500]) == {}  # before the first, and long after the last
    assert losses_at([], [10]) == {} and losses_at([curve("loss", [], [])], [10]) == {}
    assert 31 in losses_at([curve("loss", [10, 20, 30], [1.0, 1.0, 1.0])], [31])
