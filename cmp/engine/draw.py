"""Draws the cells of a grid, one after another: found ones from the store, new ones with a pipeline that proves what it wears."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from cmp import __version__
from cmp.core.grids import Cell, Fault, Tile
from cmp.core.infotext import to_infotext
from cmp.disk.checkpoint import Opened
from cmp.disk.lora_file import read_folded
from cmp.disk.ready import Ready, digest_base
from cmp.disk.store import Store
from cmp.disk.tensors import as_float32, read_tensors
from cmp.engine.device import choose_device, choose_dtype, circumstances
from cmp.engine.paint import paint
from cmp.engine.pipeline import WornPipeline
from cmp.errors import CmpError, Refused
from cmp.pictures.files import save_png

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Studio:
    """The models held in memory: at most one base, since two seldom fit. Owned by the workbench, used under its lock."""

    device_name: str
    _folder: Path | None = None
    _digest: str = ""
    _rounded: tuple[str, str] | None = None
    _worn: WornPipeline | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        return choose_device(self.device_name)

    def pipeline(self, folder: Path, digest: str = "", rounded: tuple[str, str] | None = None) -> WornPipeline:
        """The pipeline of this base, loaded if it is not the one at hand."""
        if self._worn is None or (self._folder, self._digest, self._rounded) != (folder, digest, rounded):
            self._worn = None  # lets the old one go before the new one comes
            self._worn, self._folder, self._digest, self._rounded = WornPipeline(folder, self.device, rounded), folder, digest, rounded
        return self._worn

    def forget(self) -> None:
        self._worn, self._folder, self._digest = None, None, ""

    @property
    def loaded(self) -> list[str]:
        """The names of the base models in memory."""
        return [self._folder.name] if self._folder else []

    def circumstances(self) -> dict[str, str]:
        return circumstances(self.device, choose_dtype(self.device))


def draw_cells(
    cells: tuple[Cell, ...],
    make_ready: Callable[[Cell], Ready],
    studio: Studio,
    store: Store,
    gpu: AbstractContextManager[object],
) -> Iterator[Tile]:
    """One tile per cell, in order. A cell that fails becomes a tile with its fault, and the rest go on.

    `make_ready(cell)` gives the cell's checkpoint ready for use, for the base column the run's base alone (a Ready of any of its
    checkpoints); it may raise. Closing the iterator stops after the cell in hand.
    """
    for cell in cells:
        try:
            yield _draw_cell(cell, make_ready(cell), studio, store, gpu)
        except CmpError as fault:
            yield Tile(cell, "", fault=Fault(fault.message, fault.hint, fault.exit_code))
        except Exception as fault:  # the one loop that must survive whatever a cell does
            log.exception("cell failed: %s", cell)
            yield Tile(cell, "", fault=Fault(f"{type(fault).__name__}: {fault}", "This is a fault of ours; please report it."))


def _draw_cell(cell: Cell, ready: Ready, studio: Studio, store: Store, gpu: AbstractContextManager[object]) -> Tile:
    assert ready.base is not None
    digest = ready.digest(store) if cell.checkpoint else None
    base = digest_base(ready.base.path, store)
    rounded = rounding(ready.opened) if cell.checkpoint else None
    key = cell.key(digest, studio.circumstances() | {"base": base} | ({"rounded": " ".join(rounded)} if rounded else {}))
    path = store.cell_path(key)
    tile = Tile(cell, key, path, base=ready.base.as_json())
    if path.is_file():
        return replace(tile, reused=True)
    with gpu:
        started = time.monotonic()
        worn = studio.pipeline(ready.base.path, base, rounded)
        if digest_base(ready.base.path, store) != base:
            studio.forget()
            raise Refused(f"the base model {ready.base.id} changed while it was loaded", "Try again when nothing writes to it.")
        dress(worn, cell, ready, digest)
        image = paint(worn, cell)
        seconds = time.monotonic() - started
    infotext = to_infotext(cell, image.size, ready.base.id, digest, __version__)
    save_png(image, path, infotext, tile.as_json() | {"weights": digest, "seconds": seconds, "path": None})
    return replace(tile, seconds=round(seconds, 3))


def rounding(opened: Opened) -> tuple[str, str] | None:
    """The component whose frozen weights were rounded for training, and to which type; None where they are as wide as a base's."""
    types = {opened.header.tensors[stored].dtype for stored in opened.weights.frozen or {}} if opened.weights.pairs else set()
    if types <= {"F32"}:
        return None
    if types not in ({"BF16"}, {"F16"}):
        raise Refused(f"the frozen weights are of the types {', '.join(sorted(types))}", "Such a base cannot be held here.")
    return str(opened.weights.component), types.pop()


def dress(worn: WornPipeline, cell: Cell, ready: Ready, digest: str | None) -> None:
    """Puts the cell's checkpoint on the pipeline, proven, or takes off what it wears."""
    if cell.checkpoint is None or digest is None:
        worn.wear_nothing()
        return
    weights = ready.opened.weights
    if ready.scale is not None:
        worn.wear_lora(digest, read_folded(ready.opened, ready.scale.value), cell.strength)
        return
    if cell.strength != 1:
        raise Refused(f"{cell.checkpoint.id} is a full fine-tune, which has no strength {cell.strength:g}", "Draw it at strength 1.")
    canonical = weights.canonical
    state = {}
    for stored, array in read_tensors(ready.opened.header, canonical):
        values = as_float32(array, ready.opened.header.tensors[stored].dtype)
        state[canonical[stored].split(".", 1)[1]] = torch.from_numpy(values)
    worn.wear_component(digest, str(weights.component), state)
