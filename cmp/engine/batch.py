"""Which cells are drawn together, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from cmp.core.grids import Cell
from cmp.engine.prepare import Prepared

_SHARE = 0.6  # of the memory that is free on the device
_EACH = 2_000_000_000  # bytes that a picture of 512 × 512 takes at most while it is drawn and decoded, in half precision
_MOST_ON_GPU, _PLACES_ON_CPU = 16, 2048  # pictures; latent places (8 × 8 pixels) that are enough to keep a processor busy


def in_order(cells: Iterable[Cell], switch_is_dear: Callable[[Cell], bool]) -> Iterator[Cell]:
    """The cells as they come, coarse first; but where a switch is dear, all cells that wear the same follow one another."""
    waiting = dict.fromkeys(cells)
    while waiting:
        first = next(iter(waiting))
        alike = [first]
        if switch_is_dear(first):
            worn = (first.checkpoint, first.strength, first.stack)
            alike = [cell for cell in waiting if (cell.checkpoint, cell.strength, cell.stack) == worn]
        for cell in alike:
            del waiting[cell]
            yield cell


def kind_of(one: Prepared, stackable: bool) -> tuple[object, ...]:
    """Cells of the same kind may be drawn in one batch."""
    clothes, sampling = one.clothes, one.drawn.sampling
    alone = None if stackable else (clothes.name(one.cell.strength), one.cell.strength)
    return clothes.folder, clothes.base, clothes.rounded, sampling, alone


def most_at_once(device: torch.device, width: int, height: int) -> int:
    """How many pictures of that size are drawn in one batch."""
    places = width * height / 64
    if device.type != "cuda":
        return max(1, round(_PLACES_ON_CPU / places))
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(_MOST_ON_GPU, int(_SHARE * free / (_EACH * width * height / 512**2))))
