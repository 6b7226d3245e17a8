"""What was measured on checkpoints: values of the same items for all of them, and what they say.

A value is of one item (an image, or a prompt with a seed) in one band (of timesteps; a metric without bands has one). Bands differ in
size by far more than checkpoints do, so that losses are divided by the base model's mean of each band before any mean over bands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmp.core.comparing import FEWEST_ITEMS, t_quantile
from cmp.core.curves import Floats
from cmp.core.evidence import BASE, Evidence
from cmp.core.present import counted
from cmp.core.runs import Checkpoint
from cmp.errors import CmpError

LOSS, TRAINING_LOSS = "loss", "training-loss"  # the loss on held-out images, and on those that were trained with
MEASURED = "measured"  # the rule that goes by the held-out loss
UPDATE, UPDATE_RELATIVE = "update", "update-relative"  # how far weights have moved: nothing that is better or worse
WITHOUT_BASE = (UPDATE, "leak")  # metrics of which the base model has no value of its own
NAMES_NO_BEST = (TRAINING_LOSS, UPDATE, UPDATE_RELATIVE)
WHOLE = "all"  # a first band that stands for all others, where their mean would not
SETS = {LOSS: "held-out", TRAINING_LOSS: "training"}
_BY_HEART = "the loss on training images goes on falling while a model learns them by heart: it shows that, and names no best"
_OF_BASE, _OF_MEAN = "the base model's", "the mean of all checkpoints"  # what losses are shares of
_TOLD_APART = 1.96 + 0.84  # standard errors: a difference so large is found at 95 % in four of five measurements


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One metric of one checkpoint, or of BASE: `values` are items × bands, float64.

    `weights` is the digest of what was measured ("" for the base model alone), `base` that of the base model, `setup` that of all else
    that decides the values: only what shares `metric`, `base` and `setup` is compared. `relative`: bands are divided by the base's.
    Values that are not finite are kept. What is of a whole set and not of single items comes as the items' jackknife pseudo-values.
    """

    metric: str
    checkpoint_id: str
    weights: str
    base: str
    setup: str
    items: tuple[str, ...]
    values: Floats
    bands: tuple[str, ...] = ("",)
    lower_is_better: bool = True
    relative: bool = False
    told: tuple[str, ...] = ()
    reused: bool = False  # it was measured earlier

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.items), len(self.bands)):
            raise ValueError(f"{self.values.shape} values of {len(self.items)} items in {len(self.bands)} bands")

    @property
    def group(self) -> tuple[str, str, str]:
        """What is compared shares this."""
        return self.metric, self.base, self.setup

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.values).all()) and self.values.size > 0

    @property
    def beside(self) -> bool:
        """Whether it is another side of a value that comes too."""
        return self.metric == UPDATE_RELATIVE

    def named(self, checkpoint_id: str, *, reused: bool = True) -> Measured:
        """The same under the name by which its weights are known now."""
        return replace(self, checkpoint_id=checkpoint_id, reused=reused)


@dataclass(frozen=True, slots=True)
class MeasureSpec:
    """What is to be measured: which metrics of which checkpoints, on which images.

    No checkpoints are all that can be used. `held_out` and `training` are folders of images; LOSS is measured on whichever of the two
    there are. `draws` of noise and timestep an image, other ones for each `seed`. None is as the run was measured last; where it is
    `exactly` so, a folder that is None is none. What other metrics need (which model, which reference) stands in `given`, as names and
    values.
    """

    metrics: tuple[str, ...] = (LOSS,)
    checkpoints: tuple[Checkpoint, ...] = ()
    held_out: Path | None = None
    training: Path | None = None
    draws: int | None = None
    seed: int | None = None
    given: tuple[tuple[str, str], ...] = ()
    exactly: bool = False


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """What of a checkpoint could not be measured, and why."""

    metric: str
    checkpoint_id: str
    error: CmpError

    def as_json(self) -> dict[str, object]:
        return {"checkpoint": self.checkpoint_id, "metric": self.metric, **self.error.as_json()}


