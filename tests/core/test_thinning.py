from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cmp.core.thinning import thin, thin_within

NAN, INF = math.nan, math.inf
any_value = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([NAN, INF, -INF]))
any_curve = st.dictionaries(st.integers(-(2**40), 2**40), any_value, min_size=1, max_size=300)


@settings(deadline=None)
@given(any_curve, st.integers(0, 60))
def test_thinning_keeps_first_last_extremes_and_a_gap_within_the_limit(curve: dict[int, float], most: int) -> None:
    steps = np.array(sorted(curve), dtype=np.int64)
    values = np.array([curve[step] for step in sorted(curve)])
    keep = thin(steps, values, most)
    assert keep.size <= max(most, 5) and (np.diff(keep) > 0).all()
    assert keep[0] == 0 and keep[-1] == steps.size - 1
    finite, kept = values[np.isfinite(values)], values[keep][np.isfinite(values[keep])]
    if finite.size:
        assert kept.min() == finite.min() and kept.max() == finite.max()
    assert np.isfinite(values).all() == np.isfinite(values[keep]).all()


def test_thinning_keeps_a_spike_and_a_gap_of_one_point_in_a_million() -> None:
    values = np.sin(np.arange(1_000_000) / 1e5)
    values[123_456], values[654_321] = 50.0, NAN
    keep = thin(np.arange(1_000_000), values, 2000)
    assert keep.size <= 2000
    assert {123_456, 654_321} <= set(keep.tolist())


@settings(deadline=None)
@given(any_curve, st.integers(1, 40), st.integers(-(2**40), 2**40), st.integers(0, 2**40))
def test_a_window_keeps_its_last_point_extremes_and_gaps_and_those_beside_it(
    curve: dict[int, float], stretches: int, low: int, length: int
) -> None:
    steps = np.array(sorted(curve), dtype=np.float64)
    values = np.array([curve[int(step)] for step in steps])
    high = low + length
    keep = thin_within(steps, values, low, high, stretches)
    assert (np.diff(keep) > 0).all() and keep.size <= 4 * (stretches + 4) + 2
    inside = np.flatnonzero((steps >= low) & (steps <= high))
    if inside.size:
        assert inside[-1] in keep and (inside[0] == 0 or inside[0] - 1 in keep)
        finite = np.isfinite(values[inside])
        chosen = values[np.intersect1d(keep, inside)]
        assert np.isfinite(chosen).all() == finite.all()
        if finite.any():
            shown = chosen[np.isfinite(chosen)]
            assert shown.min() == values[inside][finite].min() and shown.max() == values[inside][finite].max()


def test_two_runs_that_logged_the_same_steps_are_thinned_to_points_in_common() -> None:
    steps = np.arange(0, 100_000.0)
    made = [np.random.default_rng(seed).normal(size=steps.size) for seed in (1, 2)]
    first, second = (set(thin_within(steps, values, 0, 99_999, 300).tolist()) for values in made)
    common = sorted(first & second)
    assert len(common) >= 150 and max(np.diff(common)) <= 99_999 / 150 + 1


def test_a_curve_that_grows_keeps_the_points_it_had() -> None:
    steps = np.arange(60_000.0)
    values = np.random.default_rng(5).normal(size=steps.size)
    before = thin_within(steps[:50_000], values[:50_000], 0, 60_000, 400)
    after = thin_within(steps, values, 0, 60_000, 400)
    settled = before[before < 49_000]
    assert set(settled.tolist()) <= set(after.tolist())


def test_a_window_of_few_points_is_shown_whole_and_an_empty_one_has_its_neighbours() -> None:
    steps = np.arange(0, 1_000_000.0, 10)
    values = np.zeros(steps.size)
    assert thin_within(steps, values, 5000, 6000, 100).tolist() == list(range(499, 602))
    assert thin_within(steps, values, 5001, 5002, 100).tolist() == [500, 501]
    assert thin_within(steps[:0], values[:0], 0, 1, 100).tolist() == []
