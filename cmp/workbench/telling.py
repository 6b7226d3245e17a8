"""The contract's JSON values of the verbs that look, as command line and REST give them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cmp.core.branches import abandoned_json
from cmp.core.curves import as_json
from cmp.core.present import library_json, path_text
from cmp.core.runs import Run
from cmp.workbench.logbook import Curves

if TYPE_CHECKING:
    from cmp.workbench import Workbench


def list_json(bench: Workbench) -> dict[str, object]:
    """`list`: every run with its checkpoints, stars and names."""
    library = bench.complete_library()
    return library_json(library, time.time(), bench.marks(library.runs))


def curves_json(run: Run, logged: Curves, *, abandoned: bool = False) -> dict[str, object]:
    """`curves`: what was logged, what it was read from, and how to read the training loss."""
    steps = [c.step for c in run.checkpoints if c.step is not None]
    told: dict[str, object] = {
        "run": run.id,
        "curves": [as_json(c) for c in logged.curves],
        "checkpoints": steps,
        "notes": notes_of(logged),
    }
    told["logs"] = [{"path": path_text(file), "why": why} for file, why in logged.logs]
    told["reading"] = reading_of(logged, steps)
    return told | ({"abandoned": [one for c in logged.curves for one in abandoned_json(c)]} if abandoned else {})


def reading_of(logged: Curves, steps: Sequence[int]) -> list[str]:
    """How to read the training loss, if it is among the curves."""
    from cmp.core.curve_reading import read_curve
    from cmp.core.curves import loss_tag
    from cmp.core.evidence import held_out_tags

    known = {curve.tag: curve for curve in logged.curves}
    loss = loss_tag(known)
    held = next((known[tag] for tag in held_out_tags(tuple(known)) if tag != loss), None)
    return list(read_curve(known[loss], steps, held)) if loss else []


def notes_of(logged: Curves) -> list[str]:
    """What had to be left out or repaired, each once."""
    return list(dict.fromkeys((*logged.notes, *(note for curve in logged.curves for note in curve.notes))))


def best_json(
    bench: Workbench, run: Run, by: str | None = None, higher: bool | None = None, gate: str | None = None, margin: float = 0.0
) -> dict[str, object]:
    """`best`: the verdict, and whether one checkpoint is as good as another where that was asked."""
    told = bench.judge(run, by, higher).as_json(run)
    return told | ({"gate": bench.gate(run, gate, by, higher, margin).as_json()} if gate is not None else {})


def votes_json(bench: Workbench, run: Run) -> dict[str, object]:
    """`vote`: the tally and every vote."""
    return bench.tally(run).as_json(run) | {"ballots": [one.as_json() for one in bench.votes(run)]}


def cells_json(bench: Workbench) -> dict[str, object]:
    """`cells`: how much room the drawn pictures take."""
    count, used = bench.cells_size()
    return {"cells": count, "before_bytes": used, "after_bytes": used, "going": 0, "held": 0, "done": False}


def job_json(bench: Workbench, job_id: str) -> dict[str, object]:
    """`jobs ID`: how it stands, and of a grid what it is made from; raises NotFound."""
    order = bench.jobs.order(job_id) or {}
    return bench.jobs.record(job_id).as_json() | ({"grid": order["grid"]} if "grid" in order else {})
