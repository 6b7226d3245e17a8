"""What the readers of trainers' layouts give, and what several of them need."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cmp.core.runs import Checkpoint, Setting
from cmp.disk.checkpoint import open_weights
from cmp.disk.json_table import read_json_table
from cmp.disk.logs.hparams import may_be_shown
from cmp.disk.logs.sessions import Session
from cmp.disk.tensors import Header
from cmp.errors import CmpError, Unreadable

_LARGEST_CONFIG = 1 << 20  # bytes
Settings = dict[str, Setting]


@dataclass(frozen=True, slots=True)
class Found:
    """One run as a trainer's reader makes it out in a folder; its logs are looked for afterwards.

    `series` names it where other runs have their files in the same folder. `logs` are files that no event file's name betrays,
    `sessions` the times at which it was trained, if the weights files tell them. `claimed` are folders beside its files that are no
    runs of their own; with `whole` nothing below the folder is one.
    """

    trainer: str
    checkpoints: tuple[Checkpoint, ...]
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)
    logs: tuple[Path, ...] = ()
    sessions: tuple[Session, ...] = ()
    series: str | None = None
    claimed: frozenset[str] = frozenset()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What a trainer wrote into the header of a weights file: `step` and `epoch` reached, `name` the one it gave its files.

    `told_by` is the key that tells the step.
    """

    trainer: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    name: str | None = None
    step: int | None = None
    epoch: int | None = None
    told_by: str = ""
    session: Session | None = None


def header_of(file: Path) -> Header | None:
    """The header of a weights file, None if it cannot be read; one that was read a moment ago is not read again."""
    try:
        return open_weights(file).header
    except CmpError:
        return None


def read_json(file: Path) -> dict[str, object]:
    """The table in a JSON file; empty if there is none that can be read, or it lies behind a link."""
    try:
        return read_json_table(file, most=_LARGEST_CONFIG, links=False)
    except Unreadable:
        return {}


def parse_table(text: str | bytes) -> dict[str, object]:
    """The table that a JSON text holds, empty if it holds none."""
    found = parse_json(text)
    return found if isinstance(found, dict) else {}


def parse_json(text: str | bytes) -> object:
    """What a JSON text holds, None if it is none."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def tables(value: object) -> tuple[dict[str, object], ...]:
    """The tables in a list, or the one table that it is."""
    items = value if isinstance(value, list) else [value]
    return tuple(item for item in items if isinstance(item, dict))


def settings_from(values: Mapping[str, object], names: Mapping[str, str], source: str) -> Settings:
    """The values whose keys are in `names`, under the names given there; what is None, empty or may not be shown is left out."""
    told = {name: values[key] for key, name in names.items() if values.get(key) not in (None, "", "None", [], {})}
    return {name: Setting(tuple(v) if isinstance(v, list) else v, source) for name, v in told.items() if may_be_shown(v)}


def trigger_words(words: Iterable[object], source: str) -> Settings:
    """The words that call up what was trained, as a setting; empty without any."""
    told = tuple(dict.fromkeys(word.strip() for word in words if isinstance(word, str) and word.strip() and may_be_shown(word)))
    return {"trigger_words": Setting(told[:8], source)} if told else {}


def plain_number(text: object) -> object:
    """A number that was written as text, as safetensors metadata holds it; anything else as it is."""
    if isinstance(text, str):
        for kind in (int, float):
            try:
                number = kind(text) if text.isascii() and "_" not in text else text
            except ValueError:
                continue
            return number if not isinstance(number, float) or math.isfinite(number) else text
    return text


def count_in(value: object) -> int | None:
    """A step or epoch, None for anything that is not a whole number of them."""
    number = plain_number(value)
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 10**18 else None
