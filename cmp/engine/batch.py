"""A batch: which cells share one, and how its pictures are drawn, each under what its own cell wears."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext

import torch
from PIL import Image

from cmp.core.stacking import Folded
from cmp.disk.bases import digest_base
from cmp.disk.store import Store
from cmp.engine.dressing import decoding_with, dress
from cmp.engine.lanes import in_lanes
from cmp.engine.paint import paint
from cmp.engine.pipeline import DENOISERS, TEXT, WornPipeline
from cmp.engine.prepare import Clothes, Prepared, Preparing
from cmp.engine.prompts import Steering
from cmp.engine.stacked import Worn, wearing
from cmp.engine.steps import Report
from cmp.engine.studio import MOST_KEPT, Studio
from cmp.errors import Refused

_SHARE = 0.6  # of the memory that is free on the device
_EACH = 2_000_000_000  # bytes that a picture of 512 × 512 takes at most while it is drawn and decoded, in half precision
_COPIES = 3  # of an adapter in half precision: stacked with the others, and once more for each of the two rows that guidance needs
_MOST_ON_GPU, _PLACES_ON_CPU = 16, 2048  # pictures; latent places (8 × 8 pixels) that are enough to keep a processor busy


def group_of(one: Prepared) -> tuple[object, ...]:
    """Cells of one group need no dear switch between them: the same base in memory, and the same whole components on it."""
    clothes = one.clothes
    return clothes.folder, clothes.base, clothes.rounded, clothes.name(one.cell.strength) if clothes.merged or clothes.words else None


def kind_of(one: Prepared, stackable: bool) -> tuple[object, ...]:
    """Cells of the same group and kind may be drawn in one batch."""
    alone = None if stackable else (one.clothes.name(one.cell.strength), one.cell.strength)
    return *group_of(one), one.drawn.sampling, alone


def most_at_once(device: torch.device, width: int, height: int, numbers: int = 0, *, empty: bool = False) -> int:
    """How many pictures of that size are drawn in one batch, each with an adapter of so many numbers of its own.

    As many as a card has room for now, or would have if it were `empty`: the same at any time.
    """
    places = width * height / 64
    if device.type != "cuda":
        return max(1, round(_PLACES_ON_CPU / places))
    free, total = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps what it has used before
    free = total if empty else free
    return max(1, min(_MOST_ON_GPU, int(_SHARE * free / (_EACH * width * height / 512**2 + _COPIES * 2 * numbers))))


def paint_batch(batch: Sequence[Prepared], preparing: Preparing, studio: Studio, store: Store, report: Report) -> list[Image.Image]:
    """The pictures of a batch. Called under the lock of the GPU, since pipeline and adapters are shared by all drawings."""
    first, cells = batch[0], [one.drawn for one in batch]
    studio.most_kept = MOST_KEPT[preparing.mode]
    worn = load_base(first.clothes, studio, store, report)
    with decoding_with(worn, first, studio, store):
        if not preparing.stackable(first):
            dress(worn, first, studio, report)
            steering = [_steer_one(worn, one) for one in batch]
            with nullcontext() if preparing.mode == "exact" else in_lanes(worn.denoiser):
                return paint(worn, cells, steering, report)
        adapters = [one.clothes.adapter(one.cell.strength, studio) for one in batch]
        steering = _steer(worn, batch, adapters, studio)
        worn.wear_nothing()
        denoisers = {name: model for name, model in worn.modules.items() if name in DENOISERS}
        with wearing(denoisers, _of_denoiser(adapters)), in_lanes(worn.denoiser):
            return paint(worn, cells, steering, report)


def load_base(clothes: Clothes, studio: Studio, store: Store, report: Report) -> WornPipeline:
    """The pipeline of the base that belongs to some clothes; raises Refused where it is no longer what its digest says."""
    worn = studio.pipeline(clothes.folder, clothes.base, clothes.rounded, report)
    if digest_base(clothes.folder, store) != clothes.base:
        studio.forget()
        raise Refused(f"the base model {clothes.folder.name} changed while it was loaded", "Try again when nothing writes to it.")
    return worn


def _steer(
    worn: WornPipeline, batch: Sequence[Prepared], adapters: Iterable[tuple[Folded, float]], studio: Studio
) -> list[Steering | None]:
    """The prompts as each picture's own text encoder reads it; each is put on once."""
    found: dict[int, Steering | None] = {}
    trained = [any(name.startswith(TEXT) for name in folded) for folded, _ in adapters]
    names = [(one.clothes.name(one.cell.strength), one.cell.strength) if own else None for one, own in zip(batch, trained, strict=True)]
    for name in dict.fromkeys(names):
        alike = [number for number, other in enumerate(names) if other == name]
        if name is None:
            worn.wear_nothing()
        else:
            dress(worn, batch[alike[0]], studio)
        for number in alike:
            found[number] = _steer_one(worn, batch[number])
            if name is not None and found[number] is None:
                raise Refused("this pipeline's prompts cannot be read beforehand", "Draw it with --exact.")
    return [found[number] for number in range(len(batch))]


def _steer_one(worn: WornPipeline, one: Prepared) -> Steering | None:
    steering = worn.prompts.steer(worn.pipe, worn.reader, one.drawn.prompt, one.drawn.sampling, one.words)
    if one.words and steering is None:
        raise Refused("this pipeline's prompts cannot be read beforehand", "Draw it with a prompt without learned words.")
    return steering


def _of_denoiser(adapters: Iterable[tuple[Folded, float]]) -> list[Worn]:
    """Each picture's adapter without what belongs to the text encoders, which have read the prompts already."""
    adapters, made = list(adapters), {}
    for folded, _ in adapters:
        if id(folded) not in made:
            made[id(folded)] = {name: values for name, values in folded.items() if not name.startswith(TEXT)}
    return [Worn(made[id(folded)], strength) for folded, strength in adapters]
