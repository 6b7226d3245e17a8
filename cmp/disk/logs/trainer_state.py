"""The history in `trainer_state.json`, which transformers' Trainer writes anew into each checkpoint: all that was logged until then."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmp.disk.logs.lines import as_number, as_step, is_tag
from cmp.disk.logs.records import opened
from cmp.disk.logs.scalars import EventScalars, Rows, TagScalars
from cmp.errors import Unreadable

NAME = "trainer_state.json"
_LARGEST = 256 << 20
_OF_THE_WHOLE = frozenset(("train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second", "epoch"))


def is_trainer_state(path: Path, head: bytes) -> bool:
    return path.name == NAME


def read_trainer_state(path: Path, earlier: EventScalars | None = None) -> EventScalars:
    """Every value of the history by step; the means over the whole training that end it are no values of their step and left out."""
    with opened(path) as (file, size):
        if size > _LARGEST:
            raise Unreadable(f"{path} is {size:,} bytes long, which no history is", "Check what wrote it.")
        content = file.read()
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as fault:
        raise Unreadable(f"{path} is not JSON: {str(fault)[:200]}", "It may be half-written; look again later.") from fault
    history = found.get("log_history") if isinstance(found, dict) else None
    if not isinstance(history, list):
        raise Unreadable(f"{path} holds no log_history", "Give the trainer_state.json that transformers wrote.")
    rows, bad = Rows(), 0
    for number, entry in enumerate(history):
        step = as_step(entry.get("step")) if isinstance(entry, dict) else None
        if step is None:
            bad += 1
            continue
        summary = "train_runtime" in entry
        for tag, value in entry.items():
            number_or_none = as_number(value)
            if number_or_none is not None and is_tag(tag) and not (summary and tag in _OF_THE_WHOLE):
                rows.add(tag, step, number_or_none, math.nan, number)
    notes = (f"{path.name}: {bad} entries of its history have no step and were left out",) if bad else ()
    return EventScalars(path, rows.told(), rows.starts(), 0, size, notes)


def without_beginnings(logs: Sequence[EventScalars]) -> list[EventScalars]:
    """Histories that say more than the others: one that is the beginning of another, as each checkpoint's is of the next, is dropped.

    Of what differs only the part from the first difference on is kept, so that it is told as a training that was started again there.
    """
    kept: list[EventScalars] = []
    for log in sorted(logs, key=lambda log: -sum(tag.steps.size for tag in log.tags.values())):
        if not any(_begins(log, other) for other in kept):
            kept.append(log)
    order = sorted(kept, key=lambda log: log.written)
    return [log if not number else _from(log, _first_difference(log, order[:number])) for number, log in enumerate(order)]


def _begins(log: EventScalars, other: EventScalars) -> bool:
    return all(tag in other.tags and _shared(of, other.tags[tag]) == of.steps.size for tag, of in log.tags.items())


def _shared(one: TagScalars, other: TagScalars) -> int:
    """How many points two histories of a tag share from their beginning on."""
    least = min(one.steps.size, other.steps.size)
    same = (one.steps[:least] == other.steps[:least]) & (
        (one.values[:least] == other.values[:least]) | (np.isnan(one.values[:least]) & np.isnan(other.values[:least]))
    )
    return least if same.all() else int(np.argmin(same))


def _first_difference(log: EventScalars, others: Sequence[EventScalars]) -> int:
    """The first step from which on this history agrees with none of the older ones."""
    steps = []
    for other in others:
        own = [(of.steps, _shared(of, other.tags[tag]) if tag in other.tags else 0) for tag, of in log.tags.items()]
        steps.append(min((int(s[n]) for s, n in own if n < s.size), default=0))
    return max(steps, default=0)


def _from(log: EventScalars, step: int) -> EventScalars:
    tags = {}
    for tag, of in log.tags.items():
        wanted = of.steps >= step
        if wanted.any():
            tags[tag] = TagScalars(of.steps[wanted], of.values[wanted], of.wall_times[wanted], of.offsets[wanted])
    return replace(log, tags=tags)
