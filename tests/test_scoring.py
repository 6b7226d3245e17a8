"""Scores without a grid, a base model or a graphics card: of the pictures that the trainer left."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.core.evidence import BASE
from cmp.core.measured import Measured, MeasureSpec, NotMeasured
from cmp.core.runs import Run
from cmp.core.score_asking import ScoreAnswers
from cmp.errors import NotFound, Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.engine.seeing import draw_picture, tiny_clip
from tests.support import Training, bench_of, origin_run, write_log

RUN, STEPS = "lora_casual_shoes", (500, 1000)
PROMPTS = ("a red shoe", "a cat on the mat", "a hat")

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def made(tmp_path: Path) -> Training:
    """A run whose trainer has drawn two pictures of each of three prompts, at every step and before the first."""
    made = origin_run(tmp_path, STEPS, final=True, base=False)
    for number, step in enumerate((0, *STEPS)):
        for prompt in range(3):
            for image in range(2):
                name = f"epoch{number:03d}_step{step:05d}_prompt{prompt}_img{image}.png"
                draw_picture(made.run / "validation" / name, 10 * step + 2 * prompt + image)
    return made


def told_prompts(made: Training) -> None:
    told = {"output_dir": f"../outputs/{RUN}", "lora_rank": 8, "lora_alpha": 16, "validation_prompts": " | ".join(PROMPTS)}
    write_log(made.outputs.parent / "logs" / f"train_{RUN}", [(step, 1.0 / (step + 1)) for step in range(1, 51)], **told)


def opened(made: Training) -> tuple[Workbench, Run]:
    bench = bench_of(made)
    return bench, bench.find(RUN)[0]


def spec(clip: Path, *metrics: str, **more: str) -> MeasureSpec:
    return MeasureSpec(metrics, given=ScoreAnswers(clip=str(clip), **more).pairs)


def scored(bench: Workbench, run: Run, asked: MeasureSpec) -> list[Measured | NotMeasured]:
    return [one for one in bench.measure(run, asked) if isinstance(one, (Measured, NotMeasured))]


def test_the_trainers_own_pictures_are_scored_with_the_prompts_that_the_run_recorded(made: Training, clip: Path) -> None:
    told_prompts(made)
    bench, run = opened(made)
    found = scored(bench, run, spec(clip, "clip", "diversity"))
    assert all(isinstance(one, Measured) for one in found)
    by_metric = {metric: {one.checkpoint_id: one for one in found if one.metric == metric} for metric in ("clip", "diversity")}
    assert set(by_metric["clip"]) == {f"{RUN}@500", f"{RUN}@1000", BASE}, "what was drawn at step 0 is the base model's"
    one = by_metric["clip"][f"{RUN}@500"]
    assert isinstance(one, Measured) and len(one.items) == 6 and any(name.startswith("a cat on the mat") for name in one.items)
    other = by_metric["diversity"][f"{RUN}@500"]
    assert isinstance(other, Measured) and set(other.items) == set(PROMPTS)
    assert {evidence.metric for evidence in bench.measured(run)} == {"clip", "diversity"}
    verdict = bench.judge(run, "clip")
    assert verdict.rule == "clip" and verdict.scores[0].n == 6


def test_a_checkpoint_that_is_written_anew_meanwhile_has_no_score_of_what_it_was(made: Training, clip: Path) -> None:
    told_prompts(made)
    bench, run = opened(made)
    found = list[Measured]()
    for step in bench.measure(run, spec(clip, "clip")):
        if isinstance(step, Measured) and not found:  # the digests of all are known by now
            (other,) = {f"{RUN}@{number}" for number in STEPS} - {step.checkpoint_id}
            file = run.checkpoint(other.rpartition("@")[2]).file
            assert file is not None
            file.write_bytes(file.read_bytes())
        found += [step] if isinstance(step, Measured) else []
    assert {one.checkpoint_id for one in found if any("written anew" in told for told in one.told)} == {other}
    assert {one.checkpoint_id for one in bench.measurements(run)["clip"]} == {one.checkpoint_id for one in found} - {other}


def test_without_prompts_what_needs_none_is_scored_all_the_same(made: Training, clip: Path) -> None:
    bench, run = opened(made)
    found = scored(bench, run, spec(clip, "clip", "diversity"))
    lost = [one for one in found if isinstance(one, NotMeasured)]
    assert {one.metric for one in lost} == {"clip"} and all("tell no prompts" in one.error.message for one in lost)
    assert {one.checkpoint_id for one in found if isinstance(one, Measured)} == {f"{RUN}@500", f"{RUN}@1000", BASE}
    with pytest.raises(Refused, match="tell no prompts"):
        scored(bench, run, spec(clip, "clip"))


def test_another_process_knows_what_was_measured_and_looks_at_a_changed_picture_anew(made: Training, clip: Path) -> None:
    told_prompts(made)
    first = {one.checkpoint_id: one for one in scored(*opened(made), spec(clip, "clip"))}
    again = {one.checkpoint_id: one for one in scored(*opened(made), spec(clip, "clip"))}
    assert all(isinstance(one, Measured) and one.reused for one in again.values())
    draw_picture(made.run / "validation" / "epoch001_step00500_prompt0_img0.png", 77)
    changed = {one.checkpoint_id: one for one in scored(*opened(made), spec(clip, "clip"))}
    assert [changed[name].reused for name in first] == [name != f"{RUN}@500" for name in first]  # type: ignore[union-attr]


def test_pictures_of_grids_alone_may_be_asked_for(made: Training, clip: Path) -> None:
    with pytest.raises(NotFound, match="no pictures"):
        scored(*opened(made), spec(clip, "diversity", pictures="drawn"))


def test_a_server_that_is_read_only_scores_nothing(made: Training, clip: Path) -> None:
    bench = Workbench(Settings(made.outputs.parent / "home", (made.outputs,), read_only=True))
    with pytest.raises(Refused, match="read-only"):
        scored(bench, bench.find(RUN)[0], spec(clip, "diversity"))


def test_the_plan_counts_pictures_and_measures_nothing(made: Training, clip: Path) -> None:
    told_prompts(made)
    bench, run = opened(made)
    plan = bench.plan_measure(run, spec(clip, "clip", "update"))
    assert dict(plan.items) == {"clip": 6, "update": 1} and plan.seconds is None and plan.new == 4 and not bench.measurements(run)
    scored(bench, run, spec(clip, "clip"))
    assert bench.plan_measure(run, spec(clip, "clip")).seconds == 0, "every picture has been looked at"


def test_a_metric_that_cannot_be_measured_stops_no_other_and_is_told_once_for_each_checkpoint(made: Training, clip: Path) -> None:
    for prompt in range(3):
        for image in range(2):
            (made.run / "validation" / f"epoch002_step01000_prompt{prompt}_img{image}.png").unlink()
    bench, run = opened(made)
    found = scored(bench, run, spec(clip, "clip", "diversity", "update"))
    lost = sorted((one.metric, one.checkpoint_id) for one in found if isinstance(one, NotMeasured))
    assert lost == [("clip", f"{RUN}@1000"), ("clip", f"{RUN}@500"), ("diversity", f"{RUN}@1000")]
    plan = bench.plan_measure(run, spec(clip, "clip", "diversity", "update"))
    assert sorted((one.metric, one.checkpoint_id) for one in plan.faults) == lost
    assert {(one.metric, one.checkpoint_id) for one in found if isinstance(one, Measured)} >= {("diversity", f"{RUN}@500")}
