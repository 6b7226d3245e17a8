"""What decides a cell's pixels, known before anything is drawn: weights, base, stacked LoRAs, circumstances; and so its key."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from cmp.core.fitting import check_draws_from_noise
from cmp.core.grids import Cell, Sampling, Stacked
from cmp.core.progress import Progress, run_through
from cmp.core.runs import Checkpoint
from cmp.core.stacking import Folded, stack_adapters
from cmp.disk.bases import CONTROL, digesting_base, native_size, read_component, read_index
from cmp.disk.lora_file import read_folded
from cmp.disk.ready import Ready, unlike_lora
from cmp.disk.store import Store
from cmp.engine.prompts import check_clip_skip, reads_beforehand
from cmp.engine.samplers import check_sampler
from cmp.engine.stacked import can_stack
from cmp.engine.studio import Rounded, Studio
from cmp.engine.vaes import digest_vae, vae_file
from cmp.engine.words import Bundled, bundled_words, check_words, words_in
from cmp.errors import Refused

PREVIEW_STEPS = 6
_Column = tuple[Checkpoint | None, tuple[Stacked, ...]]


class MakeReady(Protocol):
    """Makes a checkpoint ready for use, or for None the run's base alone (a Ready of any of its checkpoints), in steps; may raise."""

    def __call__(self, checkpoint: Checkpoint | None, beside: Ready | None = None) -> Generator[Progress, None, Ready]: ...


@dataclass(frozen=True, slots=True)
class Clothes:
    """What cells of one column wear, whatever their prompts and seeds: `ready` with the LoRAs `beside` it.

    `weights` is the digest of the checkpoint, None for the base model alone; `base` is that of the base. `merged` components are
    replaced whole; `words` are learned ones.
    """

    ready: Ready
    weights: str | None
    base: str
    rounded: Rounded
    beside: tuple[tuple[Ready, str, float], ...] = ()

    @property
    def merged(self) -> bool:
        weights = self.ready.opened.weights
        return self.weights is not None and not self.words and bool(self.ready.whole or not weights.adapted)

    @property
    def words(self) -> bool:
        return self.weights is not None and bool(self.ready.opened.weights.embeddings)

    @property
    def _named(self) -> str:
        """The words' names: the digest of weights does not hold the one that is a file's."""
        return json.dumps(words_in(self.ready.opened)) if self.words else ""

    @property
    def folder(self) -> Path:
        assert self.ready.base is not None
        return self.ready.base.path

    def told(self) -> dict[str, str]:
        """For a cell's key, beside the weights."""
        told = {"base": self.base} | ({"form": "merged"} if self.merged else {})
        told |= {"words": self._named} if self.words else {}
        told |= {"rounded": " ".join(map(" ".join, self.rounded))} if self.rounded else {}
        return told | ({"stack": " ".join(f"{digest}*{strength}" for _, digest, strength in self.beside)} if self.beside else {})

    def name(self, strength: float) -> str:
        """What is worn, in one word: equal names, equal weights on the model."""
        strengths = f"*{strength}" if self.merged or self.beside else ""
        return f"{self.weights}{strengths}{self._named}{''.join(f'+{digest}*{own}' for _, digest, own in self.beside)}"

    @property
    def tensors(self) -> frozenset[str]:
        """The names of all adapter tensors that are worn, from headers alone."""
        modules = (module for ready in self._adapters for module in ready.opened.weights.adapted)
        return frozenset(name for module in modules for name in module.canonical.values())

    @property
    def numbers(self) -> int:
        """How many numbers the adapters of the denoiser hold, from headers alone."""
        total = 0.0
        for ready in self._adapters:
            for module in ready.opened.weights.adapted:
                if not module.component.startswith("text_encoder"):
                    shapes = {role: ready.opened.header.tensors[stored].shape for role, stored in module.weight_parts.items()}
                    total += sum(math.prod(shape) * module.share(role, shape) for role, shape in shapes.items())
        return round(total)

    @property
    def _adapters(self) -> tuple[Ready, ...]:
        return (*([self.ready] if self.weights is not None else []), *(ready for ready, _, _ in self.beside))

    def adapter(self, strength: float, studio: Studio) -> tuple[Folded, float]:
        """The adapter to wear and the strength to wear it at; an empty one for the base model."""
        wanted = self.wanted(strength)
        return ({}, 1.0) if wanted is None else (studio.adapter(*wanted), 1.0 if self.beside else strength)

    def wanted(self, strength: float) -> tuple[str, Callable[[], Folded]] | None:
        """What that adapter is called, and how it is read; None for the base model."""
        if self.beside:
            return self.name(strength), partial(self._stacked, strength)
        return None if self.weights is None else (self.weights, partial(_read, self.ready))

    def _stacked(self, strength: float) -> Folded:
        own = [] if self.weights is None else [(_read(self.ready), strength)]
        return stack_adapters([*own, *((_read(ready), much) for ready, _, much in self.beside)])


