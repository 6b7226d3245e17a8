"""What is typed to have a run measured, and what that would do and has done, in words. No widget is known here."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cmp.core.draws import USUAL_DRAWS
from cmp.core.evidence import BASE
from cmp.core.image_scores import KINDS
from cmp.core.measured import LOSS, UPDATE, UPDATE_RELATIVE, Measured, MeasurePlan, MeasureSpec, NotMeasured
from cmp.core.measured_told import plan_told
from cmp.core.pace import duration_text
from cmp.core.present import counted
from cmp.core.runs import Run
from cmp.core.scale import parse_alpha
from cmp.core.score_asking import BY_CLIP, BY_EITHER, ScoreAnswers
from cmp.disk.ready import Answers
from cmp.errors import BadInput
from cmp.jobs import Job
from cmp.workbench.targets import in_full

CHOICES = [
    (f"{LOSS}: how well it tells noise from images; that on held-out ones decides which checkpoint is the best", LOSS),
    *((f"{metric}: {KINDS[metric].told}", metric) for metric in (UPDATE, *(name for name in KINDS if name != UPDATE))),
]
LABELS = {
    "held_out": "Held-out images", "training": "Training images", "draws": "Noise draws per image", "clip": "CLIP model",
    "encoder": "Image encoder", "preference": "Preference model", "reference": "Reference images", "subject": "Subject words",
    "base": "Base model", "alpha": "Alpha",
}  # fmt: skip
LOOKING = "looking what is known already …"
_OPTION = re.compile(r"--([a-z][a-z-]*)")
_MOST = 3  # reasons that are told at once


class Fields(NamedTuple):
    """The form, as texts; "" leaves a field open."""

    metrics: list[str]
    held_out: str
    training: str
    draws: str
    clip: str
    encoder: str
    preference: str
    reference: str
    subject: str
    base: str
    alpha: str

    def text(self, name: str) -> str:
        return str(getattr(self, name) or "").strip()


def needed(metrics: Sequence[str]) -> dict[str, bool]:
    """Which fields metrics have a use for."""
    some = set(metrics)
    return {
        "held_out": LOSS in some,
        "training": bool(some & {LOSS, "nearest"}),
        "draws": LOSS in some,
        "clip": bool(some & {*BY_CLIP, *BY_EITHER}),
        "encoder": bool(some & {*BY_EITHER}),
        "preference": "preference" in some,
        "reference": bool(some & {"cmmd", "identity"}),
        "subject": "leak" in some,
    }


def read_fields(typed: Fields) -> tuple[MeasureSpec, Answers]:
    """What is to be measured of all checkpoints, and what is said of base and alpha. Raises BadInput for what cannot be meant."""
    if not typed.metrics:
        raise BadInput("nothing is ticked", "Tick what is to be measured.")
    use = needed(typed.metrics)
    word = {name: typed.text(name) if use.get(name, True) else "" for name in LABELS}
    held, training, reference = (_folder(name, word[name]) for name in ("held_out", "training", "reference"))
    clip, encoder, preference = (in_full(word[name]) for name in ("clip", "encoder", "preference"))
    asked = ScoreAnswers(clip, encoder, preference, str(reference or ""), word["subject"])
    spec = MeasureSpec(tuple(typed.metrics), (), held, training, _number(word["draws"]), given=asked.pairs, exactly=True)
    return spec, Answers(parse_alpha(word["alpha"] or None), word["base"] or None)


def _folder(name: str, text: str) -> Path | None:
    if not text:
        return None
    folder = Path(text).expanduser()
    if not folder.is_absolute():  # who looks at a page does not know from where the server was started
        raise BadInput(f"“{LABELS[name]}” is {text!r}", "Type the whole path, such as /home/me/images.")
    return folder


def _number(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise BadInput(f"“{LABELS['draws']}” is {text!r}", f"Type a number; {USUAL_DRAWS} is usual.")
    return int(text)


def filled(spec: MeasureSpec, given: Answers) -> Fields:
    """The form as it was filled in for this."""
    asked = ScoreAnswers.of(spec.given)
    held, training = (str(folder) if folder else "" for folder in (spec.held_out, spec.training))
    said = (asked.clip, asked.encoder, asked.preference, asked.reference, asked.subject)
    alpha = "" if given.alpha is None else f"{given.alpha:g}"
    return Fields(list(spec.metrics), held, training, str(spec.draws or USUAL_DRAWS), *said, given.base or "", alpha)


def command_of(run: Run, typed: Fields) -> str:
    """The command that measures the same."""
    use = needed(typed.metrics)
    options = [] if list(typed.metrics) == [LOSS] else ["--metric", ",".join(typed.metrics)]
    for name in LABELS:
        if use.get(name, True) and (text := typed.text(name)) and (name, text) != ("draws", str(USUAL_DRAWS)):
            options += [f"--{name.replace('_', '-')}", text]
    return shlex.join(["python", "-m", "cmp", "measure", run.id, *options])


def on_page(text: str) -> str:
    """A text of the command line, with the fields of the page in place of options."""
    return _OPTION.sub(lambda found: f"“{LABELS[name]}”" if (name := found[1].replace("-", "_")) in LABELS else found[0], text)


def plan_text(plan: MeasurePlan, label: Callable[[str], str]) -> str:
    """What measuring would do, and what is to be known before."""
    notes = [f"{text[:1].upper()}{text[1:]}." for text in plan.told]
    return "\n".join([*plan_told(plan), *notes, *_reasons(plan.faults, label, "cannot be measured")])


def _reasons(faults: Sequence[NotMeasured], label: Callable[[str], str], what: str) -> list[str]:
    """Each reason once, with those that it holds for."""
    by_reason: dict[str, dict[str, None]] = {}
    for fault in faults:
        by_reason.setdefault(on_page(fault.error.told), {})[f"{label(fault.checkpoint_id)} ({fault.metric})"] = None
    lines = [f"{', '.join(names)} {what}: {why}" for why, names in list(by_reason.items())[:_MOST]]
    return [*lines, *([f"And {len(by_reason) - _MOST} more reasons."] if len(by_reason) > _MOST else [])]


def job_text(job: Job, place: int | None, label: Callable[[str], str], now: float | None = None) -> str:
    """How far measuring has come, or how it ended. `place` is that in the queue."""
    found, faults = found_in(job), [item for item in job.items if isinstance(item, NotMeasured)]
    known, total = sum(one.reused for one in found), _wanted(job)
    count = f"{len(found)} of {counted(total, 'value')} measured" + (f", {known} of them known before" if known else "")
    if job.over:
        took = f", in {duration_text((job.ended or 0) - job.started)}" if job.started else ""
        lines = [f"{job.state}: {count}{took}"]
    else:
        ahead = _left(job, len(found) - known, total - len(found) - len(faults), time.time() if now is None else now)
        stands = f"waiting: number {place} in the queue" if job.state == "waiting" and place else job.state
        doing = "stopping" if job.cancelled.is_set() else job.progress.what if job.progress and job.state == "running" else ""
        lines = [" · ".join(filter(None, (stands, count, ahead, doing)))]
    lines += _reasons(faults, label, "could not be measured")
    if lost := [f"{label(one.checkpoint_id)} ({one.metric})" for one in found if not one.finite]:
        lines.append(f"{', '.join(lost)}: not finite, so that it is not judged")
    return "\n".join([*lines, *([on_page(job.error.told)] if job.error else [])])


def found_in(job: Job) -> list[Measured]:
    """The values of checkpoints: the base model's are what these are held against, and one size of an update comes in two ways."""
    return [item for item in job.items if isinstance(item, Measured) and item.checkpoint_id != BASE and item.metric != UPDATE_RELATIVE]


def _wanted(job: Job) -> int:
    """How many those will be; the job counts the base model's too."""
    count = len(job.subject.checkpoints) if isinstance(job.subject, MeasureSpec) else 0
    return -(-job.total // (count + 1)) * count  # of some metrics the base has none


def _left(job: Job, fresh: int, left: int, now: float) -> str:
    """The time that is left, by how long those took that were not known before."""
    if job.state != "running" or not job.started or not fresh or left <= 0:
        return ""
    return f"{duration_text((now - job.started) / fresh * left, about=True)} left"


def run_of(job: Job) -> str:
    """The id of the run that a job measures, "" if that is not to be seen."""
    spec = job.subject
    return spec.checkpoints[0].run_id if isinstance(spec, MeasureSpec) and spec.checkpoints else ""
