"""The loss of saved checkpoints on fixed images, noise and timesteps. Each is put on the base model and proven as for drawing.

Batches are of one checkpoint: its images and draws fill them as well as other checkpoints' would, and what a checkpoint is measured as
does not depend on its company, to the bit. So a checkpoint that is measured alone later is comparable with all before.
"""

from __future__ import annotations

import gc
import hashlib
import json
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch

from cmp.core.curves import Floats
from cmp.core.draws import Draws
from cmp.core.evidence import BASE
from cmp.core.grids import Cell, Prompt, Sampling
from cmp.core.measured import Measured
from cmp.core.present import counted
from cmp.core.progress import Progress
from cmp.core.runs import Checkpoint
from cmp.disk.bases import native_size
from cmp.disk.labelled import LabelledFolder
from cmp.disk.store import Store
from cmp.engine.batch import load_base, most_at_once
from cmp.engine.denoising import Denoising, check_family, denoising_of, encode, losses
from cmp.engine.device import without_memory
from cmp.engine.dressing import dress
from cmp.engine.lanes import in_lanes
from cmp.engine.pipeline import WornPipeline
from cmp.engine.prepare import Clothes, Prepared, Preparing
from cmp.engine.prompts import Steering
from cmp.engine.record import expect_losses, remember_loss_pace
from cmp.engine.steps import Report, stepping
from cmp.engine.studio import Studio
from cmp.engine.words import Bundled, bundled_words
from cmp.errors import NoSpace, Refused
from cmp.pictures.cropping import cropped, upright_size

_ROWS = 4  # predictions for each picture that could be drawn at once: that has two rows under guidance, and is decoded in the end
_SAME = 0.02  # of the latents' spread: by so much a VAE in half precision is off
_PLAIN = Sampling(guidance=1.0)  # the prompt alone, as in training


@dataclass(slots=True)
class LossMeter:
    """Measures the loss on one folder of images. `gpu` is held while one checkpoint is measured."""

    preparing: Preparing
    studio: Studio
    store: Store
    gpu: threading.Lock
    metric: str
    labelled: LabelledFolder
    draws: Draws
    prediction: str | None = None  # what the run says that it was trained to predict
    _latents: dict[str, tuple[torch.Tensor, tuple[str, ...]]] = field(default_factory=dict)  # by the base's digest

    def prepare(self, checkpoint: Checkpoint | None) -> Generator[Progress, None, Meant]:
        """What is to be measured, known before anything is: raises what stands against it."""
        captions = tuple(image.caption for image in self.labelled.images)
        one = yield from self.preparing.preparing(Cell(checkpoint, Prompt(captions[0]), 0, 1.0, _PLAIN))
        clothes = one.clothes
        check_family(clothes.folder)
        opened = [clothes.ready.opened] if clothes.weights else []
        words = {caption: bundled_words(opened, Prompt(caption), clothes.folder) for caption in dict.fromkeys(captions)}
        images = [(image.digest, image.caption) for image in self.labelled.images]
        width, height = native_size(clothes.folder)
        round_about = self.studio.circumstances(clothes.folder) | {"size": f"{width}x{height}"}
        return Meant(one, _weights(clothes, words.values()), self.draws.setup(images, round_about), words)

    def key(self, meant: Meant) -> tuple[str, str, str, str]:
        """Under what the values are kept."""
        return meant.weights, meant.one.clothes.base, self.metric, meant.setup

    def expect(self, meant: Meant) -> float | None:
        """Seconds that measuring it will take; None where nothing says it."""
        return expect_losses(self.store, self.studio.device.type, meant.one.clothes, self._calls)

    def sizes_told(self, meant: Meant) -> tuple[str, ...]:
        """What is to be known of the images' sizes before any is looked at as a whole; raises Unreadable for what is no picture."""
        width, height = native_size(meant.one.clothes.folder)
        sizes = []
        for image in self.labelled.images:
            found = self.store.remembered("image-size", image.digest, lambda path=image.path: list(upright_size(path)))  # type: ignore[misc]
            sizes.append((int(found[0]), int(found[1])))
        return _other_sizes(self.labelled, sizes, width, height)

    def measure(self, meant: Meant) -> Generator[Progress, None, Measured]:
        """The losses of one checkpoint, or of the base model alone."""
        while not self.gpu.acquire(timeout=0.2):
            yield Progress(0, self._calls, "waiting for another drawing")
        try:
            with closing(stepping(lambda report: self._values(meant, report), self.studio.threads)) as work:
                values, labels, told = yield from work
        finally:
            self.gpu.release()
        checkpoint = meant.one.cell.checkpoint
        name = checkpoint.id if checkpoint else BASE
        items = tuple(image.name for image in self.labelled.images)
        return Measured(
            self.metric, name, meant.weights, meant.one.clothes.base, meant.setup, items, values, labels, relative=True,
            told=(*self.labelled.told, *told),
        )  # fmt: skip

    @property
    def _calls(self) -> int:
        return len(self.labelled.images) * self.draws.total

    def _values(self, meant: Meant, report: Report) -> tuple[Floats, tuple[str, ...], tuple[str, ...]]:
        clothes = meant.one.clothes
        worn = load_base(clothes, self.studio, self.store, report)
        asked = denoising_of(worn)
        if self.prediction not in (None, asked.prediction):
            said = f"the run says that it was trained to predict {self.prediction!r}, and its base's scheduler says {asked.prediction!r}"
            raise Refused(said, "Give the base model that it was trained on, with --base.")
        latents, told = self._encoded(worn, clothes, report)
        dress(worn, meant.one, self.studio, report)
        self._require_same_vae(worn, meant, latents)
        steering = [self._steer(worn, image.caption, meant.words[image.caption]) for image in self.labelled.images]
        began = time.monotonic()
        with in_lanes(worn.denoiser):
            values = self._drawn(worn, asked, latents, steering, _ROWS * self._most(clothes), report)
        remember_loss_pace(self.store, self.studio.device.type, clothes, (time.monotonic() - began) / self._calls)
        return values, self.draws.labels(asked.steps), told

    def _most(self, clothes: Clothes) -> int:
        """Whatever else lies on a card: another batch rounds otherwise in half precision."""
        return most_at_once(self.studio.device, *native_size(clothes.folder), empty=True)

    def _encoded(self, worn: WornPipeline, clothes: Clothes, report: Report) -> tuple[torch.Tensor, tuple[str, ...]]:
        """The latents of all images, encoded once for each base model, and what is to be known of their sizes."""
        if clothes.base not in self._latents:
            worn.wear_nothing()
            pictures, told = _cropped(self.labelled, *native_size(clothes.folder))
            parts, at_once = [], self._most(clothes)
            for start in range(0, len(pictures), at_once):
                report(Progress(0, self._calls, f"encoding {counted(len(pictures), 'image')}"))
                parts.append(encode(worn, pictures[start : start + at_once]))
            self._latents[clothes.base] = torch.cat(parts), told
        return self._latents[clothes.base]

    def _require_same_vae(self, worn: WornPipeline, meant: Meant, latents: torch.Tensor) -> None:
        """Raises Refused where the weights bring a VAE that gives other latents: losses of two spaces are not compared."""
        clothes = meant.one.clothes
        if clothes.weights is None or "vae" not in clothes.ready.opened.weights.components:
            return
        picture, _ = cropped(self.labelled.images[0].path, *native_size(clothes.folder))
        own = encode(worn, picture[None])
        if not torch.allclose(own, latents[:1], rtol=0, atol=_SAME * float(latents[:1].std())):
            raise Refused("it brings a VAE of its own, so that its latents are others than the base's", "Their losses cannot be compared.")

    def _steer(self, worn: WornPipeline, caption: str, words: Bundled | None) -> Steering:
        steering = worn.prompts.steer(worn.pipe, worn.reader, Prompt(caption), _PLAIN, words)
        assert steering is not None  # families without it are refused before
        return steering

    def _drawn(
        self, worn: WornPipeline, asked: Denoising, latents: torch.Tensor, steering: Sequence[Steering], at_once: int, report: Report
    ) -> Floats:
        """(images, bands): the mean over the draws of each band."""
        images, draws = self.labelled.images, self.draws
        places = np.stack([draws.places(image.digest) for image in images])
        values = np.empty(places.shape)
        calls = list(np.ndindex(*places.shape))
        done = 0
        while done < len(calls):
            batch = calls[done : done + at_once]
            report(Progress(done, len(calls), "measuring"))
            noise = [draws.noise(images[i].digest, band, number, latents.shape[1:]) for i, band, number in batch]
            rows, where = [i for i, _, _ in batch], tuple(zip(*batch, strict=True))
            told = {name: torch.cat([steering[i][name] for i in rows]) for name in steering[0]}
            try:
                values[where] = losses(worn, asked, latents[rows], torch.from_numpy(np.stack(noise)), places[where], told)
            except (RuntimeError, MemoryError) as fault:
                at_once = _fewer(fault, len(batch))
                continue
            done += len(batch)
        return values.mean(axis=2)


