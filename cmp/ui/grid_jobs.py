"""A grid that is drawn as the page tells it: its pictures, how far it has come, what can be done with it. No widget is known here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from cmp.core.grid_axes import Label
from cmp.core.grids import MOST_CELLS, Cell, Fault, GridPlan, GridSpec, Tile
from cmp.core.matrices import grid_matrix, upcoming_cell
from cmp.core.pace import duration_text
from cmp.core.present import counted, size_text
from cmp.core.runs import Checkpoint
from cmp.errors import sentences
from cmp.jobs import Job
from cmp.ui.hints import QUESTION, hint_here
from cmp.ui.values import short_names
from cmp.workbench import Workbench

KINDS = ("grid", "watch")
LARGE = 600  # cells; a value of more is not made anew for each picture
EMPTY: dict[str, Any] = {
    "title": "",
    "columns": [],
    "rows": [],
    "cells": [],
    "done": 0,
    "total": 0,
    "note": "Choose checkpoints and a prompt, and press Draw.",
}
NONE_DRAWN: dict[str, Any] = EMPTY | {"note": "No grid was drawn here, and this server only shows pictures."}
NONE_CHOSEN: dict[str, Any] = EMPTY | {"note": "Choose a run to see what its trainer drew."}
GONE = Fault("this picture was deleted to make room", "Press Draw to draw it again.")
_MOST_EARLIER = 16  # grids for which it is remembered what was shown before
_MOST_FAULTS = 3  # that are told of a plan


def asks(fault: Fault) -> bool:
    """Whether a base model or an alpha would help."""
    return "--base" in fault.hint or "--alpha" in fault.hint


def told_here(fault: Fault) -> str:
    """What happened and what to do on this page."""
    return sentences(fault.error, hint_here(fault.hint))


class Controls(NamedTuple):
    """What the buttons beside Draw mean now: the first says `pause`, and is of use or not."""

    pause: str
    can_pause: bool
    can_cancel: bool


def tiles_of(job: Job) -> dict[Cell, Tile]:
    """The last tile of every cell."""
    return {item.cell: item for item in job.items if isinstance(item, Tile)}


def spec_of(job: Job) -> GridSpec | None:
    """What a job draws; of a watched run what it has drawn so far. None for a job that is made only when its turn comes."""
    if not isinstance(job.subject, GridSpec):
        return None
    if job.kind != "watch":
        return job.subject
    drawn: list[Checkpoint] = [c for tile in tiles_of(job).values() if (c := tile.cell.checkpoint)]
    in_order = sorted(dict.fromkeys(drawn), key=lambda c: c.sort_key)
    return replace(job.subject, checkpoints=tuple(in_order)) if drawn else None


def runs_shown(job: Job) -> set[str]:
    """The ids of the runs that a grid's checkpoints are of; none for one of the base model alone."""
    spec = spec_of(job)
    return {c.run_id for c in spec.checkpoints if c} if spec else set()


class Earlier:
    """What was shown before each grid, so that what both have stays in sight. Safe to use from several threads."""

    def __init__(self) -> None:
        self._tiles: dict[str, tuple[Tile, ...]] = {}

    def put(self, job: Job, before: Job | None) -> None:
        tiles = [tile for tile in tiles_of(before).values() if not tile.preview] if before else []
        self._tiles[job.id] = (*self.of(before), *tiles)[-MOST_CELLS:] if before else ()
        for name in list(self._tiles)[:-_MOST_EARLIER]:
            self._tiles.pop(name, None)

    def of(self, job: Job) -> tuple[Tile, ...]:
        """None once a grid is over: what it could not draw must not be shown as if it had."""
        return () if job.over else self._tiles.get(job.id, ())


def grid_value(bench: Workbench, job: Job, earlier: Sequence[Tile] = ()) -> dict[str, Any]:
    """What the viewer shows of a grid that is being drawn or has been."""
    spec = spec_of(job)
    if spec is None:
        return EMPTY | {"note": "" if job.over else f"{job.title}: no picture yet."}
    label = labels_of(bench, spec, job)
    working = job.kind == "grid" and job.state in ("running", "waiting")
    tiles = [_as_shown(tile, job.over) for tile in tiles_of(job).values()]
    marks = bench.heads(c.id for c in spec.checkpoints if c)
    value = grid_matrix(spec, tiles, label, working, earlier, lambda checkpoint: marks.get(checkpoint, {}))
    names = short_names(bench.library(fresh=False), bench.name_of)
    title = spec.title or ", ".join(names.get(run, run) for run in dict.fromkeys(c.run_id for c in spec.checkpoints if c))
    return value | {
        "title": title,
        "verdict": bench.verdict_line(spec.checkpoints),
        "link": "view",
        "source": job.id,
        "export": f"cmp/export/{job.id}",
        "stars": not bench.settings.read_only,
    }


def labels_of(bench: Workbench, spec: GridSpec, job: Job) -> Label:
    """What a column is called, and below it of which run it is where there are several."""
    several = len({c.run_id for c in spec.checkpoints if c}) > 1
    names = short_names(bench.library(fresh=False), bench.name_of) if several else {}

    # runs may have different bases, and the base column is one of them
    base = next((str(tile.base["id"]) for cell, tile in tiles_of(job).items() if several and not cell.checkpoint and tile.base), "")

    def label(checkpoint: Checkpoint | None) -> tuple[str, str]:
        return bench.column_name(checkpoint), names.get(checkpoint.run_id, "") if checkpoint else base

    return label


def _as_shown(tile: Tile, over: bool) -> Tile:
    if tile.fault:
        return replace(tile, fault=Fault(tile.fault.error, hint_here(tile.fault.hint), tile.fault.code))
    return replace(tile, fault=GONE) if over and _is_gone(tile) else tile


