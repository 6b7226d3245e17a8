"""What stays and what goes of a run's checkpoints, what room a training will still need, and the plan that tells both."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from cmp.core.present import size_text
from cmp.core.runs import Run, path_text, plain_text
from cmp.errors import BadInput

MIN_AGE = 3600.0  # seconds; what is younger may still be being written, or be what the training goes on from
ACTIONS = ("keep", "compact", "trash", "share", "delete")
DROPPED = ("converted", "optimizer")

_RULE = re.compile(r"(last|every)(?::([0-9]{1,18}))?\Z", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?(k|m|g|t)?b?", re.IGNORECASE | re.ASCII)
_AGE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(s|min|h|d)", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "s": 1, "min": 60, "h": 3600, "d": 86400}


# -- rules -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rules:
    """Which checkpoints of a run stay. Without `named` all may, up to the limits; with it only those that a rule names."""

    named: bool = False
    last: int = 0
    every: int | None = None
    best: bool = False
    max_count: int | None = None
    max_bytes: int | None = None
    min_age: float = MIN_AGE

    @property
    def asked(self) -> bool:
        return self.named or self.max_count is not None or self.max_bytes is not None


def parse_rules(keep: str | None = None, max_count: int | None = None, max_size: str | None = None, min_age: str | None = None) -> Rules:
    """The rules of `--keep last:2,starred,every:1000` and the limits; raises BadInput and quotes what cannot be used."""
    last, every, best = 0, None, False
    for part in (part.strip() for part in (keep or "").split(",") if part.strip()):
        found = _RULE.match(part)
        if part in ("best", "starred"):
            best = best or part == "best"
        elif found and found[1] == "last":
            last = int(found[2] or 1)
        elif found and found[2]:
            every = int(found[2])
        else:
            raise BadInput(f"--keep has {part!r}", "Use best, last, last:3, starred or every:1000, several with commas.")
    if keep is not None and not keep.strip(" ,"):
        raise BadInput("--keep names nothing", "Use best, last, last:3, starred or every:1000, several with commas.")
    if every == 0 or (max_count is not None and max_count < 1):
        raise BadInput("a number is 0", "Use 1 or more.")
    size = None if max_size is None else parse_size(max_size, "--max-size")
    age = MIN_AGE if min_age is None else parse_age(min_age, "--min-age")
    return Rules(keep is not None, last, every, best, max_count, size, age)


def parse_size(text: str, what: str) -> int:
    """Bytes of `2GB` or `500 MB`; raises BadInput."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise BadInput(f"{what} is {text!r}", "Write a size such as 2GB or 500MB.")
    return int(float(found[1]) * _UNITS[(found[2] or "").lower()])


def parse_age(text: str, what: str) -> float:
    """Seconds of `30d`, `12h` or `0`; raises BadInput."""
    found = _AGE.fullmatch(text.strip() if text.strip() != "0" else "0s")
    if not found:
        raise BadInput(f"{what} is {text!r}", "Write an age such as 30d, 12h or 0.")
    return float(found[1]) * _UNITS[found[2].lower()]


# -- what stays ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unit:
    """What can only go as a whole: a checkpoint's folder or file, with all checkpoints in it. `ids` are theirs, aliases included.

    `guards` say, in words, why it stays whatever the rules are. Units are given in the order of their steps.
    """

    path: Path
    ids: tuple[str, ...]
    step: int | None
    bytes: int
    guards: tuple[str, ...] = ()
    final: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    unit: Unit
    stays: bool
    why: str


def choose(units: Sequence[Unit], rules: Rules, best: Collection[str] = ()) -> tuple[Choice, ...]:
    """What becomes of each. Limits take the oldest of those that no guard and no rule but `every` holds; where that is not enough, they
    are passed, since nothing that was named is given up for them.
    """
    lasts = [unit for unit in units if not unit.final][-rules.last :] if rules.last else []
    choices: list[Choice] = []
    free: list[int] = []  # places of what limits may take, oldest first
    for place, unit in enumerate(units):
        named = _named(unit, rules, lasts, best)
        if unit.guards:
            choices.append(Choice(unit, True, unit.guards[0]))
        elif named:
            choices.append(Choice(unit, True, named))
        elif rules.every and unit.step is not None and unit.step % rules.every == 0:
            choices.append(Choice(unit, True, f"a multiple of {rules.every} steps"))
            free.append(place)
        elif rules.named:
            choices.append(Choice(unit, False, "no rule keeps it"))
        else:
            choices.append(Choice(unit, True, "within the limits"))
            free.append(place)
    for place in free:
        if why := _beyond(choices, rules):
            choices[place] = Choice(choices[place].unit, False, why)
    return tuple(choices)


def _named(unit: Unit, rules: Rules, lasts: Collection[Unit], best: Collection[str]) -> str | None:
    if rules.best and set(unit.ids) & set(best):
        return "among the best, which cannot be told apart"
    return f"among the last {rules.last}" if rules.last > 1 and unit in lasts else "the last" if unit in lasts else None