def _read(ready: Ready) -> Folded:
    assert ready.scale is not None
    return read_folded(ready.opened, ready.scale)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A cell that is ready to be drawn. `drawn` is the cell itself, or its preview: smaller and with fewer steps."""

    cell: Cell
    drawn: Cell
    clothes: Clothes
    keys: Mapping[str, str]
    mode: str
    vae: tuple[str, Path] | None = None  # digest and file of another VAE
    words: Bundled | None = None

    @property
    def key(self) -> str:
        return self.keys[self.mode]

    @property
    def preview(self) -> bool:
        return self.drawn != self.cell


@dataclass(slots=True)
class Preparing:
    """Prepares the cells of one grid; what a column needs is looked up once for all its cells."""

    make_ready: MakeReady
    studio: Studio
    store: Store
    mode: str
    _circumstances: dict[Path, dict[str, str]] = field(default_factory=dict)
    _clothes: dict[_Column, Clothes] = field(default_factory=dict)
    _bases: dict[Path, str] = field(default_factory=dict)
    _samplers: dict[tuple[Path, str], dict[str, str]] = field(default_factory=dict)
    _vaes: dict[str, tuple[str, Path]] = field(default_factory=dict)
    _stackable: dict[_Column, bool] = field(default_factory=dict)
    _numbers: dict[_Column, int] = field(default_factory=dict)

    def prepare(self, cell: Cell, preview: bool = False) -> Prepared:
        """As `preparing`, unwatched."""
        return run_through(self.preparing(cell, preview))

    def preparing(self, cell: Cell, preview: bool = False) -> Generator[Progress, None, Prepared]:
        """The cell ready to be drawn. Reads its weights and its base through where they have never been read. Raises what stands against
        drawing it.
        """
        clothes = yield from self._dressed(cell)
        worn = [*([(clothes.ready, cell.strength)] if cell.checkpoint else []), *((ready, much) for ready, _, much in clothes.beside)]
        for ready, strength in worn:
            check_words(ready.opened, strength)
        words = bundled_words((ready.opened for ready, _ in worn), cell.prompt, clothes.folder)
        drawn = replace(cell, sampling=smaller(cell.sampling, clothes.folder)) if preview else cell
        if clothes.folder not in self._circumstances:
            self._circumstances[clothes.folder] = self.studio.circumstances(clothes.folder)
        vae = self._vae(cell.sampling.vae)
        told = self._circumstances[clothes.folder] | clothes.told() | ({"vae": vae[0]} if vae else {})
        told |= {"bundled": words.digest} if words else {}
        told |= self._sampler(clothes.folder, cell.sampling.scheduler)
        if cell.sampling.clip_skip != 1:
            check_clip_skip(clothes.folder)
        if clothes.rounded and told["dtype"] != "float32":
            told["rounding"] = "once"  # it was done twice before
        modes = ("exact",) if self.mode == "exact" else ("exact", "fast")
        keys = {mode: drawn.key(clothes.weights, told | {"mode": mode}) for mode in modes}
        return Prepared(cell, drawn, clothes, keys, self.mode, vae, words)

    def _dressed(self, cell: Cell) -> Generator[Progress, None, Clothes]:
        """What the cell wears."""
        key = (cell.checkpoint, cell.stack)
        if key not in self._clothes:
            ready = yield from self.make_ready(cell.checkpoint)
            beside = []
            for one in cell.stack:
                beside.append((yield from self._beside(one, ready)))
            if cell.checkpoint and CONTROL in ready.opened.weights.components:
                raise Refused("a ControlNet draws after a control image, and none can be given here", "Convert it with --to pipeline.")
            if ready.base and (ready.base.path / "unet").is_dir():
                check_draws_from_noise(read_component(ready.base.path, "unet").shapes)
            if cell.checkpoint and beside and (why := unlike_lora(ready)):
                raise Refused(f"{cell.checkpoint.id} cannot wear a LoRA beside it: {why}", "Draw it without --stack.")
            weights = (yield from ready.digesting(self.store)) if cell.checkpoint else None
            rounded = rounding(ready) if cell.checkpoint else ()
            self._clothes[key] = Clothes(ready, weights, (yield from self._base(ready)), rounded, tuple(beside))
        return self._clothes[key]

    def _beside(self, one: Stacked, ready: Ready) -> Generator[Progress, None, tuple[Ready, str, float]]:
        found = yield from self.make_ready(one.checkpoint, ready)
        if why := unlike_lora(found):
            raise Refused(f"{one.checkpoint.id} cannot be stacked: {why}", "Only LoRAs are worn beside a checkpoint.")
        return found, (yield from found.digesting(self.store)), one.strength

    def _base(self, ready: Ready) -> Generator[Progress, None, str]:
        assert ready.base is not None
        if ready.base.path not in self._bases:
            self._bases[ready.base.path] = yield from digesting_base(ready.base.path, self.store)
        return self._bases[ready.base.path]

    def _sampler(self, base: Path, name: str) -> dict[str, str]:
        if (base, name) not in self._samplers:
            self._samplers[base, name] = check_sampler(base, name)
        return self._samplers[base, name]

    def _vae(self, name: str | None) -> tuple[str, Path] | None:
        if name is None:
            return None
        if name not in self._vaes:
            file = vae_file(name)
            self._vaes[name] = (digest_vae(file, self.store), file)
        return self._vaes[name]

    def stackable(self, one: Prepared) -> bool:
        """Whether the cell may share a batch with other checkpoints' cells. Told from headers, so that nothing is read for it."""
        if self.mode == "exact":
            return False
        key = (one.cell.checkpoint, one.cell.stack)
        if key not in self._stackable:
            self._stackable[key] = _stackable(one.clothes)
        return self._stackable[key]

    def numbers(self, one: Prepared) -> int:
        """How many numbers of adapters the denoiser holds for this cell alone while a batch is drawn, by the headers."""
        key = (one.cell.checkpoint, one.cell.stack)
        if key not in self._numbers:
            self._numbers[key] = one.clothes.numbers if self.stackable(one) else 0
        return self._numbers[key]


def _stackable(clothes: Clothes) -> bool:
    if clothes.merged or clothes.words or not can_stack(clothes.tensors):
        return False
    trained_text = any(name.startswith("text_encoder") for name in clothes.tensors)
    return not trained_text or reads_beforehand(str(read_index(clothes.folder).get("_class_name")))


def size_of(one: Prepared) -> tuple[int, int]:
    """Width and height in pixels of what is drawn."""
    usual, sampling = native_size(one.clothes.folder), one.drawn.sampling
    return sampling.width or usual[0], sampling.height or usual[1]


def smaller(sampling: Sampling, base: Path) -> Sampling:
    """A preview's sampling: few steps, half the width and height."""
    width, height = native_size(base)
    sides = [max(8, (side or usual) // 16 * 8) for side, usual in ((sampling.width, width), (sampling.height, height))]
    return replace(sampling, steps=min(sampling.steps, PREVIEW_STEPS), width=sides[0], height=sides[1])


def rounding(ready: Ready) -> Rounded:
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
