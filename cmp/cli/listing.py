"""The verb that people wait for most often: list."""

from __future__ import annotations

import time

import typer

from cmp.cli.output import Json, in_trouble, leave_if_missing, print_json, print_table, say
from cmp.core.marks import NONE
from cmp.core.present import COMPACTED, alias_text, loss_text, mark_text, shortened, size_text
from cmp.workbench import Workbench
from cmp.workbench.telling import list_json

app = typer.Typer(rich_markup_mode=None)

LONGEST_NOTE = 60  # characters: with it a line fits most terminals; `show` has the whole


@app.command("list")
def list_runs(context: typer.Context, json: Json = False) -> None:
    """Every run and checkpoint below the given folders."""
    bench: Workbench = context.obj
    if json:
        print_json(list_json(bench))
        leave_if_missing(bench.settings.runs)
        return
    library = bench.library()
    now = time.time()
    marks = bench.marks(library.runs)
    for run in library.runs:
        name = f" “{marks[run.id].name}”" if run.id in marks else ""
        say(f"{run.id}{name}   {run.trainer}, {run.state(now)}, base {run.base_model or 'unknown'}, loss {loss_text(run.last_loss)}")
        rows = []
        for c in run.checkpoints:
            forms = ", ".join(form for form, _ in c.converted) or "–"
            mark = marks.get(c.id, NONE)
            note = shortened(c.flaw, LONGEST_NOTE) if c.flaw else f"also {alias_text(c)}" if c.aliases else ""
            note = "; ".join(part for part in (mark_text(mark, LONGEST_NOTE), COMPACTED if c.compacted else "", note) if part)
            rows.append(["★" if mark.star else "", c.key, c.layout, c.holds, size_text(c.bytes), forms, note])
        if rows:
            print_table(["", "step", "layout", "holds", "size", "converted", ""], rows, right=frozenset({4}))
        else:
            say("  no checkpoints, only logs")
        for warning in run.warnings:
            in_trouble(f"warning: {run.id}: {warning}")
    for problem in library.problems:
        in_trouble(f"passed over: {problem.path}: {problem.reason}")
    leave_if_missing(bench.settings.runs)
