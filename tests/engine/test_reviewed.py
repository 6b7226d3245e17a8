"""Pictures under a wrong name, and grids that die of one cell: each was possible once."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cmp.core.grids import GridSpec, Prompt, Sampling, Stacked, Tile
from cmp.core.progress import Progress
from cmp.disk.ready import Answers
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, GREY, Tensors, tiles_of

from .conftest import pixels
from .making import UNET_FILE, WEIGHTS, adapter, unet_adapter, write_step

pytestmark = pytest.mark.model

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
SMALL = Sampling(2, 3.0, scheduler="DDIM")
PROMPT = Prompt("a red shoe")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CORPUS / "bases" / "sd_nano", tmp_path / "bases" / "sd_nano"))


@pytest.fixture
def bench(tmp_path: Path, base: Path) -> Workbench:
    for step in (2, 4, 6):
        write_step(tmp_path / "outputs" / "run", step, unet_adapter(base, 4, step))
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))


def other_base(base: Path) -> Path:
    """A base of the same architecture with other weights."""
    other = Path(shutil.copytree(base, base.parent / "sd_other"))
    state = {name: values * np.float32(1.2) for name, values in load_file(base / UNET_FILE).items()}
    save_file(state, other / UNET_FILE, {"format": "pt"})
    return other


def draw(bench: Workbench, spec: GridSpec, *targets: str, base: str | None = "sd_nano") -> list[Tile]:
    return tiles_of(bench.draw_grid(spec, [bench.find(target)[0] for target in targets], Answers(base=base)))


def plain(checkpoints: Any, mode: str, **more: Any) -> GridSpec:
    return GridSpec(**({"checkpoints": tuple(checkpoints), "prompts": (PROMPT,), "samplings": (SMALL,), "mode": mode} | more))


def steps_of(bench: Workbench, target: str = "run") -> Any:
    return bench.find(target)[0].checkpoints


def loads_of(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bases that are loaded from now on, in order."""
    import cmp.engine.studio as studio

    loaded: list[str] = []
    kind = studio.WornPipeline

    def load(folder: Path, *more: Any) -> Any:
        loaded.append(folder.name)
        return kind(folder, *more)

    monkeypatch.setattr(studio, "WornPipeline", load)
    return loaded


# a picture under a wrong name


