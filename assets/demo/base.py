"""Trains the demo's base model from nothing: a Stable Diffusion 1.5 in miniature (686 UNet tensors) on coloured shapes.

    python assets/demo/base.py --output work/base

All classes are the real ones, so that whatever works here works on the real thing. The VAE sees shoes as well, as the real one has;
the UNet and the text encoder never do, so that a fine-tune has something to teach. About 35 minutes on two cores.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from drawings import BACKGROUNDS, COLOURS, SHAPES, draw
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
ENGLISH = "the an of and with in at two three photo drawing picture shoes boot sneaker hat cat dog house tree white grey"


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-level BPE vocabulary of a few hundred entries in CLIP's own file format: every caption word becomes one token."""
    words = ["a", "on", "background", "small", "big", "casual", "shoe", *SHAPES, *COLOURS, *[b for b in BACKGROUNDS if b]]
    raw = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=4000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    raw.train_from_iterator([*words, *ENGLISH.split()], trainer)
    merges = [tuple(pair) for pair in json.loads(raw.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *[c + "</w>" for c in alphabet], *[a + b for a, b in merges], "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(dict.fromkeys(tokens))}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def make_models(vocabulary: int) -> tuple[AutoencoderKL, CLIPTextModel, UNet2DConditionModel]:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=(16, 32, 48),
        layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=64,
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 40, 48, 48), layers_per_block=2, cross_attention_dim=64, attention_head_dim=2,
        norm_num_groups=8,
    )  # fmt: skip
    return vae, text, unet


def to_pixels(images: list[Image.Image]) -> torch.Tensor:
    """Float tensor (n, 3, 64, 64) in -1…1."""
    return torch.from_numpy(np.stack([np.asarray(i) for i in images])).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_vae(vae: AutoencoderKL, pixels: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        x = pixels[torch.randint(0, len(pixels), (16,))]
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 1e-4 * kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step(), optimizer.zero_grad(), schedule.step()
        report("vae", step, loss.item())


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Latents (n, 4, 16, 16) of unit spread; remembers the factor in the VAE's own config."""
    latents = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in pixels.split(64)])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    return latents * vae.config.scaling_factor


def train_unet(unet, text, latents: torch.Tensor, tokens: torch.Tensor, empty: torch.Tensor, minutes: float, most_steps: int):
    """Noise prediction with 10 % of the captions dropped; returns the moving average of both models' weights."""
    parameters = [*unet.parameters(), *text.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1.5e-3, weight_decay=1e-4)
    noise_schedule = DDPMScheduler(**NOISE)
    average = copy.deepcopy(torch.nn.ModuleList([unet, text]))
    started, progress, step = time.time(), 0.0, 0
    while progress < 1:
        for group in optimizer.param_groups:  # a short warm-up, then a straight way down
            group["lr"] = 1.5e-3 * min(1, (step + 1) / 200, 1.02 - progress)
        pick = torch.randint(0, len(latents), (16,))
        x, ids = latents[pick], torch.where(torch.rand(16, 1) < 0.1, empty, tokens[pick])
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (16,))
        guess = unet(noise_schedule.add_noise(x, noise, t), t, text(ids)[0]).sample
        loss = F.mse_loss(guess, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(), optimizer.zero_grad()
        follow(average, [unet, text], 0.998 if step > 500 else 0.9)
        report("unet", step, loss.item())
        step += 1
        progress = max(step / most_steps, (time.time() - started) / 60 / minutes)
    return average


@torch.no_grad()
def follow(average: torch.nn.ModuleList, live: list[torch.nn.Module], decay: float) -> None:
    for mean, model in zip(average, live, strict=True):
        torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), 1 - decay)


_recent: list[float] = []


def report(what: str, step: int, loss: float) -> None:
    _recent.append(loss)
    if step % 200 == 0:
        print(f"{time.strftime('%H:%M:%S')} {what} step {step}: {sum(_recent) / len(_recent):.4f}", flush=True)
        _recent.clear()


def draw_sheet(pipeline: StableDiffusionPipeline, path: Path) -> None:
    """Every shape in every colour with one seed: a look says whether the training went well."""
    sheet = Image.new("RGB", (len(COLOURS) * 66, len(SHAPES) * 66), "white")
    for row, shape in enumerate(SHAPES):
        prompts = [f"a {colour} {shape}" for colour in COLOURS]
        generators = [torch.Generator().manual_seed(1) for _ in prompts]
        drawn = pipeline(prompts, num_inference_steps=12, guidance_scale=4.0, generator=generators).images
        for column, image in enumerate(drawn):
            sheet.paste(image, (column * 66, row * 66))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--vae-steps", type=int, default=2500)
    parser.add_argument("--steps", type=int, default=8000, help="UNet updates")
    parser.add_argument("--minutes", type=float, default=45, help="stop the UNet's training earlier when this time is up")
    asked = parser.parse_args()
    torch.manual_seed(0)
    rng = random.Random(0)
    tokenizer = make_tokenizer(asked.output / "tokenizer")
    vae, text, unet = make_models(len(tokenizer))
    shapes = [draw(rng) for _ in range(6000)]
    shoes = [draw(rng, ("casual shoe",)) for _ in range(800)]
    pixels = to_pixels([d.image for d in shapes])
    train_vae(vae, torch.cat([pixels, to_pixels([d.image for d in shoes])]), asked.vae_steps)
    latents = encode(vae.eval().requires_grad_(False), pixels)
    ids = tokenizer([*[d.caption for d in shapes], ""], padding="max_length", return_tensors="pt").input_ids
    unet, text = train_unet(unet, text, latents, ids[:-1], ids[-1:], asked.minutes, asked.steps)
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text.eval(), tokenizer=tokenizer, unet=unet.eval(),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(asked.output)
    draw_sheet(pipeline, asked.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
