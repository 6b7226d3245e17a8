"""What the page's viewers are fed with: plain values made from runs, curves and tiles. No widget is known here."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from cmp.core.curves import LossCurve, smooth, thin
from cmp.core.describing import kind_text
from cmp.core.grids import Cell, GridSpec, Tile
from cmp.core.present import alias_text, loss_text, size_text, steps_text
from cmp.core.runs import Checkpoint, Library, Run, Sample, validation_prompts
from cmp.errors import sentences

Names = Callable[[Run | Checkpoint], str]
PICKING = "Compare it with the base model"
MOST_POINTS = 1500  # per line: more than a screen has pixels


def names_apart(library: Library, name_of: Names) -> dict[str, str]:
    """What every run is called, by its id; runs of the same name are told apart by their ids."""
    names = {run.id: name_of(run) for run in library.runs}
    often = Counter(names.values())
    return {run_id: f"{name} ({run_id})" if often[name] > 1 else name for run_id, name in names.items()}


def runs_table(library: Library, name_of: Names, chosen: str | None) -> dict[str, Any]:
    """The table of runs, one of them chosen."""
    now = time.time()
    names = names_apart(library, name_of)
    rows = [
        {
            "key": run.id,
            "usable": True,
            "flaw": "; ".join(run.warnings) or None,
            "cells": [
                names[run.id],
                run.trainer,
                run.base_model or "–",
                {"text": steps_text(run), "sort": max((c.step for c in run.checkpoints if c.step is not None), default=None)},
                {"text": str(len(run.checkpoints)), "sort": len(run.checkpoints)},
                {"text": size_text(run.bytes), "sort": run.bytes},
                {"text": loss_text(run.last_loss), "sort": _number(run.last_loss)},
                run.state(now),
                run.id,
            ],
        }
        for run in library.runs
    ]
    columns = ["run", "trainer", "base model", "steps", "checkpoints", "size", "last loss", "state", "id"]
    note = "" if rows else "No training run was found. Add the folder that holds yours below."
    return {"columns": columns, "rows": rows, "ticked": [chosen] if chosen else [], "many": False, "note": note}


def run_choices(library: Library, name_of: Names) -> list[tuple[str, str]]:
    """Names and ids of all runs for a list to pick from."""
    return [(name, run_id) for run_id, name in names_apart(library, name_of).items()]


def checkpoints_table(run: Run | None, name_of: Names, ticked: Sequence[str], thumb: Callable[[Sample], str]) -> dict[str, Any]:
    """The table of a run's checkpoints, each with the trainer's sample of that step."""
    rows = []
    first = {s.path: s for s in run.samples} if run else {}
    for c in run.checkpoints if run else ():
        forms = ", ".join(form for form, _ in c.converted)
        name = name_of(c)
        rows.append(
            {
                "key": c.id,
                "usable": c.flaw is None,
                "thumb": thumb(first[c.image]) if c.image in first else None,
                "flaw": c.flaw,
                "cells": [
                    {"text": name if name != c.key else c.key, "sort": c.step},
                    kind_text(c.layout, c.holds, (c.file or c.path / "-").parent.name),
                    {"text": size_text(c.bytes), "sort": c.bytes},
                    forms or "–",
                    f"same weights as {alias_text(c)}" if c.aliases else "",
                ],
            }
        )
    columns = ["step", "what it is", "size", "converted", ""]
    note = "" if rows else ("Only logs were found here, and no checkpoint of a layout that is read." if run else "Choose a run above.")
    return {"columns": columns, "rows": rows, "ticked": list(ticked), "many": True, "note": note, "thumbs": "sample"}


def chart(curves: Sequence[tuple[Run, str, LossCurve]], weight: float, log: bool, notes: Iterable[str]) -> dict[str, Any]:
    """The chart of loss curves; `curves` are (run, label, curve). Smoothing sees every point, the page only what it can show."""
    series, markers = [], []
    for run, label, curve in curves:
        smoothed = smooth(curve.values, weight)
        shown = thin(curve.steps, curve.values, MOST_POINTS)
        series.append(
            {
                "run": run.id,
                "label": label,
                "tag": curve.tag,
                "x": curve.steps[shown].tolist(),
                "y": [_number(v) for v in curve.values[shown].tolist()],
                "smooth": [_number(v) for v in smoothed[shown].tolist()] if weight else None,
            }
        )
        markers += _markers(run, label, curve, smoothed)
    empty = "" if series else "Choose a run to see its loss."
    return {"series": series, "markers": markers, "log": log, "picking": PICKING, "notes": list(notes), "empty": empty}


def _markers(run: Run, label: str, curve: LossCurve, smoothed: Any) -> list[dict[str, Any]]:
    """A mark at each checkpoint's step, on the smoothed line where the step was logged."""
    marks = []
    for c in run.checkpoints:
        if c.step is not None:
            at = int(np.searchsorted(curve.steps, c.step))
            logged = at < len(curve.steps) and curve.steps[at] == c.step
            marks.append({"run": run.id, "label": label, "step": c.step, "y": _number(float(smoothed[at])) if logged else None})
    return marks


