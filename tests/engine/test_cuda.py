"""What holds on a CUDA card alone: whose bits its pictures have, how its memory is shared, what is told of it.

`CMP_TEST_DEVICE=auto` runs the other tests of this folder on the card as well.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.measured import LOSS, Measured, MeasureSpec
from cmp.core.progress import Progress
from cmp.disk.ready import Answers
from cmp.engine import device, pipeline, studio
from cmp.engine.pipeline import adapter_tensors, prove_worn
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import tiles_of

from .conftest import FULL, GUIDANCE, PROMPT, SEED, STEPS, pixels
from .making import UNET_FILE

pytestmark = pytest.mark.model

if not torch.cuda.is_available():
    REASON = f"torch {torch.__version__} finds no CUDA card here, so that nothing of what holds on one is tested"
    warnings.warn(REASON, stacklevel=1)
    pytest.skip(REASON, allow_module_level=True)

CARD = torch.device("cuda")
USUAL = Sampling(STEPS, GUIDANCE)


@pytest.fixture
def bench(demo_home: Path, tmp_path: Path) -> Iterator[Workbench]:
    """A workbench over the demo that draws on the card, with pictures of its own; the card is empty before and after."""
    yield over(demo_home, tmp_path / "home")
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def over(demo_home: Path, home: Path) -> Workbench:
    demo = demo_home / "demo"
    return Workbench(Settings(home, (demo / "training" / "outputs",), (demo / "bases",), device="auto"))


def draw(bench: Workbench, *targets: str | None, mode: str = "exact", strengths: tuple[float, ...] = (1.0,), **axes: Any) -> list[Tile]:
    run, _ = bench.find(FULL)
    chosen = tuple(bench.find(f"{FULL}@{target}")[1] if target else None for target in targets)
    spec = GridSpec(
        chosen, **({"prompts": (Prompt(PROMPT),), "seeds": (SEED,), "samplings": (USUAL,)} | axes), strengths=strengths, mode=mode
    )
    tiles = tiles_of(bench.draw_grid(spec, [run], Answers(base="cmp-demo/tiny-shapes")))
    assert not [tile.fault for tile in tiles if tile.fault]
    return tiles


def alone(base: Path, file: Path | None = None, strength: float = 1.0, unet: Path | None = None) -> np.ndarray:
    """The same picture by diffusers' plain call, as its own documents load a pipeline onto a card."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, dtype=torch.float16)
    if unet:
        pipe.unet = UNet2DConditionModel.from_pretrained(unet, dtype=torch.float16)
    pipe.to(CARD)
    if file:
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="one")
        pipe.set_adapters(["one"], [strength])
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(SEED)
    return np.asarray(pipe(PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator).images[0])


def lora(bench: Workbench, step: str, target: Path) -> Path:
    from cmp.core.progress import run_through

    run_through(bench.convert(bench.plan_conversion(f"{FULL}@{step}", "lora", output=target)))
    return target


# whose bits


@pytest.mark.parametrize("strength", [1.0, 0.7])
def test_exact_has_the_pixels_of_diffusers_plain_call_on_the_card(
    bench: Workbench, base_folder: Path, tmp_path: Path, strength: float
) -> None:
    file = lora(bench, "1500", tmp_path / "step.safetensors")
    (base,), (own,) = draw(bench, None), draw(bench, "1500", strengths=(strength,))
    assert np.array_equal(pixels(base.path), alone(base_folder))
    assert np.array_equal(pixels(own.path), alone(base_folder, file, strength)) and not np.array_equal(pixels(own.path), pixels(base.path))


def test_the_same_picture_comes_again_to_the_bit(bench: Workbench) -> None:
    first = pixels(draw(bench, "1500")[0].path)
    draw(bench, "500", "3000", mode="fast")
    shutil.rmtree(bench.store.home / "cells")
    (again,) = draw(bench, "1500")
    assert not again.reused and np.array_equal(pixels(again.path), first)


def test_a_seeds_noise_comes_from_the_processor(bench: Workbench) -> None:
    draw(bench, None)
    worn, seen = bench.studio()._worn, []
    assert worn is not None and worn.device.type == "cuda" and worn.dtype == torch.float16
    handle = worn.pipe.unet.conv_in.register_forward_pre_hook(lambda module, given: seen.append(given[0][0].cpu()))
    draw(bench, None, seeds=(77,), samplings=(Sampling(STEPS, GUIDANCE, scheduler="DDIM"),))
    handle.remove()
    assert torch.equal(seen[0], torch.randn(seen[0].shape, generator=torch.Generator("cpu").manual_seed(77), dtype=torch.float16))


def test_in_full_precision_the_card_draws_what_the_processor_draws(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pipeline, studio):
        monkeypatch.setattr(module, "choose_dtype", lambda place, base=None: torch.float32)
    (here,), (there,) = draw(bench, "1500"), draw(bench.with_device("cpu"), "1500")
    off = np.abs(pixels(here.path).astype(int) - pixels(there.path))
    assert here.key != there.key and off.max() <= 3, off.max()


