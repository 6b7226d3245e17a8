"""How far long work has come. Long work is an iterator of these; whoever runs it decides when to stop."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

T = TypeVar("T")

WAITING = "waiting for the disk"  # of every file, so that a list of what is done need not say it each time


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` items; `what` says in words what is being done now.

    `done_bytes` of `total_bytes` were read to be compared, written or read back; `total_bytes` is 0 where nobody counts them.
    """

    done: int
    total: int
    what: str
    done_bytes: int = 0
    total_bytes: int = 0


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


def counted_from(before: int, work: Generator[Progress, None, T], total: int = 0) -> Generator[Progress, None, T]:
    """The same work as a part of a longer one of `total` bytes, `before` of which come earlier; 0 leaves the part's own total."""
    with closing(work):
        while True:
            try:
                step = next(work)
            except StopIteration as finished:
                return finished.value
            done = before + step.done_bytes
            yield replace(step, done_bytes=min(done, total) if total else done, total_bytes=total or step.total_bytes)
