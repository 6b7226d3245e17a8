"""Picking a checkpoint: scores, the window of those that cannot be told from the best, and the rules by which logs are judged.

A verdict names one best only where all others are worse at 95 %. Training loss names none unless it is asked for: it goes on falling
while a model learns its images by heart, and most of its ups and downs are the random numbers of the batches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmp.core.comparing import Judged, judge_apart, judge_paired, t_quantile
from cmp.core.curves import Floats, LossCurve, is_epoch_axis, loss_tag
from cmp.core.evidence import BASE, Evidence, direction_of, from_means, from_values, held_out_tags
from cmp.core.measured import MEASURED, TRAINING_LOSS
from cmp.core.runs import Checkpoint, Run
from cmp.core.uncertainty import FEWEST
from cmp.errors import BadInput, NotFound

HELD_OUT, TRAINING, VOTES = "held-out", "training", "votes"
RULES = (MEASURED, HELD_OUT, TRAINING, VOTES)
_BY_HEART = "training loss goes on falling while a model learns its images by heart: it says nothing of how good pictures are"
_GATE = re.compile(r"\s*(\S.*?)\s+vs\.?\s+(\S.*?)\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Score:
    """One value of a checkpoint with its 95 % interval, None where that is not known; `n` values, items or votes stand behind it.

    `behind` is by how much it is worse than the leader, with an interval that holds for all of them together.
    """

    checkpoint_id: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    behind: tuple[float, float | None, float | None] = (0.0, None, None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`window` are the checkpoints that cannot be told from the best, the lowest or highest first; `best` is set where it is one alone.

    `unknown` are those of which nothing is known: they may be better than all in the window. Where a rule names no best, `decides` is
    False and all are in the window, whatever their scores.
    """

    best: str | None
    window: tuple[str, ...]
    rule: str
    reason: str
    warnings: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()
    unknown: tuple[str, ...] = ()
    decides: bool = True
    base: float | None = None  # the base model's value, where it is known

    def as_json(self, run: Run) -> dict[str, object]:
        steps = {c.id: c.step for c in run.checkpoints}
        return {
            "run": run.id,
            "rule": self.rule,
            "best": self.best,
            "window": list(self.window),
            "reason": self.reason,
            "warnings": list(self.warnings),
            "unknown": list(self.unknown),
            "base": self.base,
            "scores": [score_json(score, steps.get(score.checkpoint_id)) for score in self.scores],
        }


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether one checkpoint is as good as another: by `worse`, with its 95 % interval, it is worse. `passes` None: that cannot be said."""

    first: str
    second: str
    metric: str
    worse: float
    low: float
    high: float
    passes: bool | None
    told: str

    def as_json(self) -> dict[str, object]:
        told = {"first": self.first, "second": self.second, "metric": self.metric, "worse": self.worse}
        return told | {"low": _known(self.low), "high": _known(self.high), "passes": self.passes, "told": self.told}


def score_json(score: Score, step: int | None) -> dict[str, object]:
    told = {"checkpoint": score.checkpoint_id, "step": step, "metric": score.metric, "value": score.value}
    behind = dict(zip(("value", "low", "high"), score.behind, strict=True))
    return told | {"low": score.low, "high": score.high, "n": score.n, "behind": behind}


# -- rules -----------------------------------------------------------------------------------------------------------------


def candidates(run: Run) -> tuple[Checkpoint, ...]:
    """Those that can be used."""
    return tuple(c for c in run.checkpoints if c.flaw is None)


def evidence_in_logs(
    run: Run, curves: Sequence[LossCurve], by: str | None = None, higher: bool | None = None, base: bool = False
) -> Evidence | None:
    """What the logs say by a rule or tag, without one by the first rule that applies; None where that says nothing of two checkpoints.

    `higher` says whether higher is better, None to go by the tag's name. Raises NotFound for a tag that was never logged and where there
    are no logs, BadInput for a tag of which nobody knows that.
    """
    known = {curve.tag: curve for curve in curves}
    if not known:
        raise NotFound(f"{run.id!r} has no logged values, and nothing else tells its checkpoints apart", "See `python -m cmp curves`.")
    held, training = held_out_tags(tuple(known)), loss_tag(known)
    if by in (None, HELD_OUT):
        found = _held_out(run, [known[tag] for tag in held], base)
        if found or by == HELD_OUT:
            return found
        return _training(run, known[training], named=False) if training else None
    if by == TRAINING:
        if training is None:
            raise NotFound(f"{run.id!r} has no training loss in its logs", f"It has: {', '.join(known)}.")
        return _training(run, known[training], named=True)
    if by not in known:
        raise NotFound(f"{run.id!r} has no curve {by!r}", f"Rules: {', '.join(RULES)}. Tags: {', '.join(known)}.")
    return _by_tag(run, known[str(by)], higher, base)


def _held_out(run: Run, curves: Sequence[LossCurve], base: bool) -> Evidence | None:
    for curve in curves:
        others = [other.tag for other in curves if other is not curve]
        told = [f"there are others: {', '.join(others[:6])}; --by TAG judges by one of them"] if others else []
        found = from_values(curve, candidates(run), HELD_OUT, True, told, base)
        if found:
            return found
    return None


def _training(run: Run, curve: LossCurve, *, named: bool) -> Evidence | None:
    found = from_means(curve, candidates(run), TRAINING, True, [_BY_HEART])
    return replace(found, decides=named) if found else None


def _by_tag(run: Run, curve: LossCurve, higher: bool | None, base: bool) -> Evidence | None:
    if is_epoch_axis(curve.tag):
        raise BadInput(f"{curve.tag} was logged by epochs, which are no steps", "Choose a tag that was logged by steps.")
    lower, told = (not higher, "") if higher is not None else direction_of(curve.tag)
    warnings = [told] if told else []
    steps = sorted({c.step for c in candidates(run) if c.step is not None})
    gap = float(np.median(np.diff(steps))) if len(steps) > 1 else math.inf
    every = float(np.median(np.diff(curve.steps))) if curve.steps.size > 1 else math.inf
    if curve.tag not in held_out_tags([curve.tag]) and gap >= FEWEST * every:
        return from_means(curve, candidates(run), curve.tag, lower, warnings)
    return from_values(curve, candidates(run), curve.tag, lower, warnings, base)


# -- verdicts --------------------------------------------------------------------------------------------------------------


def judge(run: Run, found: Evidence | None, by: str | None = None) -> Verdict:
    """The verdict on what is known of a run's checkpoints; where that is nothing, none of them can be told from another."""
    ids = tuple(c.id for c in candidates(run))
    if not ids:
        raise NotFound(f"{run.id!r} has no checkpoint that can be used", "`python -m cmp list` shows what stands against each.")
    rule = found.rule if found else by or TRAINING
    if len(ids) == 1:
        return Verdict(ids[0], ids, rule, f"{_key(ids[0])} is the only checkpoint, so there is nothing to choose among")
    if found is None:
        told = f"no two checkpoints have enough finite values of {by or 'a loss'} in the logs, so that none can be told from another"
        return Verdict(None, ids, rule, told, unknown=ids)
    return verdict_of(found, ids)


