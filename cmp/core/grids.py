"""A grid and its cells: what is to be drawn, in which order, and the key under which a finished picture is found again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from cmp.core.runs import Checkpoint, path_text
from cmp.errors import BadInput

MODES = ("exact", "fast")
USUAL_MODE = "fast"  # what page and command line draw in unless asked: several times as fast, and within a grey level (bench/RESULTS.md)
SCHEDULERS = ("base", "DDIM", "Euler", "Euler a", "DPM++ 2M", "DPM++ 2M Karras", "Heun", "UniPC", "PNDM")
MOST_CELLS = 4096
LONGEST_PROMPT = 4000  # characters


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a picture is drawn; checked when made. `scheduler` "base" is the one that the base model comes with.

    `width` and `height` in pixels, None for what the base model was made for. `clip_skip` counts as A1111 does: 1 skips nothing, 2 takes
    the text encoder's last layer but one. `vae` is another VAE, a folder or a file; None is the base model's own.
    """

    steps: int = 12
    guidance: float = 7.5
    width: int | None = None
    height: int | None = None
    scheduler: str = "base"
    clip_skip: int = 1
    vae: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise BadInput(f"steps is {self.steps}", "Use 1 to 1000 denoising steps.")
        if not (math.isfinite(self.guidance) and 0 <= self.guidance <= 100):
            raise BadInput(f"guidance is {self.guidance}", "Use a number from 0 to 100; 7.5 is usual.")
        for name, side in (("width", self.width), ("height", self.height)):
            if side is not None and not (8 <= side <= 4096 and side % 8 == 0):
                raise BadInput(f"{name} is {side}", "Use a multiple of 8 from 8 to 4096.")
        if self.scheduler not in SCHEDULERS:
            raise BadInput(f"scheduler is {self.scheduler!r}", f"Use one of: {', '.join(SCHEDULERS)}.")
        if not 1 <= self.clip_skip <= 12:
            raise BadInput(f"clip skip is {self.clip_skip}", "Use 1 (nothing is skipped) to 12; 2 is usual for anime models.")

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def check_seed(seed: int) -> None:
    """Raises BadInput for a seed that no generator takes."""
    if not 0 <= seed < 2**63:
        raise BadInput(f"seed is {seed}", "Use a whole number from 0 to 9223372036854775807.")


@dataclass(frozen=True, slots=True)
class Told:
    """Seed and sampling as far as somebody told them; None where nobody did."""

    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    width: int | None = None
    height: int | None = None
    scheduler: str | None = None
    clip_skip: int | None = None

    def over(self, sampling: Sampling) -> Sampling:
        """The sampling with what was told in place of its own values; raises BadInput for what cannot be drawn with."""
        told: dict[str, Any] = {field.name: value for field in fields(Sampling) if (value := getattr(self, field.name, None)) is not None}
        return replace(sampling, **told) if told else sampling


