"""Runs of the same noise are found, and others are not taken for such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmp.core.curve_pairs import difference, find_pair, find_pairs, pair_text
from cmp.core.curves import LossCurve


def curve(run: str, values: np.ndarray, steps: np.ndarray | None = None) -> LossCurve:
    return LossCurve(run, "loss", np.arange(1, values.size + 1) if steps is None else steps, values, None, Path("log"))


def falling(points: int, level: float = 0.1) -> np.ndarray:
    return level + np.exp(-np.arange(points) / (points / 6))


def batches(points: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2, 0.05, points)


def test_runs_of_one_seed_are_found_and_their_difference_is_quieter_by_as_much_as_it_is() -> None:
    shared = batches(2000, 1)
    first = curve("a", falling(2000) + shared)
    second = curve("b", falling(2000, 0.08) + shared + np.random.default_rng(2).normal(0, 0.007, 2000))
    pair = find_pair(first, second)
    assert pair is not None and pair.correlation > 0.98 and pair.common == 2000
    assert pair.quieter == pytest.approx(shared.std() / 0.007, rel=0.1)
    assert pair.ahead is not None and pair.ahead.low <= -0.02 <= pair.ahead.high < 0
    assert "b has the lower loss there" in pair_text(pair, "a", "b") and "times less than either" in pair_text(pair, "a", "b")


def test_runs_that_merely_both_fall_are_no_pair_for_any_of_many_seeds() -> None:
    for seed in range(60):
        one, two = (curve(name, falling(400) + batches(400, seed * 2 + i)) for i, name in enumerate("ab"))
        assert find_pair(one, two) is None


def test_runs_that_logged_other_steps_are_judged_at_those_they_share() -> None:
    shared = batches(3000, 3)
    every = curve("a", shared)
    tenth = curve("b", shared[9::10] * 1.1, np.arange(10, 3001, 10))
    pair = find_pair(every, tenth)
    assert pair is not None and pair.common == 300
    assert find_pair(every, curve("b", shared[:40], np.arange(1, 41))) is None, "forty steps say too little"


def test_a_copy_and_a_resumed_run_are_told_as_such() -> None:
    values = batches(600, 4)
    copy = find_pair(curve("a", values), curve("b", values.copy()))
    assert copy is not None and copy.identical and "copy" in pair_text(copy, "a", "b")
    later = np.concatenate([values[:300], batches(300, 5)])
    forked = find_pair(curve("a", values), curve("b", later))
    assert forked is not None and forked.same_until == 300 and forked.correlation == 0
    assert "up to step 300" in pair_text(forked, "a", "b")


def test_a_difference_has_only_steps_of_both_and_keeps_gaps() -> None:
    one = curve("a", np.array([1.0, np.inf, 3.0, 4.0]), np.array([1, 2, 3, 4]))
    two = curve("b", np.array([2.0, np.inf, 9.0]), np.array([1, 2, 4]))
    found = difference(one, two)
    assert found.run_id == "b" and found.steps.tolist() == [1, 2, 4]
    np.testing.assert_array_equal(found.values, [1.0, np.nan, 5.0])


def test_of_three_runs_only_the_two_of_one_seed_are_a_pair() -> None:
    shared = batches(500, 6)
    curves = [curve("a", shared), curve("b", shared + 0.01 * batches(500, 8)), curve("c", batches(500, 7))]
    assert [(pair.first, pair.second) for pair in find_pairs(curves)] == [("a", "b")]
