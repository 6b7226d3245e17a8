"""LoRA checkpoints with random weights that fit a base model, as diffusers' scripts write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.support import Tensors

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
WEIGHTS = "pytorch_lora_weights.safetensors"


def adapter(base: Path, component: str, rank: int, seed: int, ends: Iterable[str]) -> Tensors:
    """Random LoRA pairs, under diffusers' names, for the modules of a component that end so; convolutions with their kernel."""
    (file,) = (base / component).glob("*.safetensors")
    shapes = {name.removesuffix(".weight"): t.shape for name, t in load_file(file).items() if name.endswith(".weight")}
    random, made = np.random.default_rng(seed), {}
    for module, (out, *into) in ((m, s) for m, s in shapes.items() if m.endswith(tuple(ends))):
        made[f"{component}.{module}.lora_A.weight"] = random.normal(size=(rank, *into)).astype("f4") / np.float32(np.prod(into[1:]))
        made[f"{component}.{module}.lora_B.weight"] = random.normal(size=(out, rank, *[1] * len(into[1:]))).astype("f4") * np.float32(0.3)
    assert made
    return made


def unet_adapter(base: Path, rank: int, seed: int) -> Tensors:
    return adapter(base, "unet", rank, seed, ("to_q", "to_v", "to_out.0"))


def write_step(run: Path, step: int, tensors: Mapping[str, np.ndarray]) -> Path:
    """A checkpoint as diffusers writes it, its alpha in the header: as large as the rank."""
    told: dict[str, object] = {}
    for component in {name.split(".")[0] for name in tensors}:
        downs = {n.removeprefix(f"{component}."): t for n, t in tensors.items() if n.startswith(f"{component}.") and ".lora_A." in n}
        rank = next(iter(downs.values())).shape[0]
        targets = [name.removesuffix(".lora_A.weight") for name in downs]
        told |= {f"{component}.r": rank, f"{component}.lora_alpha": rank, f"{component}.target_modules": targets}
    file = run / f"checkpoint-{step}" / WEIGHTS
    file.parent.mkdir(parents=True)
    save_file(dict(tensors), file, {"format": "pt", "lora_adapter_metadata": json.dumps(told)})
    return file
