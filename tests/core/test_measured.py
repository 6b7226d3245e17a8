"""What measured values say: shares of the base's loss, windows that hold what they promise, and what was learned by heart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cmp.core.evidence import BASE
from cmp.core.measured import LOSS, TRAINING_LOSS, Measured, by_band, evidence_of, gaps_of, smallest_difference
from cmp.core.picking import BASE as BASE_AGAIN
from cmp.core.picking import gate, verdict_of

LEVELS = np.array([0.9, 0.2, 0.04, 0.003])  # as losses fall from little noise to much
BANDS = ("125", "375", "625", "875")
IDS = tuple(f"r@{step}" for step in (500, 1000, 1500, 2000, 2500, 3000))


def measured(name: str, values: np.ndarray, metric: str = LOSS, **more: object) -> Measured:
    items = tuple(f"{n}.png" for n in range(len(values)))
    told = {"lower_is_better": True, "relative": True, **more}
    return Measured(metric, name, "" if name == BASE else f"w-{name}", "b", "s", items, values, BANDS[: values.shape[1]], **told)  # type: ignore[arg-type]


def simulated(seed: int, gains: Sequence[float], items: int, metric: str = LOSS, base: bool = True) -> list[Measured]:
    """Images that are easy or hard by a factor of three, draws that all share, and what a checkpoint has with an image by itself."""
    rng = np.random.default_rng(seed)
    image = np.exp(0.6 * rng.normal(size=(items, 1)) + 0.3 * rng.normal(size=(items, 4)))
    zero = LEVELS * image * (1 + 0.2 * rng.normal(size=(items, 4)))
    own = [zero * gain * (1 + 0.03 * rng.normal(size=(items, 1)) + 0.02 * rng.normal(size=(items, 4))) for gain in gains]
    found = [measured(name, values, metric) for name, values in zip(IDS, own, strict=False)]
    return [*found, *([measured(BASE, zero, metric)] if base else [])]


def window(found: Sequence[Measured], seed: int) -> tuple[str, ...]:
    evidence = evidence_of(found, IDS[: len(found) - 1])
    assert evidence is not None
    return verdict_of(evidence, evidence.ids, seed).window


# -- windows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "items"), [(2, 5), (6, 8), (6, 24), (4, 60)])
def test_of_checkpoints_that_are_equally_good_hardly_ever_one_wins(size: int, items: int) -> None:
    windows = [window(simulated(seed, [0.6] * size, items), seed) for seed in range(300)]
    assert np.mean([len(found) == 1 for found in windows]) <= 0.07
    assert np.mean([len(found) == size for found in windows]) >= 0.93


@pytest.mark.parametrize(("gains", "items"), [((0.62, 0.6, 0.605, 0.61, 0.63, 0.65), 24), ((0.7, 0.6, 0.6, 0.8, 0.9, 0.9), 12)])
def test_the_window_holds_the_truly_best(gains: tuple[float, ...], items: int) -> None:
    best = {name for name, gain in zip(IDS, gains, strict=True) if gain == min(gains)}
    assert np.mean([best <= set(window(simulated(seed, gains, items), seed)) for seed in range(300)]) >= 0.93


def test_a_band_of_tiny_losses_counts_as_much_as_one_of_large_ones() -> None:
    """Where only the largest counted, the first would be the best: it is a fifth better there and far worse everywhere else."""
    rng = np.random.default_rng(1)
    zero = LEVELS * np.exp(0.2 * rng.normal(size=(20, 1))) * np.ones(4)
    found = [measured(IDS[0], zero * [0.8, 1.5, 1.5, 1.5]), measured(IDS[1], zero), measured(BASE, zero)]
    assert window(found, 0) == (IDS[1],) and found[0].values.mean() < found[1].values.mean()


def test_values_are_shares_of_the_base_and_images_that_are_hard_for_all_do_not_widen_them() -> None:
    found = simulated(3, [0.5, 0.8], 24)
    evidence = evidence_of(found, IDS, base=True)
    assert evidence is not None and evidence.ids == (*IDS[:2], BASE) and BASE == BASE_AGAIN
    zero = found[-1].values
    assert np.allclose(evidence.values, [(one.values.mean(axis=0) / zero.mean(axis=0)).mean() for one in found])
    assert evidence.values[2] == 1.0 and evidence.covariance[2, 2] == 0
    scores = {score.checkpoint_id: score for score in verdict_of(evidence, IDS).scores}
    assert scores[IDS[0]].low is not None and scores[IDS[0]].high is not None
    assert scores[IDS[0]].low < evidence.values[0] < scores[IDS[0]].high < 1
    judged = gate(evidence, IDS[0], BASE)
    assert judged is not None and judged.passes is True and judged.high < 0


def test_without_a_base_checkpoints_are_judged_all_the_same_and_it_is_told() -> None:
    found = simulated(4, [0.5, 0.8, 0.9], 24)
    with_base, without = evidence_of(found, IDS), evidence_of(found[:-1], IDS)
    assert with_base and without and not with_base.warnings[:-1]
    assert verdict_of(without, IDS).window == verdict_of(with_base, IDS).window == (IDS[0],)
    assert any("base model has no finite values" in told for told in without.warnings)


# -- what is told ----------------------------------------------------------------------------------------------------------


def test_what_is_not_finite_or_not_measured_is_told_and_never_in_the_window() -> None:
    found = simulated(5, [0.6, 0.6, 0.6], 24)
    found[1] = replace(found[1], values=np.where(np.arange(24)[:, None] == 3, np.nan, found[1].values))
    evidence = evidence_of(found, IDS[:4])
    assert evidence is not None and evidence.ids == (IDS[0], IDS[2])
    assert any("step 1000" in told and "not all finite" in told for told in evidence.warnings)
    assert any("not measured: step 2000" in told for told in evidence.warnings)
    verdict = verdict_of(evidence, IDS[:4])
    assert set(verdict.unknown) == {IDS[1], IDS[3]} and not {IDS[1], IDS[3]} & set(verdict.window)
    assert evidence_of(found[:2], IDS) is None and evidence_of(found[:2], IDS, fewest=1) is not None


def test_the_training_loss_never_names_a_best_however_clear_it_is() -> None:
    evidence = evidence_of(simulated(6, [0.9, 0.6, 0.2], 24, TRAINING_LOSS), IDS)
    assert evidence is not None and not evidence.decides
    verdict = verdict_of(evidence, IDS[:3])
    assert verdict.best is None and verdict.window == IDS[:3] and not verdict.decides
    assert "training loss names no best" in verdict.reason and any("by heart" in told for told in verdict.warnings)


def test_the_window_of_few_images_is_everything_and_says_so() -> None:
    evidence = evidence_of(simulated(7, [0.9, 0.1], 4), IDS)
    assert evidence is not None and any("4 items are too few" in told for told in evidence.warnings)
    assert verdict_of(evidence, IDS[:2]).window == (IDS[1], IDS[0])
    judged = gate(evidence, IDS[1], IDS[0])
    assert judged is not None and judged.passes is None


def test_the_smallest_difference_is_found_four_times_in_five_and_half_of_it_seldom() -> None:
    """As it is promised: for two checkpoints, by a paired comparison."""
    smallest = smallest_difference(np.array([one.values.mean(axis=1) for one in simulated(0, [0.6, 0.6], 4000, base=False)]))
    assert smallest is not None
    rng = np.random.default_rng(8)
    scatter = 0.05
    known = smallest_difference(scatter * rng.normal(size=(2, 24)) + 3 * rng.normal(size=24))
    assert known is not None
    expected = (1.96 + 0.84) * scatter * 2**0.5 / 24**0.5
    assert 0.6 * expected < known < 1.6 * expected

    def found(difference: float) -> float:
        wins = 0
        for seed in range(300):
            drawn = np.random.default_rng(seed)
            values = np.array([0.6, 0.6 + difference])[:, None] + scatter * drawn.normal(size=(2, 24)) + drawn.normal(size=24)
            pair = [measured(name, 1 * row[:, None], relative=False) for name, row in zip(IDS, values, strict=False)]
            evidence = evidence_of(pair, IDS[:2])
            assert evidence is not None
            wins += verdict_of(evidence, IDS[:2], seed).window == (IDS[0],)
        return wins / 300

    assert 0.65 < found(expected) < 0.9 and found(expected / 2) < 0.45
    assert smallest_difference(np.ones((1, 24))) is None and smallest_difference(np.ones((3, 4))) is None


def test_by_timestep_each_band_has_its_own_share_and_an_interval_of_its_difference_to_the_base() -> None:
    found = simulated(9, [0.5], 24)
    found[0] = replace(found[0], values=found[-1].values * [0.5, 1.0, 1.5, 1.0])
    bands = by_band(found)[IDS[0]]
    assert [band.as_json()["timestep"] for band in bands] == [125, 375, 625, 875]
    assert np.allclose([band.value for band in bands], [0.5, 1, 1.5, 1])
    assert bands[0].high is not None and bands[0].high < 1 and bands[2].low is not None and bands[2].low > 1
    assert all(band.low is not None and band.low <= band.value <= (band.high or 0) for band in bands)
    assert by_band([replace(one, values=one.values[:, :1], bands=("",)) for one in found]) == {}
    assert by_band([replace(one, values=one.values[:3], items=one.items[:3]) for one in found])[IDS[0]][0].low is None


def test_the_gap_between_the_sets_grows_as_images_are_learned_by_heart() -> None:
    held, trained = simulated(10, [0.6, 0.6, 0.6], 40), simulated(11, [0.59, 0.4, 0.2], 40, TRAINING_LOSS)
    found = gaps_of(evidence_of(held, IDS), evidence_of(trained, IDS))
    assert [gap.checkpoint_id for gap in found] == list(IDS[:3])
    assert found[0].value < found[1].value < found[2].value and found[2].low is not None and found[2].low > 0
    assert gaps_of(evidence_of(held, IDS), None) == ()
    few = gaps_of(evidence_of(held, IDS), evidence_of(simulated(11, [0.5, 0.5, 0.5], 4, TRAINING_LOSS), IDS))
    assert few[0].low is None


@pytest.mark.parametrize("lost", [LOSS, TRAINING_LOSS])
def test_there_is_no_gap_where_one_loss_is_no_share_of_the_base_models(lost: str) -> None:
    sets = {LOSS: simulated(10, [0.6, 0.6, 0.6], 40), TRAINING_LOSS: simulated(11, [0.59, 0.4, 0.2], 40, TRAINING_LOSS)}
    assert len(gaps_of(evidence_of(sets[LOSS], IDS), evidence_of(sets[TRAINING_LOSS], IDS))) == 3
    sets[lost][-1].values[0, 0] = np.inf
    unsure = evidence_of(sets[lost], IDS)
    assert unsure is not None and len(unsure.ids) == 3 and "shares of the mean of all checkpoints" in unsure.floor
    assert gaps_of(evidence_of(sets[LOSS], IDS), evidence_of(sets[TRAINING_LOSS], IDS)) == ()


def test_a_metric_without_bands_is_not_divided_by_anything() -> None:
    rng = np.random.default_rng(12)
    values = [rng.normal(loc=level, scale=0.1, size=(24, 1)) for level in (30, 31, 29)]
    names = (*IDS[:2], BASE)
    found = [measured(name, own, "clip", lower_is_better=False, relative=False) for name, own in zip(names, values, strict=True)]
    evidence = evidence_of(found, IDS[:2])
    assert (
        evidence is not None
        and evidence.rule == "clip"
        and evidence.decides
        and np.allclose(evidence.values, [own.mean() for own in values[:2]])
    )
    assert verdict_of(evidence, IDS[:2]).best == IDS[1]


def test_values_and_names_of_different_counts_are_no_measurement() -> None:
    with pytest.raises(ValueError, match="3"):
        Measured(LOSS, "r@1", "w", "b", "s", ("a", "b"), np.ones((3, 1)))
