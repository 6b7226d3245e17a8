"""While drawing, what is read through for the first time is told in steps, can be left at each of them, and leaves nothing half done."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cmp.core.grids import GridSpec, Prompt, Sampling
from cmp.core.progress import Progress
from cmp.disk.merging import MergedComponent
from cmp.disk.raw import RawReader
from cmp.disk.ready import Answers
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, tiles_of

from .conftest import FULL, PROMPT, pixels
from .making import UNET_FILE, unet_adapter, write_step

pytestmark = pytest.mark.model

BASES = Path(__file__).parents[1] / "data" / "corpus" / "bases"
SMALL = Sampling(2, 3.0, scheduler="DDIM")


def until(work: Iterator[Any], what: str, *, further: int = 0) -> Progress:
    """Goes on to the first step that says so, and some steps further."""
    step = next(item for item in work if isinstance(item, Progress) and what in item.what)
    for _ in range(further):
        step = next(work)
    assert what in step.what
    return step


@pytest.fixture
def demo(demo_home: Path, tmp_path: Path) -> Workbench:
    """The demo's dumps of a whole wrapped model, of which nothing is known yet."""
    place = demo_home / "demo"
    return Workbench(Settings(tmp_path / "home", (place / "training" / "outputs",), (place / "bases",), device=DEVICE))


