"""Draws pictures with a pipeline that wears their checkpoints. One alone has the pixels of diffusers' plain call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from cmp.core.grids import Cell, Sampling
from cmp.core.progress import Progress
from cmp.engine.pipeline import WornPipeline
from cmp.engine.prompts import Steering
from cmp.engine.samplers import scheduler_of
from cmp.engine.steps import Report, silent
from cmp.errors import Refused


def paint(
    worn: WornPipeline, cells: Sequence[Cell], steering: Sequence[Steering | None] | None = None, report: Report = silent
) -> list[Image.Image]:
    """The pictures of cells that share their sampling, in one batch.

    Noise comes from one CPU generator per picture, seeded by its cell, so that it is the same on every device and in every company; as
    for diffusers' plain call it is made in the numbers that are drawn in, and before torch 2.13 a seed has another noise in half precision.
    `steering` are the encoded prompts; without, the pipeline encodes them. Each denoising step is reported. Raises Refused for pictures
    that are no numbers.
    """
    sampling = cells[0].sampling
    assert all(cell.sampling == sampling for cell in cells)
    worn.pipe.scheduler = make_scheduler(worn, sampling)

    def tell(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        report(Progress(step + 1, sampling.steps, "denoising"))
        return {}

    asked: dict[str, Any] = {
        "num_inference_steps": sampling.steps,
        "guidance_scale": sampling.guidance,
        "generator": [torch.Generator("cpu").manual_seed(cell.seed) for cell in cells],
        "callback_on_step_end": tell,
        "callback_on_step_end_tensor_inputs": [],
    }
    asked |= {side: value for side in ("width", "height") if (value := getattr(sampling, side))}
    with worn.computing():
        return _finite(worn, worn.pipe(**asked, **_prompts(cells, steering), output_type="np").images)


def _finite(worn: WornPipeline, images: np.ndarray) -> list[Image.Image]:
    """The pictures as diffusers makes them of their numbers; it would make those that are none black, and only warn."""
    if not np.isfinite(images).all():
        half = worn.dtype != torch.float32
        why = f"the model's numbers are too large for {str(worn.dtype).removeprefix('torch.')}" if half else "these weights overflow"
        raise Refused(f"what was drawn is no picture but NaN: {why}", "Draw it with CMP_DEVICE=cpu." if half else "Draw an earlier step.")
    return list(worn.pipe.image_processor.numpy_to_pil(images))


def _prompts(cells: Sequence[Cell], steering: Sequence[Steering | None] | None) -> dict[str, Any]:
    encoded = [one for one in steering or () if one is not None]
    if len(encoded) == len(cells):
        return {name: torch.cat([one[name] for one in encoded]) for name in encoded[0]}
    negative = [cell.prompt.negative for cell in cells]
    clip_skip = cells[0].sampling.clip_skip - 1
    told: dict[str, Any] = {"prompt": [cell.prompt.text for cell in cells]}
    return told | ({"negative_prompt": negative} if any(negative) else {}) | ({"clip_skip": clip_skip} if clip_skip else {})


def make_scheduler(worn: WornPipeline, sampling: Sampling) -> Any:
    """A fresh scheduler: they keep state between steps, and a cancelled picture must leave none to the next."""
    return scheduler_of(worn.scheduler_config, worn.base_scheduler, sampling.scheduler)
