from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmp.core.curves import LossCurve, Part, as_json, is_epoch_axis, loss_tag, merge

NAN, INF = math.nan, math.inf


def part(steps: list[int], values: list[float] | None = None, name: str = "a", begins: int | None = None) -> Part:
    numbers = np.array(steps if values is None else values, dtype=np.float64)
    return Part(np.array(steps, dtype=np.int64), numbers, numbers + 1000, Path(name), begins)


def points(curve: LossCurve) -> dict[int, float]:
    return dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))


def test_a_later_file_wins_from_its_first_step_on_even_where_it_has_not_come_as_far() -> None:
    curve = merge("run", "loss", [part([1, 2, 3, 4, 5, 6], [1.0] * 6), part([3, 4], [2.0, 2.0], "b")])
    assert points(curve) == {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0}
    assert [branch.steps.tolist() for branch in curve.abandoned] == [[3, 4, 5, 6]]
    assert curve.source == Path("b")
    assert any("starts again at step 3" in note and "4 points" in note for note in curve.notes)


def test_what_was_overwritten_keeps_the_times_at_which_it_was_logged() -> None:
    first, second = part([1, 2]), part([3, 4], name="b")
    curve = merge("run", "loss", [first, second, part([2], [9.0], "c")])
    (branch,) = curve.abandoned
    assert branch.wall_times is not None and branch.wall_times.tolist() == [1002, 1003, 1004]
    without = Part(np.array([3, 4]), np.array([3.0, 4.0]), None, Path("b"))
    (branch,) = merge("run", "loss", [first, without, part([2], [9.0], "c")]).abandoned
    assert branch.wall_times is None, "a time that is not known is not made up"


def test_a_clean_resume_abandons_nothing_and_says_nothing() -> None:
    curve = merge("run", "loss", [part([1, 2, 3]), part([4, 5], name="b")])
    assert curve.steps.tolist() == [1, 2, 3, 4, 5]
    assert curve.abandoned == () and curve.notes == ()


def test_a_session_start_voids_older_points_before_anything_new_is_logged() -> None:
    curve = merge("run", "loss", [part([1, 2, 3, 4]), part([], name="b", begins=3)])
    assert curve.steps.tolist() == [1, 2]
    assert curve.source == Path("a")


def test_three_starts_leave_one_curve_without_a_zigzag() -> None:
    first, second, third = part(list(range(1, 31))), part(list(range(21, 46)), name="b"), part(list(range(40, 51)), name="c")
    curve = merge("run", "loss", [first, second, third])
    assert curve.steps.tolist() == list(range(1, 51))
    assert [(branch.steps[0], branch.steps[-1]) for branch in curve.abandoned] == [(21, 30), (40, 45)]


def test_a_restart_cuts_through_several_older_files() -> None:
    curve = merge("run", "loss", [part([1, 2]), part([3, 4], name="b"), part([5, 6], name="c"), part([2], [9.0], "d")])
    assert points(curve) == {1: 1.0, 2: 9.0}
    assert curve.abandoned[0].steps.tolist() == [2, 3, 4, 5, 6]


def test_the_last_of_two_values_for_one_step_is_used_and_a_note_says_so() -> None:
    curve = merge("run", "loss", [part([1, 1, 2, 2], [10.0, 11.0, 20.0, 21.0])])
    assert points(curve) == {1: 11.0, 2: 21.0}
    assert curve.notes == ("a: 2 of 4 values repeat a step; the last one of each step is used",)


def test_steps_out_of_order_are_sorted_with_their_values_and_times() -> None:
    curve = merge("run", "loss", [part([3, 1, 2])])
    assert points(curve) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert curve.wall_times is not None and curve.wall_times.tolist() == [1001, 1002, 1003]
    assert curve.notes == ("a: steps are out of order; sorted",)


def test_values_that_are_not_finite_stay_and_are_counted() -> None:
    values = [0.5] * 50
    values[16:19] = [NAN, INF, -INF]
    curve = merge("run", "loss", [part(list(range(1, 51)), values)])
    assert curve.non_finite == ((17, "nan"), (18, "inf"), (19, "-inf"))
    assert curve.notes == ("3 of 50 points are not finite, first at step 17",)


