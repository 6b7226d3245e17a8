"""Metrics of drawn pictures: what models see of them, made into values of the same items for every checkpoint and the base model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cmp.core.curves import Floats
from cmp.core.evidence import BASE
from cmp.core.image_scores import (
    CLIP,
    CMMD,
    DIVERSITY,
    FEWEST_CMMD,
    IDENTITY,
    KINDS,
    LEAK,
    NEAR,
    NEAREST,
    References,
    clip_scores,
    cmmd_interval,
    cmmd_items,
    diversity,
    identity_scores,
    leak_scores,
    names_any,
    nearest_scores,
    preference_scores,
    reference_set,
    usual_nearness,
)
from cmp.core.measured import Measured, NotMeasured
from cmp.core.present import counted, shortened
from cmp.core.progress import Progress
from cmp.core.score_asking import OF_PROMPTS
from cmp.core.score_items import Picture, Shown, drawing_hint
from cmp.disk.labelled import LabelledFolder
from cmp.engine.embedding import Eye
from cmp.errors import BadInput, NotFound, Refused, Unreadable

REVISION = "1"  # raised by every change of ours that changes scores
_SHOWN = 3  # near-duplicates of a checkpoint, or prompts, that are told one by one


class _Valued(NamedTuple):
    """Values, what is to be known of them, and their items where these are not the pictures."""

    values: Floats
    told: tuple[str, ...] = ()
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scorer:
    """One metric on one choice of pictures. `weights` are the digests of the checkpoints, by id; `images` what is compared with, None for
    a metric that needs none; `words` call up the subject.
    """

    metric: str
    shown: Shown
    eye: Eye
    weights: Mapping[str, str]
    base: str
    images: LabelledFolder | None = None
    words: tuple[str, ...] = ()

    @property
    def items(self) -> Shown:
        """The pictures that count for this metric; raises Refused without any."""
        every, lacking = range(len(self.shown.items)), None
        if self.metric in OF_PROMPTS:
            kept = [i for i in every if self.shown.items[i].prompt]
            told = "these pictures of the trainer's tell no prompts, and each is scored with its own"
        elif self.metric == LEAK:
            without = [i for i in every if (prompt := self.shown.items[i].prompt) and not names_any(prompt, self.words)]
            kept = [i for i in without if self.shown.bases[i] is not None]
            told = f"every prompt names {' or '.join(self.words)}, and leak shows on prompts without"
            if without:
                told, lacking = "the base model's pictures of these prompts and seeds are not there", self.shown.only(without)
        else:
            kept, told = list(every), "there are no pictures"
        if not kept:
            raise Refused(told, drawing_hint(self._run, lacking, base=True))
        return self.shown if len(kept) == len(every) else self.shown.only(kept)

    @property
    def _run(self) -> str:
        return next(iter(self.weights)).rpartition("@")[0]

    def setup(self) -> str:
        """The digest of all that decides the values beside weights, base and the pictures themselves."""
        names = [item.name for item in self.items.items]
        images = [image.digest for image in self.images.images] if self.images else []
        told = [REVISION, self.metric, self.eye.digest, self.shown.source, self.shown.way.words, sorted(images), names, NEAR]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def score(self) -> Generator[Progress, None, tuple[Measured | NotMeasured, ...]]:
        """One result of each checkpoint, and of the base model where its pictures are there; raises what stands against all."""
        shown = self._checked(self.items)
        owners = dict(shown.pictures)
        if shown.base is not None and self.metric != LEAK:
            owners[BASE] = shown.base
        others, factor = yield from self._others(shown)
        references = reference_set(others) if self.metric == CMMD else None
        common, found = (*shown.told, *self._common(shown, others)), list[Measured | NotMeasured]()
        for name, pictures in owners.items():
            try:
                rows = yield from self.eye.look(pictures, f"pictures of {'the base model' if name == BASE else name}")
            except (Unreadable, NotFound) as fault:  # one of its pictures is damaged, or has gone
                found.append(NotMeasured(self.metric, name, fault))
            else:
                found.append(self._measured(name, self._values(shown, rows, others, factor, references), shown, common))
        lost = [one for one in found if isinstance(one, NotMeasured)]
        if len(lost) == len(found):
            raise lost[0].error
        return tuple(found)

    def _measured(self, name: str, valued: _Valued, shown: Shown, common: Sequence[str]) -> Measured:
        names = [item.name for item in shown.items]
        whose = "base model" if name == BASE else _key(name)
        return Measured(
            self.metric, name, "" if name == BASE else self.weights[name], self.base, self.setup(), valued.items or tuple(names),
            valued.values.reshape(-1, 1), lower_is_better=KINDS[self.metric].lower_is_better,
            told=(*common, *(f"{whose}: {text}" for text in valued.told)),
        )  # fmt: skip

    def _checked(self, shown: Shown) -> Shown:
        count = len(shown.items)
        if self.metric == CMMD and (count < FEWEST_CMMD or len(self._images.images) < 2):
            told = f"CMMD of {counted(count, 'picture')} and {counted(len(self._images.images), 'reference image')} cannot be told"
            raise BadInput(told, f"It needs {FEWEST_CMMD} pictures and 2 images at least, and says little below some hundred.")
        groups = [item.group for item in shown.items]
        if self.metric == DIVERSITY and len(set(groups)) == len(groups):
            raise BadInput("no prompt was drawn with two seeds, so that nothing is known of diversity", drawing_hint(self._run))
        return shown

    @property
    def _images(self) -> LabelledFolder:
        if self.images is None:
            raise ValueError(f"{self.metric} is measured against images")
        return self.images

    def _others(self, shown: Shown) -> Generator[Progress, None, tuple[Floats, float]]:
        """What pictures are compared with: their prompts' rows, the base's pictures, or the images given; and the model's own factor."""
        if self.metric in OF_PROMPTS:
            rows = yield from self.eye.read([item.prompt or "" for item in shown.items])
            return rows, 0.0 if self.metric == CLIP else self.eye.logit_scale()
        if self.metric == LEAK:
            return (yield from self.eye.look(shown.base or (), "pictures of the base model")), 0.0
        if self.metric == DIVERSITY:
            return np.zeros((0, 0)), 0.0
        pictures = [Picture(Path(image.path).resolve()) for image in self._images.images]
        return (yield from self.eye.look(pictures, f"images in {self._images.folder.name}")), 0.0

    def _values(self, shown: Shown, rows: Floats, others: Floats, factor: float, references: References | None) -> _Valued:
        if self.metric in OF_PROMPTS:
            return _Valued(clip_scores(rows, others) if self.metric == CLIP else preference_scores(rows, others, factor))
        if references is not None:
            low, high = cmmd_interval(rows, references)
            return _Valued(cmmd_items(rows, references), (f"with references drawn anew too CMMD lies at {low:.3g} to {high:.3g} (95 %)",))
        if self.metric == LEAK:
            return _Valued(leak_scores(rows, others))
        if self.metric == IDENTITY:
            return _Valued(identity_scores(rows, others))
        if self.metric == NEAREST:
            values, which = nearest_scores(rows, others)
            place = int(np.nanargmax(values)) if np.isfinite(values).any() else 0
            image = self._images.images[which[place]].name
            return _Valued(values, (f"nearest is {shortened(shown.items[place].name, 80)} to {image}, {values[place]:.3f}",))
        return self._diversity(shown, rows)

    def _diversity(self, shown: Shown, rows: Floats) -> _Valued:
        found = diversity(rows, [item.group for item in shown.items])
        near = sorted(((cosine, i, j) for one in found for i, j, cosine in one.near), reverse=True)
        pairs = counted(sum(one.pairs for one in found), "pair")
        alike = [f"{shown.items[i].name} and {shown.items[j].mark} ({cosine:.3f})" for cosine, i, j in near[:_SHOWN]]
        listed = f"{'; '.join(alike)}{' …' if len(near) > _SHOWN else ''}"
        told = (f"{counted(len(near), 'near-duplicate')} among {pairs} (cosine {NEAR:g} or more): {listed}",) if near else ()
        first = {item.group: replace(item, mark="").name.removesuffix(" · ") for item in reversed(shown.items)}
        names = tuple(first[one.group] or one.group.partition("\0")[0] for one in found)
        return _Valued(np.array([one.value for one in found]), told, names)

    def _common(self, shown: Shown, others: Floats) -> tuple[str, ...]:
        """What is to be known of all checkpoints' values alike."""
        told = [f"seen by {self.eye.model.name}"]
        if self.metric in OF_PROMPTS and self.eye.cut:
            first = shortened(self.eye.cut[0], 60)
            told.append(
                f"{counted(len(self.eye.cut), 'prompt')} longer than the model reads, of which the beginning counts alone: {first!r}"
            )
        if self.metric == NEAREST and (usual := usual_nearness(others)) is not None:
            told.append(f"a training image itself lies at {usual:.3f} from the nearest of the others (median)")
        if self.metric == LEAK:
            prompts = dict.fromkeys(item.prompt for item in shown.items)
            listed = ", ".join(repr(shortened(str(prompt), 60)) for prompt in list(prompts)[:_SHOWN])
            told.append(f"prompts without {' or '.join(self.words)}: {listed}{' …' if len(prompts) > _SHOWN else ''}")
        against = [f"measured against {counted(len(self.images.images), 'image')} in {self.images.folder}"] if self.images else []
        return (*against, *told)


def _key(name: str) -> str:
    key = name.rpartition("@")[2]
    return f"step {key}" if key.isdigit() else key