def verdict_of(found: Evidence, ids: Sequence[str], seed: int = 0) -> Verdict:
    """The verdict on evidence about some of `ids`."""
    judged = judge_paired(found.items, found.lower_is_better, seed) if found.items is not None else None
    judged = judged or judge_apart(found.values, found.covariance, found.lower_is_better, found.freedom, seed)
    return _verdict(found, judged, ids)


def verdict_of_items(ids: Sequence[str], values: Floats, metric: str, lower_is_better: bool, rule: str, seed: int = 0) -> Verdict:
    """The verdict on scores of the same items, (checkpoints, items); see judge_paired. A checkpoint without a finite score is left out."""
    finite = [bool(np.isfinite(row).all()) and row.size > 0 for row in values]
    kept = np.asarray(values, dtype=np.float64)[finite]
    judged = judge_paired(kept, lower_is_better, seed)
    lost = [_key(name) for name, fine in zip(ids, finite, strict=True) if not fine]
    warnings = (f"scores of {', '.join(lost)} are not all finite, so that they are not judged",) if lost else ()
    if judged is None:
        return Verdict(None, tuple(ids), rule, f"{metric} has no finite value", warnings, unknown=tuple(ids))
    known = tuple(name for name, fine in zip(ids, finite, strict=True) if fine)
    items = kept.shape[1]
    nothing = np.zeros((len(known), len(known)))
    found = Evidence(rule, metric, lower_is_better, known, kept.mean(axis=1), nothing, (items,) * len(known), warnings=warnings)
    return _verdict(found, judged, known)


def ranked(verdict: Verdict) -> list[str]:
    """The ids of which something is known, the best first."""
    order = {score.checkpoint_id: score.behind[0] for score in verdict.scores}
    return sorted(order, key=lambda name: (name not in verdict.window, order[name])) or list(verdict.window)


