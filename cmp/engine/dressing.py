"""What a cell wears is put on the pipeline, and another VAE in the place of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from cmp.core.conversion import Writing
from cmp.core.progress import Progress
from cmp.disk.bases import read_component
from cmp.disk.json_table import read_json_table
from cmp.disk.merging import merge
from cmp.disk.numbers import FLOATS, WIDTHS, as_float32
from cmp.disk.ready import Ready
from cmp.disk.store import Store
from cmp.engine.device import realign, without_memory
from cmp.engine.pipeline import WornPipeline
from cmp.engine.prepare import Prepared
from cmp.engine.steps import Report, silent
from cmp.engine.studio import Studio
from cmp.engine.vaes import digest_vae
from cmp.engine.words import read_words
from cmp.errors import Refused, Unreadable


def dress(worn: WornPipeline, one: Prepared, studio: Studio, report: Report = silent) -> None:
    """Puts what a cell wears on the pipeline, proven, or takes off what it wears. Whole components are merged in steps."""
    clothes, strength = one.clothes, one.cell.strength
    if clothes.weights is None and not clothes.beside:
        worn.wear_nothing()
    elif clothes.words:
        words = read_words(clothes.ready.opened)
        worn.wear_words(clothes.name(strength), {word: torch.from_numpy(rows) for word, rows in words.items()})
    elif clothes.merged:
        worn.wear_components(clothes.name(strength), lambda: _merged(clothes.ready, strength, report), report)
    else:
        folded, much = clothes.adapter(strength, studio)
        worn.wear_lora(clothes.name(strength), folded, much)


def _merged(ready: Ready, strength: float, report: Report) -> dict[str, dict[str, torch.Tensor]]:
    """Every component that the checkpoint changes, whole, under the base's names. Each tensor is reported before it is read."""
    assert ready.base is not None
    states: dict[str, dict[str, torch.Tensor]] = {}
    for name in ready.opened.weights.components:
        merged = merge(ready.opened, name, read_component(ready.base.path, name), ready.scale, Writing(strength=strength))
        states[name], done, total = {}, 0, merged.bytes
        for tensor, (kind, shape) in merged.described.items():
            report(Progress(0, 1, f"merging {name}", done, total))
            if kind in FLOATS:
                states[name][tensor] = torch.from_numpy(as_float32(merged.read(tensor), kind))
            done += math.prod(shape) * WIDTHS[kind]
    return states


@contextmanager
def decoding_with(worn: WornPipeline, one: Prepared, studio: Studio, store: Store) -> Iterator[None]:
    """Decodes with the cell's VAE meanwhile. Whatever happens, the base's own is there afterwards, in the pipeline's type.

    diffusers casts the VAE of SDXL to float32 for decoding, and leaves it so where the memory runs out in between.
    """
    own = worn.pipe.vae
    try:
        if one.vae is not None:
            digest, file = one.vae
            worn.pipe.vae = studio.vae(digest, lambda: _load_vae(file, digest, worn, store))
        yield
    finally:
        worn.pipe.vae = own
        if own.dtype != worn.dtype:
            own.to(worn.dtype)


def _load_vae(file: Path, digest: str, worn: WornPipeline, store: Store) -> AutoencoderKL:
    """The VAE in this very file, every tensor of it; raises Refused if it does not fit, or has changed since its digest was taken."""
    own = worn.pipe.vae
    try:
        vae = AutoencoderKL.from_config(read_json_table(file.with_name("config.json")))
        vae.load_state_dict(load_file(file), strict=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as fault:
        if without_memory(fault):
            raise
        raise Unreadable(f"cannot load the VAE {file}: {str(fault)[:300]}", "Give a folder that diffusers wrote.") from fault
    if vae.config.latent_channels != own.config.latent_channels:
        told = f"the VAE {file.parent} has {vae.config.latent_channels} latent channels, and the base model {own.config.latent_channels}"
        raise Refused(told, "Give one that was made for this kind of model.")
    if len(vae.config.block_out_channels) != len(own.config.block_out_channels):
        raise Refused(f"the VAE {file.parent} makes pictures of another size than the base model's", "Give one with as many blocks.")
    if digest_vae(file, store) != digest:
        raise Refused(f"the VAE {file} changed while it was loaded", "Try again when nothing writes to it.")
    vae.to(worn.device, worn.dtype).eval()
    realign(vae)
    return vae