def test_a_lora_that_is_stacked_on_another_base_is_as_a_column_drawn_on_its_own(bench: Workbench, base: Path, tmp_path: Path) -> None:
    """What was looked up to be worn beside a checkpoint must not be taken for the column of the same name."""
    other = other_base(base)
    write_step(tmp_path / "outputs" / "second", 2, unet_adapter(base, 4, 9))
    own, second = bench.find("run"), bench.find("second")
    bench.answer(own[0], Answers(base="sd_nano"))
    bench.answer(second[0], Answers(base=str(other)))
    lora = second[0].checkpoints[0]
    spec = plain((own[0].checkpoints[0], lora), "fast", stacks=((Stacked(lora),), ()))
    tiles = draw(bench, spec, "run", "second", base=None)
    assert not [tile.fault for tile in tiles if tile.fault]
    alone = next(tile for tile in tiles if tile.cell.checkpoint == lora and not tile.cell.stack)
    assert alone.base and alone.base["id"] == str(other)
    (plainly,) = draw(bench, plain((lora,), "fast"), "second", base=None)
    assert plainly.key == alone.key and plainly.reused


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_columns_on_two_bases_each_show_their_own_and_each_base_is_loaded_once(
    bench: Workbench, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    other = other_base(base)
    write_step(tmp_path / "outputs" / "second", 2, unet_adapter(base, 4, 9))
    own, second = bench.find("run")[0], bench.find("second")[0]
    bench.answer(own, Answers(base="sd_nano"))
    bench.answer(second, Answers(base=str(other)))
    columns = (own.checkpoints[0], second.checkpoints[0], own.checkpoints[1])
    alone = {(c, seed): draw(bench, plain((c,), mode, seeds=(seed,)), c.run_id, base=None)[0] for c in columns for seed in (0, 1)}
    kept = {key: pixels(tile.path) for key, tile in alone.items()}
    shutil.rmtree(bench.store.home / "cells")
    bench.studio().forget()
    loaded = loads_of(bench, monkeypatch)
    tiles = draw(bench, plain(columns, mode, seeds=(0, 1)), "run", "second", base=None)
    assert loaded == ["sd_nano", "sd_other"] and len(tiles) == 6
    for tile in tiles:
        assert np.abs(pixels(tile.path).astype(int) - kept[tile.cell.checkpoint, tile.cell.seed]).max() <= GREY, tile.cell


def test_a_base_column_beside_a_rounded_dump_loads_each_once(
    bench: Workbench, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CORPUS / "acc_peft_bf16" / "outputs" / "RUN", tmp_path / "outputs" / "half")
    dump = bench.find("half@2")[1]
    loaded = loads_of(bench, monkeypatch)
    tiles = draw(bench, plain((None, dump), "fast", seeds=(0, 1, 2)), "half")
    assert len(loaded) == 2 and not [tile.fault for tile in tiles if tile.fault]
    for tile in tiles:
        (exact,) = draw(bench, plain((tile.cell.checkpoint,), "exact", seeds=(tile.cell.seed,)), "half")
        assert np.abs(pixels(tile.path).astype(int) - pixels(exact.path)).max() <= GREY, tile.cell


def test_a_trained_text_encoder_reads_the_prompts_also_where_they_cannot_be_read_beforehand(
    bench: Workbench, base: Path, tmp_path: Path
) -> None:
    """diffusers has many pipelines of this architecture; the encoding of only some is known here."""
    index = base / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionPAGPipeline"))
    for step in (2, 4):
        words = adapter(base, "text_encoder", 4, step, ("q_proj", "fc1"))
        write_step(tmp_path / "outputs" / "both", step, unet_adapter(base, 4, step) | words)
    fast = draw(bench, plain(steps_of(bench, "both"), "fast"), "both")
    exact = draw(bench, plain(steps_of(bench, "both"), "exact"), "both")
    assert not [tile.fault for tile in (*fast, *exact) if tile.fault]
    for one, other in zip(fast, exact, strict=True):
        assert np.abs(pixels(one.path).astype(int) - pixels(other.path)).max() <= GREY


def test_the_vae_that_is_named_decodes_not_the_one_beside_it(bench: Workbench, base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base / "vae", tmp_path / "vae"))
    file, named = folder / "diffusion_pytorch_model.safetensors", folder / "other.safetensors"
    save_file({name: values * np.float32(0.9) for name, values in load_file(file).items()}, named, {"format": "pt"})
    own, same, other = draw(
        bench, plain((None,), "exact", samplings=(SMALL, *(Sampling(2, 3.0, scheduler="DDIM", vae=str(v)) for v in (file, named)))), "run"
    )
    assert np.array_equal(pixels(own.path), pixels(same.path)) and not np.array_equal(pixels(own.path), pixels(other.path))


def test_a_vae_that_is_replaced_while_a_grid_is_drawn_is_refused(bench: Workbench, base: Path, tmp_path: Path) -> None:
    file = Path(shutil.copytree(base / "vae", tmp_path / "vae")) / "diffusion_pytorch_model.safetensors"
    sampling = Sampling(2, 3.0, scheduler="DDIM", vae=str(file))
    run, _ = bench.find("run")
    work = bench.draw_grid(plain((None, *run.checkpoints), "exact", samplings=(sampling,)), [run], Answers(base="sd_nano"))
    tiles = [next(item for item in work if isinstance(item, Tile))]
    save_file({name: values * np.float32(0.5) for name, values in load_file(file).items()}, file, {"format": "pt"})
    bench.studio()._vae = None  # as if another VAE had been used in between
    tiles += tiles_of(work)
    assert tiles[0].fault is None and all(tile.fault and "changed" in tile.fault.error for tile in tiles[1:])


