from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from cmp.core.smoothing import smooth, smooth_centred, smoothed
from cmp.errors import BadInput

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("count", [1, 2, 3, 1000, 4097])
def test_smoothing_equals_pandas_for_finite_values(weight: float, count: int) -> None:
    values = np.random.default_rng(count).normal(size=count) * 10
    expected = pd.Series(values).ewm(alpha=1 - weight, adjust=True).mean().to_numpy()
    np.testing.assert_allclose(smooth(values, weight), expected, rtol=1e-11, atol=1e-11)


def test_nan_is_carried_over_and_does_not_spread() -> None:
    values = np.array([1.0, 2.0, NAN, INF, 3.0, -INF, 4.0])
    smoothed = smooth(values, 0.6)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(smoothed[~finite], values[~finite])
    np.testing.assert_array_equal(smoothed[finite], smooth(values[finite], 0.6))


def test_smoothing_follows_tensorboards_loop() -> None:
    values = [0.3, NAN, 1e38, 0.1, 0.2, INF, 0.4]
    last, count, expected = 0.0, 0, []
    for value in values:
        if math.isfinite(value):
            last, count = last * 0.8 + value * (1 - 0.8), count + 1
            expected.append(last / (1 - 0.8**count))
        else:
            expected.append(value)
    np.testing.assert_allclose(smooth(np.array(values), 0.8), expected, rtol=1e-12)


def test_smoothing_huge_values_does_not_overflow() -> None:
    values = np.full(1000, 1.7e308)
    np.testing.assert_allclose(smooth(values, 0.99), values)


def test_smoothing_leaves_its_input_alone() -> None:
    values = np.array([1.0, 5.0, 2.0])
    smooth(values, 0.9)
    assert values.tolist() == [1.0, 5.0, 2.0]


@pytest.mark.parametrize("weight", [-0.1, 1.0, 2.0, NAN])
def test_a_smoothing_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(BadInput, match="smoothing"):
        smooth(np.array([1.0]), weight)


@pytest.mark.parametrize("weight", [0.3, 0.9, 0.999])
def test_centred_smoothing_is_the_mean_under_the_two_sided_kernel(weight: float) -> None:
    values = np.random.default_rng(3).normal(size=200)
    values[[0, 70, 71]] = NAN, INF, NAN
    finite = np.isfinite(values)
    kept = values[finite]
    kernel = weight ** np.abs(np.subtract.outer(np.arange(kept.size), np.arange(kept.size)))
    np.testing.assert_allclose(smooth_centred(values, weight)[finite], kernel @ kept / kernel.sum(axis=1), rtol=1e-10)
    np.testing.assert_array_equal(smooth_centred(values, weight)[~finite], values[~finite])


def test_centred_smoothing_has_no_lag_where_tensorboards_has_some() -> None:
    line = np.arange(2000.0)
    lag = smooth(line, 0.95)[1000] - line[1000]
    assert lag == pytest.approx(-0.95 / 0.05, rel=1e-6)
    assert smooth_centred(line, 0.95)[1000] == pytest.approx(1000, abs=1e-6)


def test_another_way_of_smoothing_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="'median'"):
        smoothed(np.array([1.0]), 0.5, "median")
