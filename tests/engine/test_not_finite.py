"""NaN and infinity are refused by the tensor's name wherever they are copied, merged or drawn, and nothing else is taken for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from cmp.core.conversion import Writing
from cmp.core.grids import GridSpec, Prompt, Sampling
from cmp.core.progress import run_through
from cmp.disk.numbers import all_finite
from cmp.disk.ready import Answers
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import BASE_NAME, DEVICE, Tensors, base_pipeline, base_tensors, convert, origin_run, save, spoil, tiles_of, write_config

from .making import unet_adapter, write_step

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
UNET = "unet/diffusion_pytorch_model.safetensors"
# every type of torch's that is read here, under the name that the format gives it
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip


def bits_of(values: torch.Tensor) -> memoryview:
    return memoryview(values.view(torch.uint8).numpy().tobytes())


@pytest.mark.parametrize("name", TYPES)
def test_every_number_of_a_type_is_taken_for_what_torch_takes_it_for(name: str) -> None:
    kind = TYPES[name]
    width = torch.empty(0, dtype=kind).element_size()
    if width < 4:
        every = torch.from_numpy(np.arange(1 << (8 * width), dtype=f"<u{width}").view(np.uint8)).view(kind)
    else:
        random = np.random.default_rng(0).integers(0, 256, 4096 * width, dtype=np.uint8)
        edges = torch.tensor([np.nan, np.inf, -np.inf, 0.0, -0.0, torch.finfo(kind).max, torch.finfo(kind).min, 1e-40], dtype=kind)
        every = torch.cat([torch.from_numpy(random).view(kind), edges])
    finite = torch.isfinite(every.to(torch.float64))
    assert 0 < int(finite.sum()) < len(every)
    assert all_finite(bits_of(every[finite]), name)
    for number in every[~finite][:300]:
        assert not all_finite(bits_of(torch.cat([every[finite], number[None]])), name)


def test_whole_numbers_and_nothing_at_all_are_finite() -> None:
    assert all_finite(np.full(8, 0x7FF8 << 48, "<u8"), "U64") and all_finite(np.empty((0, 4), "<f4"), "F32")


def full_run(tmp_path: Path, change: Callable[[Tensors], object], kind: torch.dtype = torch.float32) -> Workbench:
    """A run with one full fine-tune of the tiny UNet, and its base."""
    tensors = base_tensors()
    change(tensors)
    file = tmp_path / "outputs" / "full" / "checkpoint-2" / UNET
    file.parent.mkdir(parents=True)
    save_file({name: torch.from_numpy(values).to(kind) for name, values in tensors.items()}, file)
    base_pipeline(tmp_path / "bases")
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (tmp_path / "bases",)))


@pytest.mark.parametrize("writing", [Writing(), Writing("BF16"), Writing("F16"), Writing(strength=0.5)], ids=repr)
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_full_fine_tune_with_one_such_number_is_refused_by_the_tensors_name(
    tmp_path: Path, bad: float, kind: torch.dtype, writing: Writing
) -> None:
    def spoiled(tensors: Tensors) -> None:
        tensors["conv_in.weight"].reshape(-1)[-1] = bad

    bench = full_run(tmp_path, spoiled, kind)
    output = tmp_path / "made" / "p"
    plan = bench.plan_conversion("full@2", "pipeline", Answers(base=BASE_NAME), output=output, writing=writing)
    with pytest.raises(Refused, match=r"conv_in\.weight.*NaN or infinity"):
        run_through(bench.convert(plan))
    assert list((tmp_path / "made").iterdir()) == []


def test_a_full_fine_tune_without_one_is_written_as_it_is(tmp_path: Path) -> None:
    def changed(tensors: Tensors) -> None:
        tensors["conv_in.weight"].reshape(-1)[-1] = np.finfo("f4").max

    bench = full_run(tmp_path, changed)
    done = run_through(bench.convert(bench.plan_conversion("full@2", "pipeline", Answers(base=BASE_NAME), output=tmp_path / "p")))
    assert load_file(done.output / UNET)["conv_in.weight"].reshape(-1)[-1] == np.finfo("f4").max


def test_a_module_that_was_trained_whole_beside_an_adapter_is_refused_too(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500,))
    write_config(made.run / "lora_weights", modules_to_save=["conv_out"])

    def saved(tensors: Tensors, value: float) -> None:
        own = tensors.pop("base_model.model.conv_out.bias")
        tensors["base_model.model.conv_out.original_module.bias"] = own
        tensors["base_model.model.conv_out.modules_to_save.default.bias"] = np.full_like(own, value)

    spoil(made, lambda tensors: saved(tensors, np.nan))
    with pytest.raises(Refused, match=r"conv_out\.bias.*NaN or infinity"):
        convert(made, "pipeline")
    spoil(made, lambda tensors: saved(tensors, 2.0))
    assert load_file(convert(made, "pipeline").output / UNET)["conv_out.bias"].tolist() == [2.0] * 4


@pytest.mark.model
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_drawn_is_refused_likewise(tmp_path: Path, bad: float) -> None:
    base = Path(shutil.copytree(CORPUS / "bases" / "sd_nano", tmp_path / "bases" / "sd_nano"))
    tensors = load_file(base / UNET)
    tensors["conv_in.weight"] = tensors["conv_in.weight"].copy()
    tensors["conv_in.weight"].reshape(-1)[-1] = bad
    save(tmp_path / "outputs" / "full" / "checkpoint-2" / UNET, tensors)
    save(tmp_path / "outputs" / "word" / "learned_embeds-steps-2.safetensors", {"<sks>": np.full((1, 32), bad, "f4")})
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))
    for target, named in (("full@2", "conv_in.weight"), ("word@2", "<sks>")):
        run, checkpoint = bench.find(target)
        spec = GridSpec((checkpoint,), (Prompt("a shoe"),), (1,), samplings=(Sampling(2, 1.0),))
        (tile,) = tiles_of(bench.draw_grid(spec, [run], Answers(base="sd_nano")))
        assert tile.path is None and tile.fault and tile.fault.code == Refused.exit_code
        assert named in tile.fault.error and "NaN or infinity" in tile.fault.error


@pytest.mark.model
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_numbers_that_overflow_while_a_picture_is_drawn_make_no_black_picture(tmp_path: Path, mode: str) -> None:
    base = Path(shutil.copytree(CORPUS / "bases" / "sd_nano", tmp_path / "bases" / "sd_nano"))
    write_step(tmp_path / "outputs" / "run", 2, {name: np.full_like(values, 1e30) for name, values in unet_adapter(base, 4, 2).items()})
    write_step(tmp_path / "outputs" / "run", 4, unet_adapter(base, 4, 4))
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))
    run, _ = bench.find("run")
    spec = GridSpec(run.checkpoints, (Prompt("a shoe"),), (1,), samplings=(Sampling(2, 3.0),), mode=mode)
    wrong, right = tiles_of(bench.draw_grid(spec, [run], Answers(base="sd_nano")))
    assert wrong.path is None and wrong.fault and wrong.fault.code == Refused.exit_code and "NaN" in wrong.fault.error
    assert right.fault is None and right.path
