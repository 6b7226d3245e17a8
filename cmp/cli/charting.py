"""The verb that tells what was logged: curves."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from cmp.cli.output import Json, in_trouble, print_json, print_table, say
from cmp.core.branches import abandoned_curves
from cmp.core.present import loss_text, path_text
from cmp.core.runs import Run
from cmp.errors import BadInput, Unreadable
from cmp.workbench import Curves, Workbench
from cmp.workbench.telling import curves_json, notes_of, reading_of

app = typer.Typer(rich_markup_mode=None)

Logged = Sequence[tuple[Run, Curves]]


@app.command()
def curves(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(help="Runs, or log files or folders; several are drawn in one chart.")],
    tag: Annotated[list[str] | None, typer.Option(help="Only this tag; may be given several times.")] = None,
    smooth: Annotated[float, typer.Option(help="TensorBoard's smoothing weight, 0 to 0.999, for pictures and the CSV.")] = 0.6,
    logs: Annotated[str | None, typer.Option(help="The run's logs are here: a folder or file; remembered. 'auto' forgets it.")] = None,
    abandoned: Annotated[bool, typer.Option("--abandoned", help="Also tell what later starts wrote over.")] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write steps, values and smoothed values here; of several runs with a column of them.")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the curves here.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the curves here.")] = None,
    json: Json = False,
) -> None:
    """The logged curves of runs, or of any log files or folders, as figures, JSON, CSV or a picture."""
    bench: Workbench = context.obj
    if not 0 <= smooth < 1:
        raise BadInput(f"--smooth is {smooth}", "Use a number from 0 to 0.999; 0.6 is TensorBoard's default.")
    if logs and len(runs) > 1:
        raise BadInput(f"--logs was given for {len(runs)} runs", "Say it of one run at a time; it is remembered.")
    found = [bench.curves_at(name, tag or (), logs) for name in dict.fromkeys(runs)]
    found = list({(run.id, run.logs): (run, logged) for run, logged in found}.values())  # one may be named by its id and by its path
    if csv:
        _write_csv(found, smooth, csv)
    for picture in (png, svg):
        if picture:
            _draw(found, smooth, picture, "png" if picture is png else "svg")
    if json:
        told = [curves_json(run, logged, abandoned=abandoned) for run, logged in found]
        print_json(told[0] if len(found) == 1 else {"runs": told})
        return
    for run, logged in found:
        if len(found) > 1:
            say(run.id)
        _tell(run, logged, abandoned=abandoned)


def _tell(run: Run, logged: Curves, *, abandoned: bool) -> None:
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
    for line in reading_of(logged, _steps(run)):
        say(f"  {line}")
    for note in notes_of(logged):
        in_trouble(f"note: {note}")


def _steps(run: Run) -> list[int]:
    return [c.step for c in run.checkpoints if c.step is not None]


def _write_csv(found: Logged, weight: float, target: Path) -> None:
    """Of several runs each row begins with its run."""
    from cmp.core.curves import table_cell
    from cmp.core.smoothing import smooth

    several = len(found) > 1
    try:
        with open(target, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*(["run"] if several else []), "tag", "step", "value", "smoothed"])
            for run, logged in found:
                for curve in logged.curves:
                    named = [*([table_cell(run.id)] if several else []), table_cell(curve.tag)]
                    for step, value, smoothed in zip(curve.steps, curve.values, smooth(curve.values, weight), strict=True):
                        writer.writerow([*named, int(step), float(value), float(smoothed)])
    except OSError as fault:
        raise Unreadable(f"cannot write {target}: {fault.strerror}", "Choose another place.") from fault
    in_trouble(f"wrote {target}")


def _draw(found: Logged, weight: float, target: Path, form: str) -> None:
    """One chart: the losses of each run, or all that it logged where none of it is a loss; and a mark at each checkpoint."""
    from cmp.core.curves import is_epoch_axis
    from cmp.pictures.figures import curve_figure

    drawn = [
        curve
        for _, logged in found
        for curve in [c for c in logged.curves if "loss" in c.tag and not is_epoch_axis(c.tag)] or logged.curves
    ]
    steps = sorted({step for run, _ in found for step in _steps(run)})
    curve_figure(drawn, smoothing=weight, log=False, markers=steps, path=target, format=form)
    in_trouble(f"wrote {target}")
