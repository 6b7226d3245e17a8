"""Draws pictures with a pipeline that wears their checkpoints. One alone has the pixels of diffusers' plain call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from cmp.core.grids import Cell, Sampling
from cmp.core.progress import Progress
from cmp.engine.pipeline import WornPipeline
from cmp.engine.prompts import Steering
from cmp.engine.samplers import scheduler_of
from cmp.engine.steps import Report, silent


@torch.inference_mode()
def paint(
    worn: WornPipeline, cells: Sequence[Cell], steering: Sequence[Steering | None] | None = None, report: Report = silent
) -> list[Image.Image]:
    """The pictures of cells that share their sampling, in one batch.

    Noise comes from one CPU generator per picture, seeded by its cell, so that it is the same on every device and in every company.
    `steering` are the encoded prompts; without, the pipeline encodes them. Each denoising step is reported.
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
    return list(worn.pipe(**asked, **_prompts(cells, steering)).images)


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
