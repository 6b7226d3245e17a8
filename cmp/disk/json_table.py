"""Reads the small JSON tables that lie beside weights: settings, indexes, records. One reader, so that all of them have the same limits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cmp.disk.tensors import identify, without_waiting
from cmp.errors import Unreadable, json_place

LARGEST = 4_000_000  # bytes of settings; an index of shards may have more
_HINT = "The file is damaged; copy it again."


def read_json_table(file: Path, *, most: int = LARGEST, links: bool = True) -> dict[str, Any]:
    """The table that a JSON file holds; raises Unreadable with what is wrong with it, FIFOs and files of more than `most` bytes included.

    `links` may be followed in a base model, as the Hugging Face cache has them, and not in a run, which must not lead out of its folder.
    """
    if not links and os.path.islink(file):
        raise Unreadable(f"{file} is a link", "Links are not followed.")
    identify(file)
    try:
        with open(file, "rb", opener=without_waiting) as opened:
            raw = opened.read(most + 1)
    except OSError as fault:
        raise Unreadable(f"cannot read {file}: {fault.strerror}", "Check its permissions.") from fault
    if len(raw) > most:
        raise Unreadable(f"{file} is far too large: it has more than {most:,} bytes", "Check what wrote it.")
    try:
        table = json.loads(raw.decode("utf-8-sig"))  # json itself would also guess at UTF-16; Windows' editors put a mark in front
    except (ValueError, RecursionError) as fault:
        raise Unreadable(f"{file} is not JSON{json_place(fault)}", _HINT) from fault
    if not isinstance(table, dict):
        raise Unreadable(f"{file} holds no table", _HINT)
    return table
