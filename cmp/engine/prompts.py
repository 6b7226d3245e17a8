"""Prompts as the numbers that a denoiser is steered by: each is encoded once and kept, as long as the same text encoder reads it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cmp.core.grids import Prompt, Sampling
from cmp.disk.bases import read_index
from cmp.engine.vocabulary import knowing
from cmp.engine.words import Bundled
from cmp.errors import BadInput, Refused

Steering = Mapping[str, torch.Tensor]  # arguments of a pipeline's call, each 1 × …

_MOST = 256_000_000  # bytes that are kept
_PAIR = ("prompt_embeds", "negative_prompt_embeds")
_WHOLE = (*_PAIR, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_GIVEN = {  # what each pipeline's encode_prompt gives, in its order
    "StableDiffusionPipeline": _PAIR,
    "StableDiffusionXLPipeline": _WHOLE,
    "StableDiffusion3Pipeline": _WHOLE,
    "FluxPipeline": ("prompt_embeds", "pooled_prompt_embeds", ""),
}
_SEVERAL = {"StableDiffusionXLPipeline": ("prompt_2",), "StableDiffusion3Pipeline": ("prompt_2", "prompt_3"), "FluxPipeline": ("prompt_2",)}


def reads_beforehand(pipeline: str) -> bool:
    """Whether the prompts of a pipeline of this class can be encoded before it is called."""
    return pipeline in _GIVEN


def check_clip_skip(base: Path) -> None:
    """Raises Refused where skipping layers of the text encoder would change no picture and yet be told under it."""
    if (kind := str(read_index(base).get("_class_name"))) == "FluxPipeline":
        raise Refused(f"clip skip changes nothing with {base.name}, a {kind}", "Draw it with clip skip 1.")


@dataclass(slots=True)
class Prompts:
    """What one pipeline has encoded, by the state of its text encoders. Kept within a bound; the longest unused goes first."""

    _kept: OrderedDict[tuple[object, ...], Steering] = field(default_factory=OrderedDict)

    def steer(self, pipe: Any, reader: str, prompt: Prompt, sampling: Sampling, words: Bundled | None = None) -> Steering | None:
        """What to call `pipe` with instead of the prompt, None for a pipeline whose encoding is not known here.

        `reader` names the state of the text encoders: what they wear, "" for the base's own. `words` they are taught for this prompt.
        """
        kind = type(pipe).__name__
        if kind not in _GIVEN:
            return None
        guided = sampling.guidance > 1 and _takes_guidance(pipe)
        key = (reader, words, prompt.text, prompt.negative, guided, sampling.clip_skip)
        if key not in self._kept:
            with knowing(pipe, words, prompt) as asked:
                self._kept[key] = _encode(pipe, kind, asked, guided, sampling.clip_skip)
            self._shrink()
        self._kept.move_to_end(key)
        return self._kept[key]

    def _shrink(self) -> None:
        while len(self._kept) > 1 and sum(_size(steering) for steering in self._kept.values()) > _MOST:
            self._kept.popitem(last=False)


def _size(steering: Steering) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in steering.values())


@contextmanager
def without_last_layers(encoder: Any, count: int) -> Iterator[None]:
    """The text encoder without so many of its last layers, the final norm kept: what A1111 calls clip skip for SD 1 and 2.

    diffusers (0.42) does the same by looking for the norm in `text_model`, which transformers 5 took out of the class.
    """
    inner = getattr(encoder, "text_model", encoder).encoder
    whole = inner.layers
    if not 0 <= count < len(whole):
        raise BadInput(f"clip skip is {count + 1}", f"This model's text encoder has {len(whole)} layers.")
    inner.layers = whole[: len(whole) - count]
    try:
        yield
    finally:
        inner.layers = whole


def _takes_guidance(pipe: Any) -> bool:
    """Distilled UNets (LCM) take the guidance as a number, and nothing is computed without the prompt."""
    return getattr(getattr(pipe, "unet", None), "config", {}).get("time_cond_proj_dim") is None


@torch.no_grad()  # in inference mode a text encoder that is moved to a card meanwhile could not be changed any more
def _encode(pipe: Any, kind: str, prompt: Prompt, guided: bool, clip_skip: int) -> Steering:
    """The pipeline's own encoding, with what its call would give it."""
    asked: dict[str, Any] = {"prompt": prompt.text, "device": pipe._execution_device, "num_images_per_prompt": 1}
    asked |= dict.fromkeys(_SEVERAL.get(kind, ()))
    if kind != "FluxPipeline":  # it is guided by a number that it was trained with
        asked |= {"do_classifier_free_guidance": guided, "negative_prompt": prompt.negative or None}
    if kind == "StableDiffusionPipeline":
        with without_last_layers(pipe.text_encoder, clip_skip - 1):
            found = pipe.encode_prompt(**asked)
    elif kind == "FluxPipeline":
        found = pipe.encode_prompt(**asked)
    else:
        found = pipe.encode_prompt(**asked, clip_skip=clip_skip - 1 or None)
    return {name: tensor for name, tensor in zip(_GIVEN[kind], found, strict=True) if name and tensor is not None}
