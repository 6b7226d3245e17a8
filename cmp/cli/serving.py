"""The verb that serves the page and REST."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cmp.errors import BadInput
from cmp.settings import LOG_FORMATS, read_port
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
        bool, typer.Option("--read-only", help="Nothing is converted, measured or changed for anybody, and only small grids are drawn.")
    ] = False,
    no_drawing: Annotated[bool, typer.Option("--no-drawing", help="The same, and nothing is drawn either.")] = False,
    share: Annotated[bool, typer.Option("--share", help="Also through gradio's public tunnel; only with a token.")] = False,
    log_format: Annotated[str | None, typer.Option(help="How events are told, one a line: text, or json.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Where events are told, at its end; standard error otherwise.")] = None,
    alert_webhook: Annotated[str | None, typer.Option(help="Alerts are posted to this address as JSON.")] = None,
    alert_command: Annotated[
        str | None, typer.Option(help="This command gets each alert as JSON on its standard input; no shell reads it.")
    ] = None,
) -> None:
    """Serve the dashboard and the REST API. For others than this computer it wants a token, or --read-only with --open-reading."""
    from cmp.server import serve_forever

    bench: Workbench = context.obj
    settings = bench.settings
    if log_format not in (None, *LOG_FORMATS):
        raise BadInput(f"--log-format is {log_format!r}", f"Use one of: {', '.join(LOG_FORMATS)}.")
    bench.settings = replace(
        settings, port=settings.port if port is None else read_port(str(port), "--port"), token=token or settings.token,
        read_only=read_only or no_drawing or settings.read_only, drawing=settings.drawing and not no_drawing,
        open_reading=open_reading or settings.open_reading,
        log_format=log_format or settings.log_format,
        log_file=log_file.expanduser().absolute() if log_file else settings.log_file,
        alert_webhook=alert_webhook or settings.alert_webhook, alert_command=alert_command or settings.alert_command,
    )  # fmt: skip
    raise typer.Exit(serve_forever(bench, host, share=share))
