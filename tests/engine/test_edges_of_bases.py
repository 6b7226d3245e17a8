"""Bases whose components lie elsewhere, that draw with another kind of sampler, or that are held rounded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cmp.core.fitting import find_tensor
from cmp.core.grids import SCHEDULERS, GridSpec, Prompt, Sampling, Tile
from cmp.core.progress import run_through
from cmp.disk.ready import Answers
from cmp.engine import pipeline
from cmp.engine.samplers import calls, own_sampler, usable_samplers
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, tiles_of, unpack

from .conftest import pixels
from .making import UNET_FILE, adapter, unet_adapter, write_step

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
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))


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


# samplers for another kind of model


@pytest.fixture(scope="session")
def flowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("flowing")
    unpack(BASES.parent / "small.tar.xz", place)
    unpack(BASES.parent / "sd3_tiny.tar.xz", place / "bases")
    return place / "bases"


@pytest.fixture
def of_flow(tmp_path: Path, flowing: Path) -> Callable[..., Tile]:
    """Draws a LoRA on SD 3 or Flux."""

    def one(name: str, sampler: str, steps: int = 2, **settings: object) -> Tile:
        base = Path(shutil.copytree(flowing / name, tmp_path / "bases" / name, dirs_exist_ok=True))
        set_scheduler(base, **settings)
        if not (tmp_path / "outputs" / name).is_dir():
            write_step(tmp_path / "outputs" / name, 2, adapter(base, "transformer", 4, 1, ("to_q", "to_k")))
        bench = Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))
        return draw(bench, f"{name}@2", name, Sampling(steps, 3.0, 64, 64, sampler))

    return one


def set_scheduler(base: Path, **settings: object) -> None:
    file = base / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


OTHERS = sorted({*SCHEDULERS} - {"base", "DPM++ 2M", "UniPC"})


@pytest.mark.parametrize("name", ["sd3_tiny", "flux_tiny"])
@pytest.mark.parametrize("sampler", OTHERS)
def test_a_sampler_that_would_draw_noise_with_a_flow_matching_model_is_refused_by_name(
    of_flow: Callable[..., Tile], name: str, sampler: str
) -> None:
    fault = of_flow(name, sampler).fault
    assert fault and fault.code == Refused.exit_code and repr(sampler) in fault.error and name in fault.error
    assert "base" in fault.hint and "UniPC" in fault.hint


@pytest.mark.parametrize(
    ("name", "sampler", "settings"),
    [
        ("sd3_tiny", "DPM++ 2M", {}),
        ("sd3_tiny", "UniPC", {}),
        ("flux_tiny", "UniPC", {}),
        ("flux_tiny", "UniPC", {"use_dynamic_shifting": True}),
        ("flux_tiny", "DPM++ 2M", {"use_dynamic_shifting": True}),
        ("sd3_tiny", "DPM++ 2M", {"use_dynamic_shifting": True}),
    ],
)
def test_with_many_steps_a_sampler_for_flow_matching_draws_what_the_bases_own_does(
    of_flow: Callable[..., Tile], name: str, sampler: str, settings: dict[str, object]
) -> None:
    own, few, many = of_flow(name, "base", 60, **settings), of_flow(name, sampler, 6, **settings), of_flow(name, sampler, 60, **settings)
    assert not own.fault and not few.fault and not many.fault
    off = np.abs(pixels(many.path).astype(int) - pixels(own.path))
    near = (0.5, 8) if DEVICE == "cpu" else (4, 60)  # 60 steps in half precision
    assert off.mean() < near[0] and off.max() <= near[1] and not np.array_equal(pixels(few.path), pixels(own.path))


def test_dpm_is_refused_for_the_flux_that_wants_no_shift_by_size_and_for_schedules_that_it_does_not_know(
    of_flow: Callable[..., Tile],
) -> None:
    for name, sampler, settings in (
        ("flux_tiny", "DPM++ 2M", {"use_dynamic_shifting": False}),
        ("flux_tiny", "DPM++ 2M", {"use_dynamic_shifting": True, "time_shift_type": "linear"}),
        ("sd3_tiny", "UniPC", {"use_karras_sigmas": True}),
    ):
        fault = of_flow(name, sampler, **settings).fault
        assert fault and fault.code == Refused.exit_code and "Use one of: base" in fault.hint


@pytest.mark.parametrize(("own", "all_of_them"), [("DDIMScheduler", True), ("LCMScheduler", True), ("EDMEulerScheduler", False)])
def test_every_sampler_serves_models_that_predict_noise_and_none_but_its_own_another_kind(base: Path, own: str, all_of_them: bool) -> None:
    set_scheduler(base, _class_name=own)
    assert usable_samplers(base) == (SCHEDULERS if all_of_them else ("base",))


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_every_sampler_that_is_offered_draws_here_and_asks_the_model_as_often_as_is_told(
    bench: Workbench, base: Path, sampler: str
) -> None:
    draw(bench)
    worn, asked = bench.studio()._worn, []
    assert worn is not None
    handle = worn.pipe.unet.register_forward_pre_hook(lambda module, given: asked.append(1))
    assert draw(bench, sampling=Sampling(5, 3.0, scheduler=sampler)).fault is None
    handle.remove()
    assert len(asked) == calls(base, Sampling(5, scheduler=sampler))


# bases that were rounded for training


@pytest.mark.parametrize(("kind", "between"), [("BF16", torch.bfloat16), ("F16", torch.float16)])
@pytest.mark.parametrize("drawn_in", [torch.float16, torch.float32, torch.bfloat16])
def test_a_base_is_rounded_once_to_the_type_of_training_and_then_held_in_that_of_drawing(
    base: Path, monkeypatch: pytest.MonkeyPatch, kind: str, between: torch.dtype, drawn_in: torch.dtype
) -> None:
    monkeypatch.setattr(pipeline, "choose_dtype", lambda device, folder: drawn_in)
    worn = pipeline.WornPipeline(base, torch.device("cpu"), (("unet", kind), ("text_encoder", kind)))
    for component, file in (("unet", UNET_FILE), ("text_encoder", "text_encoder/model.safetensors")):
        inside = worn.modules[component].state_dict()
        for name, values in load_file(base / file).items():
            landed = inside[find_tensor(name, inside) or name]
            assert landed.dtype == drawn_in and torch.equal(landed, torch.tensor(values).to(between).to(drawn_in)), name
    assert all(t.dtype == drawn_in for t in worn.modules["vae"].parameters())


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"_class_name": "PNDMScheduler"}, "PNDM"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}, "DPM++ 2M Karras"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": False}, "DPM++ 2M"),
        ({"_class_name": "LCMScheduler"}, "LCM"),
    ],
)
def test_a_bases_own_sampler_is_called_by_the_name_that_people_know(tmp_path: Path, settings: dict[str, object], name: str) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings))
    assert own_sampler(tmp_path) == name
