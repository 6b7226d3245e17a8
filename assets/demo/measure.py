"""Measures the demo's checkpoints on images that no run was trained on, and draws them side by side.

    python assets/demo/measure.py --input work/demo

Noise-prediction loss, lower is better, with the same images, the same noise and the same timesteps for every checkpoint, so that
differences are paired: their intervals come from resampling the images (10,000 times, 95 %). What is printed is also written to
data/held_out_loss.json; the pictures go beside the input, one sheet a run.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import get_peft_model
from PIL import Image
from runs import DIFFUSERS_RUN, ORIGIN_RUN, PROMPTS, encode_folder, load_base
from safetensors.torch import load_file

LEVELS = 24  # timesteps: the middles of as many equal parts of 0…1000


def checkpoints(training: Path) -> Iterator[tuple[str, int, StableDiffusionPipeline]]:
    """(run, step, pipeline with that checkpoint in it), each run opened by the base model as its step 0."""
    for recipe in (ORIGIN_RUN, DIFFUSERS_RUN):
        folder = training / "outputs" / recipe.name
        yield recipe.name, 0, load_base()
        for step in range(recipe.save_every, recipe.steps + 1, recipe.save_every):
            raw = folder / "checkpoints" / f"checkpoint-{step}" / "model.safetensors"
            pipeline = load_base()
            if raw.exists():
                load_raw(pipeline, raw)
            else:
                pipeline.load_lora_weights(folder / f"checkpoint-{step}", weight_name="pytorch_lora_weights.safetensors")
            yield recipe.name, step, pipeline


def load_raw(pipeline: StableDiffusionPipeline, path: Path) -> None:
    """Puts an Accelerate state into the pipeline's UNet; strict loading proves that every tensor went in."""
    get_peft_model(pipeline.unet, ORIGIN_RUN.lora).load_state_dict(load_file(path), strict=True)


@torch.no_grad()
def losses(pipeline: StableDiffusionPipeline, latents: torch.Tensor, words: torch.Tensor) -> np.ndarray:
    """Mean squared error of the predicted noise, (images, LEVELS); the noise depends on the image and the level alone."""
    pipeline.unet.eval()
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    generator = torch.Generator().manual_seed(0)
    columns = []
    for level in range(LEVELS):
        t = torch.full((len(latents),), round((level + 0.5) * 1000 / LEVELS))
        noise = torch.randn(latents.shape, generator=generator)
        guess = pipeline.unet(schedule.add_noise(latents, noise, t), t, words).sample
        columns.append(F.mse_loss(guess, noise, reduction="none").mean((1, 2, 3)))
    return torch.stack(columns, 1).numpy()


def interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of (images,) paired differences."""
    picks = np.random.default_rng(0).integers(0, len(differences), (10_000, len(differences)))
    low, high = np.quantile(differences[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)


def compare(by_step: dict[int, np.ndarray]) -> list[dict[str, float]]:
    """One row a step: its loss, and how much worse than the best step it is, with the interval of that difference."""
    means = {step: loss.mean(1) for step, loss in by_step.items()}  # an image's mean over the levels
    best = min(means, key=lambda step: means[step].mean())
    rows = []
    for step, loss in means.items():
        worse = loss - means[best]
        low, high = interval(worse)
        rows.append({"step": step, "loss": float(loss.mean()), "worse_by": float(worse.mean()), "low": low, "high": high})
    return rows


def draw_column(pipeline: StableDiffusionPipeline, seed: int = 0) -> Image.Image:
    """One image of each validation prompt, of the bare thing, and of a shape that the base model knows."""
    column = Image.new("RGB", (66, 66 * (len(PROMPTS) + 2)), "white")
    for row, prompt in enumerate([*PROMPTS, "a casual shoe", "a red star"]):
        generator = torch.Generator().manual_seed(seed)
        drawn = pipeline(prompt, num_inference_steps=12, guidance_scale=4.0, generator=generator).images
        column.paste(drawn[0], (0, row * 66))
    return column


def save_sheet(columns: list[Image.Image], path: Path) -> None:
    sheet = Image.new("RGB", (sum(c.width for c in columns), columns[0].height), "white")
    for i, column in enumerate(columns):
        sheet.paste(column, (i * column.width, 0))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="what runs.py wrote")
    folder = parser.parse_args().input.resolve()
    diffusers.utils.logging.disable_progress_bar()
    os.chdir(folder / "bases")
    latents, words = encode_folder(load_base(), folder / "data" / "held_out")
    measured: dict[str, dict[int, np.ndarray]] = {}
    drawn: dict[str, list[Image.Image]] = {}
    for run, step, pipeline in checkpoints(folder / "training"):
        measured.setdefault(run, {})[step] = losses(pipeline, latents, words)
        drawn.setdefault(run, []).append(draw_column(pipeline))
    report = {run: compare(by_step) for run, by_step in measured.items()}
    (folder / "data" / "held_out_loss.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for run, rows in report.items():
        save_sheet(drawn[run], folder.with_name(f"{folder.name}-{run}.png"))
        print(f"{run}: step, loss, and how much worse than the best (95 % interval)")
        for r in rows:
            print(f"{r['step']:>6} {r['loss']:.5f}  +{r['worse_by']:.5f} ({r['low']:.5f} to {r['high']:.5f})")


if __name__ == "__main__":
    main()
