"""A batch of conversions as the page tells it: its plan, how far it has come, and what became of it. No widget is known here."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cmp.core.batch import every_steps
from cmp.core.conversion import LORA_FORMS, Conversion, ConversionPlan, parse_writing, summarise
from cmp.core.pace import Pace, duration_text, expected_seconds
from cmp.core.present import size_text
from cmp.core.runs import Run
from cmp.errors import BadInput, CmpError
from cmp.jobs import Job
from cmp.ui.hints import DETAILS, told_of
from cmp.workbench import FailedConversion, Workbench

MOST_LINES = 12  # of one kind; a batch of thousands must not fill the page


class Order(NamedTuple):
    """What the form asks for. Fields that are not shown come as None."""

    ticks: str
    run_id: str
    which: str
    count: float | None
    form: str
    dtype: str | None
    strength: float | None
    again: bool | None

    @property
    def ids(self) -> list[str]:
        return self.ticks.split("\n") if self.ticks else []


@dataclass(frozen=True, slots=True)
class Batch:
    """What an order would do: plans, those among them that are done already, and what stands against the rest, by checkpoint."""

    plans: tuple[ConversionPlan, ...] = ()
    faults: tuple[tuple[str, CmpError], ...] = ()
    note: str = ""

    @property
    def due(self) -> list[ConversionPlan]:
        return [plan for plan in self.plans if not plan.done]

    @property
    def skipped(self) -> int:
        return len(self.plans) - len(self.due)


def plan_batch(bench: Workbench, order: Order) -> Batch:
    """The plans of what can be converted, from headers alone; raises BadInput for an order that means nothing."""
    writing = parse_writing(order.form, order.dtype or None, 1.0 if order.form in LORA_FORMS or order.strength is None else order.strength)
    targets, note = chosen_ids(bench, order)
    plans, faults = [], []
    for target in targets:
        try:
            plans.append(bench.plan_conversion(target, order.form, force=bool(order.again), writing=writing))
        except CmpError as fault:
            faults.append((target, fault))
    return Batch(tuple(plans), tuple(faults), note)


def chosen_ids(bench: Workbench, order: Order) -> tuple[list[str], str]:
    """Which checkpoints an order means, and in words how they were found where that is not plain."""
    if order.which == "ticked":
        return order.ids, ""
    run: Run = bench.library(fresh=False).run(order.run_id)
    usable = [c for c in run.checkpoints if c.flaw is None]
    note = f"{left} of {len(run.checkpoints)} cannot be used" if (left := len(run.checkpoints) - len(usable)) else ""
    if order.which == "all":
        return [c.id for c in usable], note
    count = _whole(order.count)
    if order.which == "every":
        return [c.id for c in every_steps(usable, count)], note
    best, note = bench.best_of(run, usable, count)
    return [c.id for c in best], note


def _whole(count: float | None) -> int:
    if count is None or count != count // 1 or not 1 <= count < 1e15:
        raise BadInput(f"the number is {count!r}", "Use a whole number such as 1000.")
    return int(count)


def plan_text(batch: Batch) -> str:
    """Sizes, free space, time and what is in the way, before anything is written."""
    lines = [batch.note] if batch.note else []
    if due := batch.due:
        folder = next(p for p in due[0].target.parents if p.exists())
        parts = [f"{len(due)} to convert", f"{size_text(sum(plan.bytes for plan in due))} to write"]
        parts += [f"{size_text(shutil.disk_usage(folder).free)} free", duration_text(expected_seconds(due), about=True)]
        lines += [" · ".join(parts), *_meant(due), f"into {_common(plan.target for plan in due)}"]
    if batch.skipped:
        lines.append(f"{batch.skipped} converted already, left as {'it is' if batch.skipped == 1 else 'they are'}")
    lines += [f"not possible for {', '.join(keys)}: {told}" for told, keys in _alike(batch.faults).items()]
    return "\n".join(lines) or "There is nothing to convert."


def _meant(due: list[ConversionPlan]) -> list[str]:
    """Scale and base, where all have the same one."""
    scales = {f"{plan.scale.value:g}" for plan in due if plan.scale and not plan.scale.modules}
    bases = {Path(plan.base.id).name for plan in due if plan.base}
    parts = [f"scale {scales.pop()}"] if len(scales) == 1 else ["each at its own scale"] if scales else []
    parts += [f"base {', '.join(sorted(bases))}"] if bases else []
    parts += [f"{again} made before go to .cmp-trash"] if (again := sum(plan.replaces for plan in due)) else []
    return [", ".join(parts)] if parts else []


def _common(targets: Iterable[Path]) -> str:
    found = [str(target) for target in targets]
    return found[0] if len(found) == 1 else os.path.commonpath(found)


def _alike(faults: Iterable[tuple[str, CmpError]]) -> dict[str, list[str]]:
    """What stands against conversions, each with the checkpoints that it stands against."""
    told: dict[str, list[str]] = {}
    for name, fault in faults:
        told.setdefault(told_of(fault, DETAILS).removeprefix(f"{name}: "), []).append(name.rpartition("@")[2])
    return told


def start_batch(bench: Workbench, batch: Batch) -> Job:
    """Queues what is due."""
    return bench.start_conversions(batch.due, subject=batch)


def batch_text(job: Job) -> str:
    """How far a batch has come, with its rate and the time that is left, or how it ended."""
    batch = job.subject if isinstance(job.subject, Batch) else Batch()
    converted = [item for item in job.items if isinstance(item, Conversion)]
    failed = [(item.checkpoint, item.error) for item in job.items if isinstance(item, FailedConversion)]
    faults = [*failed, *batch.faults]
    lines = [f"{job.state}: {summarise(len(converted), batch.skipped, len(faults))}"]
    if job.over:
        left = job.total - len(converted) - len(failed)
        lines[0] += f"; {left} not finished" if left else ""
        lines[0] += f", in {duration_text((job.ended or 0) - job.started)}" if job.started else ""
    elif job.progress:
        lines.append(f"{min(job.progress.done + 1, job.total)} of {job.total}: {job.progress.what}")
        lines.append(str(pace_of(job)) + (" · stopping" if job.cancelled.is_set() else ""))
    lines += [f"failed {', '.join(keys)}: {told}" for told, keys in _alike(faults).items()]
    lines += [f"{item.checkpoint.rpartition('@')[2]} → {item.output} ({size_text(item.bytes)})" for item in converted[-MOST_LINES:]]
    lines += [f"and {more} before" for more in [len(converted) - MOST_LINES] if more > 0]
    lines += [f"  ✓ {check}" for check in converted[-1].checks] if converted else []
    return "\n".join([*lines, *([told_of(job.error, DETAILS)] if job.error else [])])


def pace_of(job: Job) -> Pace:
    """The bytes that the batch has read, written and read back, of all that it will."""
    done, total = (job.progress.done_bytes, job.progress.total_bytes) if job.progress else (0, 0)
    return Pace(done, total, time.time() - (job.started or time.time()))
