"""The pictures that stand under a checkpoint's name are those of the model that was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.progress import run_through
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, GREY, tiles_of

from .conftest import FULL, GUIDANCE, PROMPT, SEED, STEPS, draw_alone, pixels

pytestmark = pytest.mark.model


def trained_pipeline(base: Path, run: Path, step: int):
    """The pipeline as it was while training: PEFT's own wrapping, every one of the 942 tensors loaded strictly."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig, get_peft_model

    pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    config = json.loads((run / "lora_weights" / "adapter_config.json").read_bytes())
    wrapped = get_peft_model(pipe.unet, LoraConfig(r=config["r"], lora_alpha=config["lora_alpha"], target_modules=config["target_modules"]))
    state = load_file(run / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")
    assert len(state) == 942
    wrapped.load_state_dict(state, strict=True)
    pipe.unet = wrapped.base_model.model.eval()
    return pipe


def test_a_cell_has_the_pixels_of_the_model_that_was_trained(draw: Callable[..., Tile], base_folder: Path, demo_run: Path) -> None:
    ours = pixels(draw(f"{FULL}@1500").path)
    trained = draw_alone(trained_pipeline(base_folder, demo_run, 1500))
    # the scale that is folded into the factors here is applied behind them there, which in half precision rounds otherwise
    assert np.array_equal(ours, trained) if DEVICE == "cpu" else np.abs(ours.astype(int) - trained).mean() < 1


def test_a_cell_has_the_pixels_of_diffusers_with_the_converted_file(
    bench: Workbench, draw: Callable[..., Tile], base_folder: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    file = tmp_path / "step-1000.safetensors"
    run_through(bench.convert(bench.plan_conversion(f"{FULL}@1000", "lora", output=file)))
    pipe = StableDiffusionPipeline.from_pretrained(base_folder, safety_checker=None)
    base_alone = draw_alone(pipe)
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    ours = pixels(draw(f"{FULL}@1000").path)
    assert np.array_equal(ours, draw_alone(pipe))
    assert not np.array_equal(ours, base_alone)


def test_the_webui_file_draws_what_the_checkpoint_draws(
    bench: Workbench, draw: Callable[..., Tile], base_folder: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    file = tmp_path / "webui.safetensors"
    run_through(bench.convert(bench.plan_conversion(f"{FULL}@2000", "webui", output=file)))
    pipe = StableDiffusionPipeline.from_pretrained(base_folder, safety_checker=None)
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    assert np.array_equal(pixels(draw(f"{FULL}@2000").path), draw_alone(pipe))


def test_the_base_column_has_the_pixels_of_the_base_alone_after_a_checkpoint_was_worn(draw: Callable[..., Tile], base_folder: Path) -> None:
    from diffusers import StableDiffusionPipeline

    draw(f"{FULL}@500", height=64, width=64)
    ours = pixels(draw(None).path)
    assert np.array_equal(ours, draw_alone(StableDiffusionPipeline.from_pretrained(base_folder, safety_checker=None)))


def test_the_converted_pipeline_draws_the_same_alone_and_here(bench: Workbench, draw: Callable[..., Tile], tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    from cmp.core.grids import Cell
    from cmp.engine.paint import paint
    from cmp.engine.studio import Studio

    target = tmp_path / "pipeline"
    run_through(bench.convert(bench.plan_conversion(f"{FULL}@1500", "pipeline", output=target)))
    alone = draw_alone(StableDiffusionPipeline.from_pretrained(target, safety_checker=None))
    here = np.asarray(paint(Studio(DEVICE).pipeline(target), [Cell(None, Prompt(PROMPT), SEED, 1.0, Sampling(STEPS, GUIDANCE))])[0])
    assert np.array_equal(here, alone)
    # merged and unmerged weights round differently: at most a grey level or two, where another step or the base is far away
    with_adapter = pixels(draw(f"{FULL}@1500").path).astype(int)
    assert np.abs(with_adapter - alone).max() <= 2 * GREY
    assert np.abs(with_adapter - pixels(draw(None).path)).max() > 20
    record = json.loads((target / "checkpoint_metadata.json").read_bytes())
    assert record["scale"]["value"] == 2 and record["base"]["proof"] == "tensors" and record["tensors"]["pairs"] == 128


def test_the_order_of_a_grid_does_not_change_its_pictures(bench: Workbench) -> None:
    run, _ = bench.find(FULL)
    chosen = (run.checkpoint("3000"), None, run.checkpoint("500"))

    def drawn(order: tuple, guidance: float) -> dict[str | None, np.ndarray]:
        spec = GridSpec(order, (Prompt("a blue casual shoe"),), (SEED,), samplings=(Sampling(2, guidance),))
        return {t.cell.checkpoint.id if t.cell.checkpoint else None: pixels(t.path) for t in tiles_of(bench.draw_grid(spec, [run]))}

    # the second grid would be answered from the store, so the store is emptied between them
    first = drawn(chosen, 3.0)
    for picture in (bench.store.home / "cells").rglob("*.png"):
        picture.unlink()
    second = drawn(chosen[::-1], 3.0)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_second_drawing_comes_from_the_store_and_is_the_same(draw: Callable[..., Tile]) -> None:
    first = draw(f"{FULL}@2500")
    second = draw(f"{FULL}@2500")
    assert second.reused and second.key == first.key and second.path == first.path


def test_strength_zero_draws_the_base_model(draw: Callable[..., Tile]) -> None:
    assert np.array_equal(pixels(draw(f"{FULL}@3000", strength=0.0).path), pixels(draw(None).path))


def test_the_final_is_drawn_as_what_it_is(draw: Callable[..., Tile], bench: Workbench) -> None:
    final, last = draw(f"{FULL}@final"), draw(f"{FULL}@3000")
    assert final.fault is None and final.key == last.key


def test_every_picture_carries_its_settings(draw: Callable[..., Tile]) -> None:
    from PIL import Image

    tile = draw(f"{FULL}@1000")
    with Image.open(str(tile.path)) as image:
        text, record = image.info["parameters"], json.loads(image.info["cmp"])
    assert text.startswith(PROMPT) and f"Seed: {SEED}" in text and "CFG scale: 4" in text
    assert record["checkpoint"] == f"{FULL}@1000" and record["base"]["proof"] == "tensors"


def test_a_pipeline_that_cannot_be_written_is_told_and_leaves_nothing(bench: Workbench, tmp_path: Path) -> None:
    from cmp.errors import BadInput

    (tmp_path / "file").write_text("in the way")
    plan = bench.plan_conversion(f"{FULL}@1500", "pipeline", output=tmp_path / "file" / "pipeline")
    with pytest.raises(BadInput, match="cannot write"):
        run_through(bench.convert(plan))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_wrong_base_is_not_remembered_and_a_right_one_is(bench: Workbench, tmp_path: Path) -> None:
    import shutil

    from cmp.disk.ready import Answers

    run, _ = bench.find(f"{FULL}@1500")
    outputs = tmp_path / "outputs"
    shutil.copytree(run.folder / "lora_weights", outputs / "orphan" / "lora_weights")
    own = Workbench(Settings(home=tmp_path / "home", runs=(outputs,), bases=bench.bases, device=DEVICE))
    orphan, final = own.find("orphan@final")
    wrong = Path(__file__).parents[1] / "data" / "corpus" / "bases" / "sd_nano"
    spec = GridSpec((final,), (Prompt(PROMPT),), (SEED,), samplings=(Sampling(1, 1.0),))
    (tile,) = tiles_of(own.draw_grid(spec, [orphan], Answers(base=str(wrong))))
    assert tile.fault is not None and own.answers(orphan) == Answers()
    (tile,) = tiles_of(own.draw_grid(spec, [orphan], Answers(base="cmp-demo/tiny-shapes")))
    assert tile.fault is None and own.answers(orphan).base == "cmp-demo/tiny-shapes"
