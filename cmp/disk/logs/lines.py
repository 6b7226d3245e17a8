"""Logs that are text: their whole lines from a place on, and the numbers in them. A last line without its end is left for later."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

from cmp.disk.logs.records import opened

_BLOCK = 8 << 20
_LONGEST = 1 << 20  # bytes of one line; a longer one is no row of a log, and what is behind its first part is passed over
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_STEPS = (
    "step", "global_step", "steps", "_step", "train/global_step", "trainer/global_step", "train_step", "iteration", "iter", "iterations",
)  # fmt: skip
_TIMES = frozenset(("timestamp", "time", "wall_time", "wall time", "_timestamp", "created_at", "date", "datetime"))
_MILLISECONDS = 1e11  # Unix times beyond it are not in seconds
_NO_TAGS = frozenset(("_runtime", "_wandb", "total_flos"))


def whole_lines(path: Path, start: int, ends: bytes = b"\n") -> Iterator[tuple[int, bytes]]:
    """Place and text of every line from byte `start` on that has its end, which may be any of `ends` and is kept.

    Raises Unreadable as `opened` does.
    """
    split = re.compile(b"[^" + re.escape(ends) + b"]*[" + re.escape(ends) + b"]")
    with opened(path) as (file, size):
        at = start
        while at < size:
            file.seek(at)
            data = file.read(min(_BLOCK, size - at))
            behind = 0
            for found in split.finditer(data):
                yield at + found.start(), found[0]
                behind = found.end()
            if not behind:
                if len(data) < _LONGEST or at + len(data) >= size:
                    return
                behind = len(data)
            at += behind


def as_number(value: object) -> float | None:
    """A number, or text that is one; None for anything else, truth values included."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and _NUMBER.fullmatch(text := value.strip()):
        return float(text)
    return None


def as_step(value: object) -> int | None:
    """A whole number that an array of 64 bits holds."""
    number = as_number(value)
    if number is None or not math.isfinite(number) or number != int(number) or abs(number) >= 1 << 62:
        return None
    return value if isinstance(value, int) else int(number)


def as_time(value: object) -> float:
    """Unix seconds of a time in seconds, milliseconds or ISO 8601 (without a zone: UTC); nan for anything else."""
    number = as_number(value)
    if number is not None:
        return number / 1000 if number > _MILLISECONDS else number
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
            return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()
        except (ValueError, OverflowError, OSError):
            pass
    return math.nan


def step_name(names: Mapping[str, object]) -> str | None:
    """Which of these names holds the step, None if none does."""
    lower = {name.strip().lower(): name for name in reversed(list(names))}
    return next((lower[name] for name in _STEPS if name in lower), None)


def is_time(name: str) -> bool:
    return name.strip().lower() in _TIMES


def is_tag(name: str) -> bool:
    """Whether the values under a name may be a curve: neither the step, in whatever words, nor a time."""
    return bool(name.strip()) and name.strip().lower() not in _STEPS and not is_time(name) and name not in _NO_TAGS
