"""A conversion can be left at any of its steps: the old state stays, nothing else, and no proof is remembered that was not finished."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cmp.core.conversion import Conversion
from cmp.core.progress import Progress, run_through
from cmp.disk.base_proof import comparing_with_base
from cmp.disk.bases import read_component
from cmp.disk.checkpoint import open_weights
from cmp.disk.converted import is_ours, read_record
from cmp.disk.raw import STRIDE
from cmp.engine.stopping import stoppable
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import BASE_NAME, base_pipeline, bench_of, origin_run, save

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
TARGET = "lora_casual_shoes@500"
FORMS = ("lora", "webui", "pipeline")


def go(work: Generator[Progress, None, Any], count: int) -> list[Progress]:
    """The first `count` steps, fewer where it ends before."""
    return list(itertools.islice(work, count))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("there", [False, True], ids=["new", "made anew"])
@pytest.mark.parametrize("form", FORMS)
def test_left_at_any_step_it_leaves_what_was_there_and_nothing_else(tmp_path: Path, form: str, there: bool) -> None:
    made = origin_run(tmp_path, (500,))
    output = tmp_path / "made" / ("p" if form == "pipeline" else "x.safetensors")
    output.parent.mkdir()
    if there:
        bench = bench_of(made)
        run_through(bench.convert(bench.plan_conversion(TARGET, form, output=output)))
    before = everything(tmp_path / "made")
    for count in itertools.count():
        bench = Workbench(Settings(tmp_path / f"home{count}", (made.outputs,), (made.bases,)))
        plan = bench.plan_conversion(TARGET, form, output=output, force=True)
        known = bench.store.all("base-comparison")
        work = bench.convert(plan)
        steps = go(work, count)
        if len(steps) < count:
            assert count > 20 and is_ours(output)
            return
        work.close()
        assert everything(tmp_path / "made") == before, steps[-1:]
        if steps and steps[-1].what.startswith("comparing"):
            assert bench.store.all("base-comparison") == known
        if steps and steps[-1].what.startswith("hashing"):
            assert bench.store.all("tensors-digest") == {}
        shutil.rmtree(tmp_path / f"home{count}")


def real(tmp_path: Path) -> Workbench:
    """A run that Accelerate and PEFT wrote, trained on a miniature of Stable Diffusion that has its settings."""
    outputs = Path(shutil.copytree(CORPUS / "acc_peft_bf16" / "outputs", tmp_path / "outputs", dirs_exist_ok=True))
    return Workbench(Settings(tmp_path / "home", (outputs,), (CORPUS / "bases",)))


@pytest.mark.model
@pytest.mark.parametrize("form", ["lora", "single"])
def test_left_while_the_libraries_read_the_result_it_leaves_nothing(tmp_path: Path, form: str) -> None:
    bench, output = real(tmp_path), tmp_path / "made" / "x.safetensors"
    plan = bench.plan_conversion("RUN@2", form, output=output)
    seen = 0
    while True:
        work = bench.convert(plan)
        reading = (step for step in work if step.what in ("reading it with diffusers", "reading the one file back"))
        if len(go(reading, seen + 1)) <= seen:
            assert seen > 3 and is_ours(output)
            return
        work.close()
        assert list((tmp_path / "made").iterdir()) == []
        seen = seen + 1 if seen < 5 else seen * 4


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_that_is_left_leaves_nothing_of_the_one_in_hand(tmp_path: Path, form: str) -> None:
    made = origin_run(tmp_path, (500, 1000), final=False)
    bench = bench_of(made)
    plans = [bench.plan_conversion(f"lora_casual_shoes@{step}", form) for step in (500, 1000)]
    work = bench.convert_all(plans)
    for item in work:
        if isinstance(item, Progress) and item.done == 1 and "writing" in item.what:
            break
    work.close()  # type: ignore[attr-defined]
    assert is_ours(plans[0].target) and not plans[1].target.exists()
    assert list(made.run.rglob(".tmp-*")) == []


# ---- bytes ----


@pytest.mark.parametrize("form", FORMS)
def test_the_bytes_of_a_conversion_are_known_from_the_start_only_grow_and_are_all_reached(tmp_path: Path, form: str) -> None:
    bench = bench_of(origin_run(tmp_path, (500,)))
    steps = list(bench.convert(bench.plan_conversion(TARGET, form)))
    assert len({step.total_bytes for step in steps}) == 1 and steps[0].total_bytes > 0
    counted = [step.done_bytes for step in steps]
    assert counted == sorted(counted) and counted[0] == 0 and counted[-1] == steps[-1].total_bytes
    assert any(step.what.startswith("comparing") and step.done_bytes for step in steps) == (form != "pipeline")  # planned and proven


@pytest.mark.parametrize("form", FORMS)
def test_the_bytes_of_a_batch_only_grow_and_are_all_reached(tmp_path: Path, form: str) -> None:
    bench = bench_of(origin_run(tmp_path, (500, 1000), final=False))
    plans = [bench.plan_conversion(f"lora_casual_shoes@{step}", form) for step in (500, 1000)]
    items = list(bench.convert_all(plans))
    steps = [item for item in items if isinstance(item, Progress)]
    counted = [step.done_bytes for step in steps]
    assert counted == sorted(counted) and counted[-1] == steps[-1].total_bytes > 0
    assert sum(isinstance(item, Conversion) for item in items) == 2


def test_a_large_tensor_is_compared_in_several_steps_and_in_the_end_to_the_last_byte(tmp_path: Path) -> None:
    large = {"conv_in.weight": np.zeros((3 * STRIDE // 4 + 1, 1), "f4")}
    base = base_pipeline(tmp_path / "bases", large)
    dump = save(tmp_path / "run" / "unet" / "diffusion_pytorch_model.safetensors", large)
    component = read_component(base, "unet")
    steps = list(comparing_with_base(open_weights(dump), "unet", component))
    assert [step.done_bytes for step in steps] == [0, STRIDE, 2 * STRIDE, 3 * STRIDE]
    large["conv_in.weight"][-1] = 1
    other = open_weights(save(tmp_path / "other" / "unet" / "diffusion_pytorch_model.safetensors", large))
    assert not run_through(comparing_with_base(other, "unet", component)).proven
    assert base.name == BASE_NAME


def test_what_was_trained_is_not_hashed_again_where_its_digest_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(origin_run(tmp_path, (500,)))
    first = run_through(bench.convert(bench.plan_conversion(TARGET, "lora")))
    monkeypatch.setattr("cmp.disk.ready.digest_tensors", lambda *_: pytest.fail("it was hashed again"))
    second = run_through(bench.convert(bench.plan_conversion(TARGET, "pipeline")))
    assert read_record(second.output)["digest"] == read_record(first.output)["digest"]


# ---- calls into the libraries ----

STEP = Progress(1, 2, "calling")


def test_a_call_gives_its_result_and_raises_its_own_fault() -> None:
    assert run_through(stoppable(lambda: int(torch.ones(3).sum()), STEP)) == 3

    def fail() -> None:
        raise Refused("this is what happened", "")

    with pytest.raises(Refused, match="this is what happened"):
        run_through(stoppable(fail, STEP))


def test_a_call_that_is_left_ends_at_its_next_function_of_torch_and_before_the_next_call_begins() -> None:
    begun, ended = threading.Event(), threading.Event()

    def endless() -> None:
        try:
            while True:
                torch.ones(2).add(1)
                begun.set()
        finally:
            ended.set()

    work = stoppable(endless, STEP)
    next(work)
    assert begun.wait(10) and not ended.is_set()
    work.close()
    assert ended.is_set()


def test_other_threads_are_not_stopped_by_a_call_that_is_left() -> None:
    work = stoppable(waiting_for(threading.Event()), STEP)
    next(work)
    assert float(torch.ones(2).sum()) == 2
    work.close()
    assert float(torch.ones(2).sum()) == 2


def waiting_for(never: threading.Event) -> Callable[[], None]:
    def wait() -> None:
        while not never.is_set():
            torch.ones(1)

    return wait
