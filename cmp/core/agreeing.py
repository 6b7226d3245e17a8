"""What several rules say of a run's checkpoints together: where they agree, and that they do not where that is so."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from cmp.core.curves import LossCurve, is_epoch_axis
from cmp.core.evidence import BASE, Evidence, direction_of, held_out_tags, words_of
from cmp.core.measured import TRAINING_LOSS, UPDATE
from cmp.core.packing import harmless
from cmp.core.picking import HELD_OUT, MEASURED, TRAINING, VOTES, Verdict, candidates, evidence_in_logs
from cmp.core.runs import Run
from cmp.errors import BadInput, NotFound

_FIRM = (MEASURED, HELD_OUT, VOTES)  # no other score is to be gone by alone: along the steps one kind of quality grows and another is lost
_NAMES = {
    MEASURED: "measured held-out loss", HELD_OUT: "held-out loss", TRAINING: "training loss", VOTES: "votes",
    TRAINING_LOSS: "measured training loss",
}  # fmt: skip
_MOST_TAGS = 12  # that are judged beside the losses


@dataclass(frozen=True, slots=True)
class Agreement:
    """`agree` is None where that cannot be said; `common` are those that every rule which tells checkpoints apart has chosen."""

    told: str
    agree: bool | None = None
    common: tuple[str, ...] = ()


def rule_name(rule: str, *, begins: bool = False) -> str:
    """What people call a rule, also where a sentence begins; a tag is called what it was logged as."""
    return _upper(_NAMES.get(rule, rule)) if begins else _NAMES.get(rule, rule)


def tells_apart(verdict: Verdict) -> bool:
    """Whether a rule that may decide holds any checkpoint for worse."""
    return verdict.decides and len(verdict.window) < len(verdict.scores)


def every_evidence(run: Run, curves: Sequence[LossCurve]) -> tuple[tuple[Evidence, float | None], ...]:
    """What each rule finds in the logs, and what the base model has there: of the held-out loss, the training loss, which never decides,
    and every metric whose name says what is better.
    """
    tags = [curve.tag for curve in curves]
    found: list[tuple[Evidence, float | None]] = []
    for rule in (HELD_OUT, TRAINING, *[tag for tag in tags if _is_metric(tag)][:_MOST_TAGS]):
        with suppress(NotFound, BadInput):
            if (one := evidence_in_logs(run, curves, rule)) and rule == TRAINING:
                found.append((replace(one, decides=False), None))
            elif one:
                own = [curve for curve in curves if curve.tag == one.metric]
                found.append((one, base_in(evidence_in_logs(run, own, rule, base=True))))
    return tuple(found)


def base_in(found: Evidence | None) -> float | None:
    """What the base model has in evidence that may know of it."""
    return float(found.values[found.ids.index(BASE)]) if found and BASE in found.ids else None


def _is_metric(tag: str) -> bool:
    if is_epoch_axis(tag) or held_out_tags([tag]) or any(word.endswith("loss") for word in words_of(tag)):
        return False
    try:
        direction_of(tag)
    except BadInput:
        return False
    return True


def leading(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The one to go by, of held-out loss and votes: the first that tells checkpoints apart, else the first that may decide."""
    deciding = [verdict for verdict in verdicts if verdict.decides and verdict.rule in _FIRM]
    return next(filter(tells_apart, deciding), deciding[0] if deciding else None)


def told_by(verdict: Verdict) -> str:
    """Rule and reason in one sentence."""
    return f"{_upper(rule_name(verdict.rule))}: {verdict.reason}."


def sentence(reason: str) -> str:
    """A verdict's reason as a sentence of its own: checkpoints and rules begin with a capital, what was logged stays as it is."""
    begins = ("step ", "final ", "epoch-", "save-", "it ", "no two ", f"{UPDATE} ", f"{UPDATE}-", *_NAMES.values())
    return f"{reason[:1].upper()}{reason[1:]}." if reason.startswith(begins) else f"{reason}."


