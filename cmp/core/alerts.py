"""What whoever trains should hear of: a loss that is broken or explodes, overfitting, a disk that will not do, a run that stands still.

Each alert has an id that stays the same while the run goes on, so that it is told once; a new best or a new start makes a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cmp.core.comparing import judge_apart
from cmp.core.curves import Floats, Integers, LossCurve, loss_tag
from cmp.core.evidence import FEWEST_POINTS, held_out_tags, scatter
from cmp.core.present import iso_time, loss_text, size_text
from cmp.core.runs import Run
from cmp.core.storage import forecast
from cmp.core.work import JobRecord

EXPLODED = 10.0  # times the median before
STILL = 600.0  # seconds without a record that say nothing, however often records came before
PATIENCE = 10.0  # usual intervals without a record
QUICK = 60.0  # seconds; whoever started a job that took no longer is still there to see its end
_LONGEST, _SHORTEST = 200, 5  # values of the window in which a loss is judged
_TWENTIETH = 20
_MOST_HELD = 40  # held-out values that are judged together; more are averaged by neighbours
_LAST = 2  # so many must be worse than the best: of single ones one in twenty is by chance


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to be told. `about` is a run's or a job's id; `quiet` is not shown on the page, whose user knows. `at` in Unix seconds."""

    id: str
    kind: str
    about: str
    what: str
    hint: str
    at: float
    severe: bool = True
    quiet: bool = False

    def as_json(self) -> dict[str, object]:
        return {
            "id": self.id, "kind": self.kind, "about": self.about, "what": self.what, "hint": self.hint, "severe": self.severe,
            "at": iso_time(self.at),
        }  # fmt: skip


def curve_alerts(run: Run, curves: Sequence[LossCurve], now: float) -> tuple[Alert, ...]:
    """What the logs of a run say; it can only change when they do."""
    loss, held = _losses(curves)
    found = [_not_finite(run, loss, now), _exploded(run, loss, now)] if loss is not None else []
    return tuple(alert for alert in (*found, _overfitted(run, held, now) if held is not None else None) if alert)


def state_alerts(run: Run, curves: Sequence[LossCurve], free: int | None, now: float) -> tuple[Alert, ...]:
    """What time and disk make of it. `free` are the bytes on the run's disk, None where nothing tells."""
    loss, _ = _losses(curves)
    found = (_stopped(run, loss, now) if loss is not None else None, _disk(run, free, now) if free is not None else None)
    return tuple(alert for alert in found if alert)


def _losses(curves: Sequence[LossCurve]) -> tuple[LossCurve | None, LossCurve | None]:
    """The training loss, and the held-out one."""
    known = {curve.tag: curve for curve in curves}
    loss = known.get(loss_tag(known) or "")
    return loss, next((known[tag] for tag in held_out_tags(tuple(known)) if known[tag] is not loss), None)


def fresh(alerts: Iterable[Alert], told: Iterable[str]) -> tuple[Alert, ...]:
    """Those that were not told before, each once."""
    known = set(told)
    return tuple({alert.id: alert for alert in alerts if alert.id not in known}.values())


def _alert(run: Run, kind: str, what: str, hint: str, at: float, *once_for: object, severe: bool = True) -> Alert:
    """`once_for` is what of the run it is told once for. The id gives away no path."""
    subject = "\0".join(map(str, (kind, run.place, *once_for)))
    name = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:20]
    return Alert(name, kind, run.id, f"{run.id}: {what}", hint, at, severe)


# -- the loss --------------------------------------------------------------------------------------------------------------


def _not_finite(run: Run, curve: LossCurve, now: float) -> Alert | None:
    broken = np.flatnonzero(~np.isfinite(curve.values))
    if not broken.size:
        return None
    first = int(curve.steps[broken[0]])
    if broken.size == curve.values.size - broken[0]:
        what = f"the loss is not a number from step {first:,} on"
        hint = "What is saved from there on is likely broken. Go back to a checkpoint before, with a lower learning rate."
    else:
        what = f"the loss was not a number at {broken.size:,} of {curve.values.size:,} steps, first at {first:,}"
        hint = "Single ones are often skipped by the trainer's own scaling of fp16; more and more of them are not."
    return _alert(run, "not-finite", what, hint, now, first)


