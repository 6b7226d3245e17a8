"""What the Pick tab shows of a run: a panel for each rule, what they come to together, and what to do next. No widget is known here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from cmp.core.agreeing import agreement, leading, rule_name, sentence, tells_apart
from cmp.core.measured import MEASURED, TRAINING_LOSS, UPDATE, UPDATE_RELATIVE
from cmp.core.picking import HELD_OUT, TRAINING, VOTES, Score, Verdict, candidates, judge, ranked
from cmp.core.runs import Library, Run
from cmp.ui.measured_panels import Known, measured_parts, measured_rules
from cmp.ui.values import Names, run_choices

NO_RUN = "No training run was found. Add the folder that holds yours on the Runs tab."
_LOG_LOSS = "Log a validation loss while you train, by step: it is found by its name, such as val/loss."
_MEASURE = "Measure the loss of every checkpoint on images that were kept out"
_HERE, _NOT_HERE = f"{_MEASURE}.", f"{_MEASURE}: the owner of this dashboard can, under Measure on this tab."
_COUNTED = {VOTES: "votes", MEASURED: "images", TRAINING_LOSS: "images"}  # what stands behind a score
_PAIRED = (
    "bars are each one's own interval; checkpoints are compared {0} by {0}, so that some whose bars overlap are told apart all the same"
)
_VOTE = "Vote on blind pairs of pictures: draw a grid of several checkpoints on the Compare tab, then press Vote."


def pick_value(
    library: Library,
    run: Run | None,
    verdicts: Sequence[Verdict],
    name_of: Names,
    starred: Collection[str] = (),
    read_only: bool = False,
    known: Known = MappingProxyType({}),
) -> dict[str, Any]:
    """What the tab is fed with. `empty` stands in place of everything, `next` where no rule decides."""
    runs = [{"key": key, "label": label} for label, key in run_choices(library, name_of)]
    if run is None or not candidates(run):
        told = NO_RUN if run is None else f"{name_of(run)} has no checkpoint that can be used; the Runs tab says what stands against each."
        return {"runs": runs, "run": run.id if run else "", "empty": told, "panels": [], "picks": [], "next": []}
    labels = {c.id: _label(name_of(c), c.step) for c in candidates(run)}
    lead, both = leading(verdicts), agreement(run, verdicts)
    alone, measured = len(labels) == 1, measured_rules(run, verdicts, known)
    panels = [
        panel(run, verdict, labels, verdict is lead) | _more(run, verdict, labels, measured.get(place), known)
        for place, verdict in enumerate(verdicts)
        if verdict.scores
    ]
    return {
        "runs": runs,
        "run": run.id,
        "name": name_of(run),
        "told": sentence((verdicts[0] if alone else judge(run, None)).reason) if alone or not verdicts else both.told,
        "agree": both.agree,
        "panels": panels,
        "next": [] if alone else next_steps(verdicts, read_only),
        "picks": [{"id": name, "label": label, "star": name in starred} for name, label in labels.items()],
        "pick": _pick(lead, labels),
        "ends": _ends(lead, labels),
        "actions": ["compare", *([] if read_only else ["convert", "star", "measure", "vote", "share"])],
        "vote": f"cmp/vote/{quote(run.id)}",
        "scores": f"cmp/scores/{quote(run.id)}",
        "share": f"cmp/share/{quote(run.id)}",
    }


def _label(name: str, step: int | None) -> str:
    return f"step {name}" if name == str(step) else name


def _pick(lead: Verdict | None, labels: Mapping[str, str]) -> str:
    """What is chosen to begin with: the leader where a rule decides, else the last checkpoint."""
    if lead and lead.scores and (names := [name for name in ranked(lead) if name in labels]):
        return names[0]
    return list(labels)[-1]


def _ends(lead: Verdict | None, labels: Mapping[str, str]) -> list[str]:
    """First and last of the window, as they were trained; without a window, of all."""
    inside = [name for name in labels if not lead or not tells_apart(lead) or name in lead.window]
    return list(dict.fromkeys((inside[0], inside[-1])))


def panel(run: Run, verdict: Verdict, labels: Mapping[str, str], leads: bool) -> dict[str, Any]:
    """One rule's chart. Points stand in the order of training; `x` is the step, or where some have none the place in the row."""
    scores = {score.checkpoint_id: score for score in verdict.scores}
    stepped, places = _places(run, verdict, labels)
    shaded = tells_apart(verdict)
    points = []
    for c in (c for c in candidates(run) if c.id in scores):
        score = scores[c.id]
        told = {"id": c.id, "label": labels[c.id], "x": places[c.id][1], "value": score.value, "n": score.n}
        told |= {"low": score.low, "high": score.high, "window": shaded and c.id in verdict.window, "best": c.id == verdict.best}
        points.append(told)
    return {
        "rule": verdict.rule,
        "name": rule_name(verdict.rule, begins=True),
        "metric": verdict.scores[0].metric,
        "better": "" if verdict.scores[0].metric in (UPDATE, UPDATE_RELATIVE) else _better(verdict.scores),
        "sentence": sentence(verdict.reason),
        "warnings": list(verdict.warnings),
        "decides": verdict.decides,
        "leads": leads,
        "base": verdict.base,
        "stepped": stepped,
        "counts": _COUNTED.get(verdict.rule, "values"),
        "means": verdict.rule == TRAINING,  # of what was logged since the checkpoint before; else of a checkpoint alone
        "points": points,
        "unknown": [labels[name] for name in verdict.unknown if name in labels],
    }


