"""What is told of measured values, the same by the command line, over REST and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cmp.core.evidence import BASE, Evidence
from cmp.core.image_scores import KINDS, Kind, limits_of
from cmp.core.measured import (
    LOSS,
    TRAINING_LOSS,
    UPDATE,
    UPDATE_RELATIVE,
    WHOLE,
    BandScore,
    Gap,
    Measured,
    MeasurePlan,
    NotMeasured,
    by_band,
    evidence_of,
    gaps_of,
)
from cmp.core.pace import duration_text
from cmp.core.picking import Verdict, candidates, score_json, verdict_of
from cmp.core.present import counted
from cmp.core.runs import Run

BY_BLOCK = (UPDATE, UPDATE_RELATIVE)
_TOGETHER = {LOSS: (LOSS, TRAINING_LOSS), UPDATE: (UPDATE, UPDATE_RELATIVE)}
Known = Mapping[str, tuple[Measured, ...]]


def only_asked(known: Mapping[str, tuple[Measured, ...]], metrics: Iterable[str]) -> dict[str, tuple[Measured, ...]]:
    """What is known of the metrics that were asked for."""
    wanted = [one for metric in metrics for one in _TOGETHER.get(metric, (metric,))]
    return {metric: known[metric] for metric in wanted if metric in known}


def kind_of(metric: str) -> Kind | None:
    """What is known of a metric that is no loss."""
    return KINDS.get(UPDATE if metric == UPDATE_RELATIVE else metric)


def limits_json(metrics: Iterable[str]) -> dict[str, list[str]]:
    """By metric what its scores are known not to say."""
    return {metric: list(limits) for metric in metrics if (limits := limits_of(metric))}


def base_value(metric: str, found: Sequence[Measured]) -> float | None:
    """The base model's own score of a metric that is no share of it; None where there is none."""
    if metric not in KINDS or not any(one.checkpoint_id == BASE for one in found):
        return None
    known = evidence_of([one for one in found if one.checkpoint_id == BASE], [BASE], fewest=1)
    return float(known.values[0]) if known else None


def plan_told(plan: MeasurePlan) -> tuple[str, ...]:
    """How much there is to measure, how long it takes, and how small a difference it will show."""
    images = ", ".join(metric if metric == UPDATE else f"{metric} on {counted(count, 'image')}" for metric, count in plan.items)
    known = plan.total - plan.new - len(plan.faults)
    took = "how long it takes the first will tell" if plan.seconds is None else duration_text(plan.seconds, about=True)
    work = f"{counted(plan.new, 'value')} to measure, {known} known{f', {took}' if plan.new else ''}"
    if not plan.draws:
        return (f"{images}: {work}",)
    seen = "How small a difference can be seen shows once two checkpoints were measured."
    if plan.smallest is not None:
        seen = f"Differences of about {100 * plan.smallest:.2g} % of the base's loss will be seen."
    return f"{images}, {counted(plan.draws, 'draw')} each: {work}", seen


def not_judged(run: Run, known: Known) -> dict[str, str]:
    """By metric of which checkpoints what was measured is not finite, in words."""
    told = {}
    for metric, found in known.items():
        lost = {one.checkpoint_id for one in found if not one.finite}
        if names := [c.id for c in run.checkpoints if c.id in lost]:
            told[metric] = f"{metric} of {', '.join(names)} is not finite, so that it is not judged"
    return told


def verdicts_known(run: Run, known: Known) -> list[tuple[str, Evidence, Verdict]]:
    """By metric; the held-out loss first."""
    ids = [c.id for c in candidates(run)]
    order = sorted(known, key=lambda metric: (metric != LOSS, metric != TRAINING_LOSS, metric))
    found = [(metric, evidence_of(known[metric], ids, fewest=1)) for metric in order]
    return [(metric, one, verdict_of(one, ids)) for metric, one in found if one]


def gaps_known(verdicts: Iterable[tuple[str, Evidence, Verdict]]) -> tuple[Gap, ...]:
    """What was learned by heart, where both losses are among them."""
    by_metric = {metric: one for metric, one, _ in verdicts}
    return gaps_of(by_metric.get(LOSS), by_metric.get(TRAINING_LOSS))


def measures_json(run: Run, known: Known, faults: Sequence[NotMeasured]) -> dict[str, object]:
    """The contract's value of what is known of a run, and of what could not be measured."""
    steps = {c.id: c.step for c in run.checkpoints}
    verdicts = verdicts_known(run, known)
    scores = []
    for metric, _, verdict in verdicts:
        bands = by_band(known[metric])
        for score in verdict.scores:
            scores.append(score_json(score, steps.get(score.checkpoint_id)) | parts_json(metric, bands.get(score.checkpoint_id, ())))
    return {
        "run": run.id,
        "scores": scores,
        "base": [
            {"metric": metric, "n": len(one.items)} | base_json(metric, one)
            for metric, found in known.items()
            for one in found
            if one.checkpoint_id == BASE
        ],
        "gap": [gap.as_json(steps.get(gap.checkpoint_id)) for gap in gaps_known(verdicts)],
        "verdicts": [
            {key: value for key, value in verdict.as_json(run).items() if key not in ("run", "scores")} for _, _, verdict in verdicts
        ],
        "warnings": list(not_judged(run, known).values()),
        "limits": limits_json(known),
        "failed": [fault.as_json() for fault in faults],
    }


def parts_json(metric: str, bands: Sequence[BandScore]) -> dict[str, object]:
    """A score's parts: by timestep, and of sizes by block."""
    if metric not in BY_BLOCK:
        return {"by_timestep": [band.as_json() for band in bands]}
    return {"by_timestep": [], "by_block": [{"block": band.band, "value": band.value} for band in bands if band.band != WHOLE]}


def base_json(metric: str, one: Measured) -> dict[str, object]:
    """The base model's own value: its score, or its loss by timestep, which the shares are shares of."""
    if metric in KINDS:
        return {"value": base_value(metric, [one])}
    means = [float(value) for value in one.values.mean(axis=0)]
    levels = [
        {"timestep": int(band) if band.isdigit() else band, "value": mean if mean - mean == 0 else None}
        for band, mean in zip(one.bands, means, strict=True)
    ]
    return {"loss": levels}
