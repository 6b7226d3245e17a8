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
from cmp.core.conversion import Writing
from cmp.core.fitting import check_draws_from_noise
from cmp.core.grids import Cell, Fault, Tile
from cmp.core.infotext import to_infotext
from cmp.disk.bases import CONTROL, digest_base, read_component
from cmp.disk.lora_file import read_folded
from cmp.disk.merging import merge
from cmp.disk.numbers import FLOATS, as_float32
from cmp.disk.ready import Ready
from cmp.disk.store import Store
from cmp.engine.device import choose_device, choose_dtype, circumstances
from cmp.engine.paint import paint
from cmp.engine.pipeline import WornPipeline
from cmp.engine.words import read_words
from cmp.errors import CmpError, Refused
from cmp.pictures.files import save_png

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Studio:
    """The models held in memory: at most one base, since two seldom fit. Owned by the workbench, used under its lock."""

    device_name: str
    _folder: Path | None = None
    _digest: str = ""
    _rounded: tuple[tuple[str, str], ...] = ()
    _worn: WornPipeline | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        return choose_device(self.device_name)

    def pipeline(self, folder: Path, digest: str = "", rounded: tuple[tuple[str, str], ...] = ()) -> WornPipeline:
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
    if cell.checkpoint and CONTROL in ready.opened.weights.components:
        raise Refused("a ControlNet draws after a control image, and none can be given here", "Convert it with --to pipeline.")
    if (ready.base.path / "unet").is_dir():
        check_draws_from_noise(read_component(ready.base.path, "unet").shapes)
    digest = ready.digest(store) if cell.checkpoint else None
    base = digest_base(ready.base.path, store)
    rounded = rounding(ready) if cell.checkpoint else ()
    told = {"rounded": " ".join(map(" ".join, rounded))} if rounded else {}
    form = {"form": "merged"} if cell.checkpoint and ready.whole else {}
    key = cell.key(digest, studio.circumstances() | {"base": base} | told | form)
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


def rounding(ready: Ready) -> tuple[tuple[str, str], ...]:
    """The components whose frozen weights were rounded for training, each with the type; those that are taken whole bring their own."""
    weights, entries = ready.opened.weights, ready.opened.header.tensors
    rounded = []
    for name in sorted(weights.dumped - set(ready.replaced)):
        types = {entries[stored].dtype for stored in weights.plain_of(name)}
        if types <= {"F32"}:
            continue
        if types not in ({"BF16"}, {"F16"}):
            raise Refused(f"the frozen weights are of the types {', '.join(sorted(types))}", "Such a base cannot be held here.")
        rounded.append((name, types.pop()))
    return tuple(rounded)


def dress(worn: WornPipeline, cell: Cell, ready: Ready, digest: str | None) -> None:
    """Puts the cell's checkpoint on the pipeline, proven, or takes off what it wears."""
    if cell.checkpoint is None or digest is None:
        worn.wear_nothing()
        return
    weights, opened = ready.opened.weights, ready.opened
    if weights.embeddings:
        worn.wear_words(digest, {word: torch.from_numpy(rows) for word, rows in read_words(opened).items()})
    elif ready.whole or not weights.adapted:
        assert ready.base is not None
        worn.wear_components(f"{digest}*{cell.strength}", _merged(ready, cell.strength))
    else:
        assert ready.scale is not None
        worn.wear_lora(digest, read_folded(opened, ready.scale), cell.strength)


def _merged(ready: Ready, strength: float) -> dict[str, dict[str, torch.Tensor]]:
    """Every component that the checkpoint changes, whole, under the base's names."""
    assert ready.base is not None
    states = {}
    for name in ready.opened.weights.components:
        merged = merge(ready.opened, name, read_component(ready.base.path, name), ready.scale, Writing(strength=strength))
        kinds = {tensor: dtype for tensor, (dtype, _) in merged.described.items()}
        states[name] = {n: torch.from_numpy(as_float32(merged.read(n), kind)) for n, kind in kinds.items() if kind in FLOATS}
    return states
