"""One pipeline in memory draws for many checkpoints, runs and bases: each picture is still that of its own model, or is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.progress import run_through
from cmp.disk.bases import digest_base
from cmp.disk.ready import Answers
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, tiles_of

from .conftest import GUIDANCE, PROMPT, SEED, STEPS, draw_alone, pixels
from .making import UNET_FILE, adapter, unet_adapter, write_step

pytestmark = pytest.mark.model

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
NANO = "sd_nano"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A miniature of Stable Diffusion 1.5, every component of it, in a folder of its own."""
    return Path(shutil.copytree(CORPUS / "bases" / NANO, tmp_path / "bases" / NANO))


@pytest.fixture
def bench(tmp_path: Path, base: Path) -> Workbench:
    (tmp_path / "outputs").mkdir()
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))


def draw(bench: Workbench, target: str | None, strength: float = 1.0, like: str = "") -> Tile:
    """One cell of a target; None is the base model of the run that `like` is a checkpoint of."""
    run, checkpoint = bench.find(target or like)
    columns = (checkpoint if target else None,)
    spec = GridSpec(columns, (Prompt(PROMPT),), (SEED,), (strength,), (Sampling(STEPS, GUIDANCE),))
    (tile,) = tiles_of(bench.draw_grid(spec, [run], Answers(base=NANO)))
    return tile


def alone(base: Path, file: Path | None = None, strength: float = 1.0) -> np.ndarray:
    """The same picture by diffusers in a fresh pipeline."""
    pipe = fresh(base)
    if file:
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="one")
        pipe.set_adapters(["one"], [strength])
    return draw_alone(pipe)


