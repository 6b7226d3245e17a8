"""What a denoiser is asked when its loss is measured, and what it should have answered: as each family of models is trained.

Sources: diffusers' own training scripts (train_text_to_image_lora, train_text_to_image_lora_sdxl, train_dreambooth_lora_sd3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler

from cmp.core.curves import Floats
from cmp.core.draws import timesteps
from cmp.disk.bases import read_index
from cmp.engine.pipeline import WornPipeline
from cmp.engine.prompts import Steering
from cmp.errors import Refused

_BY_NOISE = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
_BY_FLOW = ("StableDiffusion3Pipeline",)
FAMILIES = (*_BY_NOISE, *_BY_FLOW)
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_HINT = f"Measured are: {', '.join(FAMILIES)}."


@dataclass(frozen=True, slots=True)
class Denoising:
    """How images are made noisy for one base model, and what its denoiser is to predict. `flow`: along straight paths."""

    kind: str
    prediction: str
    steps: int
    schedule: Any  # diffusers' DDPMScheduler; None where it is flow

    @property
    def flow(self) -> bool:
        return self.schedule is None

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, places: Floats) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The noisy latents, the timesteps to tell the denoiser, and what it should predict; `places` run from clean 0 to noise 1."""
        if self.flow:
            sigma = torch.tensor(places, dtype=torch.float32)
            wide = sigma[:, None, None, None]
            return (1 - wide) * latents + wide * noise, sigma * self.steps, noise - latents
        at = torch.from_numpy(timesteps(places, self.steps))
        noisy = self.schedule.add_noise(latents, noise, at)
        if self.prediction == "epsilon":
            return noisy, at, noise
        return noisy, at, latents if self.prediction == "sample" else self.schedule.get_velocity(latents, noise, at)

    def ask(self, denoiser: Any, noisy: torch.Tensor, at: torch.Tensor, steering: Steering) -> torch.Tensor:
        """The denoiser's prediction."""
        words = {"encoder_hidden_states": steering["prompt_embeds"], "return_dict": False}
        pooled = steering.get("pooled_prompt_embeds")
        if self.flow:
            found: torch.Tensor = denoiser(hidden_states=noisy, timestep=at, pooled_projections=pooled, **words)[0]
            return found
        if self.kind == "StableDiffusionXLPipeline":
            assert pooled is not None
            height, width = (8 * side for side in noisy.shape[2:])
            ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=pooled.dtype, device=pooled.device)
            words["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids.repeat(len(noisy), 1)}
        found = denoiser(noisy, at, **words)[0]
        return found


def check_family(base: Path) -> None:
    """Raises Refused for a base model whose denoiser is asked otherwise than those that are known here."""
    if (kind := str(read_index(base).get("_class_name"))) not in FAMILIES:
        raise Refused(f"the loss of a {kind} is not measured: its denoiser is asked otherwise", _HINT)


def denoising_of(worn: WornPipeline) -> Denoising:
    """How the loss of a base model of these families is computed; raises Refused for a way of predicting that is not known here."""
    kind, config = type(worn.pipe).__name__, worn.scheduler_config
    scheduler = worn.base_scheduler.__name__
    if kind in _BY_FLOW:
        if not scheduler.startswith("FlowMatch"):
            raise Refused(f"the base is a {kind} with a {scheduler}, which tells of no flow matching", _HINT)
        return Denoising(kind, "flow", int(config.get("num_train_timesteps", 1000)), None)
    unet: Any = worn.denoiser.config
    if unet.get("time_cond_proj_dim") is not None:
        raise Refused("the base is distilled to few steps, and its loss is not that of its training", _HINT)
    if unet.get("addition_embed_type") not in (None, *(["text_time"] if kind == "StableDiffusionXLPipeline" else [])):
        raise Refused(f"the base's UNet takes {unet['addition_embed_type']!r} beside the prompt, which is not known here", _HINT)
    prediction = str(config.get("prediction_type", "epsilon"))
    if "beta_schedule" not in config or scheduler.startswith(("EDM", "FlowMatch")):
        raise Refused(f"the base comes with a {scheduler}, which does not say how images are made noisy in training", _HINT)
    if prediction not in _PREDICTIONS:
        raise Refused(f"the base's scheduler says that it predicts {prediction!r}, which is not known here", _HINT)
    schedule = DDPMScheduler.from_config(config)
    return Denoising(kind, prediction, int(schedule.config.num_train_timesteps), schedule)


def encode(worn: WornPipeline, pictures: np.ndarray) -> torch.Tensor:
    """The means of the latents of (n, height, width, 3) pictures, scaled as the denoiser takes them; float32, in the computer's memory.

    In full precision: the VAE of SDXL overflows in half.
    """
    vae = worn.pipe.vae
    own = vae.dtype
    with worn.computing():
        try:
            vae.to(dtype=torch.float32)
            pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(worn.device, torch.float32) / 127.5 - 1
            latents = vae.encode(pixels).latent_dist.mode().float()
        finally:
            vae.to(dtype=own)
        return _scaled(latents, vae.config).cpu()


def _scaled(latents: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
    mean, spread = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and spread is not None:
        shape = (1, -1, 1, 1)
        own = [torch.tensor(values, device=latents.device).view(shape) for values in (mean, spread)]
        return (latents - own[0]) * config["scaling_factor"] / own[1]
    shift = config.get("shift_factor")
    return (latents - (shift or 0.0)) * config["scaling_factor"]


def losses(worn: WornPipeline, asked: Denoising, latents: torch.Tensor, noise: torch.Tensor, places: Floats, steering: Steering) -> Floats:
    """The mean squared error of one prediction for each row of latents; float64."""
    with worn.computing():
        noisy, at, target = asked.noisy(latents, noise, places)
        moved = {name: values.to(worn.device) for name, values in steering.items()}
        found = asked.ask(worn.denoiser, noisy.to(worn.device, worn.dtype), at.to(worn.device), moved)
        off = found.float().cpu() - target
    return (off.double() ** 2).mean(dim=(1, 2, 3)).numpy()
