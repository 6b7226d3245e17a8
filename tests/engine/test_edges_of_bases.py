"""Bases whose components lie elsewhere, that draw with another kind of sampler, or that are held rounded."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.progress import run_through
from cmp.disk.ready import Answers
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import tiles_of

from .conftest import pixels
from .making import UNET_FILE, unet_adapter, write_step

pytestmark = pytest.mark.model

BASES = Path(__file__).parents[1] / "data" / "corpus" / "bases"
PROMPT = Prompt("a red shoe")
SMALL = Sampling(2, 3.0, scheduler="DDIM")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASES / "sd_nano", tmp_path / "bases" / "sd_nano"))


@pytest.fixture
def bench(tmp_path: Path, base: Path) -> Workbench:
    write_step(tmp_path / "outputs" / "run", 2, unet_adapter(base, 4, 2))
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device="cpu"))


def draw(bench: Workbench, target: str = "run@2", base: str = "sd_nano", sampling: Sampling = SMALL) -> Tile:
    run, checkpoint = bench.find(target)
    (tile,) = tiles_of(bench.draw_grid(GridSpec((checkpoint,), (PROMPT,), samplings=(sampling,)), [run], Answers(base=base)))
    return tile


def test_a_linked_unet_that_changes_is_drawn_anew_and_a_pipeline_made_of_the_base_holds_its_linked_parts(
    bench: Workbench, base: Path, tmp_path: Path
) -> None:
    plain = draw(bench)
    for name in ("unet", "vae"):
        shutil.move(base / name, tmp_path / "elsewhere" / name)
        (base / name).symlink_to(tmp_path / "elsewhere" / name, target_is_directory=True)
    assert draw(bench).key == plain.key
    run_through(bench.convert(bench.plan_conversion("run@2", "pipeline", Answers(base="sd_nano"), output=tmp_path / "made")))
    assert not (tmp_path / "made" / "vae").is_symlink()
    files = {name: {file.name for file in (tmp_path / "made" / name).iterdir()} for name in ("vae", "unet")}
    assert files == {name: {file.name for file in (base / name).iterdir()} for name in files}
    file = tmp_path / "elsewhere" / UNET_FILE
    save_file({name: values * np.float32(1.3) for name, values in load_file(file).items()}, file, {"format": "pt"})
    changed = draw(bench)
    assert not changed.reused and changed.key != plain.key and not np.array_equal(pixels(changed.path), pixels(plain.path))
