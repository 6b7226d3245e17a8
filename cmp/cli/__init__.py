"""The command line: one function per verb, over the same workbench as page and REST.

`--json` prints one JSON value on standard output and nothing else there. An error of input never shows a traceback; its exit code is
that of its kind, see `cmp.errors`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cmp.cli import drawing, looking, making, serving
from cmp.cli.output import fail, in_trouble
from cmp.errors import CmpError
from cmp.settings import Settings, prepare_libraries
from cmp.workbench import Workbench

app = typer.Typer(
    name="cmp", help="Compare the checkpoints of diffusion fine-tunes.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip


@app.callback()
def _open_workbench(
    context: typer.Context,
    runs: Annotated[list[Path] | None, typer.Option(help="A folder that holds training runs; may be given several times.")] = None,
    bases: Annotated[list[Path] | None, typer.Option(help="A folder that holds base models; may be given several times.")] = None,
) -> None:
    settings = Settings.from_env(os.environ)
    if runs:
        settings = replace(settings, runs=tuple(folder.expanduser().absolute() for folder in runs))
    if bases:
        settings = replace(settings, bases=tuple(folder.expanduser().absolute() for folder in bases))
    context.obj = Workbench(settings)


for verbs in (looking.app, making.app, drawing.app, serving.app):
    app.registered_commands.extend(verbs.registered_commands)


def main() -> None:
    """Runs the command line and exits with the contract's code."""
    prepare_libraries(os.environ)
    arguments = sys.argv[1:]
    try:
        app(args=arguments, prog_name="python -m cmp", standalone_mode=True)
    except CmpError as fault:
        fail(fault, as_json="--json" in arguments)
    except KeyboardInterrupt:
        in_trouble("cancelled")
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stdout = None  # type: ignore[assignment]
        sys.exit(0)
