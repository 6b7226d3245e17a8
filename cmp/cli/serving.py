"""The verb that serves the page and REST."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from cmp.workbench import Workbench

app = typer.Typer(rich_markup_mode=None)


@app.command()
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="The port; 0 takes any free one.")] = None,
    token: Annotated[str | None, typer.Option(help="What callers must show before anything is written or drawn.")] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only to be looked at: nothing is drawn, converted or changed for anybody.")
    ] = False,
) -> None:
    """Serve the dashboard and the REST API. Beyond this computer it wants a token, and makes one up if none is given."""
    from cmp.server import serve_forever

    bench: Workbench = context.obj
    settings = bench.settings
    settings = replace(settings, port=settings.port if port is None else port, token=token or settings.token, read_only=read_only)
    bench.settings = settings
    serve_forever(bench, host)
