"""The verb that serves other programs' assistants: mcp."""

from __future__ import annotations

import typer

from cmp.workbench import Workbench

app = typer.Typer(rich_markup_mode=None)


@app.command()
def mcp(context: typer.Context) -> None:
    """Serve list, show, curves, best and grid as tools of the Model Context Protocol, over standard input and output."""
    from cmp.tools import serve_tools

    bench: Workbench = context.obj
    serve_tools(bench)