def fresh(base: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(base, safety_checker=None)


# one after another in one pipeline


def test_two_runs_of_equal_name_in_one_grid_each_show_their_own_picture(bench: Workbench, base: Path, tmp_path: Path) -> None:
    files = [write_step(tmp_path / place / "run1", 4, unet_adapter(base, 4, seed)) for seed, place in enumerate(("here", "there"))]
    found = [bench.find(str(file.parent)) for file in files]
    assert found[0][1] and found[1][1] and found[0][1].id == found[1][1].id
    spec = GridSpec(tuple(c for _, c in found), (Prompt(PROMPT),), (SEED,), samplings=(Sampling(STEPS, GUIDANCE),))
    tiles = tiles_of(bench.draw_grid(spec, [run for run, _ in found], Answers(base=NANO)))
    assert [tile.fault for tile in tiles] == [None, None] and tiles[0].key != tiles[1].key
    for tile, file in zip(tiles, files, strict=True):
        assert np.array_equal(pixels(tile.path), alone(base, file)), file


def test_what_was_worn_before_leaves_no_trace(bench: Workbench, base: Path, tmp_path: Path) -> None:
    """A LoRA of UNet and text encoder, then one of the UNet alone with another rank at half strength, then the base, then the first."""
    run = tmp_path / "outputs" / "mixed"
    with_text = unet_adapter(base, 4, 1) | adapter(base, "text_encoder", 4, 2, ("q_proj", "v_proj"))
    files = {2: write_step(run, 2, with_text), 4: write_step(run, 4, unet_adapter(base, 8, 3))}
    first, of_base = alone(base, files[2]), alone(base)
    assert np.array_equal(pixels(draw(bench, "mixed@2").path), first)
    assert np.array_equal(pixels(draw(bench, "mixed@4", 0.5).path), alone(base, files[4], 0.5))
    pipe = bench.studio().pipeline(base, digest_base(base, bench.store)).pipe
    for part in (pipe.unet, pipe.text_encoder):  # unaligned memory rounds differently
        assert all(tensor.data_ptr() % 64 == 0 for tensor in (*part.parameters(), *part.buffers()))
    assert np.array_equal(pixels(draw(bench, None, like="mixed@2").path), of_base)
    shutil.rmtree(bench.store.home / "cells")
    again = draw(bench, "mixed@2")
    assert not again.reused and np.array_equal(pixels(again.path), first) and not np.array_equal(first, of_base)


def test_an_adapter_that_cannot_be_attached_leaves_the_pipeline_as_it_was(bench: Workbench, base: Path, tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "broken"
    with_embedding = unet_adapter(base, 4, 1) | adapter(base, "text_encoder", 4, 2, ("q_proj", "token_embedding"))
    write_step(run, 2, with_embedding)
    file = write_step(run, 4, unet_adapter(base, 8, 3))
    for before in (None, "broken@4"):
        if before:
            assert draw(bench, before).fault is None
        failed = draw(bench, "broken@2")
        assert failed.fault and failed.fault.code == Refused.exit_code and failed.path is None, failed.fault
        shutil.rmtree(bench.store.home / "cells", ignore_errors=True)
        assert np.array_equal(pixels(draw(bench, None, like="broken@4").path), alone(base))
        assert np.array_equal(pixels(draw(bench, "broken@4").path), alone(base, file))


def test_an_adapter_that_was_attached_by_half_is_taken_out_again(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmp.engine.device import choose_device
    from cmp.engine.pipeline import WornPipeline, adapter_tensors

    mixed = unet_adapter(base, 4, 1) | adapter(base, "text_encoder", 4, 2, ("q_proj",))
    worn = WornPipeline(base, choose_device(DEVICE))
    load = worn.pipe.load_lora_weights

    def fails_at_the_text_encoder(state: dict[str, Any], **more: Any) -> None:
        load({name: values for name, values in state.items() if name.startswith("unet.")}, **more)
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(worn.pipe, "load_lora_weights", fails_at_the_text_encoder)
        with pytest.raises(Refused, match="out of memory"):
            worn.wear_lora("mixed", mixed, 1.0)
    assert worn.worn is None and not adapter_tensors({"unet": worn.pipe.unet, "text_encoder": worn.pipe.text_encoder})
    worn.wear_nothing()
    assert np.array_equal(draw_alone(worn.pipe), alone(base))
    worn.wear_lora("mixed", mixed, 1.0)
    assert np.array_equal(draw_alone(worn.pipe), alone(base, write_step(tmp_path / "run", 2, mixed)))


def test_a_base_that_was_replaced_on_the_disk_is_loaded_anew(bench: Workbench, base: Path, tmp_path: Path) -> None:
    write_step(tmp_path / "outputs" / "any", 2, unet_adapter(base, 4, 1))
    before = draw(bench, None, like="any@2")
    state = load_file(base / UNET_FILE)
    save_file({name: values * np.float32(1.2) for name, values in state.items()}, base / UNET_FILE, {"format": "pt"})
    after = draw(bench, None, like="any@2")
    assert after.fault is None and after.key != before.key and not after.reused
    assert np.array_equal(pixels(after.path), alone(base)) and not np.array_equal(pixels(after.path), pixels(before.path))


def test_a_full_fine_tune_at_half_strength_is_half_way_from_the_base(bench: Workbench, base: Path, tmp_path: Path) -> None:
    tuned = Path(shutil.copytree(base, tmp_path / "tuned"))
    state = {name: values * np.float32(1.2) for name, values in load_file(base / UNET_FILE).items()}
    save_file(state, tuned / UNET_FILE, {"format": "pt"})
    shutil.copytree(tuned / "unet", tmp_path / "outputs" / "full" / "checkpoint-2" / "unet")
    half = Path(shutil.copytree(base, tmp_path / "half"))
    start = load_file(base / UNET_FILE)
    save_file({n: start[n] + np.float32(0.5) * (values - start[n]) for n, values in state.items()}, half / UNET_FILE, {"format": "pt"})
    assert np.array_equal(pixels(draw(bench, "full@2", 0.5).path), alone(half))
    assert np.array_equal(pixels(draw(bench, "full@2").path), alone(tuned))
    assert np.array_equal(pixels(draw(bench, None, like="full@2").path), alone(base))


# trained on a rounded base


def test_a_dump_in_bf16_is_drawn_on_the_base_rounded_as_it_was_for_training(bench: Workbench, base: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    run, other = tmp_path / "outputs" / "half", tmp_path / "outputs" / "single"
    for copy in (run, other):
        shutil.copytree(CORPUS / "acc_peft_bf16" / "outputs" / "RUN", copy)
    dump = load_torch(run / "checkpoints" / "checkpoint-2" / "model.safetensors")
    assert {t.dtype for n, t in dump.items() if ".lora_" not in n} == {torch.bfloat16}
    config = json.loads((run / "lora_weights" / "adapter_config.json").read_bytes())
    pipe = fresh(base)
    pipe.unet.to(torch.bfloat16).to(torch.float32)
    wrapped = get_peft_model(pipe.unet, LoraConfig(**{key: config[key] for key in ("r", "lora_alpha", "target_modules")}))
    wrapped.load_state_dict(dump, strict=True)
    pipe.unet = wrapped.base_model.model.eval()
    # the same adapter trained on the base as it is: the same trained tensors, another picture, so another key
    whole, state = {}, load_torch(base / UNET_FILE)
    for name, tensor in dump.items():
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        whole[name] = tensor if ".lora_" in name else state[plain]
    save_torch(whole, other / "checkpoints" / "checkpoint-2" / "model.safetensors")

    tile = draw(bench, "half@2")
    assert tile.fault is None and np.array_equal(pixels(tile.path), draw_alone(pipe))
    single = draw(bench, "single@2")
    assert single.fault is None and single.key != tile.key and not single.reused
    assert not np.array_equal(pixels(single.path), pixels(tile.path))


def test_the_base_column_beside_a_rounded_base_is_the_base_as_it_is(bench: Workbench, base: Path, tmp_path: Path) -> None:
    shutil.copytree(CORPUS / "acc_peft_bf16" / "outputs" / "RUN", tmp_path / "outputs" / "half")
    assert draw(bench, "half@2").fault is None
    assert np.array_equal(pixels(draw(bench, None, like="half@2").path), alone(base))


# adapters of other measures


def of_kernel(out: int, into: int, kernel: int, rank: int = 4) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (rank, into, kernel, kernel), (out, rank, 1, 1)


@pytest.mark.parametrize(
    ("module", "down", "up"),
    [
        ("unet.conv_in", *of_kernel(4, 4, 1)),  # the base's kernel is 3×3
        ("unet.conv_in", (4, 4), (4, 4)),
        ("unet.conv_in", *of_kernel(4, 3, 3)),
        ("unet.conv_out", (4, 4, 3, 3), (4, 4, 3, 3)),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", (4, 16), (12, 4)),  # a text encoder of another width
        ("unet.conv_norm_out", (4, 4), (4, 4)),  # a norm has one axis
        ("text_encoder.encoder.layers.0.layer_norm1", (4, 8), (8, 4)),
    ],
)
def test_an_adapter_of_other_measures_is_refused_and_the_module_is_named(
    bench: Workbench, base: Path, tmp_path: Path, module: str, down: tuple[int, ...], up: tuple[int, ...]
) -> None:
    bad = {f"{module}.lora_A.weight": np.ones(down, "f4"), f"{module}.lora_B.weight": np.ones(up, "f4")}
    write_step(tmp_path / "outputs" / "other", 2, unet_adapter(base, 4, 1) | bad)
    tile = draw(bench, "other@2")
    named = module.partition(".")[2]
    assert tile.path is None and tile.fault and tile.fault.code == Refused.exit_code and named in tile.fault.error, tile.fault
    with pytest.raises(Refused, match=named):
        run_through(bench.convert(bench.plan_conversion("other@2", "pipeline", Answers(base=NANO), output=tmp_path / "never")))
    assert not (tmp_path / "never").exists()
