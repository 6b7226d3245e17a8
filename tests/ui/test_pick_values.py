"""What the Pick tab is fed with: no chart without scores, no shade without a window, and what to do where nothing is known."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cmp.core.agreeing import sentence
from cmp.core.curves import LossCurve
from cmp.core.evidence import Evidence
from cmp.core.measured import MEASURED, UPDATE, WHOLE, MeasureSpec
from cmp.core.picking import Verdict, judge
from cmp.core.runs import Library, Run
from cmp.settings import Settings
from cmp.ui.pick_tab import value_of
from cmp.ui.pick_values import next_steps, pick_value
from cmp.workbench import Workbench
from tests.core.test_agreeing import verdicts, voted
from tests.core.test_picking import RUN, STEPS, curve, held, run_of, training
from tests.support import bench_of, origin_run
from tests.test_judging import log_losses
from tests.test_measuring import note


def name_of(item: Any) -> str:
    return item.name if isinstance(item, Run) else item.key


def measured(*values: float) -> Verdict:
    """A held-out loss that was measured on twelve images."""
    ids = tuple(f"r@{step}" for step in STEPS[: len(values)])
    return judge(RUN, Evidence(MEASURED, "loss", True, ids, np.array(values), 1e-6 * np.eye(len(values)), (12,) * len(values)))


def value(*found: Verdict, run: Run = RUN, **more: Any) -> dict[str, Any]:
    told = pick_value(Library((run,)), run, found, name_of, **more)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    return told


def test_each_rule_has_a_panel_with_the_sentence_that_best_gives() -> None:
    found = verdicts(training(fall=0.5), held())
    told = value(*found)
    assert [(one["name"], one["sentence"]) for one in told["panels"]] == [
        ("Held-out loss", f"S{found[0].reason[1:]}."),
        ("Training loss", f"T{found[1].reason[1:]}."),
    ]
    first, second = told["panels"]
    assert (first["better"], first["leads"], first["decides"]) == ("lower", True, True) and first["base"] is not None
    assert (second["leads"], second["decides"]) == (False, False) and not any(point["window"] for point in second["points"])
    assert [point["label"] for point in first["points"] if point["best"]] == ["step 1500"] and told["pick"] == "r@1500"
    assert value(voted(s500=1.0, s1500=0.0))["panels"][0]["better"] == "higher"


def test_what_was_measured_leads_and_says_on_how_many_images() -> None:
    told = value(measured(0.3, 0.1, 0.2), *verdicts(held(bottom=2000)))
    first, second = told["panels"]
    assert (first["name"], first["counts"], first["leads"], second["leads"]) == ("Measured held-out loss", "images", True, False)
    assert told["pick"] == "r@1000" and [point["n"] for point in first["points"]] == [12] * 3
    assert told["told"] == "Measured held-out loss says step 1000, held-out loss says step 2000: they disagree."


def test_the_window_is_shaded_only_where_something_is_outside_it_and_its_ends_are_compared() -> None:
    told = value(*verdicts(held(bottom=1750, noise=0.01)))
    inside = [point["id"] for point in told["panels"][0]["points"] if point["window"]]
    assert 1 < len(inside) < len(STEPS) and told["ends"] == [inside[0], inside[-1]]
    everything = value(voted(s500=0.0, s1500=0.01))
    assert not any(point["window"] for point in everything["panels"][0]["points"])
    assert everything["ends"] == ["r@500", "r@3000"] and len(value(*verdicts(held()))["ends"]) == 1


def test_where_nothing_is_known_it_is_said_what_to_do_and_no_chart_is_shown() -> None:
    told = value()
    assert told["panels"] == [] and len(told["next"]) == 3
    assert told["told"] == f"N{judge(RUN, None).reason[1:]}." and "enough finite values" in told["told"]
    words = ("kept out.", "validation loss", "blind")
    assert [word in one["text"] for word, one in zip(words, told["next"], strict=True)] == [True] * 3
    assert [one["do"] for one in told["next"]] == ["measure", "", ""] and not any("cmp" in one["text"] for one in told["next"])
    assert next_steps(verdicts(held())) == [] and len(next_steps(verdicts(training()))) == 3
    assert next_steps([measured(0.1, 0.1)]) == [told["next"][2]]
    assert [one["do"] for one in value(read_only=True)["next"]] == [""] * 3 and "the owner" in value(read_only=True)["next"][0]["text"]
    alone = value(Verdict("r@500", ("r@500",), "training", "it is the only checkpoint"), run=run_of(500))
    assert alone["panels"] == [] == alone["next"] and alone["told"] == "It is the only checkpoint."
    nothing = pick_value(Library(), None, (), name_of)
    assert "Runs tab" in nothing["empty"] and "Runs tab" in value(run=run_of(500, flaw="half written"))["empty"]


def test_what_writes_is_not_offered_where_things_may_only_be_looked_at() -> None:
    found = verdicts(held())
    assert value(*found)["actions"] == ["compare", "convert", "star", "measure", "vote", "share"]
    assert value(*found, read_only=True)["actions"] == ["compare"]


def test_checkpoints_without_a_step_stand_in_their_order_and_ids_are_quoted_in_addresses() -> None:
    run = replace(run_of(500, 1000, "final"), id="a b/c%25#?")
    told = value(run=run)
    assert told["vote"] == "cmp/vote/a%20b/c%2525%23%3F" and told["scores"] == "cmp/scores/a%20b/c%2525%23%3F"
    plain = run_of(500, 1000, "final")
    points = value(voted(s500=0.0, s1000=1.0, sfinal=2.0), run=plain)["panels"][0]["points"]
    assert [(point["label"], point["x"]) for point in points] == [("step 500", 0), ("step 1000", 1), ("final", 2)]


def test_the_tab_shows_the_run_that_is_asked_for_and_its_stars(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500, 1000, 1500, 2000), final=False)
    log_losses(made, lambda step: 0.1 + 0.1 * ((step - 1240) / 1000) ** 2)
    bench = bench_of(made)
    bench.star("lora_casual_shoes@1000")
    told = value_of(bench, "lora_casual_shoes")
    assert told["at"] <= time.time() and [one["id"] for one in told["picks"] if one["star"]] == ["lora_casual_shoes@1000"]
    assert told["panels"][0]["sentence"] == sentence(bench.judge(bench.library().runs[0]).reason)
    assert value_of(bench, "gone")["run"] == "lora_casual_shoes"
    empty = Workbench(Settings(tmp_path / "home2", (tmp_path / "none",), ()))
    assert value_of(empty, "x")["empty"]


def test_while_folders_are_read_a_run_that_may_still_be_found_is_waited_for(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path, (500, 1000), final=False))
    library = bench.library()
    bench.library = lambda fresh=True: replace(library, unread=3)  # type: ignore[method-assign]
    waits = value_of(bench, "not read yet")
    assert (waits["reading"], waits["run"], waits["empty"]) == (True, "not read yet", "Reading 3 folders …")
    assert value_of(bench, "lora_casual_shoes")["run"] == "lora_casual_shoes" == value_of(bench, "")["run"]
    bench.library = lambda fresh=True: library  # type: ignore[method-assign]
    assert "reading" not in value_of(bench, "not there") and value_of(bench, "not there")["run"] == "lora_casual_shoes"


def far(low: float) -> LossCurve:
    return curve("val/loss", range(0, 3001, 50), [low] * 61)


def test_equal_values_say_nothing_of_what_is_better() -> None:
    assert value(*verdicts(far(0.1)))["panels"][0]["better"] == ""


# -- what was measured -----------------------------------------------------------------------------------------------------


def panels_of(tmp_path: Path, *notes: tuple[str, dict[str, float], dict[str, object]]) -> dict[str, Any]:
    """The panels by their rules, of a run of which this was measured."""
    bench = bench_of(origin_run(tmp_path, (500, 1000, 1500, 2000), final=False, logs=False))
    for metric, losses, more in notes:
        note(bench, losses, metric, **more)
    return {one["rule"]: one for one in value_of(bench, "lora_casual_shoes")["panels"]}


FALLS = {"500": 0.8, "1000": 0.5, "1500": 0.6, "2000": 0.9}


def test_the_measured_loss_has_a_curve_for_each_timestep_and_the_gap_only_where_both_losses_are_known(tmp_path: Path) -> None:
    alone = panels_of(tmp_path / "a", ("loss", FALLS, {}))["measured"]
    assert [chart["name"] for chart in alone["bands"]] == ["t 250", "t 750"] and alone["gap"] is None and alone["limits"] == []
    for chart in alone["bands"]:
        assert [(point["label"], point["x"]) for point in chart["points"]] == [(f"step {step}", step) for step in (500, 1000, 1500, 2000)]
        assert all(point["low"] < point["value"] < point["high"] for point in chart["points"])
    means = [sum(chart["points"][i]["value"] for chart in alone["bands"]) / 2 for i in range(4)]
    assert np.allclose(means, [point["value"] for point in alone["points"]])
    both = panels_of(tmp_path / "b", ("loss", FALLS, {}), ("training-loss", {"500": 0.7, "1000": 0.3, "1500": 0.2, "2000": 0.1}, {}))
    gaps = [point["value"] for point in both["measured"]["gap"]["points"]]
    assert np.allclose(gaps, [0.1, 0.2, 0.4, 0.8], atol=0.01) and both["training-loss"]["gap"] is None
    assert len(both["training-loss"]["bands"]) == 2 and both["training-loss"]["sentence"].startswith("Training loss names no best")


def test_where_bars_overlap_of_what_is_told_apart_it_is_said_why(tmp_path: Path) -> None:
    near = panels_of(tmp_path / "a", ("loss", {"500": 0.52, "1000": 0.5, "1500": 0.6, "2000": 0.51}, {}))["measured"]
    best, other = near["points"][1], near["points"][0]
    assert other["low"] < best["high"] and best["window"] and not other["window"]
    assert any("compared image by image" in text for text in near["warnings"])
    far_off = panels_of(tmp_path / "b", ("loss", {"500": 90.0, "1000": 0.001, "1500": 80.0, "2000": 99.0}, {}))["measured"]
    assert not any("image by image" in text for text in far_off["warnings"])
    equal = panels_of(tmp_path / "c", ("loss", dict.fromkeys(FALLS, 0.5), {}))["measured"]
    assert not any("image by image" in text for text in equal["warnings"]), "nothing is told apart there"


def test_each_score_has_its_limits_once_and_what_it_stands_on(tmp_path: Path) -> None:
    more = {"lower_is_better": False, "relative": False}
    panels = panels_of(tmp_path, ("clip", FALLS, more), ("update", FALLS, {"relative": False}))
    clip, update = panels["clip"], panels["update"]
    assert clip["counts"] == "pictures" and clip["points"][0]["n"] == 12 and any("does not mean better" in text for text in clip["limits"])
    assert not set(clip["limits"]) & set(clip["warnings"]) and clip["bands"] == [] and clip["better"] == "higher"
    assert update["better"] == "" and update["sentence"].startswith("Update names no best") and update["limits"]


def test_the_size_of_the_update_has_a_curve_for_each_block_and_none_for_the_whole(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path, (500, 1000), final=False))
    run, _ = bench.find("lora_casual_shoes")
    list(bench.measure(run, MeasureSpec((UPDATE,))))
    panel = next(one for one in value_of(bench, run.id)["panels"] if one["rule"] == UPDATE)
    names = [chart["name"] for chart in panel["blocks"]]
    assert len(names) > 1 and len(set(names)) == len(names) and WHOLE not in names and panel["bands"] == []
    assert all([point["x"] for point in chart["points"]] == [500, 1000] for chart in panel["blocks"])
    for i, point in enumerate(panel["points"]):
        squares = sum(chart["points"][i]["value"] ** 2 for chart in panel["blocks"])
        assert np.isclose(squares**0.5, point["value"]), "the blocks are all of it"


def test_a_logged_metric_of_the_same_name_has_no_limits(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500, 1000, 1500, 2000), final=False)
    log_losses(made, lambda step: step / 10_000, tag="clip")
    bench = bench_of(made)
    note(bench, {"500": 0.8}, "clip", lower_is_better=False, relative=False)
    panels = value_of(bench, "lora_casual_shoes")["panels"]
    assert all(not one["limits"] and one["counts"] == "values" for one in panels), "one checkpoint has no panel of what was measured"