@pytest.mark.parametrize("room", [True, False])
def test_a_full_fine_tune_has_the_pixels_of_its_own_unet_and_leaves_the_base_as_it_was(
    demo_home: Path, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    monkeypatch.setattr(device, "fits", lambda needed, free: room)
    unet = tmp_path / "outputs" / "full" / "checkpoint-2" / "unet"
    shutil.copytree(base_folder / "unet", unet)
    state = {name: values * np.float32(1.02) for name, values in load_file(base_folder / UNET_FILE).items()}
    save_file(state, unet / Path(UNET_FILE).name, {"format": "pt"})
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (demo_home / "demo" / "bases",), device="auto"))
    run, checkpoint = bench.find("full@2")
    spec = GridSpec((None, checkpoint), (Prompt(PROMPT),), (SEED,), samplings=(USUAL,))
    base, tuned = tiles_of(bench.draw_grid(spec, [run], Answers(base="cmp-demo/tiny-shapes")))
    assert base.fault is None and tuned.fault is None
    assert np.array_equal(pixels(tuned.path), alone(base_folder, unet=unet)) and np.array_equal(pixels(base.path), alone(base_folder))
    shutil.rmtree(bench.store.home / "cells")
    again, _ = tiles_of(bench.draw_grid(spec, [run], Answers(base="cmp-demo/tiny-shapes")))
    assert np.array_equal(pixels(again.path), pixels(base.path))


def test_in_company_and_half_precision_pictures_stay_near_those_drawn_alone(bench: Workbench) -> None:
    """Strengths that half precision cannot hold exactly: the proof of what landed is the card's own arithmetic held against ours."""
    axes: dict[str, Any] = {"strengths": (0.7, 1.3), "seeds": (1, 2)}
    fast = {tile.cell: tile for tile in draw(bench, None, "500", "1500", "3000", mode="fast", **axes)}
    exact = {tile.cell: tile for tile in draw(bench, None, "500", "1500", "3000", **axes)}
    assert {tile.mode for tile in fast.values()} == {"fast"} and not any(tile.reused for tile in exact.values())
    off = np.stack([np.abs(pixels(fast[cell].path).astype(int) - pixels(exact[cell].path)) for cell in exact])
    assert off.mean() < 0.3 and (off > 1).mean() < 0.03, (off.max(), off.mean(), (off > 1).mean())


def test_one_number_changed_on_the_card_is_seen(bench: Workbench) -> None:
    draw(bench, "1500")
    worn = bench.studio()._worn
    assert worn is not None and worn.worn is not None
    folded = bench.studio()._adapters[worn.worn]
    prove_worn(worn.modules, folded, 1.0)
    name, parameter = next(iter(adapter_tensors(worn.modules).items()))
    assert parameter.device.type == "cuda"
    with torch.no_grad():
        parameter.view(-1)[5] = torch.nextafter(parameter.view(-1)[5].cpu(), torch.tensor(9.0, dtype=parameter.dtype)).to(CARD)
    with pytest.raises(Refused, match=name):
        prove_worn(worn.modules, folded, 1.0)


def test_a_picture_for_which_half_precision_is_too_narrow_is_refused_and_the_others_are_drawn(bench: Workbench) -> None:
    run, _ = bench.find(FULL)
    draw(bench, "500")
    big = {name: values * np.float32(1e6) for name, values in bench.studio()._adapters.popitem()[1].items()}
    chosen = (run.checkpoint("1500"), run.checkpoint("3000"))
    spec = GridSpec(chosen, (Prompt(PROMPT),), (SEED,), samplings=(USUAL,), mode="fast")
    drawing = bench.drawing(spec, (run,), Answers())
    digest = drawing.preparing.prepare(spec.cells()[0]).clothes.weights
    assert digest is not None
    bench.studio()._adapters[digest] = big
    bench.studio().most_kept = 1 << 30
    first, second = tiles_of(bench.draw_grid(spec, [run]))
    assert first.fault and first.fault.code == Refused.exit_code and "NaN" in first.fault.error and "cpu" in first.fault.hint
    assert second.fault is None and second.path


