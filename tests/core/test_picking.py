"""What logs say of checkpoints: the best where it is one, the window where it is not, and a reason in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmp.core.curves import LossCurve
from cmp.core.evidence import direction_of, held_out_tags, logged_at
from cmp.core.picking import BASE, Verdict, evidence_in_logs, gate, judge, read_gate, verdict_of_items
from cmp.core.runs import Checkpoint, Run
from cmp.errors import BadInput, NotFound

STEPS = (500, 1000, 1500, 2000, 2500, 3000)


def run_of(*steps: int | str, **more: object) -> Run:
    place = Path("/r")
    made = (Checkpoint("r", str(s), place / str(s), "x", "lora", step=s if isinstance(s, int) else None, **more) for s in steps)  # type: ignore[arg-type]
    return Run("r", place, place, "x", checkpoints=tuple(made))


RUN = run_of(*STEPS)


def curve(tag: str, steps: object, values: object) -> LossCurve:
    return LossCurve("r", tag, np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64), None, Path("log"))


def held(bottom: int = 1500, every: int = 50, noise: float = 0.002, tag: str = "val/loss", seed: int = 0, first: int = 0) -> LossCurve:
    steps = np.arange(first, 3001, every)
    values = 0.1 + 0.2 * ((steps - bottom) / 1500) ** 2 + noise * np.random.default_rng(seed).normal(size=steps.size)
    return curve(tag, steps, values)


def training(seed: int = 0, fall: float = 0.0, tag: str = "loss") -> LossCurve:
    steps = np.arange(1, 3001)
    noise = 0.05 * np.random.default_rng(seed).exponential(size=3000)
    return curve(tag, steps, 0.1 + fall * np.exp(-steps / 400) + noise)


def verdict(*curves: LossCurve, by: str | None = None, higher: bool | None = None, run: Run = RUN) -> Verdict:
    return judge(run, evidence_in_logs(run, curves, by, higher), by)


# -- rules -----------------------------------------------------------------------------------------------------------------


def test_a_clear_bottom_of_the_held_out_loss_is_the_best_and_the_training_loss_does_not_matter() -> None:
    found = verdict(training(fall=0.5), held())
    assert (found.best, found.window, found.rule) == ("r@1500", ("r@1500",), "held-out")
    assert found.reason.startswith("step 1500 has the lowest val/loss, 0.09798, ") and "all others are worse at 95 %" in found.reason
    assert [score.checkpoint_id for score in found.scores] == [f"r@{step}" for step in STEPS] and found.decides


def test_where_the_bottom_is_flat_neighbours_are_in_the_window_and_none_is_named() -> None:
    found = verdict(held(bottom=1750, noise=0.01))
    assert found.best is None and set(found.window) >= {"r@1500", "r@2000"} and "r@500" not in found.window
    assert "cannot be told from it at 95 %" in found.reason and "are worse" in found.reason


def test_a_held_out_loss_of_noise_names_no_best_and_holds_the_truth() -> None:
    found = [verdict(held(noise=0.03, seed=seed)) for seed in range(100)]
    assert np.mean(["r@1500" in one.window for one in found]) >= 0.93
    flat = [verdict(curve("val/loss", range(0, 3001, 100), np.random.default_rng(seed).normal(size=31))) for seed in range(200)]
    assert np.mean([one.best is not None for one in flat]) <= 0.07


def test_six_values_are_too_few_to_tell_apart_what_is_close_and_three_tell_nothing() -> None:
    assert len(verdict(held(every=500, first=500)).window) > 1
    few = verdict(curve("val/loss", (500, 1500, 3000), (0.3, 0.1, 0.4)))
    assert few.best is None and few.window == ("r@1500", "r@500", "r@3000")
    assert few.unknown == ("r@1000", "r@2000", "r@2500") and any("too few" in told for told in few.warnings)
    assert few.scores[0].low is None and few.scores[0].behind[0] == pytest.approx(0.2)


def test_training_loss_keeps_all_in_the_window_unless_it_is_asked_for() -> None:
    found = verdict(training(fall=0.5))
    assert found.best is None and set(found.window) == {f"r@{step}" for step in STEPS} and not found.decides
    assert "names no best" in found.reason and "single values scatter by" in found.reason and "by heart" in found.warnings[0]
    asked = verdict(training(fall=0.5), by="training")
    assert "r@500" not in asked.window and asked.decides
    assert asked.scores[0].n == 500 and asked.scores[0].low is not None


def test_training_loss_that_is_noise_tells_no_checkpoints_apart() -> None:
    found = [verdict(training(seed), by="training") for seed in range(100)]
    assert np.mean([one.best is not None for one in found]) <= 0.07
    assert np.mean([len(one.window) == len(STEPS) for one in found]) >= 0.88  # 0.93, but for the chance of a hundred seeds
    assert "would take about" in found[0].reason


def test_any_tag_can_be_judged_by_and_more_is_better_where_it_is_said_or_in_the_name() -> None:
    clip = curve("eval/clip_score", range(0, 3001, 50), -held().values)
    assert verdict(clip, by="eval/clip_score").best == "r@1500"
    strange = curve("eval/wow", clip.steps, clip.values)
    with pytest.raises(BadInput, match="'eval/wow'"):
        verdict(strange, by="eval/wow")
    assert verdict(strange, by="eval/wow", higher=True).best == "r@1500"
    assert verdict(strange, by="eval/wow", higher=False).best != "r@1500"


def test_a_tag_of_many_values_is_judged_by_its_means() -> None:
    assert verdict(training(fall=0.5, tag="mse"), by="mse").scores[0].n == 500


@pytest.mark.parametrize(
    ("tag", "lower"), [("val_loss", True), ("metrics/FID", True), ("acc", False), ("eval/clip-score", False), ("valloss", True)]
)
def test_a_name_says_which_way_is_better(tag: str, lower: bool) -> None:
    assert direction_of(tag)[0] is lower


@pytest.mark.parametrize("tag", ["lr", "foo", "clip_loss", "score_error"])
def test_a_name_that_does_not_say_which_way_is_better_is_refused(tag: str) -> None:
    with pytest.raises(BadInput, match=tag):
        direction_of(tag)


@pytest.mark.parametrize(
    ("tags", "first"),
    [
        (
            ["loss/validation/step_current", "loss/validation/step_average", "loss/validation/step_divergence"],
            "loss/validation/step_average",
        ),
        (["loss/validation_step/cat", "loss/validation_step/total_average"], "loss/validation_step/total_average"),
        (["loss/val"], "loss/val"),
        (["val/loss"], "val/loss"),
        (["eval_loss", "eval/loss"], "eval/loss"),
        (["eval_loss", "loss"], "eval_loss"),
        (["val_loss_epoch"], "val_loss_epoch"),
    ],
)
def test_the_held_out_loss_is_found_under_the_name_of_each_trainer(tags: list[str], first: str) -> None:
    assert held_out_tags(tags)[0] == first


@pytest.mark.parametrize(
    "tag", ["loss", "train/loss", "loss/validation/epoch_average", "loss/validation/step_divergence", "val/accuracy", "lr"]
)
def test_what_is_no_held_out_loss_by_step_is_not_taken_for_one(tag: str) -> None:
    assert held_out_tags([tag]) == ()


def test_a_value_counts_for_a_checkpoint_that_was_saved_a_step_beside_it_and_for_no_other() -> None:
    logged = curve("val/loss", (501, 1001, 1501), (1.0, 2.0, np.nan))
    assert logged_at(logged, (500, 1000, 1500, 1250)) == {500: 1.0, 1000: 2.0}


# -- bad input -------------------------------------------------------------------------------------------------------------


def test_one_checkpoint_alone_is_not_compared_with_anything() -> None:
    found = judge(run_of(500), None)
    assert found.best == "r@500" and "only checkpoint" in found.reason and found.scores == ()


def test_a_loss_that_is_nan_throughout_leaves_all_as_good_as_each_other() -> None:
    for tag, by in (("val/loss", None), ("loss", None), ("loss", "training"), ("val/loss", "val/loss")):
        found = verdict(curve(tag, range(3001), np.full(3001, np.nan)), by=by)
        assert found.best is None and len(found.window) == len(STEPS) == len(found.unknown) and found.scores == ()


def test_a_nan_at_one_checkpoint_takes_that_one_out_and_says_so() -> None:
    logged = held()
    logged.values[logged.steps == 1500] = np.nan
    found = verdict(logged)
    assert found.unknown == ("r@1500",) and any("1500" in told for told in found.warnings)


def test_no_logs_an_unknown_tag_and_tags_by_epoch_are_told_with_what_there_is() -> None:
    with pytest.raises(NotFound, match="no logged values"):
        verdict()
    with pytest.raises(NotFound) as caught:
        verdict(held(), training(), by="val_los")
    assert "val/loss" in caught.value.hint and "votes" in caught.value.hint
    with pytest.raises(BadInput, match="epochs"):
        verdict(curve("loss/epoch_average", range(9), range(9)), by="loss/epoch_average")
    with pytest.raises(NotFound, match="no training loss"):
        verdict(held(), by="training")
    with pytest.raises(NotFound, match="no checkpoint"):
        judge(run_of(500, 1000, flaw="half"), None)


def test_checkpoints_without_a_step_or_with_a_flaw_are_not_judged() -> None:
    found = verdict(held(), run=run_of(*STEPS, "final"))
    assert found.unknown == ("r@final",) and found.best == "r@1500" and "all others of which something is known are worse" in found.reason
    flawed = replace(RUN, checkpoints=tuple(replace(c, flaw="half" if c.step == 1500 else None) for c in RUN.checkpoints))
    found = verdict(held(), run=flawed)
    assert "r@1500" not in {*found.window, *found.unknown, *(score.checkpoint_id for score in found.scores)}


def test_scores_of_items_are_judged_by_pairs_and_a_broken_checkpoint_is_left_out() -> None:
    rng = np.random.default_rng(0)
    values = np.array([1.0, 0.0, 1.0])[:, None] + 3 * rng.normal(size=24) + 0.2 * rng.normal(size=(3, 24))
    values[2, 3] = np.nan
    found = verdict_of_items(("r@1", "r@2", "r@3"), values, "loss", True, "measured")
    assert found.best == "r@2" and found.warnings and "step 3" in found.warnings[0] and found.unknown == ()
    assert found.scores[0].n == 24 and found.scores[0].behind[1] is not None and found.scores[0].behind[1] > 0.5
    broken = verdict_of_items(("r@1", "r@2"), np.full((2, 5), np.nan), "loss", True, "measured")
    assert broken.best is None and broken.unknown == ("r@1", "r@2")


# -- gates -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "passes"),
    [("1500 vs 500", True), ("500 vs 1500", False), ("1500 VS. r@500", True), ("1500 vs base", True), ("1500 vs 1500", True)],
)
def test_a_gate_says_better_worse_or_equal(text: str, passes: bool) -> None:
    found = evidence_in_logs(RUN, [held()], base=True)
    assert found is not None
    judged = gate(found, *read_gate(text, RUN))
    assert judged is not None and judged.passes is passes and judged.low <= judged.worse <= judged.high
    assert "95 %" in judged.told and ("it is better by" in judged.told) == (judged.worse < 0) and " by -" not in judged.told


def test_a_gate_that_noise_hides_says_neither_unless_a_margin_makes_them_equal() -> None:
    found = evidence_in_logs(RUN, [held(bottom=1750, noise=0.01)])
    assert found is not None
    one, wide = gate(found, "r@1500", "r@2000"), gate(found, "r@1500", "r@2000", 0.1)
    assert one is not None and one.passes is None and wide is not None and wide.passes is True


def test_a_gate_is_wrong_in_about_one_of_twenty_runs() -> None:
    wrong = []
    for seed in range(300):
        found = evidence_in_logs(RUN, [curve("val/loss", range(0, 3001, 100), np.random.default_rng(seed).normal(size=31))])
        judged = gate(found, "r@500", "r@2500") if found else None
        wrong.append(judged is not None and judged.passes is not None)
    assert 0.01 <= np.mean(wrong) <= 0.08


def test_a_gate_without_a_value_or_that_is_none_is_refused() -> None:
    found = evidence_in_logs(RUN, [held(first=500)], base=True)
    assert found is not None and gate(found, "r@500", BASE) is None
    for text in ("500", "500 vs", "vs 500", "500 or 1000"):
        with pytest.raises(BadInput, match="--gate"):
            read_gate(text, RUN)
    with pytest.raises(NotFound, match="'7'"):
        read_gate("7 vs 500", RUN)