def _exploded(run: Run, curve: LossCurve, now: float) -> Alert | None:
    """Medians, so that single outliers count nothing; a loss that is zero or below has no multiple that would mean anything."""
    values = curve.values[np.isfinite(curve.values)]
    window = min(max(values.size // _TWENTIETH, _SHORTEST), _LONGEST)
    if values.size < 4 * window:
        return None
    before, now_is = float(np.median(values[:-window])), float(np.median(values[-window:]))
    if before <= 0 or now_is <= EXPLODED * before:
        return None
    what = f"the loss explodes: its last {window} values have the median {loss_text(now_is)}, those before {loss_text(before)}"
    hint = "Stop it and go back to a checkpoint before; a lower learning rate, or clipping of gradients, is what helps most often."
    return _alert(run, "exploding", what, hint, now, curve.source)


def _overfitted(run: Run, curve: LossCurve, now: float) -> Alert | None:
    """As a verdict on checkpoints is reached: the last values must lie outside the window of those that cannot be told from the best."""
    finite = np.isfinite(curve.values)
    steps, values = curve.steps[finite], curve.values[finite]
    if values.size < max(FEWEST_POINTS, _LAST + 2):
        return None
    variance, freedom = scatter(curve)
    best = int(steps[np.argmin(values)])
    steps, values, share = _in_blocks(steps, values)
    judged = judge_apart(values, variance * share * np.eye(values.size), True, freedom)
    if set(range(values.size - _LAST, values.size)) & set(judged.window):
        return None
    low, last = float(values[judged.leader]), float(values[-1])
    what = (
        f"the held-out loss ({curve.tag}) has risen from {loss_text(low)} at step {int(steps[judged.leader]):,} to {loss_text(last)}, "
        "by more than its noise"
    )
    return _alert(run, "held-out", what, "It may be learning its images by heart: later checkpoints are likely worse.", now, best)


def _in_blocks(steps: Integers, values: Floats) -> tuple[Integers, Floats, float]:
    """At most `_MOST_HELD` values, each the mean of equally many neighbours, with the share of the variance that is left to them."""
    size = -(-values.size // _MOST_HELD)
    kept = values.size - values.size % size
    means: Floats = values[-kept:].reshape(-1, size).mean(axis=1)
    return steps[-kept:].reshape(-1, size)[:, -1], means, 1 / size


# -- what is to come -------------------------------------------------------------------------------------------------------


def _stopped(run: Run, curve: LossCurve, now: float) -> Alert | None:
    """Only where it is known that steps are to come: a run that has come to its end stands still, too."""
    total = steps_of(run)
    times = curve.wall_times
    if total is None or times is None or times.size < 3 or not np.isfinite(times[-1]):
        return None
    last, every = int(curve.steps[-1]), int(np.median(np.diff(curve.steps[-_LONGEST:])))
    usual = float(np.median(np.diff(times[-_LONGEST:])))
    silent = now - float(times[-1])
    ended = any(c.key == "final" and c.written_at >= float(times[-1]) for c in run.checkpoints)
    if last + every > total or ended or not silent > max(PATIENCE * usual, STILL):
        return None
    what = f"nothing was logged for {_duration(silent)}, and {total - last:,} of {total:,} steps are to come"
    hint = f"It logged every {_duration(max(usual, 1.0))}. See whether the trainer still runs; it can go on from its last checkpoint."
    return _alert(run, "stopped", what, hint, now, last)


def steps_of(run: Run) -> int | None:
    """How many steps a run is to have, None where its settings do not say."""
    setting = run.settings.get("max_train_steps")
    value = setting.value if setting else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _disk(run: Run, free: int, now: float) -> Alert | None:
    coming = forecast(run, free)
    sizes = [c.bytes for c in run.checkpoints if c.step is not None and c.bytes and c.flaw is None]
    if coming is not None and not coming.fits:
        what = f"its disk has {size_text(free)} free, and the {coming.count} checkpoints to come need {size_text(coming.needed)}"
    elif coming is None and sizes and free < sizes[-1]:
        what = f"its disk has {size_text(free)} free, and one more checkpoint needs {size_text(sizes[-1])}"
    else:
        return None
    return _alert(run, "disk", what, "python -m cmp storage says what can be freed.", now, len(run.starts))


def _duration(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


# -- jobs ------------------------------------------------------------------------------------------------------------------


def job_alert(record: JobRecord, now: float) -> Alert | None:
    """That a job is done or has failed. None for one that somebody stopped, and for one that only showed what was there already.

    Neither its title nor its fault is told: both may quote prompts.
    """
    if record.state not in ("done", "failed") or record.ended is None or (record.state == "done" and record.done == record.reused):
        return None
    name = hashlib.sha256(f"job\0{record.id}\0{record.state}\0{record.ended}".encode()).hexdigest()[:20]
    hint = f"python -m cmp jobs {record.id} tells more."
    if record.state == "failed":
        return Alert(name, "job-failed", record.id, f"{record.id} has failed after {record.done} of {record.total}", hint, now)
    faults = f", {record.faults} could not be made" if record.faults else ""
    quiet = not record.faults and record.ended - (record.started or record.made) < QUICK
    return Alert(name, "job-done", record.id, f"{record.id} is done: {record.done} of {record.total}{faults}", hint, now,
                 bool(record.faults), quiet)  # fmt: skip
