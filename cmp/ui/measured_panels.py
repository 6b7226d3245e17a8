"""What the Pick tab shows of a metric that was measured, beside its scores: limits, its course by timestep, what was learned by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cmp.core.evidence import BASE
from cmp.core.image_scores import DIVERSITY, limits_of
from cmp.core.measured import LOSS, MEASURED, TRAINING_LOSS, UPDATE, UPDATE_RELATIVE, WHOLE, Measured, by_band
from cmp.core.measured_told import gaps_known, verdicts_known
from cmp.core.picking import Verdict, candidates
from cmp.core.runs import Run

Known = Mapping[str, tuple[Measured, ...]]
Places = Mapping[str, tuple[str, int]]  # by checkpoint its label, and where it stands along x
_COUNTED = {LOSS: "images", TRAINING_LOSS: "images", DIVERSITY: "prompts", UPDATE: "values", UPDATE_RELATIVE: "values"}


def measured_rules(run: Run, verdicts: Sequence[Verdict], known: Known) -> dict[int, str]:
    """Which verdicts are by what was measured: their metric by their place. A metric may have been logged under the same name; what was
    measured comes first.
    """
    ids = {c.id for c in candidates(run)}
    left = {metric for metric, found in known.items() if sum(one.finite and one.checkpoint_id in ids for one in found) > 1}
    found = {}
    for place, verdict in enumerate(verdicts):
        metric = LOSS if verdict.rule == MEASURED else verdict.rule
        if metric in left:
            left.discard(metric)
            found[place] = metric
    return found


def measured_parts(run: Run, metric: str, known: Known, places: Places) -> dict[str, Any]:
    """What joins a panel's value."""
    return {
        "counts": _COUNTED.get(metric, "pictures"),
        "limits": list(limits_of(metric)),
        "bands": _bands(known[metric], places, "t ") if metric in (LOSS, TRAINING_LOSS) else [],
        "blocks": _bands(known[metric], places) if metric in (UPDATE, UPDATE_RELATIVE) else [],
        "gap": _gap(run, known, places) if metric == LOSS else None,
    }


def _bands(found: Sequence[Measured], places: Places, before: str = "") -> list[dict[str, Any]]:
    """A small chart for each band of timesteps, in shares of the base's loss there, or for each block of the model."""
    by_name = {name: bands for name, bands in by_band(found).items() if name != BASE and name in places}
    charts: dict[str, list[dict[str, Any]]] = {}
    for name in (name for name in places if name in by_name):
        for band in (band for band in by_name[name] if band.band != WHOLE):
            charts.setdefault(band.band, []).append(_point(name, places, band.value, band.low, band.high))
    return [{"name": f"{before}{band}", "points": points} for band, points in charts.items()]


def _gap(run: Run, known: Known, places: Places) -> dict[str, Any] | None:
    both = {metric: known[metric] for metric in (LOSS, TRAINING_LOSS) if metric in known}
    gaps = {gap.checkpoint_id: gap for gap in gaps_known(verdicts_known(run, both))}
    points = [_point(name, places, gaps[name].value, gaps[name].low, gaps[name].high) for name in places if name in gaps]
    return {"name": "gap", "points": points} if len(points) > 1 else None


def _point(name: str, places: Places, value: float, low: float | None, high: float | None) -> dict[str, Any]:
    label, x = places[name]
    return {"id": name, "label": label, "x": x, "value": value, "low": low, "high": high}