def _is_gone(tile: Tile) -> bool:
    return not tile.fault and not (tile.path and tile.path.is_file())


def stamp_of(job: Job) -> str:
    """Equal while the pictures are. Of a large grid it changes less often, since all of it is sent each time."""
    count = len(job.items)
    coarse = 1 if job.total <= LARGE or job.over else job.total // 100
    return f"{job.id}|{count // coarse}|{job.state}|{job.subject is None}"


def grid_status(bench: Workbench, job: Job) -> tuple[str, bool]:
    """How far a grid has come, in words, and whether the user is asked for a base model or an alpha."""
    tiles = tiles_of(job)
    finals = [tile for tile in tiles.values() if not tile.preview]
    faults = [tile.fault for tile in finals if tile.fault]
    drawn, reused = len(finals) - len(faults), sum(tile.reused for tile in finals)
    total = job.total or len(finals)
    if job.over:
        lines = [f"{job.state}: {drawn} of {counted(total, 'cell')} drawn" + (f", {reused} of them earlier" if reused else "")]
    else:
        lines = [" · ".join(filter(None, (_state(bench, job), f"{drawn} of {total}" if job.total else "", *_ahead(bench, job, tiles))))]
    if faults:
        lines.append(f"{len(faults)} could not be drawn: {told_here(faults[0])}")
    ask = any(map(asks, faults))
    if ask:
        lines.append(f"Which base model, which alpha? Say so under “{QUESTION}” and press Draw again.")
    if job.error:
        lines.append(job.error.told)
    return "\n".join(lines), ask


def _state(bench: Workbench, job: Job) -> str:
    """What keeps a job from drawing, "" for nothing."""
    if job.cancelled.is_set():
        return "stopping"
    if job.pausing:
        return "pausing after the picture in hand"
    if job.state == "paused":
        return "paused"
    if job.state == "waiting":
        place = bench.jobs.record(job.id).position
        return f"waiting: number {place} in the queue" if place else "waiting"
    return ""


def _ahead(bench: Workbench, job: Job, tiles: dict[Cell, Tile]) -> list[str]:
    """The time that is left, and what is being drawn now."""
    if job.state != "running":
        return []
    what = job.progress.what if job.progress else "loading the base model …"
    told = []
    if job.kind == "grid" and isinstance(job.subject, GridSpec):
        left = [cell for cell in job.subject.cells() if cell not in tiles or tiles[cell].preview]
        seconds = [tile.seconds for tile in tiles.values() if tile.seconds and not (tile.preview or tile.reused)]
        told += [f"{duration_text(len(left) * sum(seconds) / len(seconds))} left"] if left and seconds else []
        upcoming = upcoming_cell(job.subject.cells(), tiles)
        if upcoming and not what.startswith("waiting") and job.progress:
            preview = "preview of " if job.subject.preview and upcoming not in tiles else ""
            what = f"{preview}{bench.column_name(upcoming.checkpoint)}: {what}"
    return [*told, what]


def controls_of(job: Job | None) -> Controls:
    """What can be done with a job now."""
    if job is None or job.over or job.cancelled.is_set():
        return Controls("Pause", False, False)
    stands = job.state == "paused"
    return Controls("Resume" if stands else "Pause", stands or not job.pausing, True)


def last_job(bench: Workbench, wanted: str = "") -> Job | None:
    """The job of that id, or else the newest grid of this server; one that is not over goes before those that are."""
    jobs = [job for job in bench.jobs.all() if job.kind in KINDS]
    named = next((job for job in jobs if job.id == wanted), None)
    return named or max(jobs, key=lambda job: (not job.over, job.made), default=None)


def plan_text(bench: Workbench, spec: GridSpec, plan: GridPlan | None) -> str:
    """What pressing Draw would do: `24 cells: 16 new, 8 drawn earlier · about 40 s · 2 MB`, and what stands against some of it."""
    cells = f"{spec.size} cell{'s' if spec.size > 1 else ''}"
    if plan is None:
        return f"{cells} · looking which were drawn earlier …"
    parts = [f"{plan.new} new" if plan.new else "", f"{plan.reused} drawn earlier" if plan.reused else ""]
    parts += [f"{plan.same} the same as a new one"] if plan.same else []
    parts += [f"{len(plan.faults)} cannot be drawn"] if plan.faults else []
    told = [f"{cells}: {', '.join(filter(None, parts))}"]
    if plan.new:
        told += [duration_text(plan.seconds, about=True) if plan.seconds is not None else "time not known yet"]
        told += [size_text(plan.bytes)] if plan.bytes is not None else []
    return "\n".join([" · ".join(told), *_against(bench, plan)])


def _against(bench: Workbench, plan: GridPlan) -> list[str]:
    """Each reason once, with the columns that it holds for."""
    against: dict[str, dict[str, None]] = {}
    for cell, fault in plan.faults:
        against.setdefault(told_here(fault), {})[bench.column_name(cell.checkpoint)] = None
    lines = [f"{', '.join(names)}: {why}" for why, names in list(against.items())[:_MOST_FAULTS]]
    more = len(against) - len(lines)
    return [*lines, *([f"and {more} more reasons"] if more > 0 else [])]


def needs_answer(plan: GridPlan) -> bool:
    """Whether nothing can be drawn before a base model or an alpha is said."""
    return none_drawable(plan) and any(asks(fault) for _, fault in plan.faults)


def none_drawable(plan: GridPlan) -> bool:
    """Whether not one cell can be drawn, so that drawing is not even begun: a job would tell each cell the same."""
    return 0 < plan.cells <= len(plan.faults)
