"""What the chart asks for, by ids alone: which curves there are, their points in a window, how to read them, files of them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from cmp.core.curve_pairs import pair_text
from cmp.core.curve_points import Line, View, band_json, line_of, marks_json, points_json, read_view, window_of
from cmp.core.curves import LossCurve, loss_tag, table_cell
from cmp.core.losses import held_out_losses
from cmp.core.present import loss_text
from cmp.core.run_settings import lineage, side_by_side
from cmp.core.runs import Checkpoint, Run, plain_text
from cmp.core.smoothing import smoothed
from cmp.errors import BadInput, CmpError, NotFound
from cmp.ui.values import names_apart
from cmp.workbench import Workbench
from cmp.workbench.charting import Charting, curve_picture

FILES = {"csv": "text/csv; charset=utf-8", "png": "image/png", "svg": "image/svg+xml"}
_MOST_BROUGHT = 40  # abandoned branches of one line
_KEPT = 48  # answers; those to ten long runs are of 200 kB


@dataclass(frozen=True, slots=True)
class Told:
    """The body of an answer."""

    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drawn:
    """One line of a chart."""

    run: Run
    kind: str
    curve: LossCurve
    line: Line


class CurveAnswers:
    """Answers the chart's questions. Safe to use from several threads."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.charting = Charting(bench)
        self._lock = threading.Lock()
        self._kept: OrderedDict[object, bytes] = OrderedDict()

    def answer(self, name: str, asked: Iterable[tuple[str, str]]) -> Told:
        """The answer to one address; raises NotFound for another name, BadInput for fields that cannot be used."""
        asked = list(asked)
        runs = self.charting.runs([value for key, value in asked if key == "run"])
        told = dict(asked)
        lasting = {"points": self.points, "band": self.band}
        makers = {"stamp": self.stamp, "catalogue": self.catalogue, **lasting, "reading": self.reading, "settings": self.settings}
        if name in lasting:
            return Told(self._known(name, asked, runs, lambda: _as_json(lasting[name](runs, told))))
        if name in makers:
            return Told(_as_json(makers[name](runs, told)))
        kind = name.removeprefix("curves.")
        if name.startswith("curves.") and kind in FILES:
            file = re.sub(r"[^A-Za-z0-9._-]+", "-", told.get("tag") or "loss").strip("-.") or "curves"
            body = self.table(runs, told) if kind == "csv" else self.picture(runs, told, kind)
            return Told(body, FILES[kind], {"Content-Disposition": f'attachment; filename="{file[:80]}.{kind}"'})
        raise NotFound(f"there is no answer {name[:40]!r}", f"There are {', '.join(makers)}, curves.csv, curves.png and curves.svg.")

    def _known(self, name: str, asked: Sequence[tuple[str, str]], runs: Sequence[Run], make: Callable[[], bytes]) -> bytes:
        """An answer that was given before, as long as nothing was logged or saved since: every page that is opened asks for the same."""
        concerned = (*runs, *self.charting.runs([value for key, value in asked if key == "minus"]))
        key = (name, tuple(asked), self.charting.stamp(concerned))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        body = make()
        with self._lock:
            self._kept[key] = body
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return body

    def stamp(self, runs: Sequence[Run], told: dict[str, str]) -> dict[str, object]:
        """What changes when something was logged or saved, and whether more is to come."""
        now = time.time()
        return {"stamp": self.charting.stamp(runs), "training": any(run.state(now) == "training" for run in runs)}

    def catalogue(self, runs: Sequence[Run], told: dict[str, str]) -> dict[str, object]:
        """The tags of every run, and its checkpoints."""
        found, notes = [], []
        names = self.names()
        for run in runs:
            try:
                logged = self.charting.curves(run)
            except CmpError as fault:
                notes.append(f"{names[run.id]}: {fault.message}")
                continue
            tags = [curve.tag for curve in logged.curves]
            notes += [f"{names[run.id]}: {note}" for note in (*logged.notes, *(n for c in logged.curves for n in c.notes))]
            held = held_out_losses(logged.curves, [c.step for c in run.checkpoints if c.step is not None])
            marks = [self._mark(c, held) for c in run.checkpoints if c.step is not None]
            found.append({"run": run.id, "tags": tags, "loss": loss_tag(tags), "checkpoints": marks})
        return {"runs": found, "notes": list(dict.fromkeys(notes))} | self.stamp(runs, told)

    def _mark(self, checkpoint: Checkpoint, held: dict[int, float]) -> dict[str, object]:
        """A checkpoint's step, state and score."""
        stars = getattr(self.bench, "starred", None)  # the mark that people give, where this program keeps such
        run, _ = self.bench.find(checkpoint.id, only_ids=True) if stars else (None, None)
        starred = bool(stars and checkpoint.id in stars(run))
        made = ", ".join(form for form, _ in checkpoint.converted)
        score = held.get(checkpoint.step or 0)
        return {
            "step": checkpoint.step,
            "id": checkpoint.id,
            "state": "flawed" if checkpoint.flaw else "starred" if starred else "converted" if made else "whole",
            "note": checkpoint.flaw or (f"converted: {made}" if made else ""),
            "score": f"held-out loss {loss_text(score)}" if score is not None else "",
        }

    def names(self) -> dict[str, str]:
        return names_apart(self.bench.library(fresh=False), self.bench.name_of)

    def _drawn(self, runs: Sequence[Run], told: dict[str, str], view: View) -> list[Drawn]:
        """The lines of one chart."""
        found = []
        for run in runs:
            if told.get("minus"):
                curve = None if run.id == told["minus"] else self.charting.difference(run, told["minus"])
                curves = [("difference", curve)] if curve is not None else []
            else:
                curves = [(kind, curve) for kind, curve in self.charting.drawn(run, told.get("tag", ""))]
            for kind, curve in curves:
                line = line_of(curve, view) if curve.steps.size else None
                if line is not None:
                    found.append(Drawn(run, kind, curve, line))
        return found

    def points(self, runs: Sequence[Run], told: dict[str, str]) -> dict[str, object]:
        """The lines of one chart in a window of its axis."""
        view = read_view(told)
        drawn = self._drawn(runs, told, view)
        window = window_of([item.line for item in drawn], view)
        lines = []
        for item in drawn:
            value: dict[str, Any] = {"run": item.run.id, "tag": item.curve.tag, "kind": item.kind}
            value |= points_json(item.line, view, window, len(drawn))
            if item.kind in ("loss", "tag", "difference"):
                value["marks"] = marks_json(item.line, [c.step for c in item.run.checkpoints if c.step is not None], view.axis)
            if item.curve.abandoned:
                value["abandoned"] = _abandoned(item.curve, view, window)
            lines.append(value)
        return {"window": list(window), "lines": lines, "axis": view.axis}

    def band(self, runs: Sequence[Run], told: dict[str, str]) -> dict[str, object]:
        """Where the means of equal windows lie at 95 %, of every line that has enough points."""
        view = read_view(told)
        drawn = [item for item in self._drawn(runs, told, view) if item.kind != "held"]
        window = window_of([item.line for item in drawn], view)
        lines = [{"run": d.run.id, "tag": d.curve.tag, "kind": d.kind, "band": band_json(d.line, window, view.log_x)} for d in drawn]
        return {"lines": lines}

    def reading(self, runs: Sequence[Run], told: dict[str, str]) -> dict[str, object]:
        """How to read each curve, and which runs saw the same noise."""
        names = self.names()
        pairs = self.charting.pairs(runs)
        readings = [{"run": run.id, "label": names[run.id], "lines": list(self.charting.reading(run))} for run in runs]
        return {
            "readings": [reading for reading in readings if reading["lines"]],
            "pairs": [
                {
                    "first": pair.first,
                    "second": pair.second,
                    "text": pair_text(pair, names[pair.first], names[pair.second]),
                    "compare": pair.correlation > 0 and not pair.identical,
                }
                for pair in pairs
            ],
        }

    def settings(self, runs: Sequence[Run], told: dict[str, str]) -> dict[str, object]:
        """What the runs were trained with."""
        names = self.names()
        data = {run.id: found for run in runs if (found := self.charting.data_set(run))}
        rows = [{"name": row.name, "values": row.values, "differs": row.differs} for row in side_by_side(runs, data)]
        logs = [line for run in runs for line in _logs_told(run, names[run.id], self.bench.logs_of(run))]
        return {"runs": [names[run.id] for run in runs], "rows": rows, "lineage": lineage(runs, data, names), "logs": logs}

    def table(self, runs: Sequence[Run], told: dict[str, str]) -> bytes:
        """All points of the chart's lines in a window, with what the chart smooths."""
        view = read_view(told)
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["run", "tag", "step", "wall_time", "value", "smoothed"])
        for item in self._drawn(runs, told, View(weight=view.weight, way=view.way)):
            curve = item.curve
            smooth = smoothed(curve.values, view.weight, view.way)
            times = curve.wall_times if curve.wall_times is not None else [""] * curve.steps.size
            for step, at, value, mean in zip(curve.steps.tolist(), times, curve.values.tolist(), smooth.tolist(), strict=True):
                if view.axis != "step" or (view.low or step) <= step <= (view.high or step):
                    writer.writerow([table_cell(item.run.id), table_cell(curve.tag), step, at, value, mean])
        return out.getvalue().encode("utf-8", "surrogateescape")

    def picture(self, runs: Sequence[Run], told: dict[str, str], kind: str) -> bytes:
        """The chart as a picture for a report."""
        view = read_view(told)
        drawn = self._drawn(runs, told, View(weight=view.weight, way=view.way))
        if not drawn:
            raise BadInput("there are no values to draw", "Choose a run that has logged some.")
        return curve_picture([item.curve for item in drawn], runs, view, kind, self.names())


def _logs_told(run: Run, label: str, logs: Sequence[tuple[Path, str]]) -> Iterator[str]:
    """Which logs a run's curves come from, and what makes them its own; told by where they lie to the run."""
    for why, group in groupby(logs, key=lambda log: log[1]):
        files = [file for file, _ in group]
        near = os.path.relpath(files[0], os.path.commonpath([run.folder, files[0]]))
        yield f"{label}: {plain_text(near)}{f' and {len(files) - 1} more' if len(files) > 1 else ''}: {plain_text(why)}"


def _as_json(told: dict[str, object]) -> bytes:
    return json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _abandoned(curve: LossCurve, view: View, window: tuple[float, float]) -> list[dict[str, object]]:
    """What a later start overwrote, as lines of their own over the same axis."""
    told = []
    since = None if curve.wall_times is None else float(curve.wall_times.min(initial=float("inf")))
    for branch in curve.abandoned[:_MOST_BROUGHT]:
        own = replace(curve, steps=branch.steps, values=branch.values, wall_times=branch.wall_times, abandoned=())
        line = line_of(own, view, since)
        if line is not None and line.x.size:
            told.append(points_json(line, view, window, 4)["raw"])
    return told  # type: ignore[return-value]
