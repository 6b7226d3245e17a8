"""Trains the demo's two runs: the tiny base model learns shoes from eight drawings, in the forms that two real trainers leave.

    python assets/demo/runs.py --base work/base --output work/demo

Run one is a plain Accelerate loop over `get_peft_model`, as many people write it by hand. Run two has the same images,
batches and noise but a higher learning rate, and leaves what diffusers' own `train_text_to_image_lora.py` leaves. Eight images
are few on purpose: the early checkpoints do not draw shoes yet, the middle ones do, the last ones have learnt the eight by
heart. `measure.py` says which is which, `pack.py` makes the archive. A few minutes each on two cores; every random number
comes from SEED.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_scheduler
from diffusers.utils import convert_state_dict_to_diffusers
from drawings import BACKGROUNDS, COLOURS, Drawing, draw_thing, write_image_folder
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from PIL import Image

BASE = "cmp-demo/tiny-shapes"  # the base model's id, and its folder below bases/
SEED = 7
THING = "casual shoe"
TRAINED_COLOURS = ("red", "red", "blue", "blue", "yellow", "orange", "purple", "pink")  # green, brown, black: held out only
PROMPTS = ("a blue casual shoe", "a purple casual shoe on a mint background", "a yellow casual shoe", "a red casual shoe")
REPEATS = 75  # 8 images × 75 / batches of 4 = 150 updates an epoch, so that the epochs count as they would with a larger set


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the two runs differ in, and what they share."""

    name: str
    learning_rate: float
    alpha: int
    rank: int = 8
    batch: int = 4
    steps: int = 3000
    save_every: int = 500
    warmup: int = 0
    every_nth: int = 1  # more than 1 only to try the script out: that many times fewer updates, under the same step numbers

    @property
    def lora(self) -> LoraConfig:
        targets = ["to_k", "to_q", "to_v", "to_out.0"]
        return LoraConfig(r=self.rank, lora_alpha=self.alpha, init_lora_weights="gaussian", target_modules=targets)


ORIGIN_RUN = Recipe("lora_casual_shoes_3000steps_full", learning_rate=2e-4, alpha=16)
DIFFUSERS_RUN = Recipe("casual_shoes_lr_5e-4", learning_rate=5e-4, alpha=8)  # that script hard-codes alpha = rank


@dataclass(slots=True)
class Training:
    """A LoRA in the making; `updates` moves it on."""

    recipe: Recipe
    accelerator: Accelerator
    pipeline: StableDiffusionPipeline
    unet: torch.nn.Module  # whatever was prepared: the PEFT model, or the UNet with an adapter in it
    optimizer: torch.optim.Optimizer
    loader: torch.utils.data.DataLoader
    schedule: torch.optim.lr_scheduler.LRScheduler
    noise: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(SEED))

    @classmethod
    def prepare(cls, recipe: Recipe, accelerator: Accelerator, pipeline, unet: torch.nn.Module, data: Path) -> Training:
        optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], recipe.learning_rate)
        loader = load_batches(pipeline, data, recipe.batch)
        schedule = get_scheduler("constant_with_warmup", optimizer, num_warmup_steps=recipe.warmup)
        return cls(recipe, accelerator, pipeline, *accelerator.prepare(unet, optimizer, loader, schedule))

    def updates(self) -> Iterator[tuple[int, int, float]]:
        """(step, epoch, loss) after every optimizer update. Noise has a generator of its own: no drawing between can move it."""
        noise_schedule = DDPMScheduler.from_config(self.pipeline.scheduler.config)
        self.unet.train()
        step, epoch = 0, 0
        while True:
            for latents, words in self.loader:
                noise = torch.randn(latents.shape, generator=self.noise)
                t = torch.randint(0, 1000, (len(latents),), generator=self.noise)
                guess = self.unet(noise_schedule.add_noise(latents, noise, t), t, words).sample
                loss = F.mse_loss(guess, noise)
                self.accelerator.backward(loss)
                self.accelerator.clip_grad_norm_([p for p in self.unet.parameters() if p.requires_grad], 1.0)
                self.optimizer.step(), self.schedule.step(), self.optimizer.zero_grad()
                step += self.recipe.every_nth
                yield step, epoch, loss.item()
                if step >= self.recipe.steps:
                    return
            epoch += 1


