"""Learned words: each is drawn as the word that it is, and what would leave no trace in a picture is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.disk.ready import Answers
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import tiles_of

from .conftest import pixels
from .making import unet_adapter, write_step

pytestmark = pytest.mark.model

BASES = Path(__file__).parents[1] / "data" / "corpus" / "bases"
SHOE = Prompt("a red shoe")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASES / "sd_nano", tmp_path / "bases" / "sd_nano"))


@pytest.fixture
def bench(tmp_path: Path, base: Path) -> Workbench:
    """Two of webui's files with the same rows, of which one is for a word of the prompt; and a LoRA."""
    width = next(values.shape[1] for name, values in load_file(base / "text_encoder/model.safetensors").items() if "token_emb" in name)
    folder = tmp_path / "outputs" / "words"
    folder.mkdir(parents=True)
    for word in ("other", "xshoe"):
        save_file({"emb_params": np.full((1, width), 2, "f4")}, folder / f"{word}.safetensors")
    write_step(tmp_path / "outputs" / "run", 2, unet_adapter(base, 4, 2))
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device="cpu"))


def draw(bench: Workbench, target: str, prompt: Prompt, *strengths: float) -> list[Tile]:
    run, checkpoint = bench.find(target)
    spec = GridSpec((checkpoint,), (prompt,), (1,), strengths or (1.0,), (Sampling(2, 3.0, scheduler="DDIM"),))
    return tiles_of(bench.draw_grid(spec, [run], Answers(base="sd_nano")))


def test_a_word_that_is_a_files_name_is_part_of_what_is_drawn_and_kept(bench: Workbench, tmp_path: Path) -> None:
    prompt = Prompt("a red xshoe")
    files = {word: str(tmp_path / "outputs" / "words" / f"{word}.safetensors") for word in ("other", "xshoe")}
    (other,), (own,) = draw(bench, files["other"], prompt), draw(bench, files["xshoe"], prompt)
    assert not own.fault and not own.reused and own.key != other.key
    assert not np.array_equal(pixels(own.path), pixels(other.path))
    before = pixels(own.path)
    shutil.rmtree(bench.store.home / "cells")
    (again,) = draw(Workbench(bench.settings), files["xshoe"], prompt)
    assert again.key == own.key and np.array_equal(pixels(again.path), before)


def test_a_word_at_a_strength_is_refused_in_that_cell_alone(bench: Workbench, tmp_path: Path) -> None:
    tiles = draw(bench, str(tmp_path / "outputs" / "words" / "other.safetensors"), SHOE, 1.0, 0.5)
    half, whole = sorted(tiles, key=lambda tile: tile.cell.strength)
    assert whole.path and not whole.fault
    assert half.fault and half.fault.code == Refused.exit_code and "other" in half.fault.error and "0.5" in half.fault.error


@pytest.mark.parametrize("part", ["string_to_param.*", "clip_l", "emb_params", "unheard_of"])
def test_a_prompt_that_uses_a_word_bundled_with_a_lora_is_refused_and_others_are_drawn(bench: Workbench, tmp_path: Path, part: str) -> None:
    file = tmp_path / "outputs" / "run" / "checkpoint-2" / "pytorch_lora_weights.safetensors"
    with safe_open(file, "np") as opened:
        metadata = opened.metadata()
    save_file(
        load_file(file) | {f"bundle_emb.sks.{part}": np.ones((1, 8), "f4"), f"bundle_emb.<b+>.{part}": np.ones((1, 8), "f4")},
        file,
        metadata,
    )
    for prompt in (Prompt("a Sks shoe"), Prompt("a shoe", "(sks:1.1)"), Prompt("<b+>")):
        (tile,) = draw(bench, "run@2", prompt)
        assert tile.fault and tile.fault.code == Refused.exit_code, prompt
        assert ("sks" in tile.fault.error or "<b+>" in tile.fault.error) and file.name in tile.fault.error
    assert [tile.fault for tile in draw(bench, "run@2", Prompt("she asks for a shoe"))] == [None]
