"""What the page's viewers are fed with: plain values made from runs, curves and tiles. No widget is known here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from cmp.core.describing import kind_text
from cmp.core.losses import SMOOTHING
from cmp.core.present import COMPACTED, alias_text, counted, loss_text, size_text, steps_text
from cmp.core.runs import Checkpoint, Library, Run
from cmp.core.samples import Sample
from cmp.core.stages import UNREAD

Names = Callable[[Run | Checkpoint], str]
LOOKING = "Looking for training runs …"
NO_RUN = "No training run was found. Add the folder that holds yours under Folders below."
_PICTURES, _LOSS, _WRITTEN, _SIZE = "pictures over the steps", "loss", "last written", "size"
RUN_COLUMNS = ("run", _PICTURES, _LOSS, "steps", "checkpoints", _SIZE, _WRITTEN)
_TITLES = {
    _LOSS: f"The training loss at the end, smoothed by {SMOOTHING} as in the heads of the pictures and under Curves",
    _SIZE: "What lies in the run's folder, or of several in one folder their checkpoints; Storage also counts what lies elsewhere",
    _WRITTEN: "When the newest checkpoint was written",
}


@dataclass(frozen=True, slots=True)
class Glance:
    """`strip` are pictures by their steps, `drawn` whether this program drew them; `line` is (x, y) from 0 to 1, None while the log was
    not read yet; `pending` says that there may be pictures which were not read yet. `loss` is the smoothed one at the end of the log.
    """

    strip: tuple[dict[str, str], ...] = ()
    count: int = 0
    drawn: bool = False
    line: tuple[tuple[float, float], ...] | None = None
    pending: bool = False
    loss: float | None = None


Glances = Mapping[str, Glance]  # by the run's id
NO_GLANCES: Glances = MappingProxyType({})


def names_apart(library: Library, name_of: Names) -> dict[str, str]:
    """What every run is called, by its id; runs of the same name are told apart by their ids."""
    names = {run.id: name_of(run) for run in library.runs}
    often = Counter(names.values())
    return {run_id: f"{name} ({run_id})" if often[name] > 1 else name for run_id, name in names.items()}


def short_names(library: Library, name_of: Names) -> dict[str, str]:
    """What every run is called where room is short, by its id; those of one name by the shortest end of their ids that tells them apart."""
    alike: dict[str, list[str]] = {}
    for run in library.runs:
        alike.setdefault(name_of(run), []).append(run.id)
    told = {}
    for name, ids in alike.items():
        for run_id in ids:
            tail = _own_end(run_id, ids)
            told[run_id] = name if len(ids) == 1 else tail if tail.rpartition("/")[2] == name else f"{name} ({tail})"
    return told


def _own_end(run_id: str, ids: Sequence[str]) -> str:
    parts = run_id.split("/")
    ends = ("/".join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in ends if sum(f"/{other}".endswith(f"/{end}") for other in ids) == 1), run_id)


def runs_table(
    library: Library, name_of: Names, chosen: str | None, glances: Mapping[str, Glance] = MappingProxyType({})
) -> dict[str, Any]:
    """The table of runs, one of them chosen."""
    now = time.time()
    names = names_apart(library, name_of)
    rows = []
    for run in library.runs:
        glance = glances.get(run.id, Glance(line=()))
        own = run.id if run.id not in names[run.id] else ""
        about = " · ".join(part for part in (run.trainer, _base_name(run.base_model), own) if part)
        state = run.state(now)
        rows.append(
            {
                "key": run.id,
                "usable": True,
                "flaw": "; ".join(run.warnings) or None,
                "find": " ".join(filter(None, (names[run.id], run.id, run.trainer, run.base_model))),
                "cells": [
                    {"text": names[run.id], "sort": names[run.id], "sub": about, "live": state == "training"},
                    _strip_cell(glance),
                    _loss_cell(run, glance),
                    {"text": steps_text(run), "sort": max((c.step for c in run.checkpoints if c.step is not None), default=None)},
                    {"text": str(len(run.checkpoints)), "sort": len(run.checkpoints)},
                    {"text": size_text(run.bytes), "sort": run.bytes},
                    _written_cell(run),
                ],
            }
        )
    note = reading_text(library) or ("" if rows else NO_RUN)
    found = {"columns": list(RUN_COLUMNS), "rows": rows, "ticked": [chosen] if chosen else [], "many": False, "note": note}
    sorting = {"find": "runs", "remember": "cmp.runs.order", "downs": ["steps", "checkpoints", _SIZE, _WRITTEN], "unsorted": _PICTURES}
    return found | sorting | {"titles": _TITLES}


def is_unread(run: Run) -> bool:
    """Whether it is known by names alone so far: that it has no pictures, say, is not known then."""
    return any(checkpoint.layout == UNREAD for checkpoint in run.checkpoints)


def reading_text(library: Library) -> str:
    """What is still being read, "" for nothing."""
    return f"Reading {counted(library.unread, 'folder')} …" if library.unread else ""


def _base_name(base: str | None) -> str:
    """An id as it is; of a path what its folder is called."""
    return PurePath(base).name if base and PurePath(base).is_absolute() else base or ""


def _loss_cell(run: Run, glance: Glance) -> dict[str, Any]:
    """The smoothed loss, nothing while the log was not read yet; where none of it is finite, what was logged last."""
    pending = glance.line is None
    text = "" if pending else loss_text(run.last_loss) if glance.loss is None else f"{glance.loss:.3g}"
    return {"text": text, "sort": glance.loss, "line": glance.line, "pending": pending}


def _written_cell(run: Run) -> dict[str, Any]:
    written = max((c.written_at for c in run.checkpoints), default=0.0) or None
    return {"text": "", "sort": written, "time": written}


def _strip_cell(glance: Glance) -> dict[str, Any]:
    none = "reading …" if glance.pending else "none yet"
    words = "drawn here" if glance.drawn else f"{glance.count} picture{'' if glance.count == 1 else 's'}"
    return {"text": words if glance.strip else none, "sort": glance.count if glance.strip else None, "strip": list(glance.strip)}


def run_choices(library: Library, name_of: Names) -> list[tuple[str, str]]:
    """Names and ids of all runs for a list to pick from."""
    return [(name, run_id) for run_id, name in names_apart(library, name_of).items()]


def checkpoints_table(
    run: Run | None, name_of: Names, ticked: Sequence[str], thumb: Callable[[Sample], str | None], starred: Container[str] = ()
) -> dict[str, Any]:
    """The table of a run's checkpoints, each with the trainer's sample of that step; `starred` are the ids of those with a star."""
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
                    {"text": f"{'★ ' if c.id in starred else ''}{name}", "sort": c.step},
                    {
                        "text": kind_text(c.layout, c.holds, (c.file or c.path / "-").parent.name),
                        "sub": " · ".join(filter(None, (COMPACTED if c.compacted else "", _same_as(c)))),
                    },
                    {"text": size_text(c.bytes), "sort": c.bytes},
                    forms or "–",
                ],
            }
        )
    columns = ["step", "what it is", "size", "converted"]
    note = "" if rows else ("Only logs were found here, and no checkpoint of a layout that is read." if run else "Choose a run above.")
    return {"columns": columns, "rows": rows, "ticked": list(ticked), "many": True, "note": note, "thumbs": "sample"}


def _same_as(checkpoint: Checkpoint) -> str:
    return f"same weights as {alias_text(checkpoint)}" if checkpoint.aliases else ""
