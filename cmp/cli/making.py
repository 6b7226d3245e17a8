"""The verb that writes checkpoints in other forms: convert."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from cmp.cli.answers import read_answers
from cmp.cli.output import Json, in_trouble, print_json, say
from cmp.core.conversion import FORMS, Conversion, ConversionPlan, Writing, parse_writing, summarise
from cmp.core.pace import Pace, duration_text, expected_seconds
from cmp.core.present import conversion_text, path_text, size_text
from cmp.core.progress import Progress
from cmp.core.runs import Checkpoint, Run
from cmp.disk.converted import default_target
from cmp.disk.ready import Answers
from cmp.errors import BadInput, CmpError
from cmp.workbench import FailedConversion, Workbench
from cmp.workbench.targets import Found, expand_targets, keep_best

app = typer.Typer(rich_markup_mode=None)

_QUIET = 5.0  # seconds without a line after which one says how far it has come
_QUIET_TO_PEOPLE = 1.0  # the same at a terminal


class WithBest(TyperCommand):
    """`--best` may stand without a number and means one then, which typer has no option for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        after = args[args.index("--best") + 1 :] if "--best" in args else ["0"]
        if not (after and after[0].lstrip("-").isdigit()):
            args = [*args[: len(args) - len(after)], "1", *after]
        return super().parse_args(ctx, args)


@app.command(cls=WithBest)
def convert(
    context: typer.Context,
    targets: Annotated[list[str], typer.Argument(help="Runs, RUN@STEP, RUN@final, or paths; a run means all its checkpoints.")],
    to: Annotated[str, typer.Option(help=f"The form: {', '.join(FORMS)}.")],
    output: Annotated[Path | None, typer.Option(help="File or folder for one target, the parent folder for several.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model: an id or a folder.")] = None,
    alpha: Annotated[str | None, typer.Option(help="The LoRA's alpha, where nothing says it.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Only what is not converted yet; this is what happens without --force.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Convert again; what was there goes to .cmp-trash.")] = False,
    dtype: Annotated[str | None, typer.Option(help="fp32, fp16 or bf16; otherwise as wide as the weights are.")] = None,
    strength: Annotated[float, typer.Option(help="How strongly a merge has the adapter in it.")] = 1.0,
    verify: Annotated[str, typer.Option(help="full: every tensor is computed a second time. This is always done.")] = "full",
    best: Annotated[int | None, typer.Option(help="Only so many checkpoints (1), the best by the verdict of `best`.")] = None,
    every: Annotated[int | None, typer.Option(help="Only checkpoints at multiples of so many steps.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")] = False,
    json: Json = False,
) -> None:
    """Write checkpoints as a LoRA file, as a file for A1111/ComfyUI, or as a full diffusers pipeline, and prove the result.

    Each file is told in one line; --json has every proof in words, and `show` repeats it. What was begun is a job, see `jobs`.
    """
    bench: Workbench = context.obj
    if new and force:
        raise BadInput("--new and --force were both given", "Use one of them.")
    if verify != "full":
        raise BadInput(f"--verify is {verify!r}", "Use --verify full, or leave it out: every tensor is verified in any case.")
    given, writing = read_answers(alpha, base), parse_writing(to, dtype, strength)
    wanted = expand_targets(bench, targets, every)
    if best is not None:
        wanted, words = keep_best(bench, wanted, best)
        for line in words:
            in_trouble(line)
    told = Report()
    plans = _plan(bench, wanted, Order(to, given, writing, output, force, dry_run), told)
    if dry_run:
        told.planned = _proven(bench, plans, told, len(wanted))
        bench.check_space(told.planned)
    else:
        _carry_out(bench, plans, given, told, len(wanted))
    if json:
        print_json(told.as_json(dry_run))
    elif not dry_run:
        say(summarise(len(told.converted), len(told.skipped), len(told.failed)))
    _leave(told, len(wanted))


class Report:
    """What became of each target."""

    def __init__(self) -> None:
        self.converted: list[Conversion] = []
        self.skipped: list[tuple[ConversionPlan, str]] = []
        self.failed: list[tuple[str, CmpError]] = []
        self.planned: list[ConversionPlan] = []

    def as_json(self, dry_run: bool) -> dict[str, object]:
        told: dict[str, object] = {
            "converted": [c.as_json() for c in self.converted],
            "skipped": [{"checkpoint": p.checkpoint.id, "output": path_text(p.target), "why": why} for p, why in self.skipped],
            "failed": [{"checkpoint": name, **fault.as_json()} for name, fault in self.failed],
        }
        if dry_run:
            told["planned"] = [plan.as_json() for plan in self.planned]
        return told


