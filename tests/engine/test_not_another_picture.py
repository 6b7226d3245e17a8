"""Ways in which a picture could stand under a name that is not its own, each tried."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.disk.ready import Answers
from cmp.engine import batch, pipeline
from cmp.engine.loading import load_pipeline
from cmp.engine.prompts import check_clip_skip
from cmp.engine.samplers import check_sampler, scheduler_of
from cmp.engine.steps import silent
from cmp.errors import Refused, Unreadable
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for
from tests.support import DEVICE, GREY, finished, tiles_of

from .conftest import pixels
from .making import unet_adapter, write_step

pytestmark = pytest.mark.model

BASES = Path(__file__).parents[1] / "data" / "corpus" / "bases"
SMALL = Sampling(2, 3.0, scheduler="DDIM")
SHOE = (Prompt("a red shoe"),)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASES / "sd_nano", tmp_path / "bases" / "sd_nano"))


@pytest.fixture
def bench(tmp_path: Path, base: Path) -> Workbench:
    for step in (2, 4):
        write_step(tmp_path / "outputs" / "run", step, unet_adapter(base, 4, step))
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))


def draw(bench: Workbench, **axes: Any) -> list[Tile]:
    run, _ = bench.find("run")
    values = {"checkpoints": run.checkpoints, "prompts": SHOE, "samplings": (SMALL,), "mode": "fast"}
    return tiles_of(bench.draw_grid(GridSpec(**(values | axes)), [run], Answers(base="sd_nano")))


# ---- the same grid again ----


def test_the_same_grid_again_hashes_compares_and_loads_nothing(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = draw(bench)
    later = Workbench(bench.settings)
    for what in ("cmp.disk.tensors._read_tensor", "cmp.engine.pipeline.load_pipeline", "cmp.disk.bases.Progress"):  # told where it hashes
        monkeypatch.setattr(what, lambda *_: pytest.fail("it was read again"))
    again = draw(later)
    assert [tile.key for tile in again] == [tile.key for tile in first] and all(tile.reused for tile in again)
    assert later.loaded_models() == []


def test_an_earlier_grid_is_found_again_also_where_nothing_may_be_drawn_as_long_as_its_pictures_are_there(bench: Workbench) -> None:
    run, _ = bench.find("run")
    spec = GridSpec(run.checkpoints, SHOE, samplings=(SMALL,), mode="fast")
    list(bench.follow_grid(spec, [run], Answers(base="sd_nano")))
    (record,) = bench.jobs.records()
    looking = Workbench(replace(bench.settings, read_only=True, drawing=False))
    visitor = Caller(owner=False, address="192.0.2.1")
    for later in (looking, Workbench(replace(bench.settings, token="secret", open_reading=True)), Workbench(bench.settings)):
        with acting_for(visitor):
            found = later.grid_again(record.id)
        assert found is not None
        assert [tile.reused for tile in tiles_of(finished(found).items)] == [True] * len(run.checkpoints)
    of_other_runs = Workbench(replace(bench.settings, runs=(bench.store.home / "elsewhere",), token="secret", open_reading=True))
    assert of_other_runs.grid_again(record.id) is not None
    with acting_for(visitor):
        assert of_other_runs.grid_again(record.id) is None, "visitors are shown the runs that are served"
    for picture in (bench.store.home / "cells").rglob("*.png"):
        picture.unlink()
    with acting_for(visitor):
        assert looking.grid_again(record.id) is None, "it would have to be drawn"


def test_to_find_drawn_cells_nothing_is_imported_that_only_converts(bench: Workbench, tmp_path: Path) -> None:
    draw(bench)
    script = """
