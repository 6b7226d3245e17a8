"""The command line: one function per verb, over the same workbench as page and REST.

`--json` prints one JSON value on standard output and nothing else there. An error of input never shows a traceback; its exit code is
that of its kind, see `cmp.errors`.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from cmp.cli.output import fail, in_trouble, missing, no_folder, print_json
from cmp.errors import CmpError
from cmp.settings import Settings, prepare_libraries, split_runs
from cmp.workbench import Workbench

# in which module of this folder each verb is
VERBS = {
    "list": "listing",
    "show": "looking",
    "curves": "charting",
    "convert": "making",
    "grid": "drawing",
    "measure": "measuring",
    "star": "starring",
    "best": "picking",
    "vote": "picking",
    "watch": "watching",
    "jobs": "jobbing",
    "cells": "jobbing",
    "storage": "storing",
    "restore": "storing",
    "share": "sharing",
    "serve": "serving",
    "mcp": "tooling",
    "doctor": "looking",
}


# what goes on where a folder of runs is not there: it looks into none, waits for it, or tells what is wrong
_WITHOUT = ("list", "doctor", "serve", "mcp", "jobs", "cells")

# what typer raises for options and arguments that there are not; newer versions have it in a private module of their own
Misused: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class Verbs(TyperGroup):
    """The verbs; only the module of the one that is asked for is loaded, so that `list` does not wait for what drawing needs."""

    def list_commands(self, context: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, context: Any, name: str) -> Any:
        # a name that is none is looked for in all of them, so that typer can say which one may be meant
        for module in [VERBS[name]] if name in VERBS else dict.fromkeys(VERBS.values()):
            self.commands.update(get_group(import_module(f"cmp.cli.{module}").app).commands)
        return self.commands.get(name)


app = typer.Typer(
    cls=Verbs, name="cmp", help="Compare the checkpoints of diffusion fine-tunes.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip


@app.callback()
def _open_workbench(
    context: typer.Context,
    runs: Annotated[
        list[str] | None, typer.Option(help="A folder that holds training runs, or hf://OWNER/NAME; may be given several times.")
    ] = None,
    bases: Annotated[list[Path] | None, typer.Option(help="A folder that holds base models; may be given several times.")] = None,
) -> None:
    settings = Settings.from_env(os.environ)
    if runs:
        folders, hub = split_runs(runs)
        settings = replace(settings, runs=folders, hub=hub)
    if bases:
        settings = replace(settings, bases=tuple(folder.expanduser().absolute() for folder in bases))
    for folder in missing(settings.runs):
        if context.invoked_subcommand not in _WITHOUT:
            raise no_folder(folder)
        if context.invoked_subcommand != "list":  # which tells it among its problems
            in_trouble(no_folder(folder).told)
    context.obj = Workbench(settings)
    if settings.hub and context.invoked_subcommand not in ("jobs", "cells"):
        from cmp.workbench.places import NOT_BROUGHT

        with suppress(*(NOT_BROUGHT if context.invoked_subcommand == "doctor" else ())):  # which says why, and what to type
            for step in context.obj.fetching():
                in_trouble(step.what)


def main() -> None:
    """Runs the command line and exits with the contract's code."""
    prepare_libraries(os.environ)
    arguments = sys.argv[1:]
    try:
        sys.exit(app(args=arguments, prog_name="python -m cmp", standalone_mode=False))
    except Misused as fault:
        if "--json" in arguments:
            hint = "`python -m cmp VERB --help` lists what there is."
            print_json({"error": fault.format_message(), "hint": hint, "code": fault.exit_code})
        fault.show()
        sys.exit(fault.exit_code)
    except typer.Abort:
        sys.exit(1)
    except CmpError as fault:
        fail(fault, as_json="--json" in arguments)
    except KeyboardInterrupt:
        in_trouble("cancelled")
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stdout = None  # type: ignore[assignment]
        sys.exit(0)
