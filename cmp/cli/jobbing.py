"""The verbs about work that goes on by itself, and about what it leaves: jobs, cells."""

from __future__ import annotations

from typing import Annotated

import typer

from cmp.cli.output import Json, in_trouble, print_json, print_table, printing_aside, say
from cmp.core.pace import duration_text
from cmp.core.present import counted, size_text
from cmp.core.storage import parse_age, parse_size
from cmp.core.work import JobRecord
from cmp.errors import BadInput, as_error
from cmp.workbench import Workbench
from cmp.workbench.telling import cells_json, job_json

app = typer.Typer(rich_markup_mode=None)


@app.command()
def jobs(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(help="A job's id; without one all are listed.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop it, wherever it runs.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Have it stand still after the item in hand.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with it: where it was paused, or else here.")] = False,
    json: Json = False,
) -> None:
    """What is being done, waits or was interrupted, in all processes that share CMP_HOME; and stop, pause or go on with one."""
    bench: Workbench = context.obj
    asked = [name for name, wanted in (("cancel", cancel), ("pause", pause), ("resume", resume)) if wanted]
    if len(asked) > 1:
        raise BadInput(f"--{asked[0]} and --{asked[1]} were both given", "Use one of them.")
    if job is None:
        if asked:
            raise BadInput(f"--{asked[0]} was given without a job", "Name one; `python -m cmp jobs` lists them.")
        records = bench.jobs.records()
        if json:
            print_json({"jobs": [record.as_json() for record in records]})
        else:
            _print_table(records)
        return
    before = bench.jobs.record(job)
    record = bench.jobs.ask(job, asked[0]) if asked else before
    if before.over and (cancel or pause):
        in_trouble(f"{job} is over already ({before.state}): there is nothing to {asked[0]}")
    if resume and record.asked != "resume":  # no process has it in hand
        _go_on(bench, record, json)
        return
    if json:
        print_json(job_json(bench, job) | record.as_json())
    else:
        _print_table([record])
        for why, count in record.reasons:
            say(f"  {count} failed: {why}")
        if record.error:
            in_trouble(as_error(str(record.error["error"]), str(record.error["hint"]), 70).told)


def _go_on(bench: Workbench, record: JobRecord, json: bool) -> None:
    from cmp.cli.telling import leave, told
    from cmp.core.grids import Tile

    with printing_aside():
        tiles = [item for item in told(bench.jobs.go_on(record.id), record.total) if isinstance(item, Tile)]
    record = bench.jobs.record(record.id)
    if json:
        print_json(record.as_json() | {"tiles": [tile.as_json() for tile in tiles]})
    else:
        _print_table([record])
    leave(tiles)
    if record.faults:
        raise typer.Exit(1)


def _print_table(records: list[JobRecord] | tuple[JobRecord, ...]) -> None:
    if not records:
        say("There are no jobs.")
        return
    rows = []
    for record in records:
        left = record.remaining
        note = [f"asked to {record.asked}"] if record.asked else []
        note += [f"number {record.position} in its queue"] if record.position else []
        note += [f"{duration_text(left, about=True)} left"] if left is not None and record.state == "running" else []
        note += [record.what] if record.what and not record.over else []
        note += [f"{record.faults} failed"] if record.faults else []
        rows.append([record.id, record.state, f"{record.done}/{record.total or '–'}", record.title, ", ".join(note)])
    print_table(["job", "state", "done", "what", ""], rows, right=frozenset({2}))


@app.command()
def cells(
    context: typer.Context,
    max_size: Annotated[str | None, typer.Option(help="Keep at most so much, the last used: 2GB, 500MB.")] = None,
    min_age: Annotated[str | None, typer.Option(help="Let go what was not used for so long: 30d, 12h.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it the plan is shown.")] = False,
    json: Json = False,
) -> None:
    """How much room the drawn pictures take in CMP_HOME, and which would go to make room. Each can be drawn again."""
    bench: Workbench = context.obj
    size = None if max_size is None else parse_size(max_size, "--max-size")
    age = None if min_age is None else parse_age(min_age, "--min-age")
    if size is None and age is None:
        if yes:
            raise BadInput("--yes was given, and not what may stay", "Give --max-size or --min-age.")
        count, used = bench.cells_size()
        if json:
            print_json(cells_json(bench))
        else:
            say(f"{counted(count, 'cell')}, {size_text(used)}")
        return
    plan = bench.plan_prune(most_bytes=size, unused_for=age)
    if yes:
        bench.prune(plan)
    if json:
        print_json(plan.as_json() | {"done": yes})
        return
    say(f"{counted(plan.cells, 'cell')}, {size_text(plan.bytes)}; {len(plan.going)} {'went' if yes else 'would go'}, longest unused first,")
    say(f"and {size_text(plan.bytes_after)} stay" + (f", {plan.held} of them for jobs that are not over" if plan.held else "") + ".")
    if plan.going and not yes:
        say("Nothing was deleted: --yes does it. A cell that is gone is drawn again when it is asked for.")
