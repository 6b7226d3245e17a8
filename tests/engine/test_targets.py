"""What a denoiser should have answered: whoever answers exactly that is led back to the clean picture by diffusers' own sampler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler

from cmp.core.draws import timesteps
from cmp.engine.denoising import Denoising

pytestmark = pytest.mark.model
# as Stable Diffusion 1.5 comes, whose sampler is no DDPM
SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
PLACES = np.array([0.0, 0.013, 0.25, 0.5, 0.77, 0.9999])


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and noise, a row for each place."""
    rng = np.random.default_rng(seed)
    clean, noise = (torch.from_numpy(rng.standard_normal((len(PLACES), 4, 8, 8), dtype=np.float32)) for _ in range(2))
    return clean, noise


def by_noise(prediction: str) -> Denoising:
    schedule = DDPMScheduler.from_config(PNDMScheduler(**SD15, skip_prk_steps=True, steps_offset=1, prediction_type="epsilon").config)
    schedule.register_to_config(prediction_type=prediction)
    return Denoising("StableDiffusionPipeline", prediction, 1000, schedule)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_target_by_noise_is_the_papers_and_diffusers_finds_the_picture_with_it(prediction: str) -> None:
    clean, noise = drawn()
    noisy, at, target = by_noise(prediction).noisy(clean, noise, PLACES)
    assert at.tolist() == timesteps(PLACES, 1000).tolist() == [0, 13, 250, 500, 770, 999]
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[at.numpy()]  # "alphas_cumprod", as the model was trained with
    a, s = (torch.tensor(values, dtype=torch.float32)[:, None, None, None] for values in (np.sqrt(kept), np.sqrt(1 - kept)))
    wanted = {"epsilon": noise, "v_prediction": a * noise - s * clean, "sample": clean}[prediction]
    assert torch.allclose(noisy, a * clean + s * noise, atol=1e-5) and torch.allclose(target, wanted, atol=1e-5)
    sampler = DDPMScheduler(
        **{name: value for name, value in SD15.items() if name != "steps_offset"}, prediction_type=prediction, clip_sample=False
    )
    for row, t in enumerate(at.tolist()):
        found = sampler.step(target[row : row + 1], t, noisy[row : row + 1]).pred_original_sample
        assert torch.allclose(found, clean[row : row + 1], atol=2e-3), (prediction, t)


def test_the_three_ways_to_predict_have_three_targets() -> None:
    found = [by_noise(prediction).noisy(*drawn(), PLACES)[2] for prediction in ("epsilon", "v_prediction", "sample")]
    assert not any(torch.allclose(one, other, atol=1e-2) for i, one in enumerate(found) for other in found[:i])


def test_the_target_of_flow_matching_leads_along_a_straight_path_to_the_picture() -> None:
    clean, noise = drawn(1)
    noisy, at, target = Denoising("StableDiffusion3Pipeline", "flow", 1000, None).noisy(clean, noise, PLACES)
    assert torch.equal(target, noise - clean) and torch.allclose(at, torch.tensor(PLACES, dtype=torch.float32) * 1000)
    for row, sigma in enumerate(PLACES.tolist()):
        sampler: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
        sampler.set_timesteps(sigmas=[sigma])
        one = slice(row, row + 1)
        assert torch.allclose(sampler.scale_noise(clean[one], sampler.timesteps, noise[one]), noisy[one], atol=1e-5)
        assert torch.allclose(sampler.step(target[one], sampler.timesteps[0], noisy[one]).prev_sample, clean[one], atol=1e-4), sigma