def test_a_base_that_is_rewritten_while_it_is_loaded_draws_nothing(bench: Workbench, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cmp.engine.studio as studio

    kind = studio.WornPipeline

    def load(folder: Path, *more: Any) -> Any:
        made = kind(folder, *more)
        state = {name: values * np.float32(1.1) for name, values in load_file(base / UNET_FILE).items()}
        save_file(state, base / UNET_FILE, {"format": "pt"})
        return made

    monkeypatch.setattr(studio, "WornPipeline", load)
    (tile,) = draw(bench, plain((None,), "fast"), "run")
    assert tile.fault and "changed while it was loaded" in tile.fault.error


# one cell, and the others


def spoiled(base: Path, how: str) -> Tensors:
    tensors = unet_adapter(base, 4, 4)
    name = next(name for name in tensors if name.endswith("lora_B.weight"))
    if how == "NaN":
        tensors[name].reshape(-1)[0] = np.nan
    return tensors


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_checkpoint_with_nan_costs_its_own_cells_alone(bench: Workbench, base: Path, tmp_path: Path, mode: str) -> None:
    write_step(tmp_path / "outputs" / "bad", 2, unet_adapter(base, 4, 2))
    write_step(tmp_path / "outputs" / "bad", 4, spoiled(base, "NaN"))
    write_step(tmp_path / "outputs" / "bad", 6, unet_adapter(base, 4, 6))
    tiles = draw(bench, plain(steps_of(bench, "bad"), mode, seeds=(0, 1)), "bad")
    assert {t.cell.checkpoint.step for t in tiles if t.fault and t.cell.checkpoint} == {4} and len(tiles) == 6
    assert sum(t.fault is None for t in tiles) == 4 and all("NaN" in t.fault.error for t in tiles if t.fault)


@pytest.mark.skipif(DEVICE != "cpu", reason="lanes are a processor's")
def test_after_a_cancel_in_lanes_as_many_threads_draw_as_before(bench: Workbench) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(draw(bench, plain((None,), "fast"), "run"))
        run, _ = bench.find("run")
        work = bench.draw_grid(
            plain(run.checkpoints, "fast", seeds=(1, 2), samplings=(Sampling(100, 3.0, scheduler="DDIM"),)), [run], Answers(base="sd_nano")
        )
        tiles = 0
        for item in work:
            tiles += isinstance(item, Tile)
            if tiles and isinstance(item, Progress) and "denoising 2/" in item.what:
                break
        work.close()  # type: ignore[attr-defined]
        seen: list[tuple[str, int]] = []
        worn = bench.studio()._worn
        assert worn is not None
        handle = worn.pipe.unet.conv_in.register_forward_pre_hook(
            lambda module, given: seen.append((threading.current_thread().name, torch.get_num_threads()))
        )
        draw(bench, plain(run.checkpoints, "exact", seeds=(3,)), "run")
        assert {count for _, count in seen} == {2}
        seen.clear()
        draw(bench, plain(run.checkpoints, "fast", seeds=(4, 5)), "run")
        handle.remove()
        assert any(name.startswith("lane") for name, _ in seen)
    finally:
        torch.set_num_threads(before)


def test_a_decoder_that_was_left_in_another_type_is_put_back(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers casts SDXL's VAE for decoding, and does not cast it back where the memory runs out in between."""
    draw(bench, plain((None,), "exact"), "run")
    worn = bench.studio()._worn
    assert worn is not None
    vae, decode = worn.pipe.vae, worn.pipe.vae.decode

    def runs_out(*given: Any, **more: Any) -> Any:
        vae.to(torch.float64)
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(vae, "decode", runs_out)
        (tile,) = draw(bench, plain((None,), "exact", seeds=(1,)), "run")
    assert tile.fault and tile.fault.code == 6 and vae.dtype == worn.dtype
    (tile,) = draw(bench, plain((None,), "exact", seeds=(1,)), "run")
    assert tile.fault is None and decode


def test_memory_that_runs_out_while_a_base_is_loaded_is_told_as_that(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import UNet2DConditionModel

    def runs_out(*given: Any, **more: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(UNet2DConditionModel, "from_pretrained", runs_out)
    (tile,) = draw(bench, plain((None,), "fast"), "run")
    assert tile.fault and tile.fault.code == 6 and "memory" in tile.fault.error


def test_a_base_that_cannot_be_loaded_is_tried_once(bench: Workbench, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "vae" / "config.json").write_text("[]")
    loaded = loads_of(bench, monkeypatch)
    tiles = draw(bench, plain((None, *steps_of(bench)), "fast"), "run")
    assert len(tiles) == 4 and all(tile.fault and "sd_nano" in tile.fault.error for tile in tiles) and loaded == ["sd_nano"]


def test_a_full_disk_is_told_as_that(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    import cmp.engine.draw as engine

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engine, "save_png", full)
    tiles = draw(bench, plain((None,), "fast"), "run")
    assert [tile.fault.code for tile in tiles if tile.fault] == [6]


def test_a_watched_run_may_be_drawn_with_a_lora_of_another_run(bench: Workbench, base: Path, tmp_path: Path) -> None:
    file = write_step(tmp_path / "elsewhere", 9, unet_adapter(base, 2, 99))
    run, _ = bench.find("run")
    lora = bench.find(str(file.parent))[1]
    assert lora
    spec = plain(run.checkpoints[:1], "fast", stacks=((Stacked(lora, 0.5),),))
    tiles = draw(bench, spec, "run")  # the stacked LoRA's run is not among those that are given
    assert [tile.fault for tile in tiles] == [None]


# batches


def sizes_of(bench: Workbench) -> tuple[list[int], Any]:
    seen: list[int] = []
    worn = bench.studio()._worn
    assert worn is not None
    return seen, worn.pipe.unet.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[0] // 2))


def test_an_axis_of_samplings_does_not_break_batches_apart(bench: Workbench) -> None:
    draw(bench, plain((None,), "fast", seeds=(9,)), "run")
    seen, handle = sizes_of(bench)
    guided = tuple(Sampling(2, cfg, scheduler="DDIM") for cfg in (2.0, 4.0))
    tiles = draw(bench, plain(steps_of(bench), "fast", samplings=guided), "run")
    handle.remove()
    assert len(tiles) == 6 and seen == [3, 3, 3, 3]


def test_equal_checkpoints_in_one_grid_are_drawn_once(bench: Workbench, base: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "outputs" / "run", tmp_path / "outputs" / "copy")
    assert (tmp_path / "outputs" / "copy" / "checkpoint-2" / WEIGHTS).is_file()
    draw(bench, plain((None,), "fast", seeds=(9,)), "run")
    seen, handle = sizes_of(bench)
    tiles = draw(bench, plain((*steps_of(bench), *steps_of(bench, "copy")), "fast"), "run", "copy")
    handle.remove()
    assert len(tiles) == 6 and sum(seen) == 2 * 3 and sum(tile.reused for tile in tiles) == 3
    keys = {tile.cell.checkpoint.id: tile.key for tile in tiles if tile.cell.checkpoint}
    assert keys["run@2"] == keys["copy@2"] != keys["run@4"]


def test_progress_with_previews_ends_where_it_says(bench: Workbench) -> None:
    run, _ = bench.find("run")
    draw(bench, plain(run.checkpoints[:1], "fast", samplings=(Sampling(8, 3.0, scheduler="DDIM"),)), "run")
    spec = plain(run.checkpoints, "fast", samplings=(Sampling(8, 3.0, scheduler="DDIM"),), preview=True)
    items = list(bench.draw_grid(spec, [run], Answers(base="sd_nano")))
    last = [item for item in items if isinstance(item, Progress)][-1]
    assert len(tiles_of(items)) == 5 and last.total == 5