def agreement(run: Run, verdicts: Sequence[Verdict]) -> Agreement:
    """What the verdicts of all rules come to. Rules agree on what all of them chose, and disagree where one rules out all that another
    chose; where they only judged different checkpoints neither is so.
    """
    order = [c.id for c in candidates(run)]
    telling = [verdict for verdict in verdicts if tells_apart(verdict)]
    silent = [rule_name(verdict.rule) for verdict in verdicts if verdict.decides and not tells_apart(verdict)]
    if not telling:
        told = (
            f"{_upper(_listed(silent))} cannot tell any checkpoint from another."
            if silent
            else "No verdict yet: nothing that was logged or measured decides."
        )
        return Agreement(told, None, tuple(order))
    common = tuple(name for name in order if all(name in verdict.window for verdict in telling))
    rest = f" {_upper(_listed(silent))} cannot tell any apart." if silent else ""
    says = [f"{rule_name(v.rule)} {'say' if v.rule == VOTES else 'says'} {steps_text(v.window, order)}" for v in telling]
    if len(telling) == 1:
        return Agreement(f"{_upper(says[0])}.{rest}", None, common)
    if common:
        who = "All rules" if not silent else _upper(_listed([rule_name(verdict.rule) for verdict in telling]))
        return Agreement(f"{who} agree on {steps_text(common, order)}.{rest}", True, common)
    apart = any(set(one.window) <= _worse(other) for one in telling for other in telling)
    why = "they disagree" if apart else "they judged different checkpoints"
    return Agreement(f"{_upper(', '.join(says))}: {why}.{rest}", False if apart else None)


def _worse(verdict: Verdict) -> set[str]:
    return {score.checkpoint_id for score in verdict.scores} - set(verdict.window)


def verdicts_json(run: Run, verdicts: Sequence[Verdict]) -> dict[str, object]:
    """All verdicts as `best` tells each, and what they come to together."""
    both = agreement(run, verdicts)
    told = {"run": run.id, "told": both.told, "agree": both.agree, "common": list(both.common)}
    return told | {"verdicts": [verdict.as_json(run) for verdict in verdicts]}


def scores_table(run: Run, verdicts: Sequence[Verdict]) -> list[list[str]]:
    """A head and a row for each score of each rule; texts that no spreadsheet takes for formulas."""
    steps = {c.id: c.step for c in run.checkpoints}
    rows = [["rule", "metric", "checkpoint", "step", "value", "low", "high", "n", "window", "best"]]
    for verdict in verdicts:
        for score in verdict.scores:
            inside = "yes" if verdict.decides and score.checkpoint_id in verdict.window else ""
            numbers = [steps.get(score.checkpoint_id), score.value, score.low, score.high, score.n]
            told = ["" if number is None else str(number) for number in numbers]
            best = "yes" if score.checkpoint_id == verdict.best else ""
            rows.append([harmless(text) for text in (verdict.rule, score.metric, score.checkpoint_id, *told, inside, best)])
    return rows


def steps_text(ids: Sequence[str], order: Sequence[str]) -> str:
    """`step 500`; `steps 500–1500` where there is none between that is not meant; else one after the other."""
    places = sorted(order.index(name) for name in ids if name in order)
    keys = [order[place].rpartition("@")[2] for place in places]
    if not all(key.isdigit() for key in keys):
        return ", ".join(f"step {key}" if key.isdigit() else key for key in keys)
    if len(keys) > 1 and places[-1] - places[0] == len(places) - 1:
        return f"steps {keys[0]}–{keys[-1]}"
    return f"step{'s' if len(keys) > 1 else ''} {', '.join(keys)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _upper(text: str) -> str:
    """A sentence begins with a capital; a logged tag stays as it is written."""
    return text[:1].upper() + text[1:] if text.startswith(tuple(_NAMES.values())) else text
