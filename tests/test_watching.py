"""A run under training: what is complete is drawn, what is being written is not touched, and what was ordered is found again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmp.cli import app
from cmp.core.conversion import Conversion
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.progress import Rest
from cmp.disk.ledger import Ledger
from cmp.disk.ready import Answers
from cmp.disk.store import Store
from cmp.errors import BadInput, NotFound, Unreadable
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.watching import seen
from tests.engine.conftest import FULL
from tests.support import Training, bench_of, diffusers_run, finished, origin_run

PATTERN = GridSpec((None,), (Prompt("a red casual shoe"),), (3,), samplings=(Sampling(1, 4.0),))

GIVEN = Answers(alpha=16)  # no log is copied with the run


class Trained:
    """A copy of a demo run whose checkpoints land when the test says so."""

    def __init__(self, demo_home: Path, folder: Path) -> None:
        self.run = folder / "outputs" / FULL
        shutil.copytree(demo_home / "demo" / "training" / "outputs" / FULL, self.run)
        self.kept = folder / "kept"
        shutil.move(self.run / "checkpoints", self.kept)
        for final in ("lora_weights", "final_pipeline"):
            shutil.rmtree(self.run / final, ignore_errors=True)
        self.bench = Workbench(Settings(demo_home, (folder / "outputs",), device="cpu"))

    def land(self, step: int, *, old: bool = False, most: int | None = None) -> Path:
        """A checkpoint is there, written an hour ago or just now, or only its first bytes."""
        folder = self.run / "checkpoints" / f"checkpoint-{step}"
        shutil.copytree(self.kept / folder.name, folder)
        file = folder / "model.safetensors"
        if most is not None:
            os.truncate(file, most)
        when = time.time() - (3600 if old else 0)
        os.utime(file, (when, when))
        return file


@pytest.fixture
def trained(demo_home: Path, tmp_path: Path) -> Trained:
    return Trained(demo_home, tmp_path)


def until_rest(items: Iterator[object]) -> tuple[list[int | None], Rest]:
    """The steps that are drawn before the next rest, and the rest."""
    steps: list[int | None] = []
    for item in items:
        if isinstance(item, Rest):
            return steps, item
        if isinstance(item, Tile):
            assert item.fault is None and item.cell.checkpoint
            steps.append(item.cell.checkpoint.step)
    raise AssertionError("it ended")


@pytest.mark.model
def test_each_complete_checkpoint_draws_its_column_once_the_newest_first(trained: Trained) -> None:
    trained.land(500, old=True), trained.land(1000, old=True)
    watching = trained.bench.watch(FULL, PATTERN, GIVEN)
    steps, rest = until_rest(watching)
    assert steps == [1000, 500] and "next checkpoint" in rest.what
    assert until_rest(watching)[0] == []
    trained.land(1500)
    steps, rest = until_rest(watching)
    assert steps == [] and "still being written" in rest.what and rest.seconds > 0
    assert until_rest(watching)[0] == [1500], "it has not changed during the rest"


@pytest.mark.model
def test_a_checkpoint_is_not_drawn_while_it_grows(trained: Trained) -> None:
    trained.land(500, old=True)
    watching = trained.bench.watch(FULL, PATTERN, GIVEN)
    assert until_rest(watching)[0] == [500]
    file = trained.land(1000, most=100_000)
    assert until_rest(watching)[0] == [], "half a file is none"
    shutil.copyfile(trained.kept / "checkpoint-1000" / "model.safetensors", file)
    for moment in range(3):  # whole by its size, and still being written
        os.utime(file, (time.time() - moment, time.time() - moment))
        steps, rest = until_rest(watching)
        assert steps == [] and "still being written" in rest.what
    assert until_rest(watching)[0] == [1000]


@pytest.mark.model
def test_looking_once_ends_after_what_is_there(trained: Trained) -> None:
    trained.land(500, old=True), trained.land(1000)
    items = list(trained.bench.watch(FULL, PATTERN, GIVEN, once=True))
    assert [i.cell.checkpoint.step for i in items if isinstance(i, Tile) and i.cell.checkpoint] == [500, 1000]
    assert [type(i) for i in items if isinstance(i, Rest)] == [Rest] and all(i.fault is None for i in items if isinstance(i, Tile))


def test_the_newest_sample_is_of_the_last_complete_checkpoint(trained: Trained) -> None:
    with pytest.raises(NotFound):
        trained.bench.sample_newest(FULL, PATTERN)
    trained.land(500, old=True), trained.land(1000, old=True), trained.land(1500)
    trained.land(2000, old=True, most=100_000)
    spec, run = trained.bench.sample_newest(FULL, PATTERN)
    assert run.id == FULL and [c.step for c in spec.checkpoints if c] == [1000] and spec.prompts == PATTERN.prompts


def test_a_pattern_comes_from_a_file_an_earlier_job_or_what_was_drawn_last(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    (run,) = bench.library().runs
    with pytest.raises(BadInput, match="nothing says what to draw"):
        bench.pattern(None, run)
    bench.remember_prompts(run, ["a", "b"])
    assert bench.pattern(None, run).prompts == (Prompt("a"), Prompt("b"))
    (tmp_path / "spec.json").write_text(json.dumps({"prompts": ["c"], "seeds": [4]}))
    assert bench.pattern(str(tmp_path / "spec.json"), run) == GridSpec((None,), (Prompt("c"),), (4,))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(Unreadable):
        bench.pattern(str(tmp_path / "broken.json"), run)
    spec = replace(PATTERN, checkpoints=run.checkpoints)
    job = bench.start_grid(spec, [run])
    assert bench.pattern(job.id, run) == PATTERN
    bench.jobs.cancel(job.id)


def test_the_trainers_own_prompts_are_taken_where_nothing_was_drawn(tmp_path: Path) -> None:
    bench = bench_of(diffusers_run(tmp_path))
    (run,) = bench.library().runs
    assert bench.pattern(None, run).prompts == (Prompt("a shoe"),)


# what was ordered is found again


def test_an_order_means_the_same_checkpoints_also_when_other_folders_are_looked_at(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    bench = bench_of(made)
    (run,) = bench.library().runs
    spec = replace(PATTERN, checkpoints=(None, *run.checkpoints))
    job = bench.start_grid(spec, [run], Answers(16.0, "tiny-sd"))
    bench.jobs.cancel(job.id)
    order = bench.jobs.order(job.id)
    assert order is not None and (order["alpha"], order["base"]) == (16.0, "tiny-sd")
    elsewhere = origin_run(tmp_path / "elsewhere", steps=(500, 1000, 1500))  # a run of the same id
    other = Workbench(Settings(tmp_path / "home", (elsewhere.outputs,), (made.bases,)))
    again = other._grid_again(order)[1]
    assert isinstance(again, GridSpec)
    assert [c and c.path for c in again.checkpoints] == [c and c.path for c in spec.checkpoints]
    shutil.rmtree(made.checkpoint(500))
    with pytest.raises(NotFound):
        other._grid_again(order)


def interrupted_conversions(made: Training, *, force: bool) -> tuple[str, dict[str, float]]:
    """Conversions of which one came about before their process ended."""
    bench = bench_of(made)
    (run,) = bench.library().runs
    plans = [bench.plan_checkpoint(run, c, "lora", force=force) for c in run.checkpoints]
    ledger = Ledger(Store(bench.settings.home))
    bench.jobs._ledger = ledger
    job = finished(bench.start_conversions(plans))
    second = plans[1].target
    second.unlink()
    record = replace(job.record(), state="running", ended=None)
    ledger.write(record)
    ledger._lock.release()  # type: ignore[union-attr]  # as the system does when a process ends
    return job.id, {plan.target.name: plan.target.stat().st_mtime_ns for plan in plans if plan.target.exists()}


@pytest.mark.parametrize("force", [False, True])
def test_conversions_go_on_with_those_that_are_left(tmp_path: Path, force: bool) -> None:
    made = origin_run(tmp_path)
    if force:
        bench = bench_of(made)
        plans = [bench.plan_conversion(f"lora_casual_shoes@{step}", "lora") for step in (500, 1000)]
        assert len([item for item in bench.convert_all(plans) if isinstance(item, Conversion)]) == 2
    name, before = interrupted_conversions(made, force=force)
    other = bench_of(made)
    assert other.jobs.record(name).state == "interrupted"
    converted = [item for item in other.jobs.go_on(name) if isinstance(item, Conversion)]
    assert [item.checkpoint for item in converted] == ["lora_casual_shoes@1000"]
    for file in made.run.glob("converted/lora/*.safetensors"):
        assert before.get(file.name, file.stat().st_mtime_ns) == file.stat().st_mtime_ns, "it was made twice"
    assert len(list(made.run.glob("converted/lora/*.safetensors"))) == 2


# a card that is in use


class Busy(Workbench):
    """A workbench on a card that another program uses for as long as `reasons` says."""

    def __init__(self, settings: Settings, reasons: list[str | None]) -> None:
        super().__init__(settings)
        self.reasons, self.drew_on = reasons, ""

    def why_busy(self) -> str | None:
        return self.reasons.pop(0)

    def draw_grid(
        self, spec: GridSpec, runs: object, given: Answers = Answers(), ray: str | None = None, *, watched: bool = False
    ) -> Iterator[Tile]:
        self.reasons.append(self.settings.device)
        return iter(())


@pytest.mark.parametrize(
    ("busy", "told", "device"), [("wait", ["waiting: x", "waiting: x"], "cuda"), ("cpu", ["drawing on the CPU: x"], "cpu")]
)
def test_a_grid_waits_for_the_card_or_goes_on_without_it(tmp_path: Path, busy: str, told: list[str], device: str) -> None:
    bench = Busy(Settings(tmp_path, device="cuda", busy=busy), ["x", "x", None])
    items = list(bench.draw_when_free(PATTERN, (), Answers()))
    assert [item.what for item in items if not isinstance(item, Tile)] == told and bench.reasons[-1] == device


def test_without_a_card_nobody_waits(tmp_path: Path) -> None:
    assert Workbench(Settings(tmp_path, device="cpu")).why_busy() is None
    assert Workbench(Settings(tmp_path, device="cuda", busy="draw")).why_busy() is None


def test_what_to_do_about_a_card_in_use_is_one_of_three() -> None:
    assert Settings.from_env({}).busy == "wait" and Settings.from_env({"CMP_BUSY": "cpu"}).busy == "cpu"
    with pytest.raises(BadInput, match="CMP_BUSY is 'never'"):
        Settings.from_env({"CMP_BUSY": "never"})


@pytest.mark.model
def test_only_what_lands_from_now_on_is_drawn_also_by_the_process_that_takes_it_up(trained: Trained) -> None:
    trained.land(500, old=True), trained.land(1000)
    run = trained.bench.find(FULL)[0]
    there = seen(run)
    assert [path.name for path, _ in there] == ["checkpoint-500", "checkpoint-1000"]
    watched = trained.bench.watch(FULL, PATTERN, GIVEN, there=there)
    assert until_rest(watched)[0] == []
    trained.land(1500, old=True)
    os.utime(trained.run / "checkpoints" / "checkpoint-500" / "model.safetensors", (1, 1))  # written anew since
    assert until_rest(watched)[0] == [1500, 500]
    order = json.loads(json.dumps(trained.bench._watching(FULL, PATTERN, GIVEN, True, there)[-1]))
    again, _ = trained.bench._watch_again(order)
    assert [item.cell.checkpoint.step for item in again() if isinstance(item, Tile) and item.cell.checkpoint] == [1500, 500]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "2 checkpoints there already are drawn first, unless drawn earlier: 1000, 500; then each that lands"),
        (("--once",), "2 checkpoints there already are drawn first, unless drawn earlier: 1000, 500"),
        (("--new",), "2 checkpoints there already are not drawn; then each that lands from now on"),
    ],
)
def test_a_watch_says_at_its_start_what_it_will_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], told: str
) -> None:
    made = origin_run(tmp_path, final=False)
    followed: list[tuple[bool, int]] = []

    def follow(*_: object, once: bool, there: tuple[object, ...], **more: object) -> Iterator[Tile]:
        followed.append((once, len(there)))
        yield from ()

    monkeypatch.setattr(Workbench, "follow_watch", follow)
    (tmp_path / "p.json").write_text('{"prompts": ["a"]}')
    place = {"CMP_HOME": str(tmp_path / "home"), "CMP_RUNS": str(made.outputs)}
    said = CliRunner().invoke(app, ["watch", "lora_casual_shoes", "--grid", str(tmp_path / "p.json"), *options], env=place)
    assert said.exit_code == 0 and f"watching lora_casual_shoes: {told}" in said.stderr
    assert followed == [("--once" in options, 2 if "--new" in options else 0)]


def test_what_is_new_cannot_be_asked_for_once() -> None:
    said = CliRunner().invoke(app, ["watch", "x", "--once", "--new"])
    assert isinstance(said.exception, BadInput)
