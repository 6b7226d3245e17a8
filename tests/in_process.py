"""The command line within this process: what a user types, what it prints and its exit code, without importing torch again each time."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """What a command left behind. `crashed` is a fault of ours: an exception that no command may let out."""

    code: int
    out: str
    err: str
    crashed: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def told(self) -> str:
        """All that it said, for an assertion's message."""
        return f"exit code {self.code}\n{self.out[-1500:]}\n{self.err[-1500:]}"


class _Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]


def command(home: Path, *arguments: str) -> Said:
    """`python -m cmp ARGUMENTS…` with its state in `home`."""
    from cmp.cli import main

    out, err, crashed = _Terminal(), _Terminal(), False
    with _as_typed(home, arguments), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        except Exception:  # noqa: BLE001  (a traceback is what the caller wants to see)
            err.write(traceback.format_exc())
            code, crashed = 70, True
    return Said(code, out.getvalue(), err.getvalue(), crashed)


@contextmanager
def _as_typed(home: Path, arguments: tuple[str, ...]) -> Iterator[None]:
    """The arguments and environment of a process of its own, put back afterwards."""
    argv, environ = sys.argv, dict(os.environ)
    for name in [name for name in environ if name.startswith("CMP_")]:
        del os.environ[name]
    os.environ |= {"CMP_HOME": str(home), "CMP_DEVICE": "cpu", "HF_HUB_OFFLINE": "1"}
    sys.argv = ["cmp", *arguments]
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environ)
