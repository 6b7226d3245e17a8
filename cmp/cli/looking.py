"""The verbs that look into one thing: show, curves, doctor."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from cmp.cli.answers import read_answers
from cmp.cli.output import Json, in_trouble, print_json, print_table, say
from cmp.core.branches import abandoned_curves
from cmp.core.describing import CAN_BE_MADE, checkpoint_facts, run_facts
from cmp.core.present import loss_text, path_text
from cmp.disk.ready import Answers
from cmp.errors import BadInput, Unreadable
from cmp.workbench import Curves, Workbench
from cmp.workbench.telling import curves_json, notes_of, reading_of

app = typer.Typer(rich_markup_mode=None)


@app.command()
def show(
    context: typer.Context,
    target: str,
    base: Annotated[str | None, typer.Option(help="Base model: an id or a folder.")] = None,
    alpha: Annotated[str | None, typer.Option(help="The LoRA's alpha, where nothing says it.")] = None,
    json: Json = False,
) -> None:
    """One run or checkpoint: settings, tensors by kind, scale and where it was found, what it can become."""
    bench: Workbench = context.obj
    given = read_answers(alpha, base)
    told = bench.show(target, given)
    if given != Answers():
        _remember(bench, target, given, told)
    if json:
        print_json(told)
        return
    say(str(told["id"]))
    for fact in checkpoint_facts(told) if "layout" in told else run_facts(told):
        for number, line in enumerate(fact.lines):
            say(f"  {fact.label if not number else '':<18}{line}")
    if told.get("question"):
        say(f"  {'':<18}answer with: python -m cmp show {shlex.quote(target)} --alpha X")


def _remember(bench: Workbench, target: str, given: Answers, told: Mapping[str, Any]) -> None:
    """Keeps an answer with which the checkpoint can become something; a wrong one must not outlive this."""
    run, checkpoint = bench.find(target)
    if checkpoint and given.alpha is not None and bench.answers(run).alpha is None and not bench.show(target).get("question"):
        in_trouble(f"alpha {given.alpha:g} is not remembered: what is known of {run.id} tells its alpha")
        given = replace(given, alpha=None)
        if given == Answers():
            return
    if checkpoint is None or CAN_BE_MADE in told.get("forms", {}).values():
        bench.answer(run, given)
        said = ", ".join(
            [*([f"alpha {given.alpha:g}"] if given.alpha is not None else []), *([f"base {given.base}"] if given.base else [])]
        )
        in_trouble(f"remembered for {run.id}: {said}")


def _print_facts(told: object, indent: int = 0) -> None:
    for name, value in told.items() if isinstance(told, dict) else enumerate(told if isinstance(told, list) else []):
        label = " " * indent + (f"{name}:" if isinstance(told, dict) else "-")
        if isinstance(value, (dict, list)) and value:
            say(label)
            _print_facts(value, indent + 2)
        else:
            say(f"{label} {'–' if value in (None, [], {}) else value}")


@app.command()
def curves(
    context: typer.Context,
    run: str,
    tag: Annotated[list[str] | None, typer.Option(help="Only this tag; may be given several times.")] = None,
    smooth: Annotated[float, typer.Option(help="TensorBoard's smoothing weight, 0 to 0.999, for pictures and the CSV.")] = 0.6,
    logs: Annotated[str | None, typer.Option(help="The run's logs are here: a folder or file; remembered. 'auto' forgets it.")] = None,
    abandoned: Annotated[bool, typer.Option("--abandoned", help="Also tell what later starts wrote over.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write steps, values and smoothed values here.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the curves here.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the curves here.")] = None,
    json: Json = False,
) -> None:
    """The logged curves of a run, or of any log file or folder, as figures, JSON, CSV or a picture."""
    bench: Workbench = context.obj
    if not 0 <= smooth < 1:
        raise BadInput(f"--smooth is {smooth}", "Use a number from 0 to 0.999; 0.6 is TensorBoard's default.")
    found, logged = bench.curves_at(run, tag or (), logs)
    steps = [c.step for c in found.checkpoints if c.step is not None]
    if csv:
        _write_csv(logged, smooth, csv)
    for picture in (png, svg):
        if picture:
            _draw(logged, smooth, steps, picture, "png" if picture is png else "svg")
    if json:
        print_json(curves_json(found, logged, abandoned=abandoned))
        return
    rows = [
        [c.tag, str(len(c.steps)), f"{c.steps[0]}–{c.steps[-1]}", loss_text(float(c.values[-1]))] for c in logged.curves if len(c.steps)
    ]
    if rows:
        print_table(["tag", "points", "steps", "last"], rows, right=frozenset({1}))
    for one in (one for c in logged.curves if abandoned for one in abandoned_curves(c)):
        say(f"abandoned: {one.curve.tag} {one.number}, steps {one.curve.steps[0]}–{one.curve.steps[-1]}, {len(one.curve.steps)} points")
    for why, files in groupby(logged.logs, key=lambda log: log[1]):
        paths = [file for file, _ in files]
        in_trouble(f"logs: {path_text(paths[0])}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: {why}")
    for line in reading_of(logged, steps):
        say(f"  {line}")
    for note in notes_of(logged):
        in_trouble(f"note: {note}")


def _write_csv(logged: Curves, weight: float, target: Path) -> None:
    from cmp.core.curves import table_cell
    from cmp.core.smoothing import smooth

    try:
        with open(target, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["tag", "step", "value", "smoothed"])
            for curve in logged.curves:
                for step, value, smoothed in zip(curve.steps, curve.values, smooth(curve.values, weight), strict=True):
                    writer.writerow([table_cell(curve.tag), int(step), float(value), float(smoothed)])
    except OSError as fault:
        raise Unreadable(f"cannot write {target}: {fault.strerror}", "Choose another place.") from fault
    in_trouble(f"wrote {target}")


def _draw(logged: Curves, weight: float, steps: list[int], target: Path, form: str) -> None:
    from cmp.core.curves import is_epoch_axis
    from cmp.pictures.figures import curve_figure

    drawn = [c for c in logged.curves if "loss" in c.tag and not is_epoch_axis(c.tag)] or list(logged.curves)
    curve_figure(drawn, smoothing=weight, log=False, markers=steps, path=target, format=form)
    in_trouble(f"wrote {target}")


@app.command()
def doctor(context: typer.Context, path: Annotated[Path | None, typer.Argument()] = None, json: Json = False) -> None:
    """Why a folder is not listed; what this machine can do: device, memory, disk, versions, base models found; and what does not fit."""
    bench: Workbench = context.obj
    told = bench.doctor(path)
    if json:
        print_json(told)
        return
    _print_facts({name: value for name, value in told.items() if name != "misfits"})
    misfits: Any = told["misfits"]
    say("misfits: none" if not misfits else "misfits:")
    for misfit in misfits:
        say(f"  ✗ {misfit['what']}")
        say(f"    {misfit['why']}")
        say(f"    type: {misfit['type']}")
