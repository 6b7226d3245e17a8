"""How far long work has come. Long work is an iterator of these; whoever runs it decides when to stop."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` items; `what` says in words what is being done now."""

    done: int
    total: int
    what: str


@dataclass(frozen=True, slots=True)
class Rest:
    """There is nothing to do for so many seconds, and `what` says what is waited for. Whoever runs the work waits, or does other work."""

    seconds: float
    what: str


def run_through(work: Generator[Progress, None, T]) -> T:
    """Carries out long work without watching it, and gives its result."""
    while True:
        try:
            next(work)
        except StopIteration as finished:
            return finished.value