def _places(run: Run, verdict: Verdict, labels: Mapping[str, str]) -> tuple[bool, dict[str, tuple[str, int]]]:
    """Whether the points of a chart stand at their steps, and each one's label and place along x."""
    scored = {score.checkpoint_id for score in verdict.scores}
    known = [c for c in candidates(run) if c.id in scored]
    stepped = all(c.step is not None for c in known) and len({c.step for c in known}) == len(known)
    return stepped, {c.id: (labels[c.id], c.step if stepped and c.step is not None else place) for place, c in enumerate(known)}


def _more(run: Run, verdict: Verdict, labels: Mapping[str, str], metric: str | None, known: Known) -> dict[str, Any]:
    """What a panel shows beside its chart where its metric was measured."""
    if metric is None:
        return {"limits": [], "bands": [], "blocks": [], "gap": None}
    parts = measured_parts(run, metric, known, _places(run, verdict, labels)[1])
    told = [_PAIRED.format(parts["counts"].removesuffix("s"))] if tells_apart(verdict) and _overlap(verdict) else []
    return parts | {"warnings": told + [text for text in verdict.warnings if text not in parts["limits"]]}  # each is said once


def _overlap(verdict: Verdict) -> bool:
    """Whether the interval of one that is worse reaches into that of the leader, as if it could not be told from it."""
    lead = next((score for score in verdict.scores if score.checkpoint_id == verdict.window[0]), None)
    others = [score for score in verdict.scores if score.checkpoint_id not in verdict.window]
    if lead is None or lead.low is None or lead.high is None:
        return False
    return any(one.low is not None and one.high is not None and one.low <= lead.high and lead.low <= one.high for one in others)


def _better(scores: Sequence[Score]) -> str:
    """Whether lower or higher is better, by how far the others are behind the leader; "" where all are equal."""
    lead = next((score for score in scores if score.behind[0] == 0), None)
    other = next((score for score in scores if lead and score.behind[0] > 0 and score.value != lead.value), None)
    return "" if lead is None or other is None else "lower" if other.value > lead.value else "higher"


def next_steps(verdicts: Sequence[Verdict], read_only: bool = False) -> list[dict[str, str]]:
    """What would tell more, and what of the tab does it; nothing where a rule tells checkpoints apart."""
    if any(map(tells_apart, verdicts)):
        return []
    rules = {verdict.rule for verdict in verdicts}
    measure = {"text": _NOT_HERE, "do": ""} if read_only else {"text": _HERE, "do": "measure"}
    losses = [] if rules & {MEASURED, HELD_OUT} else [measure, {"text": _LOG_LOSS, "do": ""}]
    return [*losses, {"text": _VOTE if VOTES not in rules else "Cast more votes: press Vote.", "do": ""}]
