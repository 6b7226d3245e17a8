"""Pictures that a trainer drew while it trained: where each one lies, and at which step it was drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cmp.core.curves import LossCurve
    from cmp.core.runs import Checkpoint, Setting

AFTER_LOG = 3600  # seconds behind the last logged value in which a picture may still have been drawn
FINAL_VARIANT = "final"  # drawn with the weights that the run ended with
# what trainers are told of how many batches an epoch has, and how many of them make a step
_BATCHES, _ACCUMULATION = "num_batches_per_epoch", "gradient_accumulation_steps"
_COUNTS_EPOCHS = ("validation", "test")  # what diffusers' scripts call their pictures, and number by the epoch
_NUMBERED_TAG = re.compile(r"sample(?P<prompt>[0-9]{1,9}) - (?P<text>.*)", re.ASCII | re.DOTALL)  # OneTrainer's
_MOST_ACROSS = 8  # pictures that torch's writer puts side by side before it begins a new line


@dataclass(frozen=True, slots=True)
class Within:
    """A picture inside a log: `size` bytes from byte `at` on. `tile` is (which, columns, rows) where it is one of several that were
    put side by side.
    """

    at: int
    size: int
    tile: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture that the trainer drew: at `step`, for its prompt number `prompt`, `image` counting the pictures of one prompt.

    `step_source` is what says the step, None where the picture's own name does. `text` is the prompt where the trainer left it beside
    the pictures. `variant` tells apart what was drawn of the same prompt and step in another way. `within` is None for a file that is
    the picture itself.
    """

    path: Path
    step: int | None
    prompt: int = 0
    image: int = 0
    epoch: int | None = None
    step_source: str | None = None
    text: str | None = None
    variant: str = ""
    within: Within | None = None

    @property
    def place(self) -> tuple[int | None, int | None, int, str, int]:
        """What no two pictures of a run share."""
        return (self.step, self.epoch if self.step is None else None, self.prompt, self.variant, self.image)


def placed(samples: Iterable[Sample], checkpoints: Iterable[Checkpoint], settings: Mapping[str, Setting]) -> tuple[Sample, ...]:
    """Those that were counted by epochs with the step that the epoch ended at, as far as anything tells it."""
    ends: dict[int, tuple[int, str]] = {}
    for c in checkpoints:
        if c.epoch is not None and c.step is not None:
            ends.setdefault(c.epoch, (c.step, f"the checkpoint of epoch {c.epoch}"))
    length, source = _epoch_length(settings, ends)

    def stepped(sample: Sample) -> Sample:
        if sample.step is not None or sample.epoch is None:
            return sample
        if told := ends.get(sample.epoch):
            return replace(sample, step=told[0], step_source=told[1])
        return replace(sample, step=sample.epoch * length, step_source=source) if length else sample

    return tuple(map(stepped, samples))


def _epoch_length(settings: Mapping[str, Setting], ends: Mapping[int, tuple[int, str]]) -> tuple[int, str]:
    """The steps of an epoch, 0 if nothing tells them, and what tells them."""
    batches, accumulation = (_count(settings, name) for name in (_BATCHES, _ACCUMULATION))
    if batches:
        length = math.ceil(batches / (accumulation or 1))
        return length, f"{length} steps an epoch, by {_BATCHES}"
    lengths = {step / epoch for epoch, (step, _) in ends.items() if epoch}
    if len(lengths) == 1 and (only := lengths.pop()).is_integer():
        return int(only), f"{int(only)} steps an epoch, by the checkpoints"
    return 0, ""


def _count(settings: Mapping[str, Setting], name: str) -> int:
    value = settings[name].value if name in settings else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9 else 0


def placed_by_time(samples: Iterable[Sample], written: Mapping[Path, float], loss: LossCurve | None) -> tuple[Sample, ...]:
    """Those without a step with the last one that was logged when the file was written; `written` are Unix seconds.

    A file that was written before or long after the log, as a copied one is, says nothing.
    """
    times = loss.wall_times if loss is not None else None
    if loss is None or times is None or not times.size or not bool((np.diff(times) >= 0).all()):
        return tuple(samples)

    def stepped(sample: Sample) -> Sample:
        when = written.get(sample.path)
        if sample.step is not None or when is None or not times[0] <= when <= times[-1] + AFTER_LOG:
            return sample
        step = int(loss.steps[int(np.searchsorted(times, when, side="right")) - 1])
        return replace(sample, step=step, step_source="the step that was logged last when the file was written")

    return tuple(map(stepped, samples))


def apart(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """All of them with places of their own: of two at the same place, as a training that was resumed leaves them, the last counts as
    the picture, and those before it follow it under the next free numbers.
    """
    taken: set[object] = set()
    out: list[Sample] = []
    for sample in reversed(samples):
        while sample.place in taken:
            sample = replace(sample, image=sample.image + 1)
        taken.add(sample.place)
        out.append(sample)
    return tuple(reversed(out))


def dated(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Those of which at least the epoch is known."""
    return tuple(sample for sample in samples if sample.step is not None or sample.epoch is not None)


@dataclass(frozen=True, slots=True)
class Logged:
    """A picture of a log: `step` as the log has it, `reached` the step of the last number logged before it, None for none."""

    tag: str
    step: int
    reached: int | None
    wall_time: float
    width: int
    height: int
    within: Within


def from_log(path: Path, pictures: Iterable[Logged], settings: Mapping[str, Setting]) -> tuple[Sample, ...]:
    """The pictures of one log. What diffusers' scripts number by the epoch stands at the step that was logged last before it."""
    several = _count(settings, "num_validation_images")
    tags: dict[str, int] = {}
    earlier: dict[tuple[str, float], int] = {}
    out: list[Sample] = []
    for told in pictures:
        plain = told.tag in _COUNTS_EPOCHS
        numbered = _NUMBERED_TAG.fullmatch(told.tag)
        prompt = 0 if plain else int(numbered["prompt"]) if numbered else tags.setdefault(told.tag, len(tags))
        text = None if plain else numbered["text"] if numbered else told.tag
        by_epoch = plain and told.reached is not None and told.step < told.reached
        step = told.reached if by_epoch else told.step
        source = f"the last step logged before it; the log numbers it by its epoch, {told.step}" if by_epoch else "the log"
        variant = FINAL_VARIANT if told.tag == "test" else ""
        # ControlNet's script puts the picture that guides in front of each prompt's
        for tile in _tiles(told, several if plain or not several else several + 1):
            image = earlier.get((told.tag, told.wall_time), 0)
            earlier[(told.tag, told.wall_time)] = image + 1
            within = replace(told.within, tile=tile)
            out.append(Sample(path, step, prompt, image, told.step if by_epoch else None, source, text, variant, within))
    return tuple(out)


def _tiles(told: Logged, count: int) -> list[tuple[int, int, int] | None]:
    """Which parts of it are pictures of their own, as torch's writer joins them; [None] for one that is whole."""
    if not 1 < count <= 256:
        return [None]
    across, down = min(count, _MOST_ACROSS), math.ceil(count / _MOST_ACROSS)
    whole = not (told.width and told.height) or told.width % across or told.height % down
    return [None] if whole else [(i, across, down) for i in range(count)]
