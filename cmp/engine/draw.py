"""Draws the cells of a grid: found ones from the store, new ones in batches, with a pipeline that proves what it wears."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from diffusers import AutoencoderKL
from PIL import Image

from cmp import __version__
from cmp.core.conversion import Writing
from cmp.core.grids import Cell, Fault, GridPlan, Tile
from cmp.core.infotext import to_infotext
from cmp.core.progress import Progress
from cmp.core.stacking import Folded
from cmp.disk.bases import digest_base, read_component
from cmp.disk.merging import merge
from cmp.disk.numbers import FLOATS, as_float32
from cmp.disk.ready import Ready
from cmp.disk.store import Store
from cmp.engine.batch import in_order, kind_of, most_at_once
from cmp.engine.lanes import in_lanes
from cmp.engine.paint import paint
from cmp.engine.pipeline import DENOISERS, TEXT, WornPipeline
from cmp.engine.prepare import Prepared, Preparing, size_of, vae_file
from cmp.engine.record import expect, remember_pace
from cmp.engine.stacked import Worn, wearing
from cmp.engine.steps import Report, stepping
from cmp.engine.studio import MOST_KEPT, Studio
from cmp.engine.words import read_words
from cmp.errors import CmpError, NoSpace, Refused, Unreadable
from cmp.pictures.files import save_png

log = logging.getLogger(__name__)
Steps = Generator[Progress | Tile, None, None]


@dataclass(slots=True)
class Drawing:
    """One grid on its way. `gpu` is held only while a batch is drawn."""

    preparing: Preparing
    studio: Studio
    store: Store
    gpu: threading.Lock
    keeps_pace: bool = True  # whether the time that it takes says what drawing takes on this machine
    total: int = 0
    done: int = 0
    begun: bool = field(default=False)

    def draw(self, cells: Sequence[Cell], preview: bool = False) -> Steps:
        """One tile per cell, found ones as they are met; between them the steps. With `preview` every cell also comes small before.

        A cell that fails becomes a tile with its fault, and the rest go on. Closing the iterator stops within one denoising step.
        """
        self.total = len(cells) * (2 if preview else 1)
        if preview:
            whole: set[Cell] = set()
            for item in self.draw_pass(cells, preview=True):
                if isinstance(item, Tile) and not item.preview:
                    whole.add(item.cell)
                yield item
            cells = [cell for cell in cells if cell not in whole]
        yield from self.draw_pass(cells)

    def plan(self, cells: Sequence[Cell], preview: bool = False) -> GridPlan:
        """What `draw` would do, from headers and names alone. Previews cost time and space, and are no cells of their own."""
        found = [self._prepare(cell, preview=False) for cell in cells]
        new = [one for one in found if isinstance(one, Prepared)]
        faults = tuple((one.cell, one.fault) for one in found if isinstance(one, Tile) and one.fault)
        small = [self._prepare(one.cell, preview=True) for one in new] if preview else []
        drawn = [*new, *(one for one in small if isinstance(one, Prepared))]
        seconds, size = expect(self.store, self.studio.device.type, drawn)
        return GridPlan(len(cells), len(new), len(cells) - len(new) - len(faults), faults, seconds, size)

    def draw_pass(self, cells: Sequence[Cell], preview: bool = False) -> Steps:
        """One tile per cell: its preview, or the whole picture."""
        self.studio.most_kept = MOST_KEPT[self.preparing.mode]
        waiting: list[Prepared] = []
        for cell in in_order(cells, self._is_dear):
            one = self._prepare(cell, preview)
            if isinstance(one, Tile):
                yield self._count(one)
                continue
            if waiting and (len(waiting) >= self._limit(waiting[0]) or self._kind(one) != self._kind(waiting[0])):
                yield from self._draw_batch(waiting)
                waiting = []
            waiting.append(one)
        if waiting:
            yield from self._draw_batch(waiting)

    def _is_dear(self, cell: Cell) -> bool:
        try:
            return self.preparing.switch_is_dear(cell)
        except CmpError:
            return False  # it is told when its turn comes

    def _kind(self, one: Prepared) -> tuple[object, ...]:
        return kind_of(one, self.preparing.stackable(one))

    def _limit(self, one: Prepared) -> int:
        """How many are drawn together. The first picture is drawn alone: it is looked at while the others are drawn."""
        if self.preparing.mode == "exact" or not self.begun:
            return 1
        width, height = size_of(one)
        most = most_at_once(self.studio.device, width, height)
        return min(most, self.studio.most_at_once.get(f"{one.clothes.folder}|{width}x{height}", most))

    def _prepare(self, cell: Cell, preview: bool) -> Prepared | Tile:
        """The cell ready to be drawn; or its tile, where it is drawn already or what stands against it is known already."""
        try:
            one = self.preparing.prepare(cell, preview)
            if preview and (found := _found(self.preparing.prepare(cell), self.store)):
                return found
            return _found(one, self.store) or one
        except CmpError as fault:
            return Tile(cell, "", fault=Fault(fault.message, fault.hint, fault.exit_code))

    def _draw_batch(self, batch: Sequence[Prepared]) -> Steps:
        """Draws a batch; where that fails, its halves, so that what is wrong with one picture costs no other."""
        left = list(batch)
        try:
            images, seconds = yield from self._at_the_gpu(batch)
            files = []
            for image in images:
                tile = self._keep(left[0], image, seconds / len(batch))
                left.pop(0)
                files.append(tile.path)
                yield self._count(tile)
            if self.begun and self.keeps_pace:  # the first batch also loads
                remember_pace(self.store, self.studio.device.type, batch, seconds, filter(None, files))
            self.begun = True
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
        for half in (left[: len(left) // 2], left[len(left) // 2 :]):
            yield from self._draw_batch(half)

    def _without_memory(self, error: Exception, batch: Sequence[Prepared]) -> Fault | None:
        """Where the memory ran out, makes room and remembers how many pictures were too many; None for any other error."""
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "not enough memory" not in str(error):
            return None
        width, height = size_of(batch[0])
        self.studio.most_at_once[f"{batch[0].clothes.folder}|{width}x{height}"] = (len(batch) + 1) // 2
        error.__traceback__ = None  # it holds what was computed so far
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return Fault(f"the memory is not enough: {str(error)[:200]}", "Draw it smaller, or with CMP_DEVICE=cpu.", NoSpace.exit_code)

    def _at_the_gpu(self, batch: Sequence[Prepared]) -> Generator[Progress, None, tuple[list[Image.Image], float]]:
        while not self.gpu.acquire(timeout=0.2):
            yield Progress(self.done, self.total, "waiting for another drawing")
        try:
            started = time.monotonic()
            work = stepping(lambda report: _paint(batch, self.preparing, self.studio, self.store, report))
            try:
                while True:
                    step = next(work)
                    yield Progress(self.done, self.total, f"{step.what} {step.done}/{step.total}")
            except StopIteration as finished:
                return finished.value, time.monotonic() - started
            finally:
                work.close()
        finally:
            self.gpu.release()

    def _keep(self, one: Prepared, image: Image.Image, seconds: float) -> Tile:
        base = one.clothes.ready.base
        assert base is not None
        path = self.store.cell_path(one.key)
        tile = Tile(one.cell, one.key, path, seconds=round(seconds, 3), base=base.as_json(), mode=one.mode, preview=one.preview)
        text = to_infotext(one.drawn, image.size, base.id, one.clothes.weights, __version__)
        save_png(image, path, text, replace(tile, cell=one.drawn).as_json() | {"weights": one.clothes.weights, "path": None})
        return tile

    def _count(self, tile: Tile) -> Tile:
        self.done += 1
        return tile


def _found(one: Prepared, store: Store) -> Tile | None:
    """The tile of a cell that was drawn before; what was drawn exactly serves where fast was asked for."""
    for mode, key in one.keys.items():
        if (path := store.cell_path(key)).is_file():
            base = one.clothes.ready.base
            return Tile(one.cell, key, path, True, base=base.as_json() if base else None, mode=mode, preview=one.preview)
    return None


def _paint(batch: Sequence[Prepared], preparing: Preparing, studio: Studio, store: Store, report: Report) -> list[Image.Image]:
    """The pictures of a batch, each under what its own cell wears."""
    first = batch[0]
    clothes, cells = first.clothes, [one.drawn for one in batch]
    worn = studio.pipeline(clothes.folder, clothes.base, clothes.rounded, report)
    if digest_base(clothes.folder, store) != clothes.base:
        studio.forget()
        raise Refused(f"the base model {clothes.folder.name} changed while it was loaded", "Try again when nothing writes to it.")
    with _with_vae(worn, first.cell.sampling.vae):
        if not preparing.stackable(first):
            dress(worn, first, studio)
            steering = [worn.prompts.steer(worn.pipe, worn.reader, cell.prompt, cell.sampling) for cell in cells]
            with nullcontext() if preparing.mode == "exact" else in_lanes(worn.denoiser):
                return paint(worn, cells, steering, report)
        adapters = [one.clothes.adapter(one.cell.strength, studio) for one in batch]
        steering = []
        for one, (folded, _) in zip(batch, adapters, strict=True):
            if any(name.startswith(TEXT) for name in folded):
                dress(worn, one, studio)
            else:
                worn.wear_nothing()
            steering.append(worn.prompts.steer(worn.pipe, worn.reader, one.drawn.prompt, one.drawn.sampling))
        worn.wear_nothing()
        denoisers = {name: model for name, model in worn.modules.items() if name in DENOISERS}
        with wearing(denoisers, _of_denoiser(adapters)), in_lanes(worn.denoiser):
            return paint(worn, cells, steering, report)


def _of_denoiser(adapters: Sequence[tuple[Folded, float]]) -> list[Worn]:
    """Each picture's adapter without what belongs to the text encoders, which have read the prompts already."""
    made: dict[int, Folded] = {}
    for folded, _ in adapters:
        if id(folded) not in made:
            made[id(folded)] = {name: values for name, values in folded.items() if not name.startswith(TEXT)}
    return [Worn(made[id(folded)], strength) for folded, strength in adapters]


