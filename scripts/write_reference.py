"""Writes docs/reference.md from the program itself: `python scripts/write_reference.py [--check]`.

Verbs and options come from the command line's own help, settings and errors from the code that reads and raises them, routes from the
OpenAPI document. With --check nothing is written; the exit code is 1 where the page does not say what the program does.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"
sys.path.insert(0, str(ROOT))

HEAD = """# Reference

Every verb, option, setting, error and route. This page is written from the program itself by
`python scripts/write_reference.py`; `make test` fails where it has not been written anew. How things are done stands in
the [README](../README.md)."""


def main() -> int:
    text = reference()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.is_file() or PAGE.read_text("utf-8") != text)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, "utf-8")
    return 0


def reference() -> str:
    """The whole page."""
    parts = [HEAD, *_verbs(), "## Settings", _settings(), "## Errors", _errors(), "## REST", _routes()]
    return "\n\n".join(parts) + "\n"


def _verbs() -> Iterator[str]:
    from typer.main import get_command

    from cmp.cli import app

    group: Any = get_command(app)
    yield "## Before the verb\n\n" + _table(("option", "meaning"), _options(group))
    yield "## Verbs"
    for name in group.list_commands(None):
        verb = group.get_command(None, name)
        arguments = " ".join(_argument(one) for one in verb.params if one.param_type_name == "argument")
        yield f"### `{' '.join(filter(None, (name, arguments)))}`\n\n{' '.join(verb.help.split())}"
        told = [(f"`{one.human_readable_name}`", _cell(one.help)) for one in verb.params if one.param_type_name == "argument" and one.help]
        yield _table(("option", "meaning"), [*told, *_options(verb)])


def _argument(one: Any) -> str:
    name = str(one.human_readable_name).upper().rstrip("]").lstrip("[")
    several = f"{name}…" if one.nargs == -1 else name
    return several if one.required else f"[{several}]"


def _options(verb: Any) -> list[tuple[str, str]]:
    rows = []
    for one in verb.params:
        if one.param_type_name == "option" and not getattr(one, "hidden", False):
            names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
            value = "" if one.is_flag else f" {_value(one)}"
            rows.append((f"{names}{value}", _cell(one.help)))
    return rows


def _value(one: Any) -> str:
    default = "" if one.default in (None, (), []) or callable(one.default) else f" ({one.default})"
    return f"{one.type.name.upper()}{default}"


def _settings() -> str:
    from cmp.settings import VARIABLES

    told = "In the environment; what is given on the command line goes first."
    return f"{told}\n\n" + _table(("variable", "meaning"), [(f"`{name}`", _cell(meaning)) for name, meaning in VARIABLES.items()])


def _errors() -> str:
    from cmp.errors import CmpError

    rows = [
        (kind.__name__, str(kind.exit_code), str(kind.http_status), _cell((kind.__doc__ or "").partition("\n\n")[0]))
        for kind in sorted(_below(CmpError), key=lambda kind: kind.exit_code)
    ]
    told = (
        "`--json` and REST answer `{error, hint, code}`: what happened with the value quoted, what to do, and the exit code. 0 is done, "
        "1 some of several items failed, 70 a fault of this program."
    )
    return f"{told}\n\n" + _table(("error", "exit code", "HTTP", "meaning"), rows)


def _below(kind: Any) -> list[Any]:
    return [each for below in kind.__subclasses__() for each in (below, *_below(below))]


def _routes() -> str:
    """The routes by the OpenAPI document of a server over nothing."""
    from cmp.rest import api_routes, openapi_of
    from cmp.settings import Settings
    from cmp.workbench import Workbench

    with tempfile.TemporaryDirectory() as home:
        paths = openapi_of(api_routes(Workbench(Settings(home=Path(home), runs=(Path(home),)))), shares=True)["paths"]
    rows = []
    for path, methods in sorted(paths.items()):
        for method, told in methods.items():
            rows.append((f"`{method.upper()} {path}`", _cell(told.get("description") or told.get("summary"))))
    return "`/openapi.json` describes bodies and answers.\n\n" + _table(("route", "meaning"), rows)


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _table(heads: tuple[str, ...], rows: list[Any]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


if __name__ == "__main__":
    sys.exit(main())
