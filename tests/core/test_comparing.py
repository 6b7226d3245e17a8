"""The window holds what it says: with a known truth, over many seeds."""

from __future__ import annotations

import numpy as np
import pytest

from cmp.core.comparing import judge_apart, judge_paired, t_quantile

SEEDS = 200
NOISES = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy": lambda rng, shape: rng.standard_t(3, size=shape),
    "unequal": lambda rng, shape: rng.normal(size=shape) * np.linspace(0.2, 2, shape[0])[:, None],
}


def scores(seed: int, truth: list[float], items: int, noise: str) -> np.ndarray:
    """What an item adds to all of them is three times as large as what tells them apart, as with losses of different images."""
    rng = np.random.default_rng(seed)
    return np.array(truth)[:, None] + 3 * rng.normal(size=items) + NOISES[noise](rng, (len(truth), items))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("size", "items"), [(2, 5), (6, 8), (6, 24)])
def test_of_checkpoints_that_are_equally_good_all_stay_and_hardly_ever_one_wins(size: int, items: int, noise: str) -> None:
    windows = [judged.window for seed in range(SEEDS) if (judged := judge_paired(scores(seed, [0.0] * size, items, noise), True, seed))]
    assert len(windows) == SEEDS
    assert np.mean([len(window) == 1 for window in windows]) <= 0.07
    assert np.mean([len(window) == size for window in windows]) >= 0.93


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("truth", [[0, 0.3, 0.6, 1, 1.5, 2], [0, 0, 2, 2, 2, 2], [0.1, 0, 0.1, 0.2, 0.4]])
def test_the_window_holds_all_that_are_truly_best(truth: list[float], noise: str) -> None:
    best = {i for i, value in enumerate(truth) if value == min(truth)}
    held = [best <= set(judged.window) for seed in range(SEEDS) if (judged := judge_paired(scores(seed, truth, 24, noise), True, seed))]
    assert np.mean(held) >= 0.93


def test_a_large_difference_is_found_by_twelve_items_and_what_is_better_can_be_more() -> None:
    for sign, lower in ((1, True), (-1, False)):
        judged = [judge_paired(sign * scores(seed, [3.0, 0.0, 3.0, 3.0], 12, "normal"), lower, seed) for seed in range(50)]
        assert all(one is not None and one.leader == 1 for one in judged)
        assert np.mean([one is not None and one.window == (1,) for one in judged]) > 0.9


def test_outside_the_window_and_behind_by_more_than_nothing_are_the_same() -> None:
    for seed in range(40):
        judged = judge_paired(scores(seed, [0, 0.3, 0.8, 1.2, 2.5], 20, "skewed"), True, seed)
        assert judged is not None
        assert [i in judged.window for i in range(5)] == [low <= 0 for low in judged.gap_low]
        assert judged.gaps[judged.leader] == judged.gap_low[judged.leader] == judged.gap_high[judged.leader] == 0


def test_the_same_seed_gives_the_same_and_another_nearly_so() -> None:
    values = scores(1, [0, 0.5, 1], 24, "normal")
    one, again, other = (judge_paired(values, True, seed) for seed in (5, 5, 6))
    assert one and again and other
    assert (one.gap_low == again.gap_low).all() and one.window == again.window
    assert np.allclose(one.gap_low, other.gap_low, atol=0.15)


def test_equal_scores_are_tied_and_few_items_tell_nothing_apart() -> None:
    same = np.tile(np.arange(8.0), (3, 1))
    judged = judge_paired(same, True)
    assert judged is not None and set(judged.window) == {0, 1, 2}
    few = judge_paired(np.array([[0.0] * 4, [9.0] * 4]), True)
    assert few is not None and few.window == (0, 1) and np.isnan(few.gap_low).all()


def test_one_checkpoint_is_alone_none_is_nothing_and_what_is_not_finite_is_no_score() -> None:
    alone = judge_paired(np.ones((1, 9)), True)
    assert alone is not None and alone.window == (0,)
    assert judge_paired(np.empty((0, 5)), True) is None and judge_paired(np.empty((3, 0)), True) is None
    with pytest.raises(ValueError, match="finite"):
        judge_paired(np.array([[1.0, np.nan]]), True)


@pytest.mark.parametrize("freedom", [None, 3.0, 20.0])
def test_values_with_errors_of_their_own_are_tied_as_often_as_promised(freedom: float | None) -> None:
    single = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        spread = 1.0 if freedom is None else rng.chisquare(freedom) / freedom
        judged = judge_apart(rng.normal(size=4), spread * np.eye(4), True, freedom, seed)
        single.append(len(judged.window) < 4)
    assert np.mean(single) <= 0.07


def test_errors_of_which_nothing_is_known_tell_nothing_apart() -> None:
    judged = judge_apart(np.array([1.0, 9.0]), np.zeros((2, 2)), False, 0)
    assert judged.window == (1, 0) and np.isnan(judged.low).all()


@pytest.mark.parametrize(("freedom", "quantile"), [(None, 1.95996), (2, 4.30265), (5, 2.57058), (10, 2.22814), (30, 2.04227)])
def test_the_quantiles_are_those_of_the_tables(freedom: float | None, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, rel=0.03 if freedom == 2 else 0.002)
