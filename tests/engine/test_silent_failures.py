"""The two silent failures that this project exists to make impossible, planted, with diffusers' plain call beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from cmp.core.grids import GridSpec, Prompt, Sampling
from cmp.core.progress import run_through
from cmp.core.scale import Scale
from cmp.disk.ready import Answers
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, tiles_of

from .conftest import GUIDANCE, PROMPT, SEED, STEPS, draw_alone, pixels

pytestmark = pytest.mark.model


def bench_over(folder: Path, home: Path, base: Path) -> Workbench:
    return Workbench(Settings(home=home, runs=(folder,), bases=(base.parents[1],), device=DEVICE))


def draw_one(bench: Workbench, target: str, given: Answers = Answers()):
    run, checkpoint = bench.find(target)
    spec = GridSpec((checkpoint,), (Prompt(PROMPT),), (SEED,), samplings=(Sampling(STEPS, GUIDANCE),))
    (tile,) = tiles_of(bench.draw_grid(spec, [run], given))
    return tile


@pytest.fixture
def strangers(tmp_path: Path, demo_run: Path) -> Path:
    """A run whose one checkpoint has the right tensors under names that match nothing: the origin's first failure."""
    source = demo_run / "checkpoints" / "checkpoint-1500"
    target = tmp_path / "outputs" / "strange" / "checkpoints" / "checkpoint-1500"
    shutil.copytree(source, target)
    shutil.copytree(demo_run / "lora_weights", tmp_path / "outputs" / "strange" / "lora_weights")
    state = load_file(source / "model.safetensors")
    save_file(
        {name.replace("base_model.model.", "wrapper.").replace(".to_", ".proj_"): t for name, t in state.items()},
        target / "model.safetensors",
    )
    return tmp_path / "outputs"


def test_a_checkpoint_whose_names_match_nothing_is_refused_by_name(strangers: Path, tmp_path: Path, base_folder: Path) -> None:
    bench = bench_over(strangers, tmp_path / "home", base_folder)
    for form in ("lora", "pipeline"):
        with pytest.raises(Refused, match="wrapper"):
            bench.plan_conversion("strange@1500", form, Answers(base=str(base_folder)))
    tile = draw_one(bench, "strange@1500", Answers(base=str(base_folder)))
    assert tile.path is None and tile.fault is not None and tile.fault.code == Refused.exit_code and "wrapper" in tile.fault.error


def test_the_origins_converter_would_have_drawn_the_base_model(strangers: Path, base_folder: Path) -> None:
    """What it did: strip prefixes, load with strict=False, and call 686 missing and 942 unexpected keys normal."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(base_folder, safety_checker=None)
    before = draw_alone(pipe)
    state = load_file(strangers / "strange" / "checkpoints" / "checkpoint-1500" / "model.safetensors")
    stripped = {name.replace("module.", "").replace("unet.", ""): tensor for name, tensor in state.items()}
    missing, unexpected = pipe.unet.load_state_dict(stripped, strict=False)
    assert (len(missing), len(unexpected)) == (686, 942)
    assert np.array_equal(draw_alone(pipe), before)


@pytest.fixture
def unprefixed(tmp_path: Path, demo_run: Path) -> Path:
    """A run that left only PEFT's own adapter, whose names lack `unet.`: the origin's second failure."""
    shutil.copytree(demo_run / "lora_weights", tmp_path / "outputs" / "only_final" / "lora_weights")
    return tmp_path / "outputs"


def test_an_adapter_without_prefix_is_loaded_in_full(unprefixed: Path, tmp_path: Path, base_folder: Path, demo_run: Path) -> None:
    from diffusers import StableDiffusionPipeline

    bench = bench_over(unprefixed, tmp_path / "home", base_folder)
    given = Answers(base=str(base_folder))
    file = tmp_path / "final.safetensors"
    conversion = run_through(bench.convert(bench.plan_conversion("only_final@final", "lora", given, output=file)))
    assert conversion.applied == 256 and conversion.scale is not None and conversion.scale.value == 2
    assert all(name.startswith("unet.") for name in load_file(file))
    pipe = StableDiffusionPipeline.from_pretrained(base_folder, safety_checker=None)
    base_alone = draw_alone(pipe)
    pipe.load_lora_weights(str(unprefixed / "only_final" / "lora_weights"), weight_name="adapter_model.safetensors")
    assert np.array_equal(draw_alone(pipe), base_alone), "diffusers' plain call was expected to load nothing"
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name)
    ours = pixels(draw_one(bench, "only_final@final", given).path)
    assert np.array_equal(ours, draw_alone(pipe)) and not np.array_equal(ours, base_alone)


def test_a_model_that_lost_one_tensor_is_not_drawn_with(bench: Workbench, demo_run: Path, base_folder: Path) -> None:
    import torch

    from cmp.disk.checkpoint import open_weights
    from cmp.disk.lora_file import read_folded
    from cmp.engine.device import choose_device
    from cmp.engine.pipeline import WornPipeline, adapter_tensors, prove_worn

    folded = read_folded(open_weights(demo_run / "checkpoints" / "checkpoint-500" / "model.safetensors"), Scale(2.0, 16.0, 8, "the demo"))
    worn = WornPipeline(base_folder, choose_device(DEVICE))
    worn.wear_lora("digest", folded, 1.0)
    modules = {"unet": worn.pipe.unet}
    name, parameter = next(iter(adapter_tensors(modules).items()))
    with torch.no_grad():
        first = parameter.view(-1)[0]
        first.copy_(torch.nextafter(first.cpu(), torch.tensor(9.0, dtype=first.dtype)))
    with pytest.raises(Refused, match=name):
        prove_worn(modules, folded, 1.0)
    with pytest.raises(Refused, match="did not land"):
        prove_worn(modules, folded | {"unet.nowhere.lora_A.weight": np.zeros((8, 4), np.float32)}, 1.0)
    worn.pipe.disable_lora()
    with pytest.raises(Refused):
        prove_worn(modules, folded, 1.0)


def test_two_modules_swapped_are_found(bench: Workbench, demo_run: Path, base_folder: Path, tmp_path: Path) -> None:
    """A converter that swaps equally shaped modules passes every check that only counts; the read-back compares values by name."""

    from cmp.disk.checkpoint import open_weights
    from cmp.disk.lora_file import read_folded
    from cmp.engine.device import choose_device
    from cmp.engine.pipeline import WornPipeline, prove_worn

    folded = read_folded(open_weights(demo_run / "checkpoints" / "checkpoint-500" / "model.safetensors"), Scale(2.0, 16.0, 8, "the demo"))
    same = [n for n in folded if n.endswith("lora_A.weight") and folded[n].shape == next(iter(folded.values())).shape]
    swapped = folded | {same[0]: folded[same[1]], same[1]: folded[same[0]]}
    worn = WornPipeline(base_folder, choose_device(DEVICE))
    worn.wear_lora("digest", swapped, 1.0)
    with pytest.raises(Refused, match="not what the checkpoint holds"):
        prove_worn({"unet": worn.pipe.unet}, folded, 1.0)
