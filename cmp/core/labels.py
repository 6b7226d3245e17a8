"""What cells of a grid differ in, and what that is called: A1111's words where it has one, `CFG Scale: 7.0`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cmp.core.grids import Cell, Sampling, Stacked

BASE_MODEL = "base model"


@dataclass(frozen=True, slots=True)
class Axis:
    """One kind of value that cells have; `of` gives a cell's as it is told, None where it has none: the base model has no strength."""

    name: str
    of: Callable[[Cell], str | None]

    def label(self, cell: Cell) -> str:
        return f"{self.name}: {self.of(cell)}"


def picture_size(sampling: Sampling) -> str:
    """`512x768`; what is not said is the base model's."""
    return f"{sampling.width or '?'}x{sampling.height or '?'}" if sampling.width or sampling.height else "the base model's"


def stack_text(stack: Sequence[Stacked]) -> str:
    return ", ".join(f"{one.checkpoint.id}:{number_text(one.strength)}" for one in stack) or "none"


def number_text(value: float) -> str:
    """The shortest text that means this number: 7 and 7.5, not 7.0."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


CHECKPOINT = Axis("Checkpoint name", lambda cell: cell.checkpoint.id if cell.checkpoint else BASE_MODEL)
STRENGTH = Axis("Strength", lambda cell: number_text(cell.strength) if cell.checkpoint else None)
PROMPT = Axis("Prompt", lambda cell: cell.prompt.text)
NEGATIVE = Axis("Negative prompt", lambda cell: cell.prompt.negative)
SEED = Axis("Seed", lambda cell: str(cell.seed))
AXES = (
    CHECKPOINT,
    STRENGTH,
    Axis("LoRAs", lambda cell: stack_text(cell.stack)),
    PROMPT,
    NEGATIVE,
    SEED,
    Axis("Steps", lambda cell: str(cell.sampling.steps)),
    Axis("CFG Scale", lambda cell: str(float(cell.sampling.guidance))),
    Axis("Sampler", lambda cell: "the base model's" if cell.sampling.scheduler == "base" else cell.sampling.scheduler),
    Axis("Size", lambda cell: picture_size(cell.sampling)),
    Axis("Clip skip", lambda cell: str(cell.sampling.clip_skip)),
    Axis("VAE", lambda cell: cell.sampling.vae or "the base model's"),
)


def values_of(axis: Axis, cells: Sequence[Cell]) -> tuple[str, ...]:
    """The values that these cells have on an axis, in their order."""
    return tuple(dict.fromkeys(value for cell in cells if (value := axis.of(cell)) is not None))


def varying(cells: Sequence[Cell]) -> tuple[Axis, ...]:
    """The axes on which these cells differ."""
    return tuple(axis for axis in AXES if len(values_of(axis, cells)) > 1)
