"""The demo, unpacked once for all tests that draw, and pictures drawn with diffusers alone to hold ours against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, tiles_of

FULL = "lora_casual_shoes_3000steps_full"
PROMPT, SEED, STEPS, GUIDANCE = "a red casual shoe", 3, 4, 4.0


@pytest.fixture
def bench(demo_home: Path) -> Workbench:
    """A workbench over the demo."""
    return Workbench(Settings(home=demo_home, device=DEVICE))


@pytest.fixture(scope="session")
def base_folder(demo_home: Path) -> Path:
    return demo_home / "demo" / "bases" / "cmp-demo" / "tiny-shapes"


@pytest.fixture(scope="session")
def demo_run(demo_home: Path) -> Path:
    return demo_home / "demo" / "training" / "outputs" / FULL


def pixels(path: Path | None) -> np.ndarray:
    from PIL import Image

    assert path is not None
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def draw(bench: Workbench) -> Callable[..., Tile]:
    """Draws one cell of a target through the workbench; None is the base model."""

    def one(target: str | None, **sampling: Any) -> Tile:
        run, checkpoint = bench.find(target or FULL)
        spec = GridSpec(
            checkpoints=(checkpoint,),
            prompts=(Prompt(sampling.pop("prompt", PROMPT)),),
            seeds=(SEED,),
            strengths=(sampling.pop("strength", 1.0),),
            samplings=(Sampling(STEPS, GUIDANCE, **sampling),),
        )
        (tile,) = tiles_of(bench.draw_grid(spec, [run]))
        return tile

    return one


def at_home(pipe: Any, base: Path | None = None) -> Any:
    """A pipeline of diffusers', put where the tests draw; on a processor from 64-byte aligned weights, as the reference demands."""
    import torch

    from cmp.engine import device

    place = device.choose_device(DEVICE)
    pipe.to(place, device.choose_dtype(place, base))
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            device.realign(part)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw_alone(pipe: Any) -> np.ndarray:
    """The same picture with diffusers' plain call."""
    import torch

    at_home(pipe)
    generator = torch.Generator("cpu").manual_seed(SEED)
    image = pipe(PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator).images[0]
    return np.asarray(image)
