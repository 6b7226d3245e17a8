"""What was measured decides: before the logs, for `best`, `convert --best`, `storage --keep best` and the heads of a grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmp.core.evidence import BASE
from cmp.core.measured import LOSS, TRAINING_LOSS, Measured
from cmp.core.storage import parse_rules
from cmp.disk.held import files_of, hold
from cmp.disk.measures import Measures
from cmp.disk.ready import digest_of, open_checkpoint
from cmp.errors import BadInput, NotFound, Refused
from cmp.workbench import Workbench
from tests.in_process import command
from tests.support import Training, bench_of, origin_run, save, wrapped_tensors
from tests.test_judging import RUN, STEPS, log_losses, run_of

ITEMS = 12


def note(bench: Workbench, losses: dict[str, float], metric: str = LOSS, **more: object) -> None:
    """What the measuring would have kept: by checkpoint its loss as a share of the base's."""
    run, measures = run_of(bench), Measures(bench.store)
    rng = np.random.default_rng(0)
    zero = np.array([1.0, 0.01]) * np.exp(rng.normal(size=(ITEMS, 1)))
    for key, share in {BASE: 1.0, **losses}.items():
        values = zero * share * (1 + (key != BASE) * 0.002 * rng.normal(size=(ITEMS, 2)))
        checkpoint = None if key == BASE else run.checkpoint(key)
        names = tuple(f"{n}.png" for n in range(ITEMS))
        told = {"relative": True, **more}
        one = Measured(
            metric, checkpoint.id if checkpoint else BASE, "" if key == BASE else f"w{key}", "b", "s", names, values, ("250", "750"), **told
        )  # type: ignore[arg-type]
        measures.keep(one)
        assert measures.note(run, one, checkpoint, files_of(checkpoint))
        if checkpoint:
            opened = open_checkpoint(checkpoint)
            hold(bench.store, files_of(checkpoint), {"": digest_of(opened, bench.store)})


@pytest.fixture
def made(tmp_path: Path) -> Training:
    """A run whose logged held-out loss is lowest at step 2000."""
    made = origin_run(tmp_path, STEPS, final=False)
    log_losses(made, lambda step: 0.3 - step / 10_000)
    return made


def test_the_measured_loss_goes_before_the_logged_one_and_decides_for_every_verb(made: Training) -> None:
    bench = bench_of(made)
    assert bench.judge(run_of(bench)).best == f"{RUN}@2000"
    before = bench.heads([f"{RUN}@1000"])[f"{RUN}@1000"]
    note(bench, {"500": 0.8, "1000": 0.5, "1500": 0.5, "2000": 0.9})
    run = run_of(bench)
    verdict = bench.judge(run)
    assert verdict.rule == "measured" and verdict.best is None and set(verdict.window) == {f"{RUN}@1000", f"{RUN}@1500"}
    assert bench.judge(run, "measured").window == verdict.window and bench.judge(run, "held-out").best == f"{RUN}@2000"
    assert {c.key for c in bench.best_of(run, run.checkpoints, 2)[0]} == {"1000", "1500"}
    assert set(bench.kept_as_best(run)) == set(verdict.window)
    plan = bench.plan_cleanup([run], parse_rules("best", min_age="0"), best=bench.kept_as_best)
    assert {str(item.checkpoint).rpartition("@")[2]: item.action for item in plan.items if item.checkpoint} == {
        "500": "trash", "1000": "keep", "1500": "keep", "2000": "trash",
    }  # fmt: skip
    after = bench.heads([f"{RUN}@1000"])[f"{RUN}@1000"]  # which had looked before anything was measured
    assert after["window"] is True and after["score"] == "held-out 0.5" and "window" not in before
    assert bench.gate(run, "1000 vs base").passes is True and bench.gate(run, "2000 vs 1000").passes is False


def test_heads_and_line_forget_what_a_file_scored_once_it_holds_other_weights(made: Training) -> None:
    bench = bench_of(made)
    note(bench, {"500": 0.8, "1000": 0.5, "1500": 0.6, "2000": 0.9})
    run = run_of(bench)
    ids, file = [c.id for c in run.checkpoints], run.checkpoint("1000").file
    assert bench.heads(ids)[f"{RUN}@1000"]["score"] == "held-out 0.5" and "step 1000 has the lowest" in bench.verdict_line(run.checkpoints)
    assert file is not None
    file.write_bytes(file.read_bytes())
    assert bench.heads(ids)[f"{RUN}@1000"]["score"] == "held-out 0.5" and "step 1000 has the lowest" in bench.verdict_line(run.checkpoints)
    save(file, wrapped_tensors(1001), {"format": "pt"})
    heads = bench.heads(ids)
    assert "score" in heads[f"{RUN}@500"] and "score" not in heads[f"{RUN}@1000"]
    assert "step 1000 has the lowest" not in bench.verdict_line(run.checkpoints)


