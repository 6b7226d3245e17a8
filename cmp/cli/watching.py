"""The verb that stays with a run while it is trained: watch."""

from __future__ import annotations

from typing import Annotated

import typer

from cmp.cli.answers import read_answers
from cmp.cli.output import Json, in_trouble, print_json
from cmp.cli.telling import leave, told
from cmp.core.grids import Tile
from cmp.errors import BadInput, Cancelled
from cmp.workbench import Workbench

app = typer.Typer(rich_markup_mode=None)


@app.command()
def watch(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run, by its id or path.")],
    grid: Annotated[
        str | None, typer.Option(help="A JSON file, or the id of an earlier grid job: its prompts, seeds and sampling are used again.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, draw what is new, and stop.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="Not there yet.")] = False,
    base: Annotated[str | None, typer.Option(help="Base model: an id or a folder.")] = None,
    alpha: Annotated[str | None, typer.Option(help="The LoRA's alpha, where nothing says it.")] = None,
    json: Json = False,
) -> None:
    """Draw each checkpoint of a run as soon as it is complete, the newest first, until Ctrl-C.

    Without --grid with the prompts that were last drawn with it, or those that its trainer drew with.
    """
    bench: Workbench = context.obj
    if measure:
        raise BadInput("--measure is not there yet", "Leave it out: watch draws each new checkpoint.")
    found, checkpoint = bench.find(run)
    if checkpoint is not None:
        raise BadInput(f"{run!r} is a checkpoint, and runs are watched", f"Name the run: {found.id}.")
    pattern = bench.pattern(grid, found)
    in_trouble(f"watching {found.id}" + ("" if once else "; Ctrl-C ends it"))
    tiles: list[Tile] = []
    try:
        for item in told(bench.follow_watch(run, pattern, read_answers(alpha, base), once=once)):
            if isinstance(item, Tile):
                tiles.append(item)
    except (KeyboardInterrupt, Cancelled):  # how it usually ends
        in_trouble("ended")
        _tell(found.id, tiles, json)
        raise typer.Exit(Cancelled.exit_code) from None
    _tell(found.id, tiles, json)
    leave(tiles)


def _tell(run: str, tiles: list[Tile], json: bool) -> None:
    if json:
        print_json({"run": run, "tiles": [tile.as_json() for tile in tiles]})
