"""The verb that marks a checkpoint: star."""

from __future__ import annotations

from typing import Annotated

import typer

from cmp.cli.output import Json, print_json, say
from cmp.workbench import Workbench

app = typer.Typer(rich_markup_mode=None)


@app.command()
def star(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A checkpoint: RUN@STEP, or a path.")],
    note: Annotated[str | None, typer.Option(help="What is to be remembered of it; an empty one takes the note away.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Take the star away; a note stays.")] = False,
    json: Json = False,
) -> None:
    """Mark a checkpoint with a star and a note. Both are kept in CMP_HOME, and nothing is written into the run."""
    bench: Workbench = context.obj
    name, mark = bench.star(target, not off, note)
    if json:
        print_json({"checkpoint": name, "star": mark.star, "note": mark.note})
    else:
        told = f"★ {name}" if mark.star else f"{name} has no star now"
        say(f"{told}{f': {mark.note}' if mark.note else ''}")
