"""Cells that another instance of this program draws: how they are described on the way, and what may stand in such a description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cmp.core.grids import MODES, Cell, Prompt, Sampling, check_seed
from cmp.core.runs import Checkpoint
from cmp.errors import BadInput

MOST_CELLS = 256  # of one errand
MOST_BYTES = 100_000_000  # of the LoRA's file
ROUTE = "/api/v1/cells"


@dataclass(frozen=True, slots=True)
class Errand:
    """What another instance is asked for: `cells` whose checkpoint, where they have one, is the LoRA in `weights`, drawn on the base of
    that digest. Without cells it only tells the circumstances.
    """

    version: str
    base: str
    mode: str
    cells: tuple[Mapping[str, Any], ...] = ()
    weights: bytes = b""
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise BadInput(f"the mode is {self.mode!r}", f"Use one of: {', '.join(MODES)}.")
        if len(self.cells) > MOST_CELLS:
            raise BadInput(f"{len(self.cells)} cells were sent", f"Send at most {MOST_CELLS} at a time.")
        if self.cells and not 0 < len(self.weights) <= MOST_BYTES:
            raise BadInput(
                f"the LoRA has {len(self.weights):,} bytes", f"Send at most {MOST_BYTES:,}; the base model's column needs one too."
            )


def is_instance(address: str | None) -> bool:
    """Whether an address is that of another instance of this program, and not that of a Ray cluster."""
    return address is not None and address.lower().startswith(("http://", "https://"))


def instance_address(text: str) -> str:
    """The address of another instance, without what a page's address has behind it; raises BadInput."""
    try:
        parts = urlsplit(text)
        good = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        good = False
    if not good or not is_instance(text) or any(sign <= " " for sign in text):
        raise BadInput(
            f"{text.partition('?')[0][:200]!r} is not where an instance is", "Write http://HOST:PORT, and its token into CMP_AT_TOKEN."
        )
    return text.rstrip("/")


def cell_json(cell: Cell) -> dict[str, object]:
    """A cell but for its checkpoint, of which only whether it has one is told."""
    return {
        "worn": cell.checkpoint is not None,
        "prompt": cell.prompt.text,
        "negative": cell.prompt.negative,
        "seed": cell.seed,
        "strength": cell.strength,
        "sampling": cell.sampling.as_json(),
    }


def read_cells(told: Iterable[Mapping[str, Any]], checkpoint: Checkpoint) -> tuple[Cell, ...]:
    """The cells of these descriptions, with this checkpoint; raises BadInput. No VAE can be named, since that is a path."""
    return tuple(_read_cell(one, checkpoint) for one in told)


def _read_cell(told: Mapping[str, Any], checkpoint: Checkpoint) -> Cell:
    check_seed(told["seed"])
    if not -10 <= told["strength"] <= 10:
        raise BadInput(f"strength is {told['strength']}", "Use a number from -10 to 10; 1 is as trained.")
    if told["sampling"].get("vae") is not None:
        raise BadInput("a VAE was named", "Only the base model's own is drawn with here.")
    worn = checkpoint if told["worn"] else None
    return Cell(worn, Prompt(told["prompt"], told["negative"]), told["seed"], told["strength"], Sampling(**told["sampling"]))
