"""What is said of a curve is what its figures allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmp.core.curve_reading import _percent, about, read_curve
from cmp.core.curves import LossCurve


def curve(values: np.ndarray, every: int = 1, tag: str = "loss") -> LossCurve:
    return LossCurve("run", tag, np.arange(1, values.size + 1) * every, values, None, Path("log"))


def noisy(level: np.ndarray, seed: int = 0, spread: float = 0.02) -> np.ndarray:
    return level + np.random.default_rng(seed).normal(0, spread, level.size)


def said(*arguments: object) -> str:
    return " ".join(read_curve(*arguments))  # type: ignore[arg-type]


def test_steps_that_lie_within_the_noise_are_said_to_be_alike_and_what_it_would_take() -> None:
    told = said(curve(noisy(np.full(3000, 0.1))), [1000, 2000, 3000])
    assert "cannot be told apart by this loss" in told and "steps a window" in told
    assert "From beginning to end no stretch of it differs" in told


def test_a_checkpoint_that_is_clearly_the_lowest_is_named() -> None:
    told = said(curve(noisy(np.repeat([0.5, 0.2, 0.4], 500))), [500, 1000, 1500])
    assert "step 1,000 has the lowest loss before it" in told and "cannot be told apart" not in told


def test_a_loss_that_still_falls_is_not_called_level() -> None:
    falls = said(curve(noisy(np.linspace(1, 0.2, 2000))))
    assert "still falling at the end" in falls and "below the one before it" in falls
    levels = said(curve(noisy(np.concatenate([np.linspace(1, 0.2, 1000), np.full(1000, 0.2)]))))
    assert "on no stretch differs from the last one" in levels and "still" not in levels


def test_the_noise_is_told_as_large_as_it_is_and_the_steps_between_points_count() -> None:
    told = said(curve(noisy(np.full(4000, 0.1), spread=0.05), every=10), [20000, 40000])
    spread = float(told.split("scatter by ")[1].split()[0])
    assert 0.045 < spread < 0.055
    needed = [int(word.replace(",", "")) for word in told.split("about ")[-1].split()[:1]]
    assert needed[0] > 20000, "steps, not points"


def test_a_held_out_loss_that_has_turned_is_told_with_its_step() -> None:
    held = curve(np.array([0.3, 0.2, 0.25, 0.4]), every=500, tag="val_loss")
    told = said(curve(noisy(np.full(2000, 0.1))), [], held)
    assert "val_loss) was lowest at step 1,000 (0.2) and has come to 0.4" in told


def test_values_that_are_not_finite_are_counted_and_change_nothing_else() -> None:
    values = noisy(np.full(500, 0.1))
    holed = np.append(values, [np.nan, np.inf])
    assert "2 of 502 values are not finite, first at step 501" in said(curve(holed))
    assert read_curve(curve(holed))[:2] == read_curve(curve(values))[:2]


def test_few_values_are_said_to_be_few_and_none_say_nothing() -> None:
    assert "too few" in said(curve(np.ones(10)))
    assert read_curve(curve(np.array([]))) == read_curve(curve(np.full(3, np.nan))) == ()
    assert "do not scatter" in said(curve(np.full(100, 0.5)))


def test_large_counts_are_said_in_two_digits() -> None:
    assert [about(n) for n in (7, 41_234, 1_299_999)] == ["7", "41,000", "1,300,000"]


def test_a_share_is_never_told_as_a_power_of_ten() -> None:
    told = [_percent(value) for value in (5e-05, 0.00012, 0.5, 1.0, 12.34, 99.4, 99.5, 99.99, 280.0, 12345.0)]
    assert told == ["under 0.0001", "0.00012", "0.5", "1", "12", "99", "100", "100", "280", "12,345"]
