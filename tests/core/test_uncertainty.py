"""Intervals against simulated noise whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cmp.core.uncertainty import block_length, difference_interval, long_run_variance, mean_interval, points_needed


def noise(points: int, memory: float, seed: int) -> np.ndarray:
    """x_i = memory · x_(i-1) + e_i, from its stationary distribution; the long-run variance is 1 / (1 - memory)²."""
    random = np.random.default_rng(seed)
    shocks = random.normal(size=points)
    shocks[0] /= math.sqrt(1 - memory**2)
    values = np.empty(points)
    last = 0.0
    for i, shock in enumerate(shocks.tolist()):
        last = values[i] = memory * last + shock
    return values


@pytest.mark.parametrize(
    ("points", "memory", "least"), [(200, 0.0, 0.92), (200, 0.5, 0.90), (500, 0.8, 0.90), (2000, 0.5, 0.92), (2000, 0.9, 0.90)]
)
def test_an_interval_at_95_percent_holds_the_truth_about_so_often(points: int, memory: float, least: float) -> None:
    seeds = range(300)
    found = [mean_interval(noise(points, memory, seed), seed) for seed in seeds]
    hits = sum(interval is not None and interval.low <= 0 <= interval.high for interval in found)
    assert least <= hits / len(seeds) <= 0.98


def test_an_interval_that_takes_points_for_independent_would_fail_that_test() -> None:
    hits = 0
    for seed in range(300):
        values = noise(2000, 0.9, seed)
        hits += abs(values.mean()) <= 1.96 * values.std() / math.sqrt(values.size)
    assert hits / 300 < 0.5


def test_a_difference_of_two_windows_is_found_and_none_is_not_invented() -> None:
    same = [difference_interval(noise(400, 0.6, seed), noise(400, 0.6, seed + 10_000), seed) for seed in range(200)]
    assert 0.90 <= sum(gap is not None and gap.holds_zero for gap in same) / 200 <= 0.985
    far = difference_interval(noise(400, 0.6, 1), noise(400, 0.6, 2) + 2.0)
    assert far is not None and far.low > 0 and far.low < far.value < far.high


def test_the_points_that_are_said_to_be_needed_find_the_difference_in_four_of_five_windows() -> None:
    """A difference of 0.4 in noise of memory 0.5: with as many points a window as told, it is found about so often."""
    needed = points_needed(0.4, noise(4000, 0.5, 7), noise(4000, 0.5, 8))
    assert needed == pytest.approx(2 * 4 * (2.8 / 0.4) ** 2, rel=0.25)
    found = 0
    for seed in range(200):
        gap = difference_interval(noise(round(needed), 0.5, seed), 0.4 + noise(round(needed), 0.5, seed + 10_000), seed)
        found += gap is not None and gap.low > 0
    assert 0.7 <= found / 200 <= 0.92
    assert points_needed(0.0, noise(100, 0.5, 1)) == math.inf


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_the_long_run_variance_is_that_of_the_noise(memory: float) -> None:
    found = np.mean([long_run_variance(noise(3000, memory, seed)) for seed in range(20)])
    assert found == pytest.approx(1 / (1 - memory) ** 2, rel=0.12)


def test_blocks_grow_with_the_memory_and_are_short_without_one() -> None:
    lengths = [np.median([block_length(noise(2000, memory, seed)) for seed in range(9)]) for memory in (0.0, 0.5, 0.9)]
    assert lengths[0] <= 4 < lengths[1] < lengths[2] < 200


def test_the_same_values_and_seed_give_the_same_interval_and_gaps_do_not_count() -> None:
    values = noise(500, 0.5, 3)
    holed = np.insert(values, [10, 200], [np.nan, np.inf])
    assert mean_interval(values, 4) == mean_interval(values, 4) == mean_interval(holed, 4)
    assert mean_interval(values, 4) != mean_interval(values, 5)


def test_a_falling_loss_is_not_taken_for_noise() -> None:
    values = noise(1000, 0.3, 5)
    level, falling = mean_interval(values), mean_interval(values - np.linspace(0, 500, 1000))
    assert level is not None and falling is not None
    assert falling.high - falling.low == pytest.approx(level.high - level.low, rel=1e-6)


def test_too_few_points_give_no_interval_and_constant_ones_one_of_no_width() -> None:
    assert mean_interval(np.ones(19)) is None
    flat = mean_interval(np.full(100, 0.5))
    assert flat is not None and flat.low == flat.high == 0.5 and flat.effective == 100


def test_a_million_points_are_no_burden_to_memory_or_reason() -> None:
    found = mean_interval(np.random.default_rng(0).normal(size=1_000_000))
    assert found is not None and found.high - found.low == pytest.approx(2 * 1.96 / 1000, rel=0.1)
