"""A model that was shared draws, loaded by its folder alone, what its checkpoint draws: the scale is in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cmp.core.grids import Tile
from cmp.core.publishing import Wanted
from cmp.core.progress import run_through
from cmp.workbench import Workbench

from .conftest import FULL, draw_alone, pixels

pytestmark = pytest.mark.model


def test_diffusers_loads_the_folder_and_draws_the_checkpoints_picture(
    bench: Workbench, draw: Callable[..., Tile], base_folder: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    folder = tmp_path / "model"
    with bench.shared(f"{FULL}@1000", Wanted(folder, model="me/shoes")) as planning:
        run_through(bench.share(run_through(planning)))
    pipe = StableDiffusionPipeline.from_pretrained(base_folder, safety_checker=None)
    base_alone = draw_alone(pipe)
    pipe.load_lora_weights(str(folder))
    ours = pixels(draw(f"{FULL}@1000").path)
    assert np.array_equal(ours, draw_alone(pipe)) and not np.array_equal(ours, base_alone)