def matrix(
    spec: GridSpec, tiles: Sequence[Tile], column_label: Callable[[Checkpoint | None], tuple[str, str]], working: bool
) -> dict[str, Any]:
    """The grid: a column per checkpoint and strength, a row per prompt, seed and sampling."""
    columns = _unique((_column_key(cell), *_column_words(cell, spec, column_label)) for cell in spec.cells())
    ordered = _unique((_row_key(cell), *_row_words(cell, spec)) for cell in spec.cells())
    across = {key: i for i, (key, _, _) in enumerate(columns)}
    down = {key: i for i, (key, _, _) in enumerate(ordered)}
    cells = [_cell(tile, down[_row_key(tile.cell)], across[_column_key(tile.cell)]) for tile in tiles]
    upcoming = spec.cells()[len(tiles)] if working and len(tiles) < len(spec.cells()) else None
    if upcoming:
        cells.append({"r": down[_row_key(upcoming)], "c": across[_column_key(upcoming)], "key": "next", "state": "drawing"})
    return {
        "title": "",
        "columns": [{"key": repr(key), "label": label, "sub": sub} for key, label, sub in columns],
        "rows": [{"key": repr(key), "label": label, "sub": sub} for key, label, sub in ordered],
        "cells": cells,
        "done": len(tiles),
        "total": len(spec.cells()),
        "note": "",
    }


def _column_key(cell: Cell) -> tuple[object, ...]:
    return (cell.checkpoint.id, cell.strength) if cell.checkpoint else (None,)


def _row_key(cell: Cell) -> tuple[object, ...]:
    return (cell.prompt, cell.seed, cell.sampling)


def _column_words(cell: Cell, spec: GridSpec, label: Callable[[Checkpoint | None], tuple[str, str]]) -> tuple[str, str]:
    name, sub = label(cell.checkpoint)
    strength = f"strength {cell.strength:g}" if len(spec.strengths) > 1 and cell.checkpoint else ""
    return name, " · ".join(part for part in (sub, strength) if part)


def _row_words(cell: Cell, spec: GridSpec) -> tuple[str, str]:
    words = [f"seed {cell.seed}"]
    if len(spec.samplings) > 1:
        words += [f"CFG Scale: {cell.sampling.guidance:g}", f"Steps: {cell.sampling.steps}", cell.sampling.scheduler]
    return cell.prompt.text, " · ".join(words)


def _unique(entries: Iterable[tuple[Any, str, str]]) -> list[tuple[Any, str, str]]:
    return list({key: (key, label, sub) for key, label, sub in entries}.values())


def _cell(tile: Tile, row: int, column: int) -> dict[str, Any]:
    cell = tile.cell
    details = [["prompt", cell.prompt.text], ["negative", cell.prompt.negative or "–"], ["seed", str(cell.seed)]]
    details += [["checkpoint", cell.checkpoint.id if cell.checkpoint else "base model"]]
    details += [["strength", f"{cell.strength:g}"]] if cell.checkpoint else []
    details += [[name, "default" if value is None else str(value)] for name, value in cell.sampling.as_json().items()]
    if tile.base:
        details += [["base", f"{tile.base['id']} (proof: {tile.base['proof']}; {tile.base['source']})"]]
    if tile.fault:
        reason = sentences(tile.fault.error, tile.fault.hint)
        return {
            "r": row,
            "c": column,
            "key": "fault",
            "state": "fault",
            "fault": reason,
            "details": details,
            "reused": False,
            "seconds": None,
        }
    return {
        "r": row,
        "c": column,
        "key": tile.key,
        "state": "done",
        "thumb": f"cmp/cell/{tile.key}.256.webp",
        "full": f"cmp/cell/{tile.key}.png",
        "caption": "",  # the row's label says the same
        "details": details,
        "reused": tile.reused,
        "seconds": tile.seconds,
        "fault": None,
        "badge": "",
    }


def samples_matrix(run: Run, name_of: Names, url: Callable[[Sample, bool], str]) -> dict[str, Any]:
    """The trainer's own pictures as a grid: a column per step, a row per prompt and picture. Nothing is drawn."""
    steps = sorted({s.step for s in run.samples})
    lines = sorted({(s.prompt, s.image) for s in run.samples})
    texts = dict(enumerate(validation_prompts(run)))
    cells = [
        {
            "r": lines.index((s.prompt, s.image)),
            "c": steps.index(s.step),
            "key": url(s, False),
            "state": "done",
            "thumb": url(s, False),
            "full": url(s, True),
            "caption": "",
            "details": [["drawn by", "the trainer, while training"], ["step", str(s.step)], ["file", s.path.name]],
            "reused": False,
            "seconds": None,
            "fault": None,
            "badge": "",
        }
        for s in run.samples
    ]
    rows = [{"key": f"{p}-{i}", "label": texts.get(p, f"prompt {p}"), "sub": f"picture {i}"} for p, i in lines]
    note = "" if cells else "The trainer left no pictures in this run's folder."
    columns = [{"key": str(step), "label": f"step {step}", "sub": ""} for step in steps]
    title = f"{name_of(run)}: drawn by the trainer" if cells else ""
    return {"title": title, "columns": columns, "rows": rows, "cells": cells, "done": 0, "total": 0, "note": note}


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
