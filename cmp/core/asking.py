"""A grid as it is asked for: the texts of its axes, and a picture whose settings fill in what was not said."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from cmp.core.axes import parse_axis, parse_seeds, parse_text_axis, parse_whole_axis
from cmp.core.grids import MOST_CELLS, SCHEDULERS, GridSpec, Prompt, Sampling, Stacked
from cmp.core.prompts import search_replace, with_negatives
from cmp.core.restored import Restored
from cmp.core.runs import Checkpoint
from cmp.errors import BadInput

DEMO_GUIDANCE = 4.0  # the tiny model was made to be drawn with this; 7.5, which Stable Diffusion is used to, burns its colours
BASES_OWN = "base"  # among sizes and VAEs: what the base model comes with
_SIZE = re.compile(r"([0-9]{1,5})\s*[xX×*]\s*([0-9]{1,5})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Asked:
    """The texts of a grid's axes as they were typed; None where nothing was, so that a picture's settings or the usual ones hold.

    A negative prompt is full of commas: only || separates several. Each of `search_replace` multiplies the prompts further.
    """

    prompts: tuple[Prompt, ...] = ()
    negatives: tuple[str, ...] = ()
    search_replace: tuple[str, ...] = ()
    seeds: str | None = None
    strengths: str | None = None
    steps: str | None = None
    guidance: str | None = None
    size: str | None = None
    scheduler: str | None = None
    clip_skip: str | None = None
    vae: str | None = None


def to_spec(
    asked: Asked,
    checkpoints: tuple[Checkpoint | None, ...],
    stacks: tuple[tuple[Stacked, ...], ...] = ((),),
    *,
    draw: Callable[[], int],
    like: Restored | None = None,
    usual: Sampling = Sampling(),
    **more: Any,
) -> GridSpec:
    """The grid; every value is checked here. `draw` gives a seed for each -1, `like` what was not said, `usual` what it
    does not say either; `more` are GridSpec's other fields.

    Raises BadInput that names the axis and quotes the faulty part.
    """
    return GridSpec(
        checkpoints=checkpoints,
        prompts=_prompts(asked, like),
        seeds=parse_seeds(asked.seeds, draw) if asked.seeds is not None else (like.seed if like and like.seed is not None else 0,),
        strengths=_strengths(asked, like),
        samplings=to_samplings(asked, like.as_sampling(usual) if like else usual),
        stacks=stacks,
        **more,
    )


def _strengths(asked: Asked, like: Restored | None) -> tuple[float, ...]:
    if asked.strengths is not None:
        return parse_axis(asked.strengths, "strengths")
    return (like.strength if like and like.strength is not None else 1.0,)


def _prompts(asked: Asked, like: Restored | None) -> tuple[Prompt, ...]:
    if not asked.prompts and like is None:
        raise BadInput("no prompt was given", 'Give one with --prompt "a red casual shoe", or a file with --prompts.')
    prompts = asked.prompts or (Prompt(like.prompt if like else ""),)
    negatives = [negative for text in asked.negatives for negative in _negatives(text)]
    prompts = with_negatives(prompts, negatives or [like.negative if like else ""])
    for text in asked.search_replace:
        prompts = search_replace(prompts, text)
    return prompts


def _negatives(text: str) -> tuple[str, ...]:
    return parse_text_axis(text, "the negative prompts", commas=False) if text.strip() else ("",)


def to_samplings(asked: Asked, usual: Sampling = Sampling()) -> tuple[Sampling, ...]:
    """All combinations of what was asked for, with `usual` for the rest; raises BadInput before they fill the memory."""
    axes: list[Sequence[dict[str, Any]]] = []
    if asked.scheduler is not None:
        axes.append([{"scheduler": name} for name in parse_text_axis(asked.scheduler, "scheduler", SCHEDULERS)])
    if asked.vae is not None:
        axes.append([{"vae": None if name.casefold() == BASES_OWN else name} for name in parse_text_axis(asked.vae, "vae")])
    if asked.clip_skip is not None:
        axes.append([{"clip_skip": count} for count in parse_whole_axis(asked.clip_skip, "clip skip")])
    if asked.size is not None:
        axes.append([dict(zip(("width", "height"), parse_size(text), strict=True)) for text in parse_text_axis(asked.size, "size")])
    if asked.guidance is not None:
        axes.append([{"guidance": scale} for scale in parse_axis(asked.guidance, "guidance")])
    if asked.steps is not None:
        axes.append([{"steps": count} for count in parse_whole_axis(asked.steps, "steps")])
    for axis in axes:  # each value by itself, so that what is wrong is told even of a grid that is too large
        for told in axis:
            replace(usual, **told)
    count = 1
    for axis in axes:
        count *= len(axis)
    if count > MOST_CELLS:
        raise BadInput(f"there are {count} combinations of sampling values", f"At most {MOST_CELLS} cells are drawn at once; choose fewer.")
    return tuple(dict.fromkeys(replace(usual, **{k: v for told in chosen for k, v in told.items()}) for chosen in product(*axes)))


def parse_size(text: str) -> tuple[int | None, int | None]:
    """Width and height of WIDTHxHEIGHT, None twice for the base model's own; raises BadInput that quotes it."""
    if text.strip().casefold() == BASES_OWN:
        return None, None
    found = _SIZE.match(text.strip())
    if not found:
        raise BadInput(f"the size is {text!r}", "Write WIDTHxHEIGHT, for example 512x512.")
    return int(found[1]), int(found[2])


def combine_stacks(stacks: Sequence[tuple[Checkpoint, Sequence[float]]]) -> tuple[tuple[Stacked, ...], ...]:
    """All combinations of further LoRAs at their strengths; one value, none, where there are no further LoRAs."""
    count = 1
    for _, strengths in stacks:
        count *= len(strengths)
    if count > MOST_CELLS:
        raise BadInput(f"there are {count} combinations of stacked LoRAs", f"At most {MOST_CELLS} cells are drawn at once; choose fewer.")
    return tuple(product(*([Stacked(checkpoint, strength) for strength in strengths] for checkpoint, strengths in stacks)))