@torch.no_grad()
def load_batches(pipeline: StableDiffusionPipeline, folder: Path, batch: int) -> torch.utils.data.DataLoader:
    """Shuffled batches of (latents, text embeddings) of an image folder, encoded once: neither encoder is trained."""
    latents, words = encode_folder(pipeline, folder)
    dataset = torch.utils.data.TensorDataset(latents.repeat(REPEATS, 1, 1, 1), words.repeat(REPEATS, 1, 1))
    order = torch.Generator().manual_seed(SEED)
    return torch.utils.data.DataLoader(dataset, batch, shuffle=True, drop_last=True, generator=order)


@torch.no_grad()
def encode_folder(pipeline: StableDiffusionPipeline, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (n, 4, 16, 16) and text embeddings (n, 77, 64) of an image folder with captions."""
    images, captions = read_image_folder(folder)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
    ids = pipeline.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return latents, pipeline.text_encoder(ids)[0]


def train_origin_run(recipe: Recipe, training: Path, data: Path) -> None:
    """Raw Accelerate states, logs beside the outputs, validation images, the PEFT adapter, a pipeline with it in unet/."""
    run = training / "outputs" / recipe.name
    project = ProjectConfiguration(project_dir=str(run), logging_dir=str(training / "logs"))
    accelerator = Accelerator(log_with="tensorboard", project_config=project)
    set_seed(SEED)
    pipeline = load_base()
    unet = get_peft_model(pipeline.unet.requires_grad_(False), recipe.lora)  # puts the LoRA into the pipeline's own UNet
    state = Training.prepare(recipe, accelerator, pipeline, unet, data)
    accelerator.init_trackers("train_lora_casual_shoes", config=origin_settings(recipe))
    for step, epoch, loss in state.updates():
        accelerator.log({"loss": loss, "lr": state.schedule.get_last_lr()[0], "epoch": epoch}, step=step)
        if step % recipe.save_every == 0:
            accelerator.save_state(str(run / "checkpoints" / f"checkpoint-{step}"))
            draw_validation(pipeline, run / "validation", epoch, step)
    trained: PeftModel = accelerator.unwrap_model(state.unet)
    trained.save_pretrained(run / "lora_weights")
    save_odd_pipeline(trained, run / "final_pipeline")
    accelerator.end_training()


def save_odd_pipeline(trained: PeftModel, folder: Path) -> None:
    """A pipeline whose unet/ was written by PEFT: it holds the adapter and no UNet, though model_index.json names one."""
    load_base().save_pretrained(folder)
    shutil.rmtree(folder / "unet")
    trained.save_pretrained(folder / "unet")


def train_diffusers_run(recipe: Recipe, training: Path, data: Path) -> None:
    """LoRA files directly in the run: PEFT's names in the checkpoints, diffusers' older ones in the last, as that script does."""
    run = training / "outputs" / recipe.name
    project = ProjectConfiguration(project_dir=str(run), logging_dir=str(run / "logs"))
    accelerator = Accelerator(log_with="tensorboard", project_config=project)
    set_seed(SEED)
    pipeline = load_base()
    unet = pipeline.unet.requires_grad_(False)
    unet.add_adapter(recipe.lora)

    def save_lora_only(models: list, weights: list, folder: str) -> None:
        layers = get_peft_model_state_dict(accelerator.unwrap_model(models[0]))
        weights.pop()  # what stays in this list is saved whole
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)

    accelerator.register_save_state_pre_hook(save_lora_only)
    state = Training.prepare(recipe, accelerator, pipeline, unet, data)
    accelerator.init_trackers("text2image-fine-tune", config=diffusers_settings(recipe))
    for step, _, loss in state.updates():
        accelerator.log({"train_loss": loss}, step=step)
        if step % recipe.save_every == 0:
            accelerator.save_state(str(run / f"checkpoint-{step}"))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(accelerator.unwrap_model(state.unet)))
    StableDiffusionPipeline.save_lora_weights(run, unet_lora_layers=layers)
    accelerator.end_training()


@torch.no_grad()
def draw_validation(pipeline: StableDiffusionPipeline, folder: Path, epoch: int, step: int) -> None:
    """Four images of each prompt with the live model: the same four seeds at every step."""
    folder.mkdir(parents=True, exist_ok=True)
    pipeline.unet.eval()
    for p, prompt in enumerate(PROMPTS):
        generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
        drawn = pipeline([prompt] * 4, num_inference_steps=12, guidance_scale=4.0, generator=generators).images
        for i, image in enumerate(drawn):
            image.save(folder / f"epoch{epoch:03d}_step{step:05d}_prompt{p}_img{i}.png")
    pipeline.unet.train()


def load_base() -> StableDiffusionPipeline:
    """The base model by its id. `main` moved to bases/, so the id is a path too, and it is what every config records."""
    pipeline = StableDiffusionPipeline.from_pretrained(BASE, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def origin_settings(recipe: Recipe) -> dict[str, object]:
    return {
        "pretrained_model_name_or_path": BASE, "output_dir": f"../outputs/{recipe.name}", "train_data_dir": "../../data/train",
        "resolution": 64, "train_batch_size": recipe.batch, "dataset_repeats": REPEATS, "gradient_accumulation_steps": 1,
        "max_train_steps": recipe.steps, "checkpointing_steps": recipe.save_every, "learning_rate": recipe.learning_rate,
        "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": recipe.warmup, "lora_rank": recipe.rank,
        "lora_alpha": recipe.alpha, "lora_dropout": 0.0, "seed": SEED, "mixed_precision": "no",
        "validation_prompts": " | ".join(PROMPTS), "num_validation_images": 4,
    }  # fmt: skip


def diffusers_settings(recipe: Recipe) -> dict[str, object]:
    """The part of that script's arguments that matters here, under its names. It has no alpha."""
    return {
        "pretrained_model_name_or_path": BASE, "output_dir": f"../outputs/{recipe.name}", "train_data_dir": "../../data/train",
        "logging_dir": "logs", "resolution": 64, "train_batch_size": recipe.batch, "gradient_accumulation_steps": 1,
        "max_train_steps": recipe.steps, "checkpointing_steps": recipe.save_every, "learning_rate": recipe.learning_rate,
        "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": recipe.warmup, "rank": recipe.rank, "seed": SEED,
        "mixed_precision": "no", "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_weight_decay": 0.01, "max_grad_norm": 1.0,
        "validation_prompt": PROMPTS[0], "num_validation_images": 4, "report_to": "tensorboard",
    }  # fmt: skip


def read_image_folder(folder: Path) -> tuple[list[np.ndarray], list[str]]:
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    return [np.asarray(Image.open(folder / r["file_name"]).convert("RGB")) for r in rows], [r["text"] for r in rows]


def write_data(folder: Path) -> None:
    """Eight training images, plain and of middle size, and twenty-four held-out ones of all colours, sizes and backgrounds."""
    rng = random.Random(SEED)
    write_image_folder(folder / "train", [draw_thing(THING, colour, rng) for colour in TRAINED_COLOURS])
    write_image_folder(folder / "held_out", [_any_shoe(list(COLOURS)[i % len(COLOURS)], rng) for i in range(24)])


def _any_shoe(colour: str, rng: random.Random) -> Drawing:
    return draw_thing(THING, colour, rng, size=rng.choice(["", "small", "big"]), background=rng.choice(list(BACKGROUNDS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="what base.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="a new folder: data/, bases/ and training/ appear in it")
    parser.add_argument("--only", choices=["first", "second"], help="train one of the runs, to have both at work at once")
    parser.add_argument("--every-nth", type=int, default=1, help="train only 1/N of the updates, to try the script out")
    asked = parser.parse_args()
    output = asked.output.resolve()
    write_data(output / "data")
    shutil.copytree(asked.base, output / "bases" / BASE, dirs_exist_ok=True)
    os.chdir(output / "bases")
    diffusers.utils.logging.disable_progress_bar()
    wanted = {"first": (train_origin_run, ORIGIN_RUN), "second": (train_diffusers_run, DIFFUSERS_RUN)}
    for train, recipe in [wanted[asked.only]] if asked.only else wanted.values():
        train(replace(recipe, every_nth=asked.every_nth), output / "training", output / "data" / "train")


if __name__ == "__main__":
    main()