@dataclass(frozen=True)
class Order:
    """What was asked for, of every target."""

    form: str
    given: Answers
    writing: Writing
    output: Path | None
    force: bool
    dry_run: bool


def _plan(bench: Workbench, wanted: list[Found], order: Order, told: Report) -> list[ConversionPlan]:
    in_trouble(f"{len(wanted)} checkpoint{'s' if len(wanted) != 1 else ''} to convert to {order.form}")
    plans, before = [], ""
    for run, checkpoint in wanted:
        target = _target(run, checkpoint, order.form, order.output, len(wanted))
        try:
            plan = bench.plan_checkpoint(run, checkpoint, order.form, order.given, output=target, force=order.force, writing=order.writing)
        except CmpError as fault:
            if len(wanted) == 1:
                raise
            told.failed.append((checkpoint.id, fault))
            in_trouble(f"failed {checkpoint.id}: {fault.told}")
            continue
        if plan.done:
            told.skipped.append((plan, plan.done))
            in_trouble(f"skipped {checkpoint.id}: {plan.done}")
            continue
        plans.append(plan)
        if order.dry_run:
            scale = f", scale {plan.scale.value:g} ({plan.scale.source})" if plan.scale else ""
            in_trouble(f"planned {checkpoint.id} → {plan.target} ({size_text(plan.bytes)}{'' if scale == before else scale})")
            before = scale  # told again only where another one follows
    if plans:
        folder = next(p for p in plans[0].target.parents if p.exists())
        sizes = f"{size_text(sum(plan.bytes for plan in plans))} to write, {size_text(shutil.disk_usage(folder).free)} free"
        in_trouble(f"{sizes}, {duration_text(expected_seconds(plans), about=True)}")
    return plans


def _proven(bench: Workbench, plans: list[ConversionPlan], told: Report, wanted: int) -> list[ConversionPlan]:
    """The plans but for those that carrying them out would refuse, so that a plan does not promise what will not be."""
    proven = []
    for plan in plans:
        try:
            proven.append(bench.prove(plan))
        except CmpError as fault:
            if wanted == 1:
                raise
            told.failed.append((plan.checkpoint.id, fault))
            in_trouble(f"failed {plan.checkpoint.id}: {fault.told}")
    return proven


def _target(run: Run, checkpoint: Checkpoint, form: str, output: Path | None, count: int) -> Path | None:
    """--output names the result itself for one target, the parent folder for several."""
    if output is None:
        return None
    parent = Path(os.path.expanduser(output)).absolute()
    return parent if count == 1 else parent / default_target(run, checkpoint, form).name


def _carry_out(bench: Workbench, plans: list[ConversionPlan], given: Answers, told: Report, wanted: int) -> None:
    """Converts as a job, with one line for each file, and one where nothing came for a while."""
    began = told_at = time.monotonic()
    quiet = _QUIET_TO_PEOPLE if sys.stderr.isatty() else _QUIET
    for step in bench.follow_conversions(plans, given) if plans else ():
        if isinstance(step, Conversion):
            told.converted.append(step)
            in_trouble(f"converted {step.checkpoint} → {step.output} ({conversion_text(step)})")
        elif isinstance(step, FailedConversion):
            told.failed.append((step.checkpoint, step.error))
            if wanted > 1:
                in_trouble(f"failed {step.checkpoint}: {step.error.told}")
        elif isinstance(step, Progress) and step.done < step.total and time.monotonic() - told_at > quiet:
            pace = f"; {Pace(step.done_bytes, step.total_bytes, time.monotonic() - began)}" if step.total_bytes else ""
            in_trouble(f"converting {step.done + 1}/{step.total} {step.what}{pace}")
        else:
            continue
        told_at = time.monotonic()
    if wanted == 1 and told.failed:
        raise told.failed[0][1]


def _leave(told: Report, wanted: int) -> None:
    if told.failed:
        raise typer.Exit(told.failed[0][1].exit_code if wanted == 1 else 1)