@dataclass(frozen=True, slots=True)
class MeasurePlan:
    """What measuring would do: `new` values (one a checkpoint and metric) of `total`; the rest is known.

    `seconds` None: nothing says how long it takes. `smallest` is the smallest difference, as a share of the base's loss, that will be
    found in four of five measurements; None where nothing is known of how much images differ. `faults` are what cannot be measured.
    """

    metrics: tuple[str, ...]
    total: int
    new: int
    items: tuple[tuple[str, int], ...] = ()  # per metric
    draws: int = 0
    seconds: float | None = None
    smallest: float | None = None
    faults: tuple[NotMeasured, ...] = ()
    told: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        return {
            "metrics": list(self.metrics), "values": self.total, "new": self.new, "known": self.total - self.new - len(self.faults),
            "items": dict(self.items), "draws": self.draws, "seconds": self.seconds, "smallest_difference": self.smallest,
            "failed": [fault.as_json() for fault in self.faults], "warnings": list(self.told),
        }  # fmt: skip


# -- what values say -------------------------------------------------------------------------------------------------------


def scores_of(one: Measured, levels: Floats, zero: Measured | None) -> Floats:
    """(items, bands): each value as a share of its band's level.

    Where the base model is known an item's share is 1 plus its difference to the base's value of the same item: the mean over items is
    the same, and the scatter is that of the difference alone.
    """
    if not one.relative:
        return one.values
    return one.values / levels if zero is None else 1 + (one.values - zero.values) / levels


def levels_of(found: Sequence[Measured], zero: Measured | None) -> Floats:
    """Each band's level: the base's mean, or without it the mean of all."""
    values = zero.values if zero is not None else np.mean([one.values for one in found], axis=0)
    levels: Floats = values.mean(axis=0)
    return np.where(levels > 0, levels, 1.0)


def evidence_of(found: Iterable[Measured], ids: Sequence[str], *, base: bool = False, fewest: int = 2) -> Evidence | None:
    """What one metric says of checkpoints (`ids`, in their order): None where fewer than `fewest` have finite values.

    With `base` the base model stands among them.
    """
    known = {one.checkpoint_id: one for one in found}
    zero = known.get(BASE)
    usable = zero if zero is not None and zero.finite else None
    names = [name for name in ids if name in known and known[name].finite]
    if len(names) < fewest:
        return None
    first = known[names[0]]
    levels = levels_of([known[name] for name in names], usable)
    names += [BASE] if base and usable is not None else []
    items = np.array([_over_bands(first, scores_of(known[name], levels, usable)) for name in names])
    warnings = [*_told(known, ids), *([_BY_HEART] if first.metric == TRAINING_LOSS else [])]
    if first.relative and usable is None:
        warnings.append("the base model has no finite values here, so that bands are weighed by the mean of all checkpoints")
    return _evidence(first, tuple(names), items, warnings, first.relative and usable is not None)


def _over_bands(first: Measured, scores: Floats) -> Floats:
    found: Floats = scores[:, 0] if first.bands[0] == WHOLE else scores.mean(axis=1)
    return found


def _evidence(first: Measured, names: tuple[str, ...], items: Floats, warnings: Sequence[str], of_base: bool) -> Evidence:
    count = items.shape[1]
    centred = items - items.mean(axis=1, keepdims=True)
    covariance = centred @ centred.T / max(count - 1, 1) / count
    rule = MEASURED if first.metric == LOSS else first.metric
    if count < FEWEST_ITEMS and first.metric not in (UPDATE, UPDATE_RELATIVE):
        warnings = [*warnings, f"{counted(count, 'item')} are too few: nothing is told apart by under {FEWEST_ITEMS}"]
    return Evidence(
        rule, first.metric, first.lower_is_better, names, items.mean(axis=1), covariance, (count,) * len(names),
        count - 1.0 if count >= FEWEST_ITEMS else 0.0, first.metric not in NAMES_NO_BEST, tuple(warnings),
        _floor(first, items, of_base), items, of_base,
    )  # fmt: skip


def _told(known: Mapping[str, Measured], ids: Sequence[str]) -> list[str]:
    told = list(dict.fromkeys(text for name in (*ids, BASE) if name in known for text in known[name].told))
    lost = [_key(name) for name in (*ids, BASE) if name in known and not known[name].finite]
    left = [_key(name) for name in ids if name not in known]
    told += [f"values of {', '.join(lost)} are not all finite, so that they are not judged"] if lost else []
    return told + ([f"not measured: {', '.join(left[:8])}{' …' if len(left) > 8 else ''}"] if left else [])


