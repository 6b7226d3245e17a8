"""Every family of models: one picture alone has the pixels of diffusers' plain call, and in company those within a grey level."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.disk.ready import Answers
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, GREY, Tensors, tiles_of, unpack

from .conftest import at_home, pixels
from .making import WEIGHTS, adapter, write_step

pytestmark = pytest.mark.model

DATA = Path(__file__).parents[1] / "data" / "corpus"
SIDE, STEPS, CFG = 64, 2, 3.0
PROMPTS = (Prompt("a red shoe"), Prompt("a blue star", "blurry"))
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# the base → the modules that are adapted, by component
FAMILIES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sd_nano": {"unet": ("to_q", "to_v", "conv1", "proj_in", "time_emb_proj"), "text_encoder": ("q_proj", "fc1")},
    "sdxl_tiny": {"unet": ATTENTION, "text_encoder": ("q_proj",), "text_encoder_2": ("k_proj", "out_proj")},
    "sd3_tiny": {"transformer": (*ATTENTION, "add_q_proj")},
    "flux_tiny": {"transformer": (*ATTENTION, "proj_mlp")},
}


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("families")
    unpack(DATA / "small.tar.xz", place)
    unpack(DATA / "sd3_tiny.tar.xz", place / "bases")
    return place / "bases"


@pytest.fixture(params=FAMILIES)
def base(bases: Path, request: pytest.FixtureRequest) -> Path:
    return bases / request.param


def make(base: Path, rank: int, seed: int) -> Tensors:
    made: Tensors = {}
    for number, (component, ends) in enumerate(FAMILIES[base.name].items()):
        made |= adapter(base, component, rank, seed + number, ends)
    return made


@pytest.fixture
def bench(tmp_path: Path, base: Path) -> Workbench:
    """Two steps, the second with another rank."""
    for step, rank in ((2, 4), (4, 6)):
        write_step(tmp_path / "outputs" / "run", step, make(base, rank, step))
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))


def draw(bench: Workbench, base: Path, mode: str, **axes: Any) -> list[Tile]:
    run, _ = bench.find("run")
    values = {"checkpoints": (None, *run.checkpoints), "prompts": PROMPTS, "samplings": (Sampling(STEPS, CFG, SIDE, SIDE),), "mode": mode}
    return tiles_of(bench.draw_grid(GridSpec(**(values | axes)), [run], Answers(base=str(base))))


def alone(base: Path, file: Path | None, prompt: Prompt, seed: int, strength: float = 1.0) -> np.ndarray:
    """One picture by diffusers in a fresh pipeline."""
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(base, local_files_only=True)
    if file:
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="one")
        pipe.set_adapters(["one"], [strength])
    at_home(pipe, base)
    more = {"negative_prompt": prompt.negative} if prompt.negative else {}
    generator = torch.Generator("cpu").manual_seed(seed)
    asked = {"num_inference_steps": STEPS, "guidance_scale": CFG, "width": SIDE, "height": SIDE, "generator": generator}
    return np.asarray(pipe(prompt.text, **asked, **more).images[0])


def test_one_picture_alone_is_diffusers_own_to_the_bit(bench: Workbench, base: Path, tmp_path: Path) -> None:
    tiles = draw(bench, base, "exact", seeds=(3,))
    assert not [tile.fault for tile in tiles if tile.fault]
    for tile in tiles:
        step = tile.cell.checkpoint
        file = tmp_path / "outputs" / "run" / f"checkpoint-{step.step}" / WEIGHTS if step else None
        assert np.array_equal(pixels(tile.path), alone(base, file, tile.cell.prompt, 3)), tile.cell


def test_in_company_every_picture_is_within_a_grey_level_of_the_one_drawn_alone(bench: Workbench, base: Path) -> None:
    """Base and both checkpoints in one batch, at two strengths, with two prompts and two seeds."""
    axes = {"seeds": (3, 4), "strengths": (1.0, 0.5)}
    fast = {tile.cell: tile for tile in draw(bench, base, "fast", **axes)}
    assert not [tile.fault for tile in fast.values() if tile.fault]
    assert {tile.mode for tile in fast.values()} == {"fast"}
    exact = {tile.cell: tile for tile in draw(bench, base, "exact", **axes)}
    assert len(fast) == len(exact) == 20 and not any(tile.reused for tile in exact.values())
    for cell, tile in fast.items():
        off = np.abs(pixels(tile.path).astype(int) - pixels(exact[cell].path))
        assert off.max() <= GREY, (cell, off.max())
    looks = {pixels(tile.path).tobytes() for tile in exact.values()}
    assert len(looks) == 20  # so that equal pictures under different names would be seen


def test_what_was_drawn_exactly_serves_where_fast_is_asked_for_and_never_the_reverse(bench: Workbench, base: Path) -> None:
    exact = draw(bench, base, "exact", prompts=PROMPTS[:1])
    served = draw(bench, base, "fast", prompts=PROMPTS[:1])
    assert all(tile.reused and tile.mode == "exact" for tile in served) and [t.key for t in served] == [t.key for t in exact]
    fast = draw(bench, base, "fast", prompts=PROMPTS[1:])
    again = draw(bench, base, "exact", prompts=PROMPTS[1:])
    assert not any(tile.reused for tile in (*fast, *again))
