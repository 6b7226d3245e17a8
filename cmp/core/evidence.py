"""What the logs say of each checkpoint, and how sure: one value of each, with the errors that they have alone and together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmp.core.curves import Floats, LossCurve, is_epoch_axis
from cmp.core.runs import Checkpoint
from cmp.core.uncertainty import FEWEST, mean_interval
from cmp.errors import BadInput

BASE = "base"  # the base model alone, where it is compared with checkpoints
FEWEST_POINTS = 6  # logged values; how much fewer scatter is not known
_HELD_OUT = frozenset(("val", "valid", "validation", "eval", "evaluation", "heldout", "held", "test"))
_NO_LOSS = frozenset(("divergence", "ratio", "lr", "rate", "gap"))
_WHOLE = (frozenset(("total",)), frozenset(("average", "avg", "mean")))
_LOWER = frozenset(("loss", "mse", "mae", "rmse", "error", "err", "fid", "kid", "lpips", "cmmd", "perplexity", "distance", "nll"))
_HIGHER = frozenset(
    ("accuracy", "acc", "clip", "clipscore", "psnr", "ssim", "reward", "score", "pickscore", "imagereward", "hps", "similarity", "dino")
)
_NEAR = 0.1  # of the distance between logged values: a trainer may log a step before or after it saves
_NORMAL = 1.959964


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One value of each of `ids` (checkpoints, or BASE), and the covariance of their errors.

    `freedom` are the degrees of freedom with which the errors are estimated, None where they are known, 0 where nothing is known of
    them. `counts` says how many logged values, items or votes stand behind each. `decides` is False for what never names a best.
    `of_base`: values are shares of the base model's.
    """

    rule: str
    metric: str
    lower_is_better: bool
    ids: tuple[str, ...]
    values: Floats
    covariance: Floats
    counts: tuple[int, ...]
    freedom: float | None = None
    decides: bool = True
    warnings: tuple[str, ...] = ()
    floor: str = ""  # what noise allows to tell apart, in words
    items: Floats | None = None  # (ids, items) where all have scores of the same items: by these they are judged, in pairs
    of_base: bool = False
    withheld: str = ""  # why no best is named though the metric could


def withheld(found: Evidence, unsettled: Sequence[str]) -> Evidence:
    """The same, but naming no best while others (ids) were measured of which nobody can say whether they still hold those weights."""
    told = f"{found.metric} names no best for now: {why_withheld(unsettled)}; measuring again finds what is known of them"
    return replace(found, decides=False, withheld=told) if unsettled else found


def why_withheld(unsettled: Sequence[str]) -> str:
    """In words why no best is named."""
    keys = [name.rpartition("@")[2] for name in unsettled]
    told = f"{', '.join(keys[:8])}{' …' if len(keys) > 8 else ''}"
    return f"{told} {'was' if len(keys) == 1 else 'were'} measured too, and the files are not those of then"


def held_out_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags of losses on images that were held out, by step, the one that stands for all of them first.

    kohya's `loss/validation/step_average` goes before its `step_current`, which is of a single batch, and OneTrainer's
    `loss/validation_step/total_average` before those of single concepts.
    """
    found = [tag for tag in tags if _is_held_out(tag)]
    return tuple(sorted(found, key=lambda tag: (*(not words_of(tag) & whole for whole in _WHOLE), len(tag), tag)))


def _is_held_out(tag: str) -> bool:
    words = words_of(tag)
    is_loss = any(word.endswith("loss") for word in words)
    held = bool(words & _HELD_OUT) or any(word.removesuffix("loss") in _HELD_OUT for word in words)
    return is_loss and held and not words & _NO_LOSS and not is_epoch_axis(tag)


def words_of(tag: str) -> frozenset[str]:
    return frozenset(filter(None, re.split(r"[^a-z0-9]+", tag.lower())))


def direction_of(tag: str) -> tuple[bool, str]:
    """Whether lower is better by a tag's name, and in words why; raises BadInput where the name does not say."""
    words = words_of(tag)
    lower = sorted(word for word in words if word in _LOWER or word.endswith("loss"))
    higher = sorted(words & _HIGHER)
    if bool(lower) == bool(higher):
        raise BadInput(f"the name {tag!r} does not say whether more of it is better", "Say --higher or --lower.")
    return bool(lower), f"{'lower' if lower else 'higher'} is taken to be better, since {tag} has {(lower or higher)[0]!r} in its name"


def logged_at(curve: LossCurve, steps: Sequence[int]) -> dict[int, float]:
    """Step → the finite value that was logged there, or at the nearest step where that is near."""
    finite = np.isfinite(curve.values)
    at, values = curve.steps[finite], curve.values[finite]
    if not at.size:
        return {}
    near = max(1.0, _NEAR * float(np.median(np.diff(at)))) if at.size > 1 else 1.0
    found = {}
    for step in steps:
        place = int(np.argmin(np.abs(at - step)))
        if abs(int(at[place]) - step) <= near:
            found[step] = float(values[place])
    return found


