"""Scores from embeddings, held against what they are by definition."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from cmp.core.comparing import Judged, judge_paired
from cmp.core.image_scores import (
    CMMD_SCALE,
    KINDS,
    SIGMA,
    clip_scores,
    cmmd_interval,
    cmmd_items,
    diversity,
    identity_scores,
    leak_scores,
    names_any,
    nearest_scores,
    preference_scores,
    reference_set,
    unit,
    usual_nearness,
)


def rows(count: int, seed: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def cmmd(x: np.ndarray, y: np.ndarray) -> float:
    """By its definition, pair by pair."""

    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
        return math.exp(-float(np.square(one - other).sum()) / (2 * SIGMA**2))

    within = [np.mean([kernel(a, b) for a, b in combinations(side, 2)]) for side in (x, y)]
    return float(CMMD_SCALE * (sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])))


def test_every_metric_says_its_limits() -> None:
    assert all(kind.limits and kind.told and kind.metric == name for name, kind in KINDS.items())
    assert "70.2 %" in " ".join(KINDS["preference"].limits) and "30 to 39" in " ".join(KINDS["clip"].limits)


def test_a_picture_is_scored_against_its_own_prompt_and_not_against_another() -> None:
    pictures, texts = rows(5, 1), rows(5, 2)
    found = clip_scores(pictures, texts)
    assert found == pytest.approx([100 * cosine(p, t) for p, t in zip(pictures, texts, strict=True)])
    assert clip_scores(pictures, np.roll(texts, 1, axis=0)).mean() != pytest.approx(found.mean(), abs=1e-3)


def test_as_many_prompts_as_pictures_are_needed() -> None:
    with pytest.raises(ValueError, match="belong"):
        clip_scores(rows(5, 1), rows(1, 2))


def test_a_preference_is_the_cosine_times_the_models_own_factor() -> None:
    pictures, texts = rows(4, 1), rows(4, 2)
    assert preference_scores(pictures, texts, math.log(50.0)) == pytest.approx(clip_scores(pictures, texts) / 2)


@pytest.mark.parametrize(("n", "m"), [(3, 2), (7, 12), (20, 5)])
def test_the_mean_of_the_pseudo_values_is_cmmd_by_its_definition(n: int, m: int) -> None:
    x, y = rows(n, 1), rows(m, 2) + 0.5
    assert cmmd_items(x, reference_set(y)).mean() == pytest.approx(cmmd(x, y), abs=1e-9)


def test_a_pseudo_value_is_what_leaving_its_picture_out_changes() -> None:
    x, y = rows(6, 1), rows(9, 2)
    found = cmmd_items(x, reference_set(y))
    assert found[4] == pytest.approx(6 * cmmd(x, y) - 5 * cmmd(np.delete(x, 4, axis=0), y), abs=1e-9)


def test_cmmd_of_sets_that_are_alike_is_as_often_below_zero_as_above() -> None:
    found = [cmmd_items(rows(8, seed), reference_set(rows(8, 1000 + seed))).mean() for seed in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(len(found))
    assert 0.4 < np.mean(np.array(found) < 0) < 0.75  # its law leans to the right


def test_cmmd_does_not_depend_on_how_long_embeddings_are() -> None:
    x, y = rows(5, 1), rows(7, 2)
    assert cmmd_items(3 * x, reference_set(0.1 * y)) == pytest.approx(cmmd_items(x, reference_set(y)), abs=1e-9)


def test_kernels_in_several_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(7, 1), rows(11, 2)
    known = reference_set(y)
    whole, interval = cmmd_items(x, known), cmmd_interval(x, known)
    monkeypatch.setattr("cmp.core.image_scores._BLOCK", 3)
    again = reference_set(y)
    assert cmmd_items(x, again) == pytest.approx(whole, abs=1e-9) and cmmd_interval(x, again) == pytest.approx(interval, abs=1e-9)


def test_nine_of_ten_intervals_of_cmmd_and_more_hold_the_truth() -> None:
    shift = np.array([1.5, 0, 0, 0, 0, 0])
    large_x, large_y = rows(3000, 1) + shift, rows(3000, 2)
    truth = cmmd_items(large_x, reference_set(large_y)).mean()
    held = []
    for seed in range(200):
        low, high = cmmd_interval(rows(25, 10 + seed) + shift, reference_set(rows(30, 5000 + seed), seed), 9000 + seed)
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.9


def test_nearness_is_that_of_the_nearest_and_says_which_it_is() -> None:
    training = rows(5, 1)
    pictures = np.stack([2 * training[3], training[0] + 0.01])
    values, which = nearest_scores(pictures, training)
    assert which == (3, 0) and values[0] == pytest.approx(1.0) and values[1] < 1


def test_a_training_image_is_not_its_own_neighbour() -> None:
    training = np.eye(4)
    assert usual_nearness(training) == pytest.approx(0.0) and usual_nearness(training[:1]) is None


def test_identity_is_the_mean_over_all_references() -> None:
    pictures, references = rows(2, 1), rows(3, 2)
    assert identity_scores(pictures, references)[1] == pytest.approx(np.mean([cosine(pictures[1], r) for r in references]))


def test_a_picture_that_is_the_bases_leaks_nothing() -> None:
    bases = rows(3, 1)
    assert leak_scores(bases.copy(), bases) == pytest.approx([0, 0, 0], abs=1e-12)
    assert leak_scores(-bases, bases) == pytest.approx([2, 2, 2])


def test_diversity_is_within_a_prompt_alone_and_shows_near_duplicates() -> None:
    a, b, c = np.eye(3)
    pictures = np.stack([a, b, a + 0.01 * c, c, c])
    found = diversity(pictures, ["shoe", "hat", "shoe", "hat", "coat"])
    assert [(one.group, one.pairs) for one in found] == [("shoe", 1), ("hat", 1)]  # one picture has nothing to differ from
    assert found[0].value == pytest.approx(1 - cosine(a, a + 0.01 * c)) and found[1].value == pytest.approx(1.0)
    ((first, second, alike),) = found[0].near
    assert (first, second) == (0, 2) and alike > 0.999
    assert found[1].near == ()


def test_what_has_no_direction_has_no_score() -> None:
    assert np.isnan(unit(np.zeros((1, 3)))).all()
    assert np.isnan(clip_scores(np.zeros((1, 3)), np.ones((1, 3)))).all()


@pytest.mark.parametrize(
    ("prompt", "words", "found"),
    [
        ("a photo of SKS dog", ["sks"], True),
        ("a photo of sksdog", ["sks"], False),
        ("a red casual shoe", ["casual shoe"], True),
        ("casual shoes", ["casual shoe"], False),
        ("a <tok> on grass", ["<tok>"], True),
        ("anything", ["", " "], False),
    ],
)
def test_a_word_is_found_as_a_whole_word(prompt: str, words: list[str], found: bool) -> None:
    assert names_any(prompt, words) is found


def judged(seed: int, apart: float) -> Judged:
    """Three checkpoints' pictures of the same items against one set of references; each is farther from them by so much than the last."""
    rng = np.random.default_rng(seed)
    shared, known, away = rng.normal(size=(20, 32)), reference_set(rng.normal(size=(40, 32))), np.eye(32)[0]
    pictures = [0.7 * shared + 0.7 * rng.normal(size=(20, 32)) + (1 + apart * i) * away for i in range(3)]
    found = judge_paired(np.array([cmmd_items(one, known) for one in pictures]), lower_is_better=True)
    assert found is not None
    return found


def test_cmmd_keeps_equals_in_the_window_and_finds_what_is_worse() -> None:
    assert np.mean([len(judged(seed, 0.0).window) < 3 for seed in range(100)]) <= 0.07
    assert np.mean([2 not in judged(seed, 0.8).window for seed in range(25)]) >= 0.9