def test_wall_times_are_given_only_if_every_part_has_them() -> None:
    without = Part(np.array([3]), np.array([3.0]), None, Path("b"))
    assert merge("run", "loss", [part([1, 2]), without]).wall_times is None


def test_nothing_logged_yet_is_an_empty_curve() -> None:
    curve = merge("run", "loss", [part([])])
    assert curve.steps.size == 0 and curve.source == Path("a")
    assert as_json(curve)["steps"] == []


steps_of_files = st.lists(st.lists(st.integers(-3, 40), max_size=20), min_size=1, max_size=5)


@settings(deadline=None)
@given(steps_of_files)
def test_merging_keeps_what_reading_the_files_one_step_at_a_time_would_keep(files: list[list[int]]) -> None:
    expected: dict[int, float] = {}
    parts = []
    for number, steps in enumerate(files):
        values = [number * 100.0 + place for place in range(len(steps))]
        parts.append(part(steps, values, f"file{number}"))
        if steps:
            expected = {step: value for step, value in expected.items() if step < min(steps)}
        expected.update(zip(steps, values, strict=True))
    curve = merge("run", "loss", parts)
    assert points(curve) == expected
    assert (np.diff(curve.steps) > 0).all()
    distinct = sum(len(set(steps)) for steps in files)
    assert curve.steps.size + sum(branch.steps.size for branch in curve.abandoned) == distinct


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["loss", "lr", "epoch"], "loss"),
        (["lr", "train_loss"], "train_loss"),
        (["loss/average", "loss/current", "loss/epoch_average", "lr/unet"], "loss/current"),
        (["smooth_loss/train_step", "loss/train_step", "lr/unet", "loss/validation_step/a"], "loss/train_step"),
        (["avr_loss", "loss", "loss/epoch"], "loss"),
        (["learning_rate", "loss/loss"], "loss/loss"),
        (["diffusion_loss", "train_loss", "learning_rate"], "train_loss"),
        (["Train/Loss"], "Train/Loss"),
        (["my_unet_loss", "my_unet_loss_avg"], "my_unet_loss"),
        (["loss/average"], "loss/average"),
        (["loss/epoch_average"], None),
        (["val_loss", "loss/validation/step_current", "eval/loss"], None),
        (["loss_for_cat.png"], None),
        (["lr", "grad_norm", "gloss"], None),
        ([], None),
    ],
)
def test_the_training_loss_is_chosen_and_never_invented(tags: list[str], expected: str | None) -> None:
    assert loss_tag(tags) == expected


@pytest.mark.parametrize("tag", ["loss/epoch_average", "loss/epoch", "epoch_loss", "loss_per_epoch", "loss/validation/epoch_average"])
def test_tags_counted_in_epochs_are_recognised(tag: str) -> None:
    assert is_epoch_axis(tag)


@pytest.mark.parametrize("tag", ["epoch", "train/epoch", "loss", "train/loss_epoch", "loss/current"])
def test_the_epoch_as_a_value_is_by_step(tag: str) -> None:
    assert not is_epoch_axis(tag)


def test_json_is_valid_whatever_was_logged() -> None:
    curve = merge("run", "loss", [part([1, 2, 3, 4], [0.5, NAN, INF, -INF], "logs/\udcff")])
    text = json.dumps(as_json(curve), allow_nan=False)
    assert json.loads(text.encode()) == {
        "tag": "loss",
        "steps": [1, 2, 3, 4],
        "values": [0.5, None, None, None],
        "non_finite": [{"step": 2, "kind": "nan"}, {"step": 3, "kind": "inf"}, {"step": 4, "kind": "-inf"}],
        "wall_times": None,
        "source": "logs/%FF",
    }


def test_json_gives_wall_times_as_unix_seconds() -> None:
    assert as_json(merge("run", "loss", [part([1, 2])]))["wall_times"] == [1001.0, 1002.0]
