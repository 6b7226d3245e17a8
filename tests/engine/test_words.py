"""Learned words: each is drawn as the word that it is, and what would leave no trace in a picture is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.disk.ready import Answers
from cmp.engine.prompts import Prompts
from cmp.engine.words import Bundled
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, GREY, Tensors, tiles_of

from .conftest import at_home, pixels
from .making import WEIGHTS, unet_adapter, write_step

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
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))


def draw(bench: Workbench, target: str, prompt: Prompt, *strengths: float, mode: str = "exact") -> list[Tile]:
    """`target` "base" is the base model alone."""
    run, checkpoint = (bench.find("run")[0], None) if target == "base" else bench.find(target)
    spec = GridSpec((checkpoint,), (prompt,), (1,), strengths or (1.0,), (Sampling(2, 3.0, scheduler="DDIM"),), mode=mode)
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


def bundle(run: Path, step: int, tensors: Tensors) -> Path:
    """Puts tables of words beside the LoRA of a step."""
    file = run / f"checkpoint-{step}" / WEIGHTS
    with safe_open(file, "np") as opened:
        metadata = opened.metadata()
    save_file(load_file(file) | dict(tensors), file, metadata)
    return file


def rows(base: Path, count: int, value: float) -> np.ndarray:
    width = next(values.shape[1] for name, values in load_file(base / "text_encoder/model.safetensors").items() if "token_emb" in name)
    return np.random.default_rng(round(value * 10)).normal(size=(count, width)).astype("f4") * np.float32(value)


@pytest.mark.parametrize("part", ["clip_l", "clip_g", "clip_l_out", "unheard_of"])
def test_a_prompt_that_uses_a_word_which_cannot_be_put_on_is_refused_and_others_are_drawn(
    bench: Workbench, base: Path, tmp_path: Path, part: str
) -> None:
    table = rows(base, 1, 1)
    file = bundle(tmp_path / "outputs" / "run", 2, {f"bundle_emb.sks.{part}": table, f"bundle_emb.<b+>.{part}": table})
    for prompt in (Prompt("a Sks shoe"), Prompt("a shoe", "(sks:1.1)"), Prompt("<b+>")):
        (tile,) = draw(bench, "run@2", prompt)
        assert tile.fault and tile.fault.code == Refused.exit_code, prompt
        assert ("sks" in tile.fault.error or "<b+>" in tile.fault.error) and file.name in tile.fault.error
    assert [tile.fault for tile in draw(bench, "run@2", Prompt("she asks for a shoe"))] == [None]


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("part", ["string_to_param.*", "emb_params"])
def test_a_word_beside_a_lora_is_drawn_as_diffusers_draws_both(bench: Workbench, base: Path, tmp_path: Path, part: str, mode: str) -> None:
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    table = rows(base, 3, 1.5)
    file = bundle(tmp_path / "outputs" / "run", 2, {f"bundle_emb.sks.{part}": table})
    (tile,) = draw(bench, "run@2", Prompt("a red Sks, on a table", "blurry sks"), mode=mode)
    pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.load_lora_weights({name: torch.from_numpy(values) for name, values in load_file(file).items() if "bundle" not in name})
    pipe.load_textual_inversion({"sks": torch.from_numpy(table)}, token="sks")
    asked = {"num_inference_steps": 2, "guidance_scale": 3.0, "generator": torch.Generator("cpu").manual_seed(1)}
    image = at_home(pipe)("a red sks, on a table", negative_prompt="blurry sks", **asked).images[0]
    assert tile.fault is None and np.abs(pixels(tile.path).astype(int) - np.asarray(image)).max() <= GREY
    (plain,) = draw(bench, "run@2", Prompt("a red skies, on a table", "blurry skies"), mode=mode)
    assert not np.array_equal(pixels(plain.path), pixels(tile.path))


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_word_is_gone_for_the_next_checkpoint_and_the_base(bench: Workbench, base: Path, tmp_path: Path, mode: str) -> None:
    write_step(tmp_path / "outputs" / "run", 4, unet_adapter(base, 4, 4))
    prompt = Prompt("a red sks")
    before = [pixels(draw(bench, target, prompt, mode=mode)[0].path) for target in ("run@4", "base")]
    worn = bench.studio()._worn
    assert worn is not None
    tokens, table = len(worn.pipe.tokenizer), worn.pipe.text_encoder.get_input_embeddings().weight.detach().clone()
    bundle(tmp_path / "outputs" / "run", 2, {"bundle_emb.sks.string_to_param.*": rows(base, 2, 3)})
    (taught,) = draw(bench, "run@2", prompt, mode=mode)
    assert taught.fault is None
    assert len(worn.pipe.tokenizer) == tokens and worn.pipe.text_encoder.get_input_embeddings().weight.equal(table)
    worn.prompts = Prompts()  # nothing that was read before
    shutil.rmtree(bench.store.home / "cells")
    after = [draw(bench, target, prompt, mode=mode)[0] for target in ("run@4", "base")]
    assert not any(tile.reused for tile in after)
    assert all(np.array_equal(pixels(tile.path), own) for tile, own in zip(after, before, strict=True))


def test_cells_of_one_batch_with_different_rows_for_one_word_each_draw_their_own(bench: Workbench, base: Path, tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "run"
    write_step(run, 4, unet_adapter(base, 4, 2))  # the same LoRA
    for step, much in ((2, 1.0), (4, 3.0)):
        bundle(run, step, {"bundle_emb.sks.string_to_param.*": rows(base, 1, much)})
    found, _ = bench.find("run")
    spec = GridSpec(found.checkpoints, (Prompt("a red sks"),), (1,), samplings=(Sampling(2, 3.0, scheduler="DDIM"),), mode="fast")
    together = tiles_of(bench.draw_grid(spec, [found], Answers(base="sd_nano")))
    assert [tile.fault for tile in together] == [None, None] and together[0].key != together[1].key
    assert not np.array_equal(pixels(together[0].path), pixels(together[1].path))
    for tile, target in zip(together, ("run@2", "run@4"), strict=True):
        (alone,) = draw(bench, target, Prompt("a red sks"))
        assert np.abs(pixels(alone.path).astype(int) - pixels(tile.path)).max() <= GREY


def test_a_word_that_the_prompt_does_not_use_changes_no_key_and_one_that_it_uses_does(bench: Workbench, base: Path, tmp_path: Path) -> None:
    prompts = (Prompt("she asks for a shoe"), Prompt("a sks"))
    known = [draw(bench, "run@2", prompt)[0].key for prompt in prompts]
    for much in (1.0, 2.0):
        bundle(tmp_path / "outputs" / "run", 2, {"bundle_emb.sks.string_to_param.*": rows(base, 1, much)})
        asks, sks = (draw(bench, "run@2", prompt)[0] for prompt in prompts)
        assert asks.key == known[0] and asks.reused and sks.key not in known and not sks.reused
        known.append(sks.key)


@pytest.mark.parametrize(
    ("made", "prompt", "told"),
    [
        (lambda base: rows(base, 1, 1)[:, :-1].copy(), "a sks", "numbers wide"),
        (lambda base: rows(base, 80, 1), "a sks", "cut off"),
        (lambda base: rows(base, 1, 1), f"{'very ' * 80} sks", "cut off"),
        (lambda base: rows(base, 1, 1) * np.float32("nan"), "a sks", "NaN"),
        (lambda base: rows(base, 0, 1), "a sks", "rows × width"),
    ],
)
def test_a_word_that_would_not_be_read_whole_is_refused(
    bench: Workbench, base: Path, tmp_path: Path, made: Callable[[Path], np.ndarray], prompt: str, told: str
) -> None:
    bundle(tmp_path / "outputs" / "run", 2, {"bundle_emb.sks.string_to_param.*": made(base)})
    (tile,) = draw(bench, "run@2", Prompt(prompt))
    assert tile.fault and tile.fault.code == Refused.exit_code and told in tile.fault.error
    assert draw(bench, "run@2", Prompt("a shoe"))[0].fault is None


def test_of_two_words_that_begin_alike_the_longer_is_meant() -> None:
    words = Bundled({"sks": np.ones((1, 2), "f4"), "sks style": np.ones((2, 2), "f4")}, "")
    tokens = {"sks": ["<a>"], "sks style": ["<b>", "<c>"]}
    assert words.spell("SKS Style of a sks, no sksx", tokens) == "<b><c> of a <a>, no sksx"


def test_a_word_that_fails_midway_leaves_the_text_encoder_as_it_was(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers enlarges the table before it adds the word to the tokenizer."""
    (plain,) = draw(bench, "base", SHOE)
    worn = bench.studio()._worn
    assert worn is not None
    before, size = pixels(plain.path), len(worn.pipe.text_encoder.get_input_embeddings().weight)

    def fail(*given: object, **more: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(type(worn.pipe.tokenizer), "add_tokens", fail)
    (tile,) = draw(bench, str(tmp_path / "outputs" / "words" / "xshoe.safetensors"), Prompt("a xshoe"))
    assert tile.fault and "broken" in tile.fault.error
    monkeypatch.undo()
    assert worn.pipe.text_encoder.get_input_embeddings().weight.shape[0] > size  # as the libraries left it
    shutil.rmtree(bench.store.home / "cells")
    (again,) = draw(bench, "base", SHOE)
    assert len(worn.pipe.text_encoder.get_input_embeddings().weight) == size and np.array_equal(pixels(again.path), before)
