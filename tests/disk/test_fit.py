"""A scale that no file tells is found where the run's final pipeline has the adapter merged in, and only there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cmp.errors import Refused
from tests.support import MODULES, Training, adapter_tensors, base_tensors, bench_of, origin_run, save

RUN = "lora_casual_shoes"


def merged_run(tmp_path: Path, scale: float, noise: float = 0.0, half: bool = False) -> Training:
    """A run without configs and logs, with its last adapter and a pipeline into which that was merged."""
    made = origin_run(tmp_path, (500,), logs=False, final=False)
    last = adapter_tensors(9)
    save(made.run / "lora_weights" / "adapter_model.safetensors", {f"base_model.model.{n}": v for n, v in last.items()})
    state = base_tensors()
    for module in MODULES:
        product = last[f"{module}.lora_B.weight"] @ last[f"{module}.lora_A.weight"]
        state[f"{module}.weight"] = (
            state[f"{module}.weight"] + np.float32(scale) * product + np.float32(noise) * state[f"{module}.weight"] ** 2
        )
    final = made.run / "final_pipeline"
    kind = np.float16 if half else np.float32
    save(final / "unet" / "diffusion_pytorch_model.safetensors", {name: values.astype(kind) for name, values in state.items()})
    shutil.copy(made.base / "model_index.json", final)
    return made


@pytest.mark.parametrize(("scale", "half"), [(2.0, False), (0.5, True), (0.3125, False), (1 / 3, True)])
def test_alpha_is_found_by_least_squares_from_a_merged_final(tmp_path: Path, scale: float, half: bool) -> None:
    plan = bench_of(merged_run(tmp_path, scale, half=half)).plan_conversion(f"{RUN}@500", "lora")
    assert plan.scale is not None and plan.scale.value == pytest.approx(scale, rel=2e-3) and "least squares" in plan.scale.source


def test_a_final_that_is_more_than_the_adapter_tells_no_alpha(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="nothing says which alpha"):
        bench_of(merged_run(tmp_path, 2.0, noise=0.5)).plan_conversion(f"{RUN}@500", "lora")


def test_no_alpha_is_found_without_the_base(tmp_path: Path) -> None:
    made = merged_run(tmp_path, 2.0)
    shutil.rmtree(made.bases)
    with pytest.raises(Refused, match="nothing says which alpha"):
        bench_of(made).plan_conversion(f"{RUN}@500", "lora")