def scatter(curve: LossCurve) -> tuple[float, float]:
    """Variance of single values around a smooth course, and its degrees of freedom; 0 degrees for under FEWEST_POINTS values.

    Each value is held against the line through its neighbours (Gasser, Sroka and Jennen-Steinmetz 1986). A bent course makes it larger,
    never smaller. Values are logged as 32-bit floats and are not surer than these.
    """
    finite = np.isfinite(curve.values)
    at, values = curve.steps[finite].astype(np.float64), curve.values[finite]
    if values.size < FEWEST_POINTS:
        return 0.0, 0.0
    share = (at[1:-1] - at[:-2]) / (at[2:] - at[:-2])
    left = values[1:-1] - (1 - share) * values[:-2] - share * values[2:]
    found = float(np.mean(left**2 / (1 + share**2 + (1 - share) ** 2)))
    return max(found, (1e-6 * float(np.abs(values).max())) ** 2), (values.size - 2) * 18 / 35


def from_values(
    curve: LossCurve, checkpoints: Sequence[Checkpoint], rule: str, lower: bool, warnings: Sequence[str], base: bool = False
) -> Evidence | None:
    """What single logged values say; None where fewer than two checkpoints have one.

    With `base` what was logged at step 0 is the base model's.
    """
    steps = {c.id: c.step for c in checkpoints if c.step is not None}
    values = logged_at(curve, [*steps.values(), 0])
    rows = [(name, step) for name, step in [*steps.items(), *([(BASE, 0)] if base else [])] if step in values]
    if len(rows) < 2:
        return None
    variance, freedom = scatter(curve)
    told = [*warnings, *_left_out(checkpoints, {name for name, _ in rows}, curve.tag)]
    if freedom:
        told.append(
            f"each is one logged value, taken to scatter by {variance**0.5:.2g} as neighbouring ones do; other images might say otherwise"
        )
    else:
        told.append(f"{curve.values.size} logged values are too few to say how much they scatter, so that nothing is told apart")
    same = np.array([[one == other for _, other in rows] for _, one in rows])
    return Evidence(
        rule, curve.tag, lower, tuple(name for name, _ in rows), np.array([values[step] for _, step in rows]), variance * same,
        (1,) * len(rows), freedom, True, tuple(told),
    )  # fmt: skip


def from_means(curve: LossCurve, checkpoints: Sequence[Checkpoint], rule: str, lower: bool, warnings: Sequence[str]) -> Evidence | None:
    """What the means of the values say that were logged before each checkpoint; None where fewer than two have enough of them."""
    windows = windows_before(curve, sorted({c.step for c in checkpoints if c.step is not None}))
    found = {step: mean_interval(values, seed) for seed, (step, values) in enumerate(windows.items())}
    rows = [(c.id, c.step, one) for c in checkpoints if c.step is not None and (one := found.get(c.step))]
    if len(rows) < 2:
        return None
    errors = np.array([(one.high - one.low) / (2 * _NORMAL) for _, _, one in rows])
    same = np.array([[step == other for _, other, _ in rows] for _, step, _ in rows])
    told = (*warnings, *_left_out(checkpoints, {name for name, _, _ in rows}, curve.tag))
    values = np.array([one.value for _, _, one in rows])
    return Evidence(
        rule, curve.tag, lower, tuple(name for name, _, _ in rows), values, np.outer(errors, errors) * same,
        tuple(one.n for _, _, one in rows), None, True, told, noise_floor(curve, windows, errors),
    )  # fmt: skip


def windows_before(curve: LossCurve, steps: Sequence[int]) -> dict[int, Floats]:
    """The finite values logged since the step before each; equally many of all, so that none is surer only for being further apart."""
    finite = np.isfinite(curve.values)
    at, values = curve.steps[finite], curve.values[finite]
    spans = {}
    before = int(at[0]) - 1 if at.size else 0
    for step in steps:
        low, high = np.searchsorted(at, (before, step), side="right")
        if high - low >= FEWEST and at[high - 1] > step - max(1.0, 0.05 * (step - before)):
            spans[step] = (int(low), int(high))
        before = step
    least = min((high - low for low, high in spans.values()), default=0)
    return {step: values[high - least : high] for step, (_, high) in spans.items()}


def head_name(metric: str) -> str:
    """What a held-out metric is called above a picture: beside the training loss a bare "loss" would say nothing."""
    last = metric.rpartition("/")[2]
    return "held-out" if last.lower().endswith("loss") else last


def noise_floor(curve: LossCurve, windows: Mapping[int, Floats], errors: Floats) -> str:
    """How much single values scatter, how well the means are known, and what it would take to tell the two lowest apart."""
    from cmp.core.uncertainty import points_needed

    variance, _ = scatter(curve)
    level = float(np.mean([values.mean() for values in windows.values()]))
    share = f", {100 * variance**0.5 / abs(level):.2g} % of their level" if level else ""
    count, known = len(next(iter(windows.values()))), _NORMAL * float(np.median(errors))
    told = f"single values scatter by {variance**0.5:.2g}{share}, and a mean of {count} is known to ±{known:.2g}"
    low, next_low = sorted(windows, key=lambda step: float(windows[step].mean()))[:2]
    needed = points_needed(float(windows[next_low].mean() - windows[low].mean()), windows[low], windows[next_low])
    if not needed < 1e9:
        return f"{told}; steps {low:,} and {next_low:,} have the same mean"
    return f"{told}; to tell steps {low:,} and {next_low:,} apart would take about {needed:,.0f} values before each"


def _left_out(checkpoints: Sequence[Checkpoint], known: set[str], tag: str) -> list[str]:
    missing = [c.key for c in checkpoints if c.id not in known]
    shown = f"{', '.join(missing[:8])}{' …' if len(missing) > 8 else ''}"
    return [f"of {shown} nothing is known: {tag} has no usable value there"] if missing else []
