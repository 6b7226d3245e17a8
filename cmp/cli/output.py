"""How the command line speaks: JSON and tables to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, NoReturn, TextIO

import typer

from cmp.errors import CmpError, NotFound

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]


def print_json(value: object) -> None:
    """One JSON value; characters that this terminal's encoding lacks come as escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=not _speaks_unicode(), allow_nan=False)
    print(text.encode("utf-8", "backslashreplace").decode() if _speaks_unicode() else text)


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def say(text: str) -> None:
    """A line for people on standard output."""
    print(_printable(text))


def in_trouble(text: str) -> None:
    """A line on standard error: progress, warnings, errors."""
    print(_printable(text), file=sys.stderr)


def printing_aside() -> redirect_stdout[TextIO]:
    """Sends to standard error what libraries print meanwhile: Ray does where a worker is lost, and no setting of it changes that."""
    return redirect_stdout(sys.stderr)


def fail(fault: CmpError, *, as_json: bool) -> NoReturn:
    """Tells an error of input and exits with its code."""
    if as_json:
        print_json(fault.as_json())
    in_trouble(f"{fault.title}: {fault.message}")
    if fault.hint:
        in_trouble(f"  {fault.hint}")
    sys.exit(fault.exit_code)


def missing(folders: Iterable[Path]) -> list[Path]:
    """The folders that are not there."""
    return [folder for folder in folders if not _is_there(folder)]


def _is_there(folder: Path) -> bool:
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # what may not be looked at is told by who looks
        return True
    return True


def no_folder(folder: Path) -> NotFound:
    return NotFound(f"there is no folder {folder}", "Check the path as this computer knows it.")


def leave_if_missing(folders: Iterable[Path]) -> None:
    """Ends a command that told all there was with the code of a folder that is not there."""
    if missing(folders):
        raise typer.Exit(NotFound.exit_code)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Columns as wide as their longest entry; those in `right` end flush."""
    table = [[_printable(text) for text in row] for row in (heads, *rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
    for row in table:
        cells = (text.rjust(width) if i in right else text.ljust(width) for i, (text, width) in enumerate(zip(row, widths, strict=True)))
        print("  ".join(cells).rstrip())


def _printable(text: str) -> str:
    """Without control characters, which a file name could use to steer the terminal, and in what the terminal can encode."""
    clean = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
    return clean.encode(sys.stdout.encoding or "utf-8", "backslashreplace").decode(sys.stdout.encoding or "utf-8")
