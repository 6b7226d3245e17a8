"""Draws one cell with a pipeline that wears its checkpoint. In `exact` the pixels are those of diffusers' plain call."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from PIL import Image

from cmp.core.grids import Cell, Sampling
from cmp.engine.pipeline import WornPipeline

# A1111's names, which people know, to diffusers' classes
_SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "PNDM": ("PNDMScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
}


@torch.inference_mode()
def paint(worn: WornPipeline, cell: Cell) -> Image.Image:
    """The picture of a cell. Noise comes from a CPU generator seeded per picture, so that it is the same on every device."""
    worn.pipe.scheduler = make_scheduler(worn, cell.sampling)
    asked: dict[str, Any] = {
        "prompt": cell.prompt.text,
        "num_inference_steps": cell.sampling.steps,
        "guidance_scale": cell.sampling.guidance,
        "generator": torch.Generator("cpu").manual_seed(cell.seed),
    }
    if cell.prompt.negative:
        asked["negative_prompt"] = cell.prompt.negative
    if cell.sampling.width:
        asked["width"] = cell.sampling.width
    if cell.sampling.height:
        asked["height"] = cell.sampling.height
    return worn.pipe(**asked).images[0]


def make_scheduler(worn: WornPipeline, sampling: Sampling) -> Any:
    """A fresh scheduler: they keep state between steps, and a cancelled picture must leave none to the next."""
    if sampling.scheduler == "base":
        return worn.base_scheduler.from_config(worn.scheduler_config)
    name, extra = _SCHEDULERS[sampling.scheduler]
    return getattr(diffusers, name).from_config(worn.scheduler_config, **extra)
