"""The table in a safetensors header: which tensors a file holds, and where. Every check of the format's own reader stands here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from cmp.disk.numbers import WIDTHS
from cmp.errors import Unreadable

_SHARED = 1_000_000  # characters; longer ones are seldom, and are not kept
_BEGINS = '{"__metadata__":'
_MOST_AXES = 64  # numpy's own limit


@dataclass(frozen=True, slots=True)
class Seal:
    """Where the bytes of a tensor of a compacted file are, and what they must be: at `start` in `path`, stored as `dtype`.

    `sha256` is that of the bytes in the entry's own type. `missing` says why they cannot be had, None if they are there.
    """

    sha256: str
    path: Path
    dtype: str = ""
    start: int = 0
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies: `start` and `end` count bytes from the beginning of the file, `file` says which of the header's files.

    With a `seal` they count in the file that was compacted, and the seal says where the bytes are now.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    file: int = 0
    seal: Seal | None = None


def read_table(raw: bytes, origin: int, size: int) -> tuple[Mapping[str, Entry], Mapping[str, str]]:
    """The tensors and the metadata that a header describes; the errors lack the file's name."""
    try:
        text = raw.decode("utf-8")  # json itself would also guess at UTF-16
    except ValueError as fault:
        raise Unreadable("has a header that is not JSON", "The file is damaged, or is no safetensors file.") from fault
    read = _table if len(text) <= _SHARED else _table.__wrapped__
    first, rest = _metadata_first(text)
    metadata = None if first is None else _metadata(first)
    tensors, further = read(rest, origin, size)
    if metadata is not None and further is not None:
        raise Unreadable("has a header that is not JSON", "It says its metadata twice: the file is damaged.")
    return tensors, metadata if metadata is not None else further or {}


def _metadata_first(text: str) -> tuple[object, str]:
    """The metadata, which the library writes first and which differs in each checkpoint, and the table without it; None where it
    stands elsewhere or nobody can tell where it ends.
    """
    if text.startswith(_BEGINS):
        with suppress(ValueError, RecursionError):
            metadata, end = json.JSONDecoder(object_pairs_hook=_each_once).raw_decode(text, len(_BEGINS))
            if text.startswith(',"', end) and metadata is not None:
                return metadata, "{" + text[end + 1 :]
    return None, text


@lru_cache(maxsize=256)  # the checkpoints of a run mostly differ in their numbers alone, so that one reading serves them all
def _table(text: str, origin: int, size: int) -> tuple[Mapping[str, Entry], Mapping[str, str] | None]:
    table = _parse(text)
    metadata = _metadata(table.pop("__metadata__")) if "__metadata__" in table else None
    return _entries(table, origin, size), metadata


def _parse(text: str) -> dict[str, Any]:
    try:
        table = json.loads(text)
        if isinstance(table, dict) and text.count(":") > _colons(table):  # seldom: to look at every pair takes as long again
            json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as fault:
        raise Unreadable("has a header that is not JSON", "The file is damaged, or is no safetensors file.") from fault
    if not isinstance(table, dict):
        raise Unreadable("has a header that is no table", "The file is damaged, or is no safetensors file.")
    return table


def _colons(table: Mapping[str, Any]) -> int:
    """How many colons a header of these tensors has at least; one that says something twice has more."""
    metadata = table.get("__metadata__")
    inside = len(metadata) if isinstance(metadata, dict) else 0
    return 4 * len(table) + (inside - 3 if "__metadata__" in table else 0)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands in it twice")
    return table


def _metadata(found: object) -> dict[str, str]:
    """The metadata, which the format takes as texts alone; the library refuses a file where anything else stands in it."""
    try:
        if not isinstance(found, (dict, type(None))):
            raise TypeError
        "".join(found.values() if found else ()).encode()  # JSON can spell halves of surrogate pairs
        "".join(found or ()).encode()
    except (TypeError, ValueError) as fault:
        raise Unreadable("has a header whose metadata is no table of texts", "The file is damaged; copy it again.") from fault
    return dict(found or {})


def _entries(table: dict[str, Any], origin: int, size: int) -> dict[str, Entry]:
    entries = {}
    for name, described in table.items():
        try:
            dtype, shape = described["dtype"], tuple(described["shape"])
            start, end = described["data_offsets"]
            numbers = (*shape, start, end)
            whole = {*map(type, numbers)} == {int} and min(numbers) >= 0 and max(numbers) < 1 << 63 and len(shape) <= _MOST_AXES
            width = WIDTHS.get(dtype)
            name.encode()  # JSON can spell halves of surrogate pairs, which no encoding takes
        except (TypeError, KeyError, ValueError) as fault:
            raise Unreadable(f"describes tensor {name[:80]!r} wrongly", "The file is damaged; copy it again.") from fault
        if width is None:
            raise Unreadable(f"holds {name[:80]!r} as {str(dtype)[:20]!r}", "Numbers of this type are not read here.")
        if not whole or end - start != math.prod(shape) * width or (0 in shape and math.prod(filter(None, shape)) * width >= 1 << 63):
            raise Unreadable(f"describes tensor {name[:80]!r} wrongly", "The file is damaged; copy it again.")
        entries[name] = Entry(dtype, shape, origin + start, origin + end)
    _check_layout(entries, origin, size)
    return entries


def _check_layout(entries: dict[str, Entry], origin: int, size: int) -> None:
    """Tensors must lie end to end: an overlap or a hole means that the offsets cannot be trusted."""
    reached = origin
    for entry in sorted(entries.values(), key=attrgetter("start", "end")):
        if entry.start != reached:
            raise Unreadable("has tensors that overlap or leave a hole", "The file is damaged; copy it again.")
        reached = entry.end
    if reached > size:
        raise Unreadable(
            f"is incomplete: {size:,} of {reached:,} bytes are there",
            "It may still be being written; it is picked up when it is whole.",
        )
    if reached < size:
        raise Unreadable(f"has {size - reached:,} bytes behind its last tensor", "The file is damaged; copy it again.")