@dataclass(frozen=True, slots=True)
class Meant:
    """A checkpoint, or the base model alone, that is ready to be measured, with the digests under which its values are kept.

    `words` are by caption those learned ones that came along with the weights, None for a caption without any.
    """

    one: Prepared
    weights: str
    setup: str
    words: Mapping[str, Bundled | None]


def _weights(clothes: Clothes, words: Iterable[Bundled | None]) -> str:
    """The digest of what is worn, "" for the base alone: of the weights, and of what else they change."""
    if clothes.weights is None:
        return ""
    more = {name: value for name, value in clothes.told().items() if name != "base"}
    used = sorted({word.digest for word in words if word})
    return (
        hashlib.sha256(json.dumps([clothes.weights, more, used], sort_keys=True).encode()).hexdigest() if more or used else clothes.weights
    )


def _cropped(labelled: LabelledFolder, width: int, height: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pictures of a folder at one size, and what is to be known of those that had another."""
    found = [cropped(image.path, width, height) for image in labelled.images]
    return np.stack([values for values, _ in found]), _other_sizes(labelled, [had for _, had in found], width, height)


def _other_sizes(labelled: LabelledFolder, sizes: Sequence[tuple[int, int]], width: int, height: int) -> tuple[str, ...]:
    """That images are scaled and cut to the size that the base was made for; nothing where all have it."""
    other = sum(size != (width, height) for size in sizes)
    small = sum(had[0] < width or had[1] < height for had in sizes)
    if not other:
        return ()
    which = f"{other} of {counted(len(sizes), 'image')} in {labelled.folder} {'has' if other == 1 else 'have'} another size"
    told = f"{which} than the base model's {width} × {height}: scaled until they cover it, and cut around the middle"
    return (told + (f"; {small} of them {'is' if small == 1 else 'are'} smaller, and blurred by it" if small else ""),)


def _fewer(fault: RuntimeError | MemoryError, count: int) -> int:
    """How many rows to try next where the memory ran out; raises NoSpace where one was too many, and what is another fault."""
    if not without_memory(fault):
        raise fault
    if count == 1:
        raise NoSpace(f"the memory is not enough: {str(fault)[:200]}", "Measure with CMP_DEVICE=cpu.") from fault
    fault.__traceback__ = None  # it holds what was computed so far
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return count // 2