def _beyond(choices: Iterable[Choice], rules: Rules) -> str | None:
    """The limit that is passed by what stays."""
    staying = [choice.unit for choice in choices if choice.stays]
    if rules.max_count is not None and len(staying) > rules.max_count:
        return f"beyond the {rules.max_count} that may stay, the oldest first"
    if rules.max_bytes is not None and sum(unit.bytes for unit in staying) > rules.max_bytes:
        return f"beyond the {size_text(rules.max_bytes)} that may stay, the oldest first"
    return None


# -- what is coming --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a training will still write: `count` checkpoints of `each` bytes, and how much is `free`.

    `room` is how many more of them will lie there at once, where the training itself deletes the older ones; None for all.
    """

    count: int
    each: int
    free: int
    room: int | None = None

    @property
    def needed(self) -> int:
        return (self.count if self.room is None else min(self.count, self.room)) * self.each

    @property
    def fits(self) -> bool:
        return self.needed <= self.free

    def as_json(self) -> dict[str, object]:
        return {
            "checkpoints": self.count, "checkpoint_bytes": self.each, "needed_bytes": self.needed, "free_bytes": self.free,
            "fits": self.fits,
        }  # fmt: skip


def forecast(run: Run, free: int) -> Forecast | None:
    """By the recorded number of steps and the interval of saving, else the one that is seen; None where these are not known."""
    steps = sorted({c.step for c in run.checkpoints if c.step is not None})
    sizes = [c.bytes for c in run.checkpoints if c.step is not None and c.bytes and c.flaw is None]
    total, every = _count(run, "max_train_steps"), _count(run, "checkpointing_steps")
    if not every and len(steps) > 1:
        every = int(median(after - before for before, after in pairwise(steps)))
    if not total or not every or not sizes:
        return None
    reached = steps[-1] if steps else 0
    limit = _count(run, "checkpoints_total_limit")  # of which diffusers' scripts keep the newest
    room = max(0, limit - len(steps)) if limit else None
    return Forecast(max(0, total // every - reached // every), int(median(sizes[-5:])), free, room)


def _count(run: Run, key: str) -> int | None:
    value = run.settings[key].value if key in run.settings else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def trash_name(run: Run, key: str) -> str:
    """What tells a checkpoint from all others of a folder, whatever the run is called from where one looks."""
    return f"{run.series or ''}@{key}"


# -- the plan --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """What becomes of one file or folder. `bytes` are its own where it stays, else those that it gives back; of what goes into the trash,
    once that is emptied. `home` is the folder whose trash it concerns, `mark` what it was when the plan was made (see disk.usage.mark),
    `source` the file that it is to share its bytes with, `names` what it is found by again in the trash (see trash_name).
    """

    path: Path
    action: str
    why: str
    bytes: int
    undo: str | None = None
    trash_id: str | None = None
    checkpoint: str | None = None
    home: Path | None = None
    mark: str = ""
    source: Path | None = None
    names: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        return {
            "path": path_text(self.path), "action": self.action, "why": plain_text(self.why), "bytes": self.bytes,
            "undo": plain_text(self.undo) if self.undo else None, "trash_id": self.trash_id,
            "checkpoint": plain_text(self.checkpoint) if self.checkpoint else None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class CleanupPlan:
    """What would become of everything, and the bytes that are occupied, the trash included, before and after.

    `trash_bytes` is what lies in the trash afterwards. `homes` are the folders that are changed; `begun` says what a killed process left,
    `left` what lies in the trash of folders in which no run is left.
    """

    items: tuple[Item, ...]
    before: int
    trash_before: int
    homes: tuple[Path, ...] = ()
    begun: tuple[str, ...] = ()
    runs: tuple[Mapping[str, object], ...] = ()
    cells: Mapping[str, object] | None = None
    disks: tuple[Mapping[str, object], ...] = ()
    left: tuple[Mapping[str, object], ...] = ()
    rules: Rules = Rules()
    share: str | None = None

    @property
    def shown(self) -> frozenset[tuple[str, str, str, str]]:
        """What is to be done, to be compared with another plan: each act, what it is done to, what that was, and its twin."""
        return frozenset((item.action, str(item.path), item.mark, str(item.source or "")) for item in self.changes)

    @property
    def changes(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.action != "keep")

    @property
    def after(self) -> int:
        return self.before - sum(item.bytes for item in self.items if item.action in ("compact", "share", "delete"))

    @property
    def trash_bytes(self) -> int:
        into, out = (sum(item.bytes for item in self.items if item.action == action) for action in ("trash", "delete"))
        return self.trash_before + into - out

    def as_json(self, done: bool) -> dict[str, object]:
        return {
            "before_bytes": self.before, "after_bytes": self.after, "trash_bytes": self.trash_bytes,
            "items": [item.as_json() for item in self.items], "done": done, "begun": list(map(plain_text, self.begun)),
            "runs": list(self.runs), "cells": self.cells, "disks": list(self.disks),
            "left_in_trash": list(self.left),
        }  # fmt: skip