import sys
from pathlib import Path
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.disk.ready import Answers
from cmp.settings import Settings
from cmp.workbench import Workbench
place = Path(sys.argv[1])
bench = Workbench(Settings(place / "home", (place / "outputs",), (place / "bases",), device=sys.argv[2]))
run, _ = bench.find("run")
spec = GridSpec(run.checkpoints, (Prompt("a red shoe"),), samplings=(Sampling(2, 3.0, scheduler="DDIM"),), mode="fast")
print([item.reused for item in bench.draw_grid(spec, [run], Answers(base="sd_nano")) if isinstance(item, Tile)])
print(sorted({"cmp.engine.convert", "cmp.engine.verify", "transformers.models.clip.modeling_clip"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(tmp_path), DEVICE], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[True, True]", "[]"]


def test_a_checkpoint_that_is_replaced_is_noticed_by_the_same_process_and_the_other_column_is_not_drawn_anew(
    bench: Workbench, base: Path, tmp_path: Path
) -> None:
    before = draw(bench)
    shutil.rmtree(tmp_path / "outputs" / "run" / "checkpoint-4")
    write_step(tmp_path / "outputs" / "run", 4, unet_adapter(base, 4, 9))
    after = draw(bench)
    assert [tile.reused for tile in after] == [True, False] and after[1].key != before[1].key
    assert not np.array_equal(pixels(after[1].path), pixels(before[1].path))


def test_a_scheduler_that_is_set_otherwise_is_noticed_by_the_same_process(bench: Workbench, base: Path) -> None:
    before = draw(bench)
    file = base / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"beta_end": 0.02}))
    assert {tile.key for tile in draw(bench)}.isdisjoint(tile.key for tile in before)


# ---- twins ----


def test_a_preview_that_is_another_cells_picture_is_not_taken_for_its_own(bench: Workbench) -> None:
    tiny, small = Sampling(2, 3.0, 8, 8, "DDIM"), Sampling(2, 3.0, 16, 16, "DDIM")  # of which the first is the preview
    for samplings in ((tiny, small), (small, tiny)):
        shutil.rmtree(bench.store.home / "cells", ignore_errors=True)
        tiles = draw(bench, checkpoints=(None,), samplings=samplings, preview=True)
        assert not [tile.fault for tile in tiles if tile.fault]
        last = {tile.cell.sampling: tile for tile in tiles}
        assert not any(tile.preview for tile in last.values())
        assert {sampling: pixels(tile.path).shape[0] for sampling, tile in last.items()} == {tiny: 8, small: 16}


# ---- samplers ----


@pytest.mark.parametrize("setting", [{"use_karras_sigmas": True}, {"algorithm_type": "sde-dpmsolver++"}, {"solver_order": 3}])
def test_a_sampler_is_what_its_name_says_however_the_bases_own_is_set(base: Path, setting: dict[str, object]) -> None:
    from diffusers import DPMSolverMultistepScheduler

    config = DPMSolverMultistepScheduler(beta_schedule="scaled_linear").config
    plain = {name: value for name, value in config.items() if not name.startswith("_")}  # as a file has it
    made = scheduler_of(plain | setting, DPMSolverMultistepScheduler, "DPM++ 2M")
    assert all(made.config[name] == plain[name] for name in setting)
    made.set_timesteps(8)
    alone = scheduler_of(plain, DPMSolverMultistepScheduler, "DPM++ 2M")
    alone.set_timesteps(8)
    assert torch.equal(made.sigmas, alone.sigmas)
    own = scheduler_of(plain | setting, DPMSolverMultistepScheduler, "base")
    assert all(own.config[name] == value for name, value in setting.items())
    file = base / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "DPMSolverMultistepScheduler", **setting}))
    assert check_sampler(base, "DPM++ 2M") and not check_sampler(base, "base")  # what was drawn before is not found again


def test_karras_is_what_it_was(base: Path) -> None:
    from diffusers import DPMSolverMultistepScheduler

    made = scheduler_of({"use_exponential_sigmas": True}, DPMSolverMultistepScheduler, "DPM++ 2M Karras")
    assert made.config.use_karras_sigmas and not made.config.use_exponential_sigmas
    assert check_sampler(base, "DPM++ 2M Karras") == check_sampler(base, "DPM++ 2M") == {}