def sure_text(run_id: str, verdict: Verdict, taken: Sequence[str]) -> str:
    """How sure it is that these are the best."""
    told = f"best of {run_id}: {', '.join(map(_key, taken))}; {verdict.reason}"
    left = [name for name in verdict.window if name not in taken]
    return f"{told}. {', '.join(map(_key, left))} may be as good" if left else told


def _verdict(found: Evidence, judged: Judged, ids: Sequence[str]) -> Verdict:
    window = tuple(found.ids[i] for i in judged.window)
    unknown = tuple(name for name in ids if name not in found.ids)
    reason = _reason(found, judged, window, "all others of which something is known" if unknown else "all others")
    if not found.decides:
        window, reason = found.ids, found.withheld or _names_none(found, reason)
    scores = tuple(_score(found, judged, i) for i in range(len(found.ids)))
    best = window[0] if len(window) == 1 else None
    return Verdict(best, window, found.rule, reason, found.warnings, scores, unknown, found.decides)


def _names_none(found: Evidence, reason: str) -> str:
    if found.rule in (TRAINING, TRAINING_LOSS):
        return f"{found.rule.removesuffix('-loss')} loss names no best; by it {reason}"
    return f"{found.metric} names no best: it says how far the weights have moved, not whether for the better"


def _score(found: Evidence, judged: Judged, i: int) -> Score:
    low, high, gap_low, gap_high = (_known(values[i]) for values in (judged.low, judged.high, judged.gap_low, judged.gap_high))
    return Score(found.ids[i], found.metric, float(found.values[i]), low, high, found.counts[i], (float(judged.gaps[i]), gap_low, gap_high))


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _reason(found: Evidence, judged: Judged, window: Sequence[str], rest: str) -> str:
    lead = f"{_key(window[0])} has the {'lowest' if found.lower_is_better else 'highest'} {found.metric}"
    lead += f", {found.values[judged.leader]:.4g}"
    worse = [_key(name) for name in found.ids if name not in window]
    others = ", ".join(map(_key, window[1:]))
    if not others:
        told = f"{lead}, and {rest} are worse at 95 %"
    elif not worse:
        told = f"{lead}, but no checkpoint can be told from it at 95 %"
    else:
        told = f"{lead}; {others} cannot be told from it at 95 %, and {', '.join(worse)} {'is' if len(worse) == 1 else 'are'} worse"
    return f"{told}: {found.floor}" if found.floor else told


def _key(name: str) -> str:
    """`step 500` or `final`."""
    key = name.rpartition("@")[2]
    return f"step {key}" if key.isdigit() else key


# -- gates -----------------------------------------------------------------------------------------------------------------


def read_gate(text: str, run: Run) -> tuple[str, str]:
    """The ids in "A vs B", BASE among them; raises BadInput or NotFound."""
    found = _GATE.match(text)
    if not found:
        raise BadInput(f"--gate is {text!r}", 'Write "500 vs 1000", "final vs base" or the like.')
    return _gate_id(found[1], run), _gate_id(found[2], run)


def _gate_id(part: str, run: Run) -> str:
    key = part.removeprefix(f"{run.id}@")
    return BASE if key.casefold() == BASE and all(c.key != key for c in run.checkpoints) else run.checkpoint(key).id


def gate(found: Evidence, first: str, second: str, margin: float = 0.0) -> Gate | None:
    """Whether `first` is better than `second` or worse by no more than `margin`, at 95 %; None where one of them has no value.

    The two were named beforehand, so that the interval is that of one difference.
    """
    if not {first, second} <= set(found.ids):
        return None
    i, j = found.ids.index(first), found.ids.index(second)
    sign = 1 if found.lower_is_better else -1
    worse = sign * float(found.values[i] - found.values[j])
    variance = float(found.covariance[i, i] + found.covariance[j, j] - 2 * found.covariance[i, j])
    unsure = found.freedom is not None and found.freedom < 2
    wide = 0.0 if first == second else math.inf if unsure else t_quantile(found.freedom) * math.sqrt(max(variance, 0))
    low, high = worse - wide, worse + wide
    passes = True if high <= margin else False if low > margin else None
    word = {True: "is as good as", False: "is worse than", None: "cannot be told from"}[passes]
    word = "is better than" if passes and high < 0 else word
    side, size, ends = ("better", -worse, (-high, -low)) if worse < 0 else ("worse", worse, (low, high))
    told = f"{_key(first)} {word} {_key(second)} by {found.metric}: it is {side} by {size:.4g} ({ends[0]:.4g} to {ends[1]:.4g}, 95 %)"
    return Gate(first, second, found.metric, worse, low, high, passes, told)