def test_a_checkpoint_that_was_not_measured_is_unknown_and_kept(made: Training) -> None:
    bench = bench_of(made)
    note(bench, {"500": 0.8, "1000": 0.5})
    run = run_of(bench)
    verdict = bench.judge(run)
    assert verdict.best == f"{RUN}@1000" and set(verdict.unknown) == {f"{RUN}@1500", f"{RUN}@2000"}
    assert set(bench.kept_as_best(run)) == {f"{RUN}@1000", f"{RUN}@1500", f"{RUN}@2000"}
    assert any("not measured: step 1500, step 2000" in told for told in verdict.warnings)
    with pytest.raises(Refused, match=f"{RUN}@2000"):
        bench.gate(run, "2000 vs 1000")


def test_the_loss_on_training_images_names_no_best_and_hides_no_other_rule(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path, STEPS, final=False, logs=False))
    note(bench, {"500": 0.8, "1000": 0.5, "1500": 0.3, "2000": 0.1}, TRAINING_LOSS)
    run = run_of(bench)
    verdict = bench.judge(run, "training-loss")
    assert verdict.best is None and len(verdict.window) == 4 and not verdict.decides
    with pytest.raises(NotFound):
        bench.judge(run)
    with pytest.raises(BadInput, match="none was measured"):
        bench.best_of(run, run.checkpoints, 1)
    with pytest.raises(Refused):
        bench.kept_as_best(run)
    with pytest.raises(NotFound, match="no held-out loss"):
        bench.judge(run, "measured")
    assert bench.verdict_marks(run) == {}


def test_other_metrics_judge_where_they_are_asked_for_and_never_by_themselves(made: Training) -> None:
    bench = bench_of(made)
    note(bench, {"500": 1.2, "1000": 1.1, "1500": 1.0, "2000": 0.9}, "clip", lower_is_better=False, relative=False)
    run = run_of(bench)
    assert bench.judge(run).rule == "held-out" and bench.judge(run, "clip").best == f"{RUN}@500"
    assert [one.metric for one in bench.measured(run)] == ["clip"] and bench.judge(run, "clip").rule == "clip"
    for wrong in (False,):
        with pytest.raises(BadInput, match="more is better"):
            bench.judge(run, "clip", wrong)


def test_a_tag_that_was_logged_keeps_its_name(tmp_path: Path) -> None:
    made = origin_run(tmp_path, STEPS, final=False)
    log_losses(made, lambda step: 1 / (step + 1), tag="loss", every=1)
    bench = bench_of(made)
    note(bench, {"500": 0.8, "1000": 0.5, "1500": 0.9, "2000": 0.9})
    assert bench.judge(run_of(bench), "loss").rule == "loss" and bench.judge(run_of(bench)).best == f"{RUN}@1000"


def test_the_pick_tabs_verdicts_begin_with_what_was_measured_and_know_the_base(made: Training) -> None:
    bench = bench_of(made)
    told = bench.verdict_line(run_of(bench).checkpoints)
    note(bench, {"500": 0.8, "1000": 0.5, "1500": 0.6, "2000": 0.9})
    note(bench, {"500": 0.8, "1000": 0.5, "1500": 0.3, "2000": 0.1}, TRAINING_LOSS)
    found = bench.verdicts(run_of(bench))
    assert [verdict.rule for verdict in found][:2] == ["measured", "held-out"] and found[0].base == 1.0 and found[0].best == f"{RUN}@1000"
    learned = next(verdict for verdict in found if verdict.rule == "training-loss")
    assert not learned.decides and learned.best is None
    after = bench.verdict_line(run_of(bench).checkpoints)
    assert after != told and after.startswith("Measured held-out loss: step 1000 has the lowest loss") and "they disagree" in after


def test_best_says_by_which_rule(made: Training) -> None:
    bench = bench_of(made)
    note(bench, {"500": 0.8, "1000": 0.5, "1500": 0.6, "2000": 0.9})
    said = command(made.bases.parent / "home", "--runs", str(made.outputs), "--bases", str(made.bases), "best", RUN, "--json")
    assert said.code == 0 and (said.json["rule"], said.json["best"]) == ("measured", f"{RUN}@1000"), said.told
    assert {score["metric"] for score in said.json["scores"]} == {"loss"} and "shares of the base" in said.json["reason"]


def test_a_job_that_measures_has_done_as_many_values_as_it_has_in_all(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500, 1000), final=False)
    said = command(tmp_path / "home", "--runs", str(made.outputs), "--bases", str(made.bases), "measure", RUN, "--metric", "update")
    assert said.code == 0, said.told
    (job,) = bench_of(made).jobs.records()
    assert (job.state, job.done, job.total, job.reused) == ("done", 2, 2, 0)
    assert len(bench_of(made).measurements(run_of(bench_of(made)))) == 2, "the size of the update, and the same relative to the base"
