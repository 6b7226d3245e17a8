"""The verb that stays with a run while it is trained: watch."""

from __future__ import annotations

from typing import Annotated

import typer

from cmp.cli.answers import read_answers
from cmp.cli.output import Json, in_trouble, print_json
from cmp.cli.telling import leave, told
from cmp.core.grids import Tile
from cmp.core.measured import Measured, NotMeasured
from cmp.core.present import counted
from cmp.core.runs import Run
from cmp.errors import BadInput, Cancelled
from cmp.workbench import Workbench
from cmp.workbench.watching import seen

app = typer.Typer(rich_markup_mode=None)


@app.command()
def watch(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run, by its id or path.")],
    grid: Annotated[
        str | None, typer.Option(help="A JSON file, or the id of an earlier grid job: its prompts, seeds and sampling are used again.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Draw the checkpoints that are there, and stop.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Only checkpoints that land from now on, not those that are there.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the loss of each too, on the images of the last `measure` of the run.")
    ] = False,
    base: Annotated[str | None, typer.Option(help="Base model: an id or a folder.")] = None,
    alpha: Annotated[str | None, typer.Option(help="The LoRA's alpha, where nothing says it.")] = None,
    json: Json = False,
) -> None:
    """Draw each checkpoint of a run, the newest first: those that are there already, then each as soon as it is complete, until Ctrl-C.

    What was drawn earlier is not drawn again. Without --grid with the prompts that were last drawn with it, or those that its trainer
    drew with.
    """
    bench: Workbench = context.obj
    if once and new:
        raise BadInput("--once and --new were both given", "Use one of them: together nothing would be drawn.")
    found, checkpoint = bench.find(run)
    if checkpoint is not None:
        raise BadInput(f"{run!r} is a checkpoint, and runs are watched", f"Name the run: {found.id}.")
    pattern = bench.pattern(grid, found)
    there = seen(found)
    in_trouble(_beginning(found, len(there), once=once, new=new))
    tiles: list[Tile] = []
    try:
        given = read_answers(alpha, base)
        for item in told(bench.follow_watch(run, pattern, given, once=once, there=there if new else (), measure=measure)):
            if isinstance(item, Tile):
                tiles.append(item)
            elif isinstance(item, Measured | NotMeasured):
                _tell_measured(item)
    except (KeyboardInterrupt, Cancelled):  # how it usually ends
        in_trouble("ended")
        _tell(found.id, tiles, json)
        raise typer.Exit(Cancelled.exit_code) from None
    _tell(found.id, tiles, json)
    leave(tiles)


def _beginning(run: Run, there: int, *, once: bool, new: bool) -> str:
    """Which checkpoints will be drawn."""
    shown = [c.key for c in reversed(run.checkpoints) if c.flaw is None]
    names = f"{', '.join(shown[:8])}{' …' if shown[8:] else ''}"
    count = f"{counted(there, 'checkpoint')} there already {'are' if there > 1 else 'is'}"
    first = f"{count} not drawn" if new else f"{count} drawn first, unless drawn earlier: {names}"
    return f"watching {run.id}: {first if there else 'no checkpoint is there yet'}" + (
        "" if once else "; then each that lands from now on. Ctrl-C ends it"
    )


def _tell_measured(item: Measured | NotMeasured) -> None:
    if isinstance(item, NotMeasured):
        in_trouble(f"{item.checkpoint_id}, {item.metric}: not measured: {item.error.told}")
    elif not item.reused:
        in_trouble(f"{item.checkpoint_id}, {item.metric}: {float(item.values.mean()):.4g}")


def _tell(run: str, tiles: list[Tile], json: bool) -> None:
    if json:
        print_json({"run": run, "tiles": [tile.as_json() for tile in tiles]})