# ---- bases and VAEs ----


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("spoil", ["missing", "reshaped"])
def test_a_base_that_lacks_a_tensor_is_refused_and_not_filled_with_noise(bench: Workbench, base: Path, component: str, spoil: str) -> None:
    (file,) = (base / component).glob("*.safetensors")
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if name.endswith(".weight") and tensors[name].ndim == 2)
    lost = tensors.pop(name)
    if spoil == "reshaped":
        tensors[name] = lost[: len(lost) // 2].copy()
    save_file(tensors, file, {"format": "pt"})
    (tile,) = draw(bench, checkpoints=(None,))
    assert tile.fault and tile.path is None and (component in tile.fault.error or spoil == "reshaped") and str(base) in tile.fault.error


def test_a_base_in_half_precision_that_cannot_be_made_leaves_torch_computing_in_full(base: Path) -> None:
    file = base / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"down_block_types": ["NoSuchBlock"] * 2}))
    with pytest.raises(Unreadable, match="NoSuchBlock"):
        load_pipeline(base, torch.float16, silent)
    assert torch.get_default_dtype() == torch.float32


def test_a_vae_that_makes_pictures_of_another_size_is_refused(bench: Workbench, base: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    own = AutoencoderKL.from_pretrained(base / "vae")
    blocks = len(own.config.block_out_channels) + 1
    config = dict(own.config) | {
        "block_out_channels": [own.config.block_out_channels[0]] * blocks,
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
    }
    AutoencoderKL.from_config(config).save_pretrained(tmp_path / "vae")
    (tile,) = draw(bench, checkpoints=(None,), samplings=(Sampling(2, 3.0, vae=str(tmp_path / "vae")),))
    assert tile.fault and tile.fault.code == Refused.exit_code and "another size" in tile.fault.error


def test_a_picture_of_another_size_than_asked_is_no_picture(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    paint = batch.paint
    monkeypatch.setattr(batch, "paint", lambda *given: [image.resize((8, 8)) for image in paint(*given)])
    (tile,) = draw(bench, checkpoints=(None,), samplings=(Sampling(2, 3.0, 16, 16, "DDIM"),))
    assert tile.fault and "16 × 16 was asked for" in tile.fault.error and not list((bench.store.home).glob("cells/*/*.png"))


def test_clip_skip_is_refused_where_it_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(Refused, match="clip skip changes nothing"):
        check_clip_skip(tmp_path)


# ---- what is put on ----


def test_an_adapter_is_put_on_and_proven_with_one_look_at_the_model(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(bench, mode="exact")
    looks: list[int] = []
    look: Callable[..., Any] = pipeline.lora_layers
    monkeypatch.setattr(pipeline, "lora_layers", lambda modules: looks.append(1) or look(modules))
    tiles = draw(bench, mode="exact", seeds=(5,))
    assert len(tiles) == len(looks) == 2 and not any(tile.fault for tile in tiles)


def test_a_batch_on_a_card_leaves_room_for_the_adapters_of_its_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30_000_000_000, 40_000_000_000))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    card = torch.device("cuda")
    assert batch.most_at_once(card, 512, 512) == 9
    assert batch.most_at_once(card, 512, 512, 166_000_000) == 6  # a GB each: in half precision, three times
    assert batch.most_at_once(torch.device("cpu"), 512, 512, 10**12) == 1 == batch.most_at_once(torch.device("cpu"), 512, 512)


def test_the_numbers_of_an_adapter_are_counted_from_its_header(bench: Workbench, base: Path) -> None:
    run, checkpoint = bench.find("run@2")
    preparing = bench._preparing(GridSpec((checkpoint, None), SHOE, mode="fast"), (run,), Answers(base="sd_nano"))
    ones = [preparing.prepare(cell) for cell in GridSpec((checkpoint, None), SHOE, mode="fast").cells()]
    assert [preparing.numbers(one) for one in ones] == [sum(values.size for values in unet_adapter(base, 4, 2).values()), 0]


@pytest.mark.skipif(DEVICE != "cpu", reason="lanes are a processor's")
def test_a_lone_picture_of_a_small_model_has_a_lane_for_each_row_and_the_same_picture(bench: Workbench) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (exact,) = draw(bench, checkpoints=(None,), mode="exact")
        own = pixels(exact.path).astype(int)
        worn = bench.studio()._worn
        assert worn is not None
        rows: list[int] = []
        handle = worn.pipe.unet.conv_in.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
        shutil.rmtree(bench.store.home / "cells")
        (fast,) = draw(bench, checkpoints=(None,))
        handle.remove()
    finally:
        torch.set_num_threads(before)
    assert rows == [1, 1, 1, 1] and fast.fault is None
    assert exact.key != fast.key and np.abs(pixels(fast.path) - own).max() <= GREY