@dataclass(frozen=True, slots=True)
class Own(Told):
    """What one prompt of a grid is drawn with whatever the grid's axes say; None leaves it to them. Checked when made."""

    def __post_init__(self) -> None:
        check_seed(self.seed or 0)
        self.over(Sampling())


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to draw, and what to keep away from. `name` is a short one for labels; it changes no pixel."""

    text: str
    negative: str = ""
    name: str = ""
    own: Own = Own()

    def __post_init__(self) -> None:
        for name, value in (("prompt", self.text), ("negative prompt", self.negative)):
            if len(value) > LONGEST_PROMPT:
                raise BadInput(f"the {name} has {len(value)} characters", f"Use at most {LONGEST_PROMPT}.")


@dataclass(frozen=True, slots=True)
class Stacked:
    """Another LoRA that is worn beside a cell's checkpoint, at a strength of its own."""

    checkpoint: Checkpoint
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture to be drawn. `checkpoint` None is the base model alone, or with what is in `stack`."""

    checkpoint: Checkpoint | None
    prompt: Prompt
    seed: int
    strength: float
    sampling: Sampling
    stack: tuple[Stacked, ...] = ()

    def key(self, weights: str | None, circumstances: Mapping[str, str]) -> str:
        """A digest of all that changes the pixels, and of nothing else.

        `weights` is the digest of the tensors really loaded, scale included; `circumstances` names the base model's digest, library
        versions, device kind, number type and mode, and the digests of the stacked LoRAs and of another VAE.
        """
        told = {
            "weights": weights,
            "prompt": self.prompt.text,
            "negative": self.prompt.negative,
            "seed": self.seed,
            "strength": float(self.strength) + 0.0 if self.checkpoint else None,  # the base model has no strength; -0 is 0, 1 is 1.0
            "sampling": self.sampling.as_json() | {"guidance": float(self.sampling.guidance) + 0.0, "vae": None},  # its digest counts
            "circumstances": dict(sorted(circumstances.items())),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class GridSpec:
    """All combinations of these values; checked when made.

    `stacks` is an axis too: each value is a set of further LoRAs, () for none. With `preview` every cell is first drawn small and with
    few steps. `mode`: "exact" draws one picture at a time, to the bit as diffusers' plain call does; "fast" draws in batches.
    """

    checkpoints: tuple[Checkpoint | None, ...]
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...] = (0,)
    strengths: tuple[float, ...] = (1.0,)
    samplings: tuple[Sampling, ...] = (Sampling(),)
    stacks: tuple[tuple[Stacked, ...], ...] = ((),)
    title: str = ""
    mode: str = "exact"
    preview: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise BadInput(f"the mode is {self.mode!r}", f"Use one of: {', '.join(MODES)}.")
        axes = (("checkpoint", self.checkpoints), ("prompt", self.prompts), ("seed", self.seeds), ("strength", self.strengths))
        for name, values in (*axes, ("sampling", self.samplings), ("stack", self.stacks)):
            if not values:
                raise BadInput(f"the grid has no {name}", f"Choose at least one {name}.")
        for seed in self.seeds:
            check_seed(seed)
        for strength in (*self.strengths, *(one.strength for stack in self.stacks for one in stack)):
            if not (math.isfinite(strength) and -10 <= strength <= 10):
                raise BadInput(f"strength is {strength}", "Use a number from -10 to 10; 1 is as trained.")
        if self.size > MOST_CELLS:
            raise BadInput(f"the grid has {self.size} cells", f"At most {MOST_CELLS} are drawn at once; choose fewer values.")

    @property
    def size(self) -> int:
        """How many cells there are; the base model's column has one strength only."""
        columns = sum(len(set(self.strengths)) if checkpoint else 1 for checkpoint in set(self.checkpoints))
        seeds, samplings = len(set(self.seeds)), set(self.samplings)
        rows = sum((seeds if p.own.seed is None else 1) * len({p.own.over(s) for s in samplings}) for p in set(self.prompts))
        return columns * rows * len(set(self.stacks))

    def cells(self) -> tuple[Cell, ...]:
        """Coarse first: every checkpoint with the first seed before any with the second, so that the eye can compare early.

        Within such a pass a checkpoint is loaded once and draws all its cells. Cells that are equal, since a prompt has values of its
        own, are one.
        """
        cells = (
            Cell(checkpoint, prompt, seed if prompt.own.seed is None else prompt.own.seed, strength, prompt.own.over(sampling), stack)
            for seed in self.seeds
            for checkpoint in self.checkpoints
            for stack in self.stacks
            for strength in (self.strengths if checkpoint else self.strengths[:1])
            for sampling in self.samplings
            for prompt in self.prompts
        )
        return tuple(dict.fromkeys(cells))


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a cell could not be drawn, and what to do."""

    error: str
    hint: str = ""
    code: int = 70


@dataclass(frozen=True, slots=True)
class Tile:
    """A cell and what became of it: `path` is its picture, or `fault` says why there is none. `seconds` is the time it took to draw.

    `mode` is the one it was drawn in: an exact picture serves where a fast one was asked for. A `preview` is replaced later. `drawn` has
    the width, height and sampler that it is drawn with, also where these were left to the base model.
    """

    cell: Cell
    key: str
    path: Path | None = None
    reused: bool = False
    seconds: float | None = None
    fault: Fault | None = None
    base: Mapping[str, object] | None = None
    mode: str = "exact"
    preview: bool = False
    drawn: Mapping[str, object] | None = None

    def as_json(self) -> dict[str, object]:
        cell = self.cell
        return {
            "checkpoint": cell.checkpoint.id if cell.checkpoint else None,
            "step": cell.checkpoint.step if cell.checkpoint else None,
            "prompt": cell.prompt.text,
            "negative": cell.prompt.negative,
            "seed": cell.seed,
            "strength": cell.strength if cell.checkpoint else None,
            "sampling": cell.sampling.as_json(),
            "drawn": dict(self.drawn) if self.drawn else None,
            "stack": [{"checkpoint": one.checkpoint.id, "strength": one.strength} for one in cell.stack],
            "mode": self.mode,
            "preview": self.preview,
            "base": dict(self.base) if self.base else None,
            "path": path_text(self.path) if self.path else None,
            "key": self.key,
            "reused": self.reused,
            "seconds": self.seconds,
            "fault": asdict(self.fault) if self.fault else None,
        }


@dataclass(frozen=True, slots=True)
class GridPlan:
    """What drawing a grid would do: `cells` are `new`, `reused` from earlier, or cannot be drawn, each with its fault; the rest are `same`,
    cells whose picture is that of a new one.

    `seconds` and `bytes` are estimates for the new ones by this machine's own record, None where it has none yet.
    """

    cells: int
    new: int
    reused: int
    faults: tuple[tuple[Cell, Fault], ...] = ()
    seconds: float | None = None
    bytes: int | None = None
    same: int = 0

    def as_json(self) -> dict[str, object]:
        told = [{"checkpoint": cell.checkpoint.id if cell.checkpoint else None, **asdict(fault)} for cell, fault in self.faults]
        counts = {"cells": self.cells, "new": self.new, "reused": self.reused, "same": self.same}
        return {**counts, "seconds": self.seconds, "bytes": self.bytes, "faults": told}