def _key(name: str) -> str:
    key = name.rpartition("@")[2]
    return f"step {key}" if key.isdigit() else key


def _floor(first: Measured, items: Floats, of_base: bool) -> str:
    smallest = smallest_difference(items)
    if smallest is None or not first.relative:
        return ""
    seen = f"with {counted(items.shape[1], 'image')} differences of {100 * smallest:.2g} % of it can be seen"
    return f"losses are shares of {_OF_BASE if of_base else _OF_MEAN}, and {seen}"


def smallest_difference(items: Floats) -> float | None:
    """The difference between two rows of (checkpoints, items) that is found in four of five measurements; None where nothing tells.

    By the median scatter of the differences between neighbours, which in a run resemble each other most.
    """
    if items.shape[0] < 2 or items.shape[1] < FEWEST_ITEMS:
        return None
    errors = np.diff(items, axis=0).std(axis=1, ddof=1) / math.sqrt(items.shape[1])
    return float(np.median(errors)) * _TOLD_APART * t_quantile(items.shape[1] - 1.0) / t_quantile(None)


# -- bands -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BandScore:
    """A checkpoint's value in one band; `low` and `high` are the 95 % interval of its difference to the base model, None if unknown."""

    band: str
    value: float
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, object]:
        at = int(self.band) if self.band.isdigit() else self.band
        return {"timestep": at, "value": self.value, "low": self.low, "high": self.high}


def by_band(found: Iterable[Measured]) -> dict[str, tuple[BandScore, ...]]:
    """By checkpoint its score in every band, where values are finite; a metric without bands has none."""
    known = {one.checkpoint_id: one for one in found if one.finite}
    if not known or len(next(iter(known.values())).bands) < 2:
        return {}
    zero = known.get(BASE)
    levels = levels_of(list(known.values()), zero)
    return {name: _bands(one, scores_of(one, levels, zero)) for name, one in known.items()}


def _bands(one: Measured, scores: Floats) -> tuple[BandScore, ...]:
    means, count = scores.mean(axis=0), scores.shape[0]
    if count < FEWEST_ITEMS:
        return tuple(BandScore(band, float(mean), None, None) for band, mean in zip(one.bands, means, strict=True))
    wide = scores.std(axis=0, ddof=1) / math.sqrt(count) * t_quantile(count - 1.0)
    rows = zip(one.bands, means, wide, strict=True)
    return tuple(BandScore(band, float(mean), float(mean - w), float(mean + w)) for band, mean, w in rows)


@dataclass(frozen=True, slots=True)
class Gap:
    """By how much more the training loss has fallen below the base's than the held-out loss, with its 95 % interval: what was learned
    by heart, as a share of the base's loss.
    """

    checkpoint_id: str
    value: float
    low: float | None
    high: float | None

    def as_json(self, step: int | None) -> dict[str, object]:
        return {"checkpoint": self.checkpoint_id, "step": step, "value": self.value, "low": self.low, "high": self.high}


def gaps_of(held_out: Evidence | None, training: Evidence | None) -> tuple[Gap, ...]:
    """Held-out minus training loss of each checkpoint of which both are known, each as a share of its own base's; none where one is not."""
    if held_out is None or training is None or not (held_out.of_base and training.of_base):
        return ()
    both = [name for name in held_out.ids if name in training.ids]
    found = []
    for name in both:
        i, j = held_out.ids.index(name), training.ids.index(name)
        value = float(held_out.values[i] - training.values[j])
        freedoms = [one.freedom for one in (held_out, training) if one.freedom is not None]
        if min(freedoms, default=2.0) < 2:
            found.append(Gap(name, value, None, None))
            continue
        error = math.sqrt(float(held_out.covariance[i, i] + training.covariance[j, j]))
        wide = t_quantile(min(freedoms, default=None)) * error
        found.append(Gap(name, value, value - wide, value + wide))
    return tuple(found)
