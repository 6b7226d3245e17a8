"""A model that was shared draws, loaded by its folder alone, what its checkpoint draws: the scale is in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cmp.core.grids import Tile
from cmp.core.progress import run_through
from cmp.core.publishing import Wanted
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


def test_the_base_models_picture_stands_beside_those_that_were_drawn_the_same_way(
    bench: Workbench, draw: Callable[..., Tile], tmp_path: Path
) -> None:
    mine = "a shoe that no other test draws"
    own, base = draw(f"{FULL}@1000", prompt=mine), draw(None, prompt=mine)
    draw(None, prompt=mine, scheduler="Euler")  # beside which nothing stands
    assert own.path and base.path
    with bench.shared(FULL, Wanted(tmp_path / "page", png=True)) as planning:
        run_through(bench.share(run_through(planning)))
    text = (tmp_path / "page" / "index.html").read_text("utf-8")
    told = [json.loads(value) for value in re.findall(r'<script type="application/json" data-matrix="[^"]*">(.*?)</script>', text)]
    grids = [value for value in told if mine in _labels(value)]
    assert grids[0]["step_axis"] == "checkpoint"
    assert len([grid for grid in grids if "base model" in _labels(grid)]) == 1
    for name, tile in (("base model", base), ("step 1000", own)):
        (cell,) = [cell for cell in grids[0]["cells"] if {name, mine} <= _labels(grids[0], cell["at"])]
        assert np.array_equal(pixels(tmp_path / "page" / cell["full"]), pixels(tile.path))


def _labels(grid: dict, at: list[int | None] | None = None) -> set[str]:
    """What the grid's axes say, or what they say of the cell that stands there."""
    heads = [axis["values"] for axis in grid["axes"]]
    chosen = [each if at is None else [] if at[i] is None else [each[at[i]]] for i, each in enumerate(heads)]
    return {head["label"] for each in chosen for head in each}
