"""A grid on a Ray cluster of two workers: the same pictures, each once, whatever happens to a worker; and nothing left behind."""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.progress import Progress
from cmp.disk.ready import Answers
from cmp.errors import BadInput, Locked, NotFound, Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import tiles_of

from .conftest import pixels
from .making import unet_adapter, write_step

pytestmark = pytest.mark.model

BASES = Path(__file__).parents[1] / "data" / "corpus" / "bases"
GIVEN = Answers(base="sd_nano")
SMALL = Sampling(2, 3.0, scheduler="DDIM")
STRANGE = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A run of three steps that can be drawn, and of one that fits nothing."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    base = Path(shutil.copytree(BASES / "sd_nano", tmp_path / "bases" / "sd_nano"))
    for step in (2, 4, 6):
        write_step(tmp_path / "outputs" / "run", step, unet_adapter(base, 4, step))
    strange = {f"{STRANGE}.lora_A.weight": np.ones((4, 16), "f4"), f"{STRANGE}.lora_B.weight": np.ones((12, 4), "f4")}
    write_step(tmp_path / "outputs" / "run", 5, unet_adapter(base, 4, 5) | strange)
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device="cpu"))


def order(bench: Workbench, **axes: object) -> GridSpec:
    values: dict[str, object] = {"checkpoints": bench.find("run")[0].checkpoints, "prompts": (Prompt("a red shoe"), Prompt("a star"))}
    return GridSpec(**(values | {"samplings": (SMALL,)} | axes))  # type: ignore[arg-type]


def workers() -> list[psutil.Process]:
    """The processes below this one in which Ray runs ours."""
    return [child for child in psutil.Process().children(recursive=True) if child.name().startswith("ray::Worker")]


def processes() -> list[int]:
    return [os.pidfd_open(child.pid) for child in psutil.Process().children(recursive=True)]


def are_gone(watched: list[int]) -> bool:
    """Whether all of these processes end."""
    return all(select.select([handle], [], [], 20)[0] for handle in watched)


def test_two_workers_draw_what_one_process_draws_though_one_is_killed_and_a_checkpoint_is_bad(bench: Workbench, tmp_path: Path) -> None:
    run, _ = bench.find("run")
    spec = order(bench, seeds=(0, 1, 2))
    work = bench.draw_grid(spec, [run], GIVEN, ray="local:2")
    items, killed = [], 0
    for item in work:
        items.append(item)
        if not killed and isinstance(item, Progress) and "worker 2: denoising" in item.what:
            killed = max(workers(), key=lambda process: process.create_time()).pid
            os.kill(killed, signal.SIGKILL)
    print(set(i.what for i in items if isinstance(i, Progress)))
    tiles = tiles_of(items)
    assert killed
    assert len(tiles) == len({tile.cell for tile in tiles}) == spec.size
    local = Workbench(replace(bench.settings, home=tmp_path / "other"))
    for tile in tiles_of(local.draw_grid(spec, [run], GIVEN)):
        (other,) = (other for other in tiles if other.cell == tile.cell)
        assert (other.key, other.fault) == (tile.key, tile.fault)
        assert tile.fault or np.array_equal(pixels(other.path), pixels(tile.path))
