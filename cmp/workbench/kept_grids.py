"""Grids that were drawn before, by whatever process of this CMP_HOME, as they are listed to be shown again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cmp.core.grids import GridSpec
from cmp.core.orders import grid_to_json, run_reference
from cmp.core.present import shortened
from cmp.core.work import JobRecord
from cmp.errors import CmpError

if TYPE_CHECKING:
    from cmp.workbench import Workbench

MOST = 60  # that are listed
_LONGEST = 40  # characters of a prompt that stands for a title


@dataclass(frozen=True, slots=True)
class KeptGrid:
    """A grid by the newest of its jobs, which is called `id`. `places` are those of its runs, `names` what they were called when it was
    made, `made` when something of it was drawn first, in Unix seconds.
    """

    id: str
    title: str
    names: tuple[str, ...]
    places: tuple[str, ...]
    cells: int
    made: float


def kept_grids(bench: Workbench) -> tuple[KeptGrid, ...]:
    """The grids of which all pictures were drawn, and those of this process of which some were, the newest first. The same one only once.

    Whether the pictures are still there shows when one is asked for, see `grid_again`.
    """
    found: dict[str, KeptGrid] = {}
    for record in reversed(bench.jobs.records()):
        if record.kind != "grid" or not _has_pictures(bench, record):
            continue
        order = _order(bench, record)
        if order is None:
            continue
        one = _kept(record, order)
        key = json.dumps([order["grid"], one.places, order.get("base"), order.get("alpha")], sort_keys=True)
        if key in found:  # it was only looked at again
            found[key] = KeptGrid(found[key].id, one.title, one.names, one.places, one.cells, one.made)
        elif len(found) < MOST:
            found[key] = one
    return tuple(sorted(found.values(), key=lambda one: -one.made))


def _has_pictures(bench: Workbench, record: JobRecord) -> bool:
    """What another process has only drawn in part cannot be shown: all pictures must be there."""
    if bench.jobs.known(record.id) is not None:
        return record.done > record.faults
    return record.over and record.done >= record.total > 0 and not record.faults


def _order(bench: Workbench, record: JobRecord) -> Mapping[str, Any] | None:
    """From what it was made; of a job that could not be kept what this process still knows."""
    try:
        order = bench.jobs.order(record.id)
    except CmpError:
        order = None
    job = bench.jobs.known(record.id)
    if order is None and job is not None and isinstance(job.subject, GridSpec):
        ids = {c.run_id for c in job.subject.checkpoints if c}
        runs = [run for run in bench.library(fresh=False).runs if run.id in ids]
        return {"grid": grid_to_json(job.subject), "runs": list(map(run_reference, runs))}
    return order if order is not None and "grid" in order else None


def _kept(record: JobRecord, order: Mapping[str, Any]) -> KeptGrid:
    grid = order["grid"]
    ids = {str(told["id"]).rpartition("@")[0] for told in grid["checkpoints"] if told}
    runs = list(_runs_in(order))
    own = [(name, path) for name, path in runs if name in ids] or runs  # the others are those of stacked LoRAs
    first, more = grid["prompts"][0], len(grid["prompts"]) - 1
    title = grid.get("title") or f"“{shortened(first.get('name') or first['text'], _LONGEST)}”{f' and {more} more' if more else ''}"
    return KeptGrid(record.id, title, tuple(n for n, _ in own), tuple(p for _, p in own), record.total, record.made)


def _runs_in(order: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for told in order["runs"]:
        yield str(told.get("id", "")), str(told.get("path", ""))
