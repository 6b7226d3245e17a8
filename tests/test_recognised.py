"""What was measured outlives the files that it was measured on, as long as others hold the same weights; and no verdict is on a part."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cmp.core.evidence import BASE
from cmp.core.measured import LOSS, Measured
from cmp.core.runs import Run
from cmp.disk.held import files_of
from cmp.disk.measures import Measures
from cmp.disk.ready import Answers
from cmp.errors import BadInput, Refused
from cmp.settings import Settings
from cmp.workbench import Workbench, known
from tests.storing import RUN, cmp, dumped, frozen_run
from tests.support import Training, save

STEPS, BEST = (500, 1000, 1500), f"{RUN}@500"


@pytest.fixture
def made(tmp_path: Path) -> Training:
    """A run whose first step is by far the best by what was measured."""
    made = frozen_run(tmp_path, STEPS)
    bench = bench_over(made)
    run, random = run_in(bench), np.random.default_rng(0)
    zero = 1 + random.random((12, 1))
    for share, checkpoint in ((1.0, None), (0.5, run.checkpoint("500")), (0.8, run.checkpoint("1000")), (0.9, run.checkpoint("1500"))):
        ready = bench.ready(run, checkpoint or run.checkpoint("500"))
        weights = ready.digest(bench.store) if checkpoint else ""
        values = zero * share * (1 + (checkpoint is not None) * 0.002 * random.normal(size=(12, 1)))
        name = checkpoint.id if checkpoint else BASE
        one = Measured(LOSS, name, weights, "b", "s", tuple(map(str, range(12))), values, relative=True)
        Measures(bench.store).keep(one)
        assert bench._note(run, one, checkpoint, files_of(checkpoint), Answers(), ready) is one
    assert bench.judge(run).best == BEST
    return made


def bench_over(made: Training, outputs: Path | None = None) -> Workbench:
    return Workbench(Settings(made.bases.parent / "home", (outputs or made.outputs,), (made.bases,), device="cpu"))


def run_in(bench: Workbench) -> Run:
    (run,) = bench.library().runs
    return run


def touch(*steps: int) -> Callable[[Training], None]:
    return lambda made: [os.utime(made.checkpoint(step) / "model.safetensors", (1e9, 1e9)) for step in steps]  # type: ignore[func-returns-value]


def copy_over(made: Training) -> None:
    for step in STEPS:
        file = made.checkpoint(step) / "model.safetensors"
        shutil.copy(file, file.with_name("aside"))
        os.replace(file.with_name("aside"), file)


def link(made: Training) -> None:
    os.link(made.checkpoint(500) / "model.safetensors", made.bases.parent / "backup")


def compact(made: Training) -> None:
    assert cmp(made, "storage", RUN, "--compact", "--yes").code == 0
    assert not (made.checkpoint(500) / "model.safetensors").exists()


def restore(made: Training) -> None:
    compact(made)
    assert cmp(made, "restore", RUN).code == 0


def out_of_the_trash(made: Training) -> None:
    assert cmp(made, "storage", RUN, "--keep", "every:1000", "--min-age", "0", "--yes").code == 0
    assert all(cmp(made, "restore", f"{RUN}@{step}").code == 0 for step in (500, 1500))


@pytest.mark.parametrize("act", [touch(*STEPS), touch(500), copy_over, link, compact, restore, out_of_the_trash])
def test_a_verdict_is_the_same_after_its_files_have_become_others_that_hold_the_same(
    made: Training, act: Callable[[Training], object]
) -> None:
    bench = bench_over(made)
    before = bench.judge(run_in(bench))
    act(made)
    bench = bench_over(made)
    run = run_in(bench)
    assert bench.judge(run) == before and bench.verdicts(run)[0].rule == "measured"
    assert [c.id for c in bench.best_of(run, run.checkpoints, 1)[0]] == [BEST] and set(bench.kept_as_best(run)) == {BEST}
    assert bench.heads([BEST])[BEST]["window"] is True
    assert "step 500 has the lowest loss" in bench.verdict_line(run.checkpoints)


@pytest.mark.parametrize("step", [500, 1500])
def test_of_a_step_that_was_trained_anew_nothing_is_known_and_the_rest_is_as_it_was(made: Training, step: int) -> None:
    save(made.checkpoint(step) / "model.safetensors", dumped(7), {"format": "pt"})
    touch(*STEPS)(made)
    bench = bench_over(made)
    verdict = bench.judge(run_in(bench))
    assert verdict.unknown == (f"{RUN}@{step}",) and verdict.best == (BEST if step != 500 else f"{RUN}@1000")


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
def test_a_run_that_was_copied_or_moved_elsewhere_has_its_verdict_there(
    made: Training, tmp_path: Path, how: Callable[[Path, Path], object]
) -> None:
    before = bench_over(made).judge(run_in(bench_over(made)))
    for part in ("outputs", "logs"):  # which say at which scale
        how(tmp_path / part, tmp_path / "elsewhere" / part)
    bench = bench_over(made, tmp_path / "elsewhere" / "outputs")
    assert bench.judge(run_in(bench)) == before


def test_another_run_with_the_same_steps_and_shapes_is_given_no_values(made: Training, tmp_path: Path) -> None:
    other = frozen_run(tmp_path / "other", STEPS, base=False)
    for step in STEPS:
        save(other.checkpoint(step) / "model.safetensors", dumped(step + 1), {"format": "pt"})
    bench = bench_over(made, other.outputs)
    assert bench.measurements(run_in(bench)) == {} and bench.judge(run_in(bench)).rule == "training"


def test_the_same_weights_at_another_scale_are_given_no_values(made: Training, tmp_path: Path) -> None:
    from tests.support import write_log

    shutil.copytree(made.outputs, tmp_path / "other" / "outputs")
    told = {"output_dir": f"../outputs/{RUN}", "lora_rank": 8, "lora_alpha": 8, "pretrained_model_name_or_path": "tiny-sd"}
    write_log(tmp_path / "other" / "logs" / f"train_{RUN}", [(1, 1.0)], **told)
    bench = bench_over(made, tmp_path / "other" / "outputs")
    assert bench.ready(run_in(bench), run_in(bench).checkpoint("500")).scale and bench.measurements(run_in(bench)) == {}


def test_while_nobody_can_say_whether_a_file_holds_the_same_no_best_is_named(made: Training) -> None:
    bench = bench_over(made)
    for files in bench.store.all("files-hold"):  # as values that were kept before it was remembered what files hold
        bench.store.put("files-hold", files, None)
    assert bench.judge(run_in(bench)).best == BEST, "no file is another"
    touch(500)(made)
    run = run_in(bench)
    for follow in (
        bench.judge,
        bench.kept_as_best,
        lambda run: bench.best_of(run, run.checkpoints, 1),
        lambda run: bench.gate(run, "1000 vs 1500"),
    ):
        with pytest.raises((Refused, BadInput), match="500 was measured too"):
            follow(run)
    shown = bench.verdicts(run)[0]
    assert shown.best is None and not shown.decides and "500 was measured too" in shown.reason and bench.verdict_marks(run) == {}
    assert bench.judge(run, "training").rule == "training"
    for verb in (("best", RUN), ("convert", RUN, "--to", "lora", "--best", "1", "--dry-run"), ("storage", RUN, "--keep", "best")):
        said = cmp(made, *verb)
        assert said.code == Refused.exit_code and f"measure {RUN}" in said.told, said.told


def test_a_page_reads_little_at_once_and_has_the_verdict_when_the_rest_was_read_behind_it(
    made: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_AT_ONCE", 100)
    bench = bench_over(made)
    touch(500)(made)
    run = run_in(bench)
    behind: list[Run] = []
    monkeypatch.setattr(bench, "_recognise_behind", behind.append)
    before = bench.verdict_line(run.checkpoints)
    assert "names no best for now" in before or "500" not in before
    assert behind and not bench.verdicts(run)[0].decides
    monkeypatch.undo()
    monkeypatch.setattr(known, "_AT_ONCE", 100)
    bench._recognise_behind(run)
    bench._looking[run.place].join()
    assert bench.verdicts(run)[0].best == BEST and "step 500 has the lowest loss" in bench.verdict_line(run.checkpoints)


def test_a_list_looks_into_no_weights(made: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("weights were read")

    touch(*STEPS)(made)
    monkeypatch.setattr("cmp.disk.ready.digest_tensors", never)
    assert cmp(made, "list").code == 0