def dress(worn: WornPipeline, one: Prepared, studio: Studio) -> None:
    """Puts what a cell wears on the pipeline, proven, or takes off what it wears."""
    clothes, strength = one.clothes, one.cell.strength
    if clothes.weights is None and not clothes.beside:
        worn.wear_nothing()
    elif clothes.words:
        words = read_words(clothes.ready.opened)
        worn.wear_words(clothes.name(strength), {word: torch.from_numpy(rows) for word, rows in words.items()})
    elif clothes.merged:
        worn.wear_components(clothes.name(strength), lambda: _merged(clothes.ready, strength))
    else:
        folded, much = clothes.adapter(strength, studio)
        worn.wear_lora(clothes.name(strength), folded, much)


def _merged(ready: Ready, strength: float) -> dict[str, dict[str, torch.Tensor]]:
    """Every component that the checkpoint changes, whole, under the base's names."""
    assert ready.base is not None
    states = {}
    for name in ready.opened.weights.components:
        merged = merge(ready.opened, name, read_component(ready.base.path, name), ready.scale, Writing(strength=strength))
        kinds = {tensor: dtype for tensor, (dtype, _) in merged.described.items()}
        states[name] = {n: torch.from_numpy(as_float32(merged.read(n), kind)) for n, kind in kinds.items() if kind in FLOATS}
    return states


@contextmanager
def _with_vae(worn: WornPipeline, name: str | None) -> Iterator[None]:
    """Decodes with another VAE meanwhile."""
    if name is None:
        yield
        return
    file = vae_file(name)
    try:
        other = AutoencoderKL.from_pretrained(file.parent, dtype=worn.dtype, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as fault:
        raise Unreadable(f"cannot load the VAE {file.parent}: {fault}", "Give a folder that diffusers wrote.") from fault
    own = worn.pipe.vae
    if other.config.latent_channels != own.config.latent_channels:
        told = f"the VAE {file.parent} has {other.config.latent_channels} latent channels, and the base model {own.config.latent_channels}"
        raise Refused(told, "Give one that was made for this kind of model.")
    worn.pipe.vae = other.to(worn.device).eval()
    try:
        yield
    finally:
        worn.pipe.vae = own
