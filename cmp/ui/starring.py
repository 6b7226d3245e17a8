"""A star and a note for the checkpoint of a cell, as the matrix asks for it by its `edit` event."""

from __future__ import annotations

from typing import Any

from cmp.core.grid_axes import RUN, STEP
from cmp.core.labels import BASE_MODEL
from cmp.errors import BadInput
from cmp.workbench import Workbench


def star(bench: Workbench, told: dict[str, Any]) -> None:
    """Puts a star on the checkpoint of a cell, or takes it away; raises BadInput for the base model's."""
    name, note = told.get("id") or _named(dict(told.get("at") or {})), told.get("note")
    bench.star(str(name), bool(told.get("on")), None if note is None else str(note), only_ids=True)


def _named(at: dict[str, Any]) -> str:
    key = str(at.get(STEP) or "")
    if not key or key == BASE_MODEL:
        raise BadInput("the base model takes no star", "Star a checkpoint.")
    return f"{at[RUN]}@{key}" if at.get(RUN) else key
