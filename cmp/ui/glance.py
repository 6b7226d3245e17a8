"""A run at one glance, for the list of runs: some of its pictures over the steps, and the course of its loss."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cmp.core.curves import LossCurve
from cmp.core.grids import Tile
from cmp.core.losses import losses_at
from cmp.core.runs import Library, Run
from cmp.core.samples import Sample
from cmp.core.smoothing import smooth
from cmp.core.thinning import thin
from cmp.ui.values import Glance, is_unread
from cmp.workbench import Workbench

MOST = 6  # pictures
POINTS = 60  # of the line
WEIGHT = 0.9  # of the smoothing: the course is to be seen, not each step
LEAST = 4
BUDGET = 0.5  # seconds of reading logs for one look at the list; what is left comes with the next


def glances(bench: Workbench, library: Library) -> dict[str, Glance]:
    """A glance at every run, by its id."""
    until = time.monotonic() + BUDGET
    drawn = tiles_by_run(bench)
    return {run.id: _glance(bench, run, drawn.get(run.id, ()), until) for run in library.runs}


def first_run(bench: Workbench, library: Library) -> Run | None:
    """The run that a new page shows: the first one whose trainer left pictures, as far as that is known without reading any log."""
    return min(library.runs, key=lambda run: not has_pictures(bench, run), default=None)


def has_pictures(bench: Workbench, run: Run) -> bool:
    """Whether pictures of its trainer are known without reading any log."""
    return bool(run.samples) or bench.gallery.has_found(run)


def first_ids(bench: Workbench, library: Library) -> list[str]:
    """The id of that run, if there is any."""
    run = first_run(bench, library)
    return [run.id] if run else []


def _glance(bench: Workbench, run: Run, drawn: Sequence[Tile], until: float) -> Glance:
    ready = not is_unread(run) and (bench.gallery.knows_loss(run) or time.monotonic() < until)
    curve = bench.gallery.loss(run) if ready else None
    line = line_of(curve) if ready else None
    loss = loss_at_end(curve)
    samples = run.samples or (bench.gallery.samples(run) if ready and run.logs else ())
    if samples:
        return Glance(sample_strip(bench, samples), len(samples), False, line, loss=loss)
    tiles = [tile for tile in drawn if tile.cell.checkpoint and tile.cell.checkpoint.step is not None]
    return Glance(tuple(map(_tile_picture, spread(tiles))), len(drawn), True, line, not ready, loss)


def spread(items: Sequence[Any]) -> list[Any]:
    """At most `MOST` of them, evenly, the last one with them."""
    if len(items) <= MOST:
        return list(items)
    return [items[round(i * (len(items) - 1) / (MOST - 1))] for i in range(MOST)]


def sample_strip(bench: Workbench, samples: Sequence[Sample]) -> tuple[dict[str, str], ...]:
    """The same picture over the steps: the first one of the prompt that has most of them."""
    lines: dict[object, list[Sample]] = {}
    for sample in samples:
        lines.setdefault((sample.prompt, sample.variant, sample.image), []).append(sample)
    longest = max(lines.values(), key=len)
    longest.sort(key=lambda s: (s.step is None, s.step or 0, s.epoch or 0))
    named = ((sample, bench.gallery.name(sample)) for sample in spread(longest))
    return tuple({"url": f"cmp/sample/{name}.256.webp", "label": step_text(sample)} for sample, name in named if name)


def step_text(sample: Sample) -> str:
    return str(sample.step) if sample.step is not None else f"e{sample.epoch}"


def tiles_by_run(bench: Workbench) -> dict[str, list[Tile]]:
    """Of each run what was drawn last of it with one prompt, seed and setting, by its steps."""
    out: dict[str, dict[str, Tile]] = {}
    first: dict[str, Tile] = {}
    for job in reversed(bench.jobs.all()):
        for tile in (item for item in tuple(job.items) if isinstance(item, Tile)):
            checkpoint = tile.cell.checkpoint
            if checkpoint is None or tile.fault or tile.preview or not (tile.path and tile.path.is_file()):
                continue
            like = first.setdefault(checkpoint.run_id, tile).cell
            if replace(tile.cell, checkpoint=None) == replace(like, checkpoint=None):
                out.setdefault(checkpoint.run_id, {}).setdefault(checkpoint.key, tile)
    return {name: sorted(its.values(), key=_tile_step) for name, its in out.items()}


def _tile_step(tile: Tile) -> int:
    return (tile.cell.checkpoint.step if tile.cell.checkpoint else None) or 0


def _tile_picture(tile: Tile) -> dict[str, str]:
    return {"url": f"cmp/cell/{tile.key}.256.webp", "label": str(_tile_step(tile))}


def loss_at_end(curve: LossCurve | None) -> float | None:
    """The loss where the log ends, smoothed as in the heads of the pictures; None where it is not known."""
    return next(iter(losses_at([curve], [int(curve.steps[-1])]).values()), None) if curve and curve.steps.size else None


def line_of(curve: LossCurve | None) -> tuple[tuple[float, float], ...]:
    """The course of a loss as points from 0 to 1, the lowest value at 0; empty where so few were logged that a line would say nothing."""
    if curve is None or curve.steps.size < LEAST:
        return ()
    values = smooth(curve.values, WEIGHT)
    shown = thin(curve.steps, values, POINTS)
    points = [(int(curve.steps[i]), float(values[i])) for i in shown.tolist() if math.isfinite(values[i])]
    if len(points) < LEAST:
        return ()
    low, high = min(y for _, y in points), max(y for _, y in points)
    start, span = points[0][0], points[-1][0] - points[0][0]
    return tuple((round((x - start) / (span or 1), 4), round((y - low) / ((high - low) or 1), 4)) for x, y in points)