def test_the_first_proof_of_a_base_is_told_and_left_between_two_tensors(demo: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    blocks = RawReader.blocks
    monkeypatch.setattr(RawReader, "blocks", lambda self, name, *kind: read.append(name) or blocks(self, name, *kind))  # type: ignore[func-returns-value]
    run, checkpoint = demo.find(f"{FULL}@500")
    spec = GridSpec((checkpoint,), (Prompt(PROMPT),), samplings=(SMALL,))
    work = demo.draw_grid(spec, [run])
    step = until(work, "comparing the frozen weights of unet", further=3)
    assert step.what.startswith(f"{FULL}@500: ") and 0 < step.done_bytes < step.total_bytes and (step.done, step.total) == (0, 1)
    seen = len(read)
    work.close()  # type: ignore[attr-defined]
    assert len(read) == seen == 2 * 3  # of hundreds, each in both files
    assert demo.store.all("base-comparison") == {} and demo.loaded_models() == []
    (tile,) = tiles_of(demo.draw_grid(spec, [run]))
    assert tile.fault is None and len(read) > 500 and len(demo.store.all("base-comparison")) == 1
    proven = len(read)
    list(demo.draw_grid(spec, [run]))
    assert len(read) == proven


def test_a_base_that_is_hashed_for_the_first_time_can_be_left(demo: Workbench) -> None:
    run, _ = demo.find(FULL)
    work = demo.draw_grid(GridSpec((None,), (Prompt(PROMPT),), samplings=(SMALL,)), [run])
    step = until(work, "hashing unet/diffusion_pytorch_model.safetensors of tiny-shapes")
    work.close()  # type: ignore[attr-defined]
    assert step.total_bytes > 0
    assert not any("unet/diffusion" in subject for subject in demo.store.all("file-digest"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASES / "sd_nano", tmp_path / "bases" / "sd_nano"))


def merged_run(base: Path, outputs: Path, kind: str) -> None:
    """One checkpoint whose UNet can only be drawn merged: of a full fine-tune, or of LoHa."""
    if kind == "full":
        file = outputs / "run" / "checkpoint-2" / UNET_FILE
        file.parent.mkdir(parents=True)
        save_file({name: values * np.float32(0.97) for name, values in load_file(base / UNET_FILE).items()}, file, {"format": "pt"})
        shutil.copyfile(base / "unet" / "config.json", file.parent / "config.json")
        return
    made: dict[str, np.ndarray] = {}
    for name, values in unet_adapter(base, 2, 3).items():
        module, _, half = name.partition(".lora_")
        key = "lora_unet_" + module.removeprefix("unet.").replace(".", "_")
        for which in "12":
            made[f"{key}.hada_w{which}_{'b' if half.startswith('A') else 'a'}"] = values.reshape(values.shape[:2])
        made[f"{key}.alpha"] = np.array(2, "f4")
    (outputs / "run").mkdir(parents=True)
    save_file(made, outputs / "run" / "style-step00000002.safetensors", {"ss_network_module": "lycoris.kohya", "ss_network_dim": "2"})


@pytest.mark.parametrize("kind", ["full", "loha"])
def test_merging_is_told_and_left_between_two_tensors_and_the_base_is_drawn_as_before(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    merged_run(base, tmp_path / "outputs", kind)
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))
    run = bench.library().runs[0]
    (checkpoint,) = run.checkpoints

    def order(one: Any, seed: int) -> tuple[GridSpec, list[Any], Answers]:
        return GridSpec((one,), (Prompt("a red shoe"),), (seed,), samplings=(SMALL,)), [run], Answers(base="sd_nano")

    (plain,) = tiles_of(bench.draw_grid(*order(None, 1)))
    assert plain.fault is None
    own = {name: values.clone() for name, values in bench.studio()._worn.pipe.unet.state_dict().items()}  # type: ignore[union-attr]
    read: list[str] = []
    reading, left = MergedComponent.read, [threading.Event()]
    monkeypatch.setattr("cmp.engine.steps.Event", lambda: left.append(threading.Event()) or left[-1])

    def third_waits(self: MergedComponent, name: str) -> np.ndarray:
        read.append(name)
        if leaving == "merging unet" and len(read) == 3:  # until it is left, so that it is left at this very tensor
            assert left[-1].wait(60)
        return reading(self, name)

    def fourth_waits(done: int, total: int, what: str) -> Progress:
        if leaving == what == "reading unet back" and done == 3:
            assert left[-1].wait(60)
        return Progress(done, total, what)

    monkeypatch.setattr(MergedComponent, "read", third_waits)
    monkeypatch.setattr("cmp.engine.pipeline.Progress", fourth_waits)
    for what in ("merging unet", "reading unet back"):
        leaving = what
        work = bench.draw_grid(*order(checkpoint, 1))
        until(work, what, further=2)
        work.close()  # type: ignore[attr-defined]
        assert len(read) == (3 if what == "merging unet" else len(own)) > 2
        assert not bench.gpu.locked() and bench.studio()._worn.worn is None  # type: ignore[union-attr]
        read.clear()
        shutil.rmtree(bench.store.home / "cells")
        (again,) = tiles_of(bench.draw_grid(*order(None, 1)))
        assert not again.reused
        worn = bench.studio()._worn
        assert worn is not None and all(bool((own[name] == values).all()) for name, values in worn.pipe.unet.state_dict().items())
    leaving = ""
    (merged,) = tiles_of(bench.draw_grid(*order(checkpoint, 1)))
    assert merged.fault is None and len(read) == len(own) and not np.array_equal(pixels(merged.path), pixels(again.path))


def test_the_digest_of_what_was_trained_is_told_and_nothing_half_hashed_is_kept(base: Path, tmp_path: Path) -> None:
    write_step(tmp_path / "outputs" / "run", 2, unet_adapter(base, 4, 2))
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))
    run, checkpoint = bench.find("run@2")
    work = bench.draw_grid(GridSpec((checkpoint,), (Prompt("a"),), samplings=(SMALL,)), [run], Answers(base="sd_nano"))
    until(work, "run@2: hashing what was trained", further=1)
    work.close()  # type: ignore[attr-defined]
    assert bench.store.all("tensors-digest") == {}


def test_a_plan_makes_the_same_proof_unwatched(demo: Workbench) -> None:
    run, checkpoint = demo.find(f"{FULL}@500")
    plan = demo.plan_grid(GridSpec((checkpoint,), (Prompt(PROMPT),), samplings=(SMALL,)), [run])
    assert (plan.new, plan.faults) == (1, ()) and len(demo.store.all("base-comparison")) == 1
