"""What a chart is sent: real points, rounded, in the window and no larger than a screen needs."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from cmp.core.curve_points import View, band_json, line_of, marks_json, points_json, read_view, window_of
from cmp.core.curves import LossCurve
from cmp.errors import BadInput


def curve(points: int = 100_000, seed: int = 0) -> LossCurve:
    steps = np.arange(1, points + 1)
    values = 0.1 + np.exp(-steps / 9000) + np.random.default_rng(seed).normal(0, 0.02, points)
    return LossCurve("run", "loss", steps, values, 1.7e9 + steps * 0.25, Path("log"))


def sent(view: View, found: LossCurve | None = None) -> dict:
    line = line_of(found or curve(), view)
    assert line is not None
    return json.loads(json.dumps(points_json(line, view, window_of([line], view), 1), allow_nan=False))


def test_every_sent_point_is_a_logged_one_to_five_digits() -> None:
    found = curve(20_000)
    told = sent(View(weight=0.6), found)
    steps = list(accumulate(told["raw"]["x"]))
    assert steps[0] == 1 and steps[-1] == 20_000 and len(steps) < 2000
    for step, value in zip(steps, told["raw"]["y"], strict=True):
        assert value == float(f"{found.values[step - 1]:.5g}")
    smooth = list(accumulate(told["smooth"]["x"]))
    assert told["smooth"]["r"] == [float(f"{found.values[step - 1]:.5g}") for step in smooth]


def test_a_narrow_window_is_sent_whole_and_the_same_steps_of_two_runs_stay_together() -> None:
    view = View(low=50_000, high=50_300)
    told = [sent(view, curve(seed=seed))["raw"]["x"] for seed in (1, 2)]
    assert told[0] == told[1] and list(accumulate(told[0])) == list(range(49_999, 50_302))


def test_outliers_are_outside_of_the_usual_heights_and_inside_of_all() -> None:
    found = curve(5000)
    found.values[2500] = 70.0
    told = sent(View(weight=0.0), found)
    assert told["usual"][1] < 3 and told["full"][1] == 70.0 and told["smooth"] is None


def test_times_are_milliseconds_with_the_steps_beside_them_and_a_clock_set_back_is_sorted() -> None:
    found = curve(600)
    assert found.wall_times is not None
    found.wall_times[300:] -= 3600
    told = sent(View(axis="relative"), found)
    times = list(accumulate(told["raw"]["x"]))
    assert times == sorted(times) and times[0] == 0
    assert list(range(1, 601)) == sorted(accumulate(told["raw"]["s"]))
    without = LossCurve("run", "loss", found.steps, found.values, None, Path("log"))
    assert line_of(without, View(axis="wall")) is None


def test_a_logarithmic_axis_begins_at_the_first_positive_step() -> None:
    found = LossCurve("run", "loss", np.arange(0, 50_000), np.ones(50_000), None, Path("log"))
    told = sent(View(log_x=True), found)
    steps = list(accumulate(told["raw"]["x"]))
    assert steps[:4] == [1, 2, 3, 4] and steps[-1] == 49_999


def test_a_trend_goes_through_all_points_of_the_window_and_a_band_covers_it() -> None:
    steps = np.arange(1, 2001)
    found = LossCurve("run", "loss", steps, 1 - steps / 4000 + np.random.default_rng(1).normal(0, 0.01, 2000), None, Path("log"))
    told = sent(View(trend=True), found)["trend"]
    assert (told["from"], told["to"]) == pytest.approx((1.0, 0.5), abs=0.01)
    line = line_of(found, View())
    assert line is not None
    band = band_json(line, (1, 2000), False)
    assert len(band) == 24 and sum(low <= 1 - (a + b) / 2 / 4000 <= high for a, b, _, low, high in band) >= 20


def test_marks_lie_on_the_smoothed_line_or_as_high_as_the_last_point_before_and_far_ones_are_left_out() -> None:
    found = LossCurve("run", "loss", np.arange(10, 1001, 10), np.linspace(1, 0, 100), None, Path("log"))
    line = line_of(found, View(weight=0.0))
    assert line is not None
    assert marks_json(line, [500, 1004, 5000]) == [[500, 500.0, 0.50505], [1004, 1004.0, 0.0]]


def test_what_is_not_finite_is_null_and_marked() -> None:
    found = curve(500)
    found.values[[10, 20]] = np.nan, np.inf
    told = sent(View(), found)
    assert told["broken"] == [11.0, 21.0] and told["raw"]["y"][10] is None and told["smooth"]["y"][20] is None


@pytest.mark.parametrize(
    "asked",
    [{"axis": "epoch"}, {"smooth": "1"}, {"smooth": "x"}, {"way": "median"}, {"low": "nan"}, {"low": "5", "high": "4"}, {"high": "1e99"}],
)
def test_fields_that_cannot_be_used_are_refused(asked: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        read_view(asked)


def test_points_that_may_be_compared_between_runs_were_not_chosen_by_their_height() -> None:
    values = [curve(seed=seed) for seed in range(4)]
    told = [sent(View(), found)["smooth"] for found in values]
    ends = [list(accumulate(line["e"])) for line in told]
    steps = [[list(accumulate(line["x"]))[i] for i in places] for line, places in zip(told, ends, strict=True)]
    assert steps[0] == steps[1] == steps[2] == steps[3] and len(steps[0]) > 150
    late = [y for line, places in zip(told, ends, strict=True) for y in (line["y"][i] for i in places[len(places) // 2 :])]
    every = [y for line in told for y in line["y"][len(line["y"]) // 2 :]]
    assert np.std(every) > 1.5 * np.std(late), "the others are the lowest and highest ones"
    assert "e" not in sent(View(low=500, high=600), values[0])["smooth"]
