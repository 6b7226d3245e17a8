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
    host: Annotated[str, typer.Option(help="The address to listen on; beyond this computer only with a token.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="The port; 0 takes any free one.")] = None,
    token: Annotated[str | None, typer.Option(help="What callers must show; auto makes one up and prints it.")] = None,
    open_reading: Annotated[
        bool, typer.Option("--open-reading", help="Looking needs no token; drawing, converting and changing do.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only to be looked at: nothing is drawn, converted or changed for anybody.")
    ] = False,
    share: Annotated[bool, typer.Option("--share", help="Also through gradio's public tunnel; only with a token.")] = False,
) -> None:
    """Serve the dashboard and the REST API. For others than this computer it wants a token, or --read-only with --open-reading."""
    from cmp.server import serve_forever

    bench: Workbench = context.obj
    settings = bench.settings
    bench.settings = replace(
        settings, port=settings.port if port is None else port, token=token or settings.token,
        read_only=read_only or settings.read_only, open_reading=open_reading or settings.open_reading,
    )  # fmt: skip
    serve_forever(bench, host, share=share)