# a card with little room


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_base_that_visits_the_card_part_by_part_draws_the_same(
    bench: Workbench, demo_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    targets = (None, "500", "1500", "3000", None)
    usual = [pixels(tile.path) for target in targets for tile in draw(bench, target, mode=mode)]
    monkeypatch.setattr(device, "fits", lambda needed, free: False)
    tight = over(demo_home, tmp_path / "tight")
    found = [pixels(tile.path) for target in targets for tile in draw(tight, target, mode=mode)]
    worn = tight.studio()._worn
    assert worn is not None and worn.visiting
    assert all(np.array_equal(one, other) for one, other in zip(found, usual, strict=True))


def test_where_the_cards_memory_runs_out_batches_are_halved_and_every_picture_is_drawn(bench: Workbench) -> None:
    axes: dict[str, Any] = {"mode": "fast", "seeds": tuple(range(100, 116)), "samplings": (Sampling(2, GUIDANCE, 512, 512),)}
    draw(bench, None, samplings=(Sampling(2, GUIDANCE, 512, 512),))
    worn = bench.studio()._worn
    assert worn is not None

    def peak(*targets: str | None, **more: Any) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        draw(bench, *targets, **(axes | more))
        return torch.cuda.max_memory_reserved()

    one, many = peak("500", seeds=(1,)), peak("500")
    assert bench.studio().most_at_once == {} and many > 1.5 * one
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((one + (many - one) * 0.45) / torch.cuda.mem_get_info()[1])
    sizes: list[int] = []
    handle = worn.pipe.unet.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0]) // 2))
    tiles = draw(bench, "1500", "3000", **axes)
    handle.remove()
    assert len(tiles) == 32 and max(sizes) == 16 and 1 < sizes[-1] < 16, sizes
    assert sizes.count(16) <= 2  # what was too much once is not tried again
    (known,) = bench.studio().most_at_once.values()
    assert known < 16 and not bench.gpu.locked()


def test_a_picture_for_which_the_card_has_no_room_says_so(bench: Workbench) -> None:
    draw(bench, None)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (20 << 20)) / torch.cuda.mem_get_info()[1])
    run, checkpoint = bench.find(f"{FULL}@500")
    spec = GridSpec((checkpoint,), (Prompt(PROMPT),), samplings=(Sampling(1, 1.0, 1024, 1024),))
    (tile,) = tiles_of(bench.draw_grid(spec, [run]))
    assert tile.fault and tile.fault.code == 6 and "memory" in tile.fault.error, tile
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(draw(bench, "500")) == 1


def test_a_grid_that_is_closed_leaves_the_card_within_a_step(bench: Workbench) -> None:
    draw(bench, None)
    worn, calls = bench.studio()._worn, []
    assert worn is not None
    handle = worn.pipe.unet.register_forward_pre_hook(lambda module, given: calls.append(1))
    run, checkpoint = bench.find(f"{FULL}@1500")
    work = bench.draw_grid(GridSpec((checkpoint,), (Prompt(PROMPT),), (9,), samplings=(Sampling(500, GUIDANCE),)), [run])
    next(item for item in work if isinstance(item, Progress) and "denoising 2/" in item.what)
    work.close()  # type: ignore[attr-defined]
    handle.remove()
    assert len(calls) < 100 and not bench.gpu.locked()


# measuring, and what is told


def test_losses_come_again_to_the_bit_whatever_else_lies_on_the_card(bench: Workbench, demo_home: Path, tmp_path: Path) -> None:
    run, _ = bench.find(FULL)
    chosen = (run.checkpoint("500"), run.checkpoint("1500"))
    spec = MeasureSpec(checkpoints=chosen, held_out=demo_home / "demo" / "data" / "held_out", draws=4)

    def measured(home: Path) -> dict[str, np.ndarray]:
        found = [item for item in over(demo_home, home).measure(run, spec) if isinstance(item, Measured)]
        assert not any(one.reused for one in found)
        return {one.checkpoint_id: one.values for one in found if one.metric == LOSS}

    first = measured(tmp_path / "one")
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - 500_000_000), dtype=torch.uint8, device=CARD)  # another program's
    second = measured(tmp_path / "two")
    del taken
    assert len(first) == 3 and first.keys() == second.keys()
    assert all(np.array_equal(second[name], values) for name, values in first.items())


def test_losses_on_the_card_are_those_of_the_processor_but_for_rounding(bench: Workbench, demo_home: Path, tmp_path: Path) -> None:
    run, _ = bench.find(FULL)
    spec = MeasureSpec(checkpoints=(run.checkpoint("1500"),), held_out=demo_home / "demo" / "data" / "held_out", draws=4)
    found = [
        {one.checkpoint_id: one.values for one in own.measure(run, spec) if isinstance(one, Measured) and one.metric == LOSS}
        for own in (bench, over(demo_home, tmp_path / "other").with_device("cpu"))
    ]
    assert len(found[0]) == 2
    for name, values in found[0].items():
        assert np.allclose(values, found[1][name], rtol=0.02) and values.mean() == pytest.approx(found[1][name].mean(), rel=2e-3), name


def test_the_card_its_memory_and_its_numbers_are_told(bench: Workbench) -> None:
    from cmp.workbench.vitals import vitals

    draw(bench, None)
    told: Any = vitals(bench)
    name = torch.cuda.get_device_name(0)
    assert told["device"] == "cuda" and told["gpus"][0]["name"] == name
    assert 0 < told["gpus"][0]["free_bytes"] < told["gpus"][0]["total_bytes"] == torch.cuda.mem_get_info(0)[1]
    card = str(bench.doctor()["device"])
    assert name in card and "float16" in card and "GB" in card
