"""How a grid is drawn: what shares a batch, what a fault costs, how it stops, and what it remembers."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cmp.core.grids import GridSpec, Prompt, Sampling, Stacked, Tile
from cmp.core.progress import Progress
from cmp.core.runs import Run
from cmp.disk.ready import Answers
from cmp.engine.stacked import Worn, _landed, _Layer, wearing
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, GREY, tiles_of
from tests.test_jobs import until

from .conftest import at_home, pixels
from .making import UNET_FILE, WEIGHTS, adapter, unet_adapter, write_step

pytestmark = pytest.mark.model

BASES = Path(__file__).parents[1] / "data" / "corpus" / "bases"
SMALL = Sampling(2, 3.0, scheduler="DDIM")  # which computes each step once
PROMPTS = (Prompt("a red shoe"), Prompt("a blue star"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASES / "sd_nano", tmp_path / "bases" / "sd_nano"))


@pytest.fixture
def bench(tmp_path: Path, base: Path) -> Workbench:
    """A run of three steps."""
    for step in (2, 4, 6):
        write_step(tmp_path / "outputs" / "run", step, unet_adapter(base, 4, step))
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))


def order(bench: Workbench, **axes: Any) -> tuple[GridSpec, list[Run], Answers]:
    run, _ = bench.find("run")
    values = {"checkpoints": run.checkpoints, "prompts": PROMPTS, "samplings": (SMALL,), "mode": "fast"}
    return GridSpec(**(values | axes)), [run], Answers(base="sd_nano")


def draw(bench: Workbench, **axes: Any) -> list[Tile]:
    return tiles_of(bench.draw_grid(*order(bench, **axes)))


@contextmanager
def watching(bench: Workbench, base: Path, most: int = 1000) -> Iterator[list[int]]:
    """How many pictures each call of the denoiser computes at once; more than `most` run out of memory."""
    draw(bench, checkpoints=(None,), prompts=(Prompt("to have the base loaded"),))
    worn = bench.studio()._worn
    assert worn is not None
    seen: list[int] = []

    def look(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        pictures = given[0].shape[0] // 2  # guidance computes each twice
        if pictures > most:
            raise torch.OutOfMemoryError(f"{pictures} pictures")
        seen.append(pictures)

    handle = worn.pipe.unet.conv_in.register_forward_pre_hook(look)
    yield seen
    handle.remove()


def test_all_checkpoints_share_a_batch(bench: Workbench, base: Path) -> None:
    with watching(bench, base) as seen:
        tiles = draw(bench)
    assert seen == [6, 6] and len(tiles) == 6  # two steps


def test_where_somebody_watches_the_first_picture_is_drawn_alone_and_comes_before_the_others(bench: Workbench, base: Path) -> None:
    with watching(bench, base) as seen:
        for item in bench.draw_grid(*order(bench), watched=True):
            if isinstance(item, Tile):
                assert seen[:2] == [1, 1] and len(seen) in (2, 4)
    assert seen == [1, 1, 5, 5]


@pytest.mark.parametrize("job", [True, False])
def test_a_job_is_watched_and_a_grid_in_the_callers_thread_is_not(bench: Workbench, base: Path, job: bool) -> None:
    spec, runs, given = order(bench)
    bench.answer(runs[0], given)
    with watching(bench, base) as seen:
        if job:
            started = bench.start_grid(spec, runs, given)
            until(lambda: started.over)
        else:
            list(bench.follow_grid(spec, runs, given))
    assert seen == ([1, 1, 5, 5] if job else [6, 6])


def test_exactly_drawn_pictures_are_drawn_alone(bench: Workbench, base: Path) -> None:
    with watching(bench, base) as seen:
        draw(bench, mode="exact")
    assert seen == [1] * 12


def test_all_pictures_of_all_grids_are_computed_in_one_thread(bench: Workbench, base: Path) -> None:
    with watching(bench, base):
        worn, seen = bench.studio()._worn, set()
        assert worn is not None
        handle = worn.pipe.unet.conv_in.register_forward_pre_hook(lambda module, given: seen.add(threading.get_ident()))
        draw(bench, mode="exact")
        draw(bench, seeds=(7,))
        handle.remove()
    assert len(seen) == 1 and threading.get_ident() not in seen


def test_where_memory_runs_out_batches_are_halved_and_stay_small(bench: Workbench, base: Path) -> None:
    with watching(bench, base, most=2) as seen:
        tiles = draw(bench)
        assert len({tile.cell for tile in tiles}) == 6 and not [tile.fault for tile in tiles if tile.fault]
        assert max(seen) == 2
        seen.clear()
        draw(bench, seeds=(1,))
    assert seen == [2, 2, 2, 2, 2, 2]  # nothing is tried again that was too much


def test_a_picture_for_which_the_memory_is_not_enough_says_so_and_the_others_are_drawn(bench: Workbench, base: Path) -> None:
    with watching(bench, base, most=0):
        tiles = draw(bench, prompts=PROMPTS[:1])
    assert len(tiles) == 3 and all(tile.fault and tile.fault.code == 6 and "memory" in tile.fault.error for tile in tiles)
    assert not [tile.fault for tile in draw(bench, prompts=PROMPTS[:1]) if tile.fault]


def test_a_checkpoint_that_fits_nothing_costs_the_others_of_its_batch_nothing(bench: Workbench, tmp_path: Path, base: Path) -> None:
    strange = {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": np.ones((4, 16), "f4")}
    strange |= {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_B.weight": np.ones((12, 4), "f4")}
    write_step(tmp_path / "outputs" / "run", 5, unet_adapter(base, 4, 5) | strange)
    tiles = draw(bench)
    failed = [tile for tile in tiles if tile.fault]
    assert len(tiles) == 8 and {tile.cell.checkpoint.step for tile in failed if tile.cell.checkpoint} == {5}
    assert len(failed) == 2 and all("attn2.to_k" in tile.fault.error for tile in failed if tile.fault)


def test_closing_a_grid_stops_within_a_step_and_what_was_drawn_stays(bench: Workbench, base: Path) -> None:
    with watching(bench, base) as seen:
        work = bench.draw_grid(*order(bench, samplings=(Sampling(200, 3.0),)))
        step = next(item for item in work if isinstance(item, Progress) and "denoising 2/" in item.what)
        work.close()  # type: ignore[attr-defined]
        assert step.total == 6 and len(seen) < 100 and not bench.gpu.locked()
    assert len(draw(bench)) == 6


def test_a_base_that_is_being_loaded_can_be_left_too(bench: Workbench) -> None:
    work = bench.draw_grid(*order(bench))
    step = next(item for item in work if isinstance(item, Progress) and "loading" in item.what)
    assert "sd_nano" in step.what
    work.close()  # type: ignore[attr-defined]
    assert bench.loaded_models() == [] and not bench.gpu.locked()


def test_a_second_grid_draws_only_what_is_new(bench: Workbench, base: Path) -> None:
    draw(bench, checkpoints=bench.find("run")[0].checkpoints[:2])
    tiles = draw(bench)
    assert [tile.cell.checkpoint.step for tile in tiles if not tile.reused and tile.cell.checkpoint] == [6, 6]


def test_a_plan_tells_what_is_new_and_how_long_it_will_take_by_what_it_took_before(bench: Workbench) -> None:
    plan = bench.plan_grid(*order(bench))
    assert (plan.cells, plan.new, plan.reused, plan.seconds) == (6, 6, 0, None)
    draw(bench)
    again = bench.plan_grid(*order(bench, seeds=(0, 1, 2)))
    assert (again.cells, again.new, again.reused, again.faults) == (18, 12, 6, ())
    assert again.seconds and again.bytes and again.seconds > 0 and again.bytes > 12 * 100
    longer = bench.plan_grid(*order(bench, seeds=(1, 2), samplings=(Sampling(4, 3.0, scheduler="DDIM"),)))
    assert longer.seconds == pytest.approx(2 * again.seconds)


def test_a_plan_counts_each_call_of_the_model_guidance_and_previews(bench: Workbench) -> None:
    draw(bench)
    axes = {"seeds": (1,), "prompts": PROMPTS[:1]}

    def seconds(sampling: Sampling, **more: Any) -> float:
        plan = bench.plan_grid(*order(bench, **axes, **more, samplings=(sampling,)))
        assert plan.seconds and (plan.cells, plan.new) == (3, 3)
        return plan.seconds

    usual = seconds(Sampling(8, 3.0, scheduler="DDIM"))
    assert seconds(Sampling(8, 3.0, scheduler="Heun")) == pytest.approx(usual * 15 / 8)
    assert seconds(Sampling(8, 3.0)) == pytest.approx(usual * 9 / 8)  # the base's PNDM
    assert seconds(Sampling(8, 1.0, scheduler="DDIM")) == pytest.approx(usual / 2)
    small = usual * 6 / 8 / 4  # six steps, and half as wide and high
    assert seconds(Sampling(8, 3.0, scheduler="DDIM"), preview=True) == pytest.approx(usual + small)
    drawing = bench.draw_grid(*order(bench, **axes, preview=True, samplings=(Sampling(8, 3.0, scheduler="DDIM"),)))
    previews = 0
    while previews < 2:
        previews += isinstance(next(drawing), Tile)  # type: ignore[call-overload]
    drawing.close()  # type: ignore[attr-defined]
    left = seconds(Sampling(8, 3.0, scheduler="DDIM"), preview=True) / seconds(Sampling(8, 3.0, scheduler="DDIM"))
    assert left < (usual + small) / usual  # what is there already is not drawn again


def test_a_preview_comes_first_and_is_replaced(bench: Workbench, base: Path) -> None:
    tiles = draw(bench, preview=True, samplings=(Sampling(8, 3.0),))
    assert [tile.preview for tile in tiles] == [True] * 6 + [False] * 6
    small, whole = tiles[:6], tiles[6:]
    assert {tile.cell for tile in small} == {tile.cell for tile in whole} and len({tile.key for tile in tiles}) == 12
    assert {pixels(tile.path).shape for tile in whole} == {(64, 64, 3)} and {pixels(tile.path).shape for tile in small} == {(32, 32, 3)}
    again = draw(bench, preview=True, samplings=(Sampling(8, 3.0),))
    assert len(again) == 6 and all(tile.reused and not tile.preview for tile in again)


def test_what_another_process_drew_can_be_voted_on_but_for_previews(bench: Workbench) -> None:
    tiles = draw(bench, preview=True)
    drawn = {tile.key: tile.cell.checkpoint.id for tile in tiles if tile.cell.checkpoint and not tile.preview}
    later = Workbench(bench.settings)
    shown = later._shown(later.find("run")[0], None)
    assert {one.key: one.checkpoint for one in shown} == drawn and len(drawn) == 6
    assert len({one.row for one in shown}) == len(PROMPTS), "pictures of one row differ in their checkpoint alone"
    here = bench._shown(bench.find("run")[0], None)
    assert {(one.key, one.row) for one in here} == {(one.key, one.row) for one in shown}, "a row is the same whoever tells of it"


def test_all_seeds_of_a_full_fine_tune_are_drawn_before_the_next_is_put_on(bench: Workbench, base: Path, tmp_path: Path) -> None:
    for step, factor in ((2, 1.2), (4, 1.3)):
        folder = tmp_path / "outputs" / "full" / f"checkpoint-{step}" / "unet"
        shutil.copytree(base / "unet", folder)
        state = {name: values * np.float32(factor) for name, values in load_file(base / UNET_FILE).items()}
        save_file(state, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    run, _ = bench.find("full")
    spec = GridSpec(run.checkpoints, PROMPTS, (0, 1), samplings=(SMALL,), mode="fast")
    tiles = tiles_of(bench.draw_grid(spec, [run], Answers(base="sd_nano")))
    assert [tile.cell.checkpoint.step for tile in tiles if tile.cell.checkpoint] == [2] * 4 + [4] * 4
    exact = GridSpec(run.checkpoints, PROMPTS, (0, 1), samplings=(SMALL,))
    for one, other in zip(tiles, tiles_of(bench.draw_grid(exact, [run], Answers(base="sd_nano"))), strict=True):
        assert np.abs(pixels(one.path).astype(int) - pixels(other.path)).max() <= GREY and one.cell == other.cell


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_stacked_loras_draw_what_diffusers_draws_with_several_adapters(bench: Workbench, base: Path, tmp_path: Path, mode: str) -> None:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    other = write_step(tmp_path / "elsewhere", 9, unet_adapter(base, 2, 99) | adapter(base, "text_encoder", 2, 98, ("q_proj",)))
    run, _ = bench.find("run")
    lora_run, lora = bench.find(str(other.parent))
    assert lora is not None
    spec = GridSpec((None, run.checkpoints[0]), PROMPTS[:1], (3,), (0.5,), (SMALL,), ((), (Stacked(lora, 0.75),)), mode=mode)
    tiles = tiles_of(bench.draw_grid(spec, [run, lora_run], Answers(base="sd_nano")))
    assert not [tile.fault for tile in tiles if tile.fault] and len({tile.key for tile in tiles}) == 4
    for tile in tiles:
        pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        worn = {"own": 0.5} if tile.cell.checkpoint else {}
        worn |= {"other": 0.75} if tile.cell.stack else {}
        for name, file in (("own", tmp_path / "outputs" / "run" / "checkpoint-2" / WEIGHTS), ("other", other)):
            if name in worn:
                pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
        if worn:
            pipe.set_adapters(list(worn), list(worn.values()))
        at_home(pipe)
        generator = torch.Generator("cpu").manual_seed(3)
        alone = np.asarray(pipe(PROMPTS[0].text, num_inference_steps=2, guidance_scale=3.0, generator=generator).images[0]).astype(int)
        assert np.abs(pixels(tile.path) - alone).max() <= GREY, worn


def test_a_full_fine_tune_beside_which_a_lora_is_stacked_is_refused_by_name(bench: Workbench, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "full" / "checkpoint-2" / "unet"
    shutil.copytree(base / "unet", folder)
    full_run, full = bench.find("full@2")
    run, lora = bench.find("run@2")
    assert full and lora
    spec = GridSpec((full,), PROMPTS[:1], samplings=(SMALL,), stacks=((Stacked(lora),),))
    (tile,) = tiles_of(bench.draw_grid(spec, [full_run, run], Answers(base="sd_nano")))
    assert tile.fault and tile.fault.code == Refused.exit_code and "full@2" in tile.fault.error and "LoRA" in tile.fault.error


def test_clip_skip_takes_an_earlier_layer_of_the_text_encoder(bench: Workbench, base: Path) -> None:
    from diffusers import StableDiffusionPipeline

    tiles = draw(bench, checkpoints=(None,), prompts=PROMPTS[:1], samplings=(Sampling(2, 3.0), Sampling(2, 3.0, clip_skip=2)), mode="exact")
    pipe = at_home(StableDiffusionPipeline.from_pretrained(base, safety_checker=None))
    encoder = pipe.text_encoder
    tokens = [pipe.tokenizer(text, padding="max_length", return_tensors="pt").input_ids.to(pipe.device) for text in (PROMPTS[0].text, "")]
    hidden = [encoder(one, output_hidden_states=True).hidden_states[-2] for one in tokens]
    embeds = [encoder.final_layer_norm(one).detach() for one in hidden]
    generator = torch.Generator("cpu").manual_seed(0)
    asked = {"num_inference_steps": 2, "guidance_scale": 3.0, "generator": generator}
    image = pipe(prompt_embeds=embeds[0], negative_prompt_embeds=embeds[1], **asked).images[0]
    assert np.abs(pixels(tiles[1].path).astype(int) - np.asarray(image)).max() <= GREY
    assert not np.array_equal(pixels(tiles[0].path), pixels(tiles[1].path))


def test_another_vae_decodes_and_is_gone_afterwards(bench: Workbench, base: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base / "vae", tmp_path / "vae"))
    file = other / "diffusion_pytorch_model.safetensors"
    save_file({name: values * np.float32(0.9) for name, values in load_file(file).items()}, file, {"format": "pt"})
    first, second = draw(bench, checkpoints=(None,), prompts=PROMPTS[:1], samplings=(SMALL, Sampling(2, 3.0, vae=str(other))))
    assert first.fault is None and second.fault is None and not np.array_equal(own := pixels(first.path), pixels(second.path))
    shutil.rmtree(bench.store.home / "cells")
    (again,) = draw(bench, checkpoints=(None,), prompts=PROMPTS[:1])
    assert again.key == first.key and not again.reused and np.array_equal(pixels(again.path), own)
    (missing,) = draw(bench, checkpoints=(None,), prompts=PROMPTS[:1], samplings=(Sampling(2, 3.0, vae="/nowhere"),))
    assert missing.fault and "/nowhere" in missing.fault.error


def test_a_prompt_is_read_once_for_all_checkpoints_and_again_by_a_text_encoder_that_was_trained(
    bench: Workbench, base: Path, tmp_path: Path
) -> None:
    for step in (8, 10):
        trained = unet_adapter(base, 4, step) | adapter(base, "text_encoder", 4, step, ("q_proj",))
        write_step(tmp_path / "outputs" / "run", step, trained)
    with watching(bench, base):
        worn = bench.studio()._worn
        assert worn is not None
        read: list[int] = []
        handle = worn.pipe.text_encoder.register_forward_pre_hook(lambda module, given: read.append(1))
        draw(bench, checkpoints=bench.find("run")[0].checkpoints[:3])
        assert len(read) == 4  # two prompts, each with its empty negative
        read.clear()
        tiles = draw(bench, seeds=(5,))
        handle.remove()
    assert len(read) == 8 and len(tiles) == 10  # the same by two trained text encoders; the base's was kept


@pytest.fixture(params=[2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.skipif(DEVICE != "cpu", reason="lanes are a processor's")
def test_in_lanes_each_picture_keeps_its_own_checkpoint(bench: Workbench, base: Path, threads: int) -> None:
    """Five pictures under guidance are ten rows, which lanes cut wherever they are cut."""
    with watching(bench, base) as seen:
        tiles = draw(bench, strengths=(0.5, 1.0), prompts=PROMPTS[:1])
    assert seen[-threads:] and max(seen) < 5 and torch.get_num_threads() == threads
    for tile, exact in zip(tiles, draw(bench, strengths=(0.5, 1.0), prompts=PROMPTS[:1], mode="exact"), strict=True):
        assert tile.cell == exact.cell and tile.mode == "fast" and exact.mode == "exact"
        assert np.abs(pixels(tile.path).astype(int) - pixels(exact.path)).max() <= GREY


# the proof of a batch


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = torch.nn.Linear(6, 5), torch.nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


def pair(module: str, rank: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(len(module))
    return {
        f"unet.{module}.lora_A.weight": random.normal(size=(rank, 6)).astype("f4"),
        f"unet.{module}.lora_B.weight": random.normal(size=(5, rank)).astype("f4"),
    }


def test_each_picture_of_a_batch_gets_its_own_adapter_at_its_own_strength() -> None:
    model, x = Tiny(), torch.randn(2, 3, 6)
    own = pair("used")
    a, b = (torch.tensor(own[f"unet.used.lora_{half}.weight"]) for half in "AB")
    with wearing({"unet": model}, [Worn(own, 0.5), Worn({}, 1.0), Worn(own, 2.0)]):
        together = model(torch.cat([x[:1]] * 3 + [x[1:]] * 3))  # as under guidance: all without a prompt, then all with
    plain = model(x)
    for number, strength in enumerate((0.5, 0.0, 2.0)):
        for half in (0, 1):
            assert torch.allclose(together[number + 3 * half], plain[half] + strength * (x[half] @ a.T @ b.T), atol=1e-6)
    assert torch.equal(model(x), plain)


def test_a_trained_layer_that_the_model_never_uses_is_named() -> None:
    model = Tiny()
    with pytest.raises(Refused, match=r"unet\.idle took no part"), wearing({"unet": model}, [Worn(pair("used") | pair("idle"), 1.0)]):
        model(torch.randn(1, 6))


@pytest.mark.parametrize(
    ("adapter_of", "told"),
    [
        ({"unet.lost.lora_A.weight": np.ones((2, 6), "f4"), "unet.lost.lora_B.weight": np.ones((5, 2), "f4")}, "no unet.lost"),
        ({"unet.used.lora_A.weight": np.ones((2, 6), "f4")}, "one half"),
        ({"unet.used.lora_A.weight": np.ones((2, 7), "f4"), "unet.used.lora_B.weight": np.ones((5, 2), "f4")}, r"\(5, 6\) in the model"),
        ({"unet.used.lora_B.bias": np.ones(5, "f4")}, "unet.used has a bias without its pair"),
        (pair("used") | {"unet.used.lora_magnitude_vector": np.ones(5, "f4")}, "lora_magnitude_vector"),
    ],
)
def test_a_tensor_that_would_not_land_is_refused_before_anything_is_drawn(adapter_of: dict[str, np.ndarray], told: str) -> None:
    model = Tiny()
    with pytest.raises(Refused, match=told), wearing({"unet": model}, [Worn(adapter_of, 1.0)]):
        raise AssertionError("it was put on")
    assert not model.used._forward_hooks


def test_a_bias_that_did_not_land_is_seen() -> None:
    layer = _Layer(torch.nn.Linear(6, 5), (0,), torch.zeros(1, 1, 6), torch.zeros(1, 5, 1), None)
    half: dict[str, np.ndarray | None] = {".lora_A.weight": None, ".lora_B.weight": None}
    assert _landed(layer, 0, 1.0, {**half, ".lora_B.bias": None}) and not _landed(layer, 0, 1.0, {**half, ".lora_B.bias": np.ones(5, "f4")})


def test_drawing_exactly_keeps_no_adapter_but_the_one_in_use(bench: Workbench) -> None:
    draw(bench, mode="exact")
    assert len(bench.studio()._adapters) == 1


def test_adapters_that_were_read_cannot_be_written_to(bench: Workbench) -> None:
    """torch took such arrays as a model's memory once, and copying the next checkpoint in changed the one that was kept."""
    draw(bench)
    kept = bench.studio()._adapters
    assert len(kept) == 3
    for values in (values for folded in kept.values() for values in folded.values()):
        with pytest.raises(ValueError, match="read-only"):
            values[:] = 0
