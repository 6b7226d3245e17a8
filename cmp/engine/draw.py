"""Draws the cells of a grid: found ones from the store, new ones in batches, with a pipeline that proves what it wears."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, cast

import torch
from PIL import Image

from cmp import __version__
from cmp.core.grids import Cell, Fault, GridPlan, Tile
from cmp.core.infotext import to_infotext
from cmp.core.present import size_text
from cmp.core.progress import Progress, run_through
from cmp.core.stacking import Folded
from cmp.disk.replacing import cannot_write
from cmp.disk.store import Store
from cmp.engine.batch import group_of, kind_of, most_at_once, paint_batch
from cmp.engine.device import without_memory
from cmp.engine.drawn_as import drawn_as
from cmp.engine.prepare import Prepared, Preparing, size_of
from cmp.engine.record import expect, remember_pace
from cmp.engine.steps import stepping
from cmp.engine.studio import Studio
from cmp.errors import CmpError, NoSpace, Refused
from cmp.pictures.files import save_png

log = logging.getLogger(__name__)
_WRITING = 4  # pictures that are packed and written at once, while nothing is drawn
T = TypeVar("T")
Steps = Generator[Progress | Tile, None, None]


class Passing(Protocol):
    """Whatever draws cells in passes; `total` counts the tiles of all of them."""

    total: int

    def draw_pass(self, cells: Sequence[Cell], preview: bool = False) -> Steps:
        """One tile per cell: its preview, or the whole picture."""
        ...


@dataclass(slots=True)
class Drawing:
    """One grid on its way. `gpu` is held only while a batch is drawn. Where it is `watched`, the first picture is drawn alone: it is
    looked at while the others are drawn.
    """

    preparing: Preparing
    studio: Studio
    store: Store
    gpu: threading.Lock
    watched: bool = False
    keeps_pace: bool = True  # whether the time that it takes says what drawing takes on this machine
    total: int = 0
    done: int = 0
    begun: bool = False
    _waiting: dict[tuple[object, ...], list[Prepared]] = field(default_factory=dict)
    _twins: dict[str, list[Prepared]] = field(default_factory=dict)  # by key: cells that are the same picture as one in hand
    _unloadable: dict[tuple[object, ...], CmpError] = field(default_factory=dict)

    def draw(self, cells: Sequence[Cell], preview: bool = False) -> Steps:
        """One tile per cell, found ones as they are met; between them the steps. With `preview` every cell also comes small before.

        A cell that fails becomes a tile with its fault, and the rest go on. Closing the iterator stops within one denoising step.
        """
        yield from in_passes(self, cells, preview)

    def plan(self, cells: Sequence[Cell], preview: bool = False) -> GridPlan:
        """What `draw` would do. Nothing is drawn for it; digests and the proof of bases that are not known yet are made.

        Previews cost time and space, and are no cells of their own.
        """
        found = [run_through(self._prepare(cell, preview=False)) for cell in cells]
        fresh = [one for one in found if isinstance(one, Prepared)]
        new = list({one.key: one for one in reversed(fresh)}.values())[::-1]  # twins are one picture
        faults = tuple((one.cell, one.fault) for one in found if isinstance(one, Tile) and one.fault)
        small = [run_through(self._prepare(one.cell, preview=True)) for one in new] if preview else []
        drawn = [*new, *(one for one in small if isinstance(one, Prepared))]
        seconds, size = expect(self.store, self.studio.device.type, drawn)
        return GridPlan(len(cells), len(new), len(cells) - len(fresh) - len(faults), faults, seconds, size, len(fresh) - len(new))

    def is_drawn(self, cell: Cell) -> bool:
        """Whether nothing is to be drawn for a cell: it was before, or cannot be."""
        try:
            return _found(self.preparing.prepare(cell), self.store) is not None
        except CmpError:
            return True

    def wants(self, cell: Cell) -> tuple[str, Callable[[], Folded]] | None:
        """What the adapter that has to be read for a cell is called, and how it is read; None where none has, or it was drawn before.

        Raises what stands against drawing it.
        """
        one = self.preparing.prepare(cell)
        return None if _found(one, self.store) or one.clothes.merged or one.clothes.words else one.clothes.wanted(cell.strength)

    def draw_pass(self, cells: Sequence[Cell], preview: bool = False) -> Steps:
        """One tile per cell: its preview, or the whole picture. What needs a dear switch (another base, whole components) comes later."""
        while cells:
            cells = yield from self._draw_group(cells, preview)

    def _draw_group(self, cells: Sequence[Cell], preview: bool) -> Generator[Progress | Tile, None, list[Cell]]:
        """Draws the cells that need the same base and whole components as the first, and gives the others."""
        group, later = None, []
        for cell in cells:
            one = yield from self._prepare(cell, preview)
            if isinstance(one, Tile):
                yield self._count(one)
                continue
            group = group or group_of(one)
            if group_of(one) != group:
                later.append(cell)
            elif one.key in self._twins:
                self._twins[one.key].append(one)
            else:
                yield from self._add(one)
        for batch in list(self._waiting.values()):
            yield from self._draw_waiting(batch)
        self._waiting.clear()
        return later

    def _add(self, one: Prepared) -> Steps:
        """Puts a cell to those that wait for a batch of its kind, and draws these once they are enough."""
        kind = kind_of(one, self.preparing.stackable(one))
        batch = self._waiting.setdefault(kind, [])
        batch.append(one)
        self._twins[one.key] = []
        if len(batch) >= self._limit(one):
            yield from self._draw_waiting(self._waiting.pop(kind))

    def _is_alone(self, one: Prepared) -> bool:
        """Whether it is the first picture and drawn alone. On a card also where nobody watches, until the base is loaded: how much room
        there is shows only then.
        """
        loading = self.studio.device.type == "cuda" and one.clothes.folder.name not in self.studio.loaded
        return not self.begun and (self.watched or loading)

    def _limit(self, one: Prepared) -> int:
        """How many are drawn together."""
        if self.preparing.mode == "exact" or self._is_alone(one):
            return 1
        width, height = size_of(one)
        most = most_at_once(self.studio.device, width, height, self.preparing.numbers(one))
        return min(most, self.studio.most_at_once.get(f"{one.clothes.folder}|{width}x{height}", most))

    def _prepare(self, cell: Cell, preview: bool) -> Generator[Progress, None, Prepared | Tile]:
        """The cell ready to be drawn; or its tile, where it is drawn already or what stands against it is known already."""
        try:
            with closing(self.preparing.preparing(cell, preview)) as work:
                one = yield from self._told(work, cell.checkpoint.id if cell.checkpoint else "base model")
            if preview and (found := _found(self.preparing.prepare(cell), self.store)):
                return found
            return _found(one, self.store) or one
        except CmpError as fault:
            return Tile(cell, "", fault=Fault(fault.message, fault.hint, fault.exit_code))

    def _told(self, work: Generator[Progress, None, T], whose: str) -> Generator[Progress, None, T]:
        """What the work gives; its steps as those of the grid, told in words."""
        while True:
            try:
                step = next(work)
            except StopIteration as finished:
                return cast(T, finished.value)
            far = f"{size_text(step.done_bytes)} of {size_text(step.total_bytes)}" if step.total_bytes else f"{step.done}/{step.total}"
            yield Progress(self.done, self.total, f"{whose}{': ' if whose else ''}{step.what} {far}", step.done_bytes, step.total_bytes)

    def _draw_waiting(self, batch: Sequence[Prepared]) -> Steps:
        """Draws a batch, and answers with it the cells that are the same pictures."""
        keys = {one.cell: one.key for one in batch}
        for item in self._draw_batch(batch):
            yield item
            if isinstance(item, Tile):
                for twin in self._twins.pop(keys[item.cell], ()):
                    base = _base_told(twin) if item.path else None
                    same = replace(item, cell=twin.cell, preview=twin.preview, base=base, reused=item.fault is None, seconds=None)
                    yield self._count(same)

    def _draw_batch(self, batch: Sequence[Prepared]) -> Steps:
        """Draws a batch; where that fails, its halves, so that what is wrong with one picture costs no other."""
        left, alone = list(batch), self._is_alone(batch[0])
        try:
            images, seconds = yield from self._at_the_gpu(batch)
            with ThreadPoolExecutor(_WRITING) as pool:
                kept = list(pool.map(self._keep, batch, images, [seconds / len(batch)] * len(batch)))
            if self.keeps_pace and not alone:  # a lone picture takes longer, and a card's first one too
                remember_pace(self.store, self.studio.device.type, batch, seconds, [size for _, size in kept])
            self.begun = True
            for tile, _ in kept:
                left.pop(0)
                yield self._count(tile)
            return
        except CmpError as error:
            fault = Fault(error.message, error.hint, error.exit_code)
        except Exception as error:  # the one place that must survive whatever a cell does
            ran_out = self._without_memory(error, batch)
            if ran_out is None:
                log.exception("drawing failed: %s", batch[0].cell)
                ran_out = Fault(f"{type(error).__name__}: {error}", "This is a fault of ours; please report it.")
            fault = ran_out
        if len(left) == 1:
            yield self._count(Tile(left[0].cell, "", fault=fault, mode=left[0].mode, preview=left[0].preview))
            return
        for half in filter(None, (left[: len(left) // 2], left[len(left) // 2 :])):
            yield from self._draw_batch(half)

    def _without_memory(self, error: Exception, batch: Sequence[Prepared]) -> Fault | None:
        """Where the memory ran out, makes room and remembers how many pictures were too many; None for any other error."""
        if not without_memory(error):
            return None
        width, height = size_of(batch[0])
        self.studio.most_at_once[f"{batch[0].clothes.folder}|{width}x{height}"] = (len(batch) + 1) // 2
        error.__traceback__ = None  # it holds what was computed so far
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return Fault(f"the memory is not enough: {str(error)[:200]}", "Draw it smaller, or with CMP_DEVICE=cpu.", NoSpace.exit_code)

    def _at_the_gpu(self, batch: Sequence[Prepared]) -> Generator[Progress, None, tuple[list[Image.Image], float]]:
        base = group_of(batch[0])[:3]
        if base in self._unloadable:
            raise self._unloadable[base]
        while not self.gpu.acquire(timeout=0.2):
            yield Progress(self.done, self.total, "waiting for another drawing")
        try:
            started = time.monotonic()
            work = stepping(lambda report: paint_batch(batch, self.preparing, self.studio, self.store, report), self.studio.threads)
            try:
                images = yield from self._told(work, "")
                return images, time.monotonic() - started - self.studio.loading_took
            except CmpError as fault:
                if batch[0].clothes.folder.name not in self.studio.loaded:  # not tried again for every cell
                    self._unloadable[base] = fault
                raise
            finally:
                work.close()
        finally:
            self.gpu.release()

    def _keep(self, one: Prepared, image: Image.Image, seconds: float) -> tuple[Tile, int]:
        """The tile of a drawn picture, and the bytes of its file."""
        base, sampling = one.clothes.ready.base, one.drawn.sampling
        assert base is not None
        if not one.preview and image.size != (asked := (sampling.width or image.width, sampling.height or image.height)):
            told = f"{asked[0]} × {asked[1]} was asked for, and {base.id} drew {image.width} × {image.height}"
            raise Refused(told, "Such models draw multiples of 16 or 32 pixels only; ask for one.")
        path = self.store.cell_path(one.key)
        took = round(seconds, 3)
        tile = Tile(one.cell, one.key, path, False, took, base=base.as_json(), mode=one.mode, preview=one.preview, drawn=drawn_as(one))
        text = to_infotext(one.drawn, image.size, base.id, one.clothes.weights, __version__)
        record = replace(tile, cell=one.drawn, preview=False).as_json() | {"weights": one.clothes.weights, "path": None}
        record |= {"base_digest": one.clothes.base} | ({"as_preview": True} if one.preview else {})
        try:
            save_png(image, path, text, record)
            return tile, path.stat().st_size
        except OSError as fault:
            raise cannot_write(path, fault) from fault

    def _count(self, tile: Tile) -> Tile:
        self.done += 1
        return tile


def in_passes(drawer: Passing, cells: Sequence[Cell], preview: bool) -> Steps:
    """Has a drawer draw every cell, with `preview` small before. What the first pass finds whole or cannot draw is not asked for again."""
    drawer.total = len(cells) * (2 if preview else 1)
    if preview:
        whole: set[Cell] = set()
        for item in drawer.draw_pass(cells, preview=True):
            if isinstance(item, Tile) and not item.preview:
                whole.add(item.cell)
            yield item
        cells = [cell for cell in cells if cell not in whole]
        drawer.total -= len(whole)
    yield from drawer.draw_pass(cells)


def _found(one: Prepared, store: Store) -> Tile | None:
    """The tile of a cell that was drawn before; what was drawn exactly serves where fast was asked for."""
    for mode, key in one.keys.items():
        if (path := store.cell_path(key)).is_file():
            return Tile(one.cell, key, path, True, base=_base_told(one), mode=mode, preview=one.preview, drawn=drawn_as(one))
    return None


def _base_told(one: Prepared) -> dict[str, object] | None:
    base = one.clothes.ready.base
    return base.as_json() if base else None
