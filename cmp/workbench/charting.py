"""The curves that a page looks at, kept in memory while their logs stay as they are."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from cmp.core.curve_pairs import Pair, difference, find_pair
from cmp.core.curve_points import View
from cmp.core.curve_reading import read_curve
from cmp.core.curves import LossCurve, is_epoch_axis, loss_tag
from cmp.core.evidence import held_out_tags
from cmp.core.run_settings import DataSet
from cmp.core.runs import Run
from cmp.disk.datasets import read_data_set
from cmp.errors import BadInput, NotFound
from cmp.workbench.shelf import Curves, Shelf

MOST_RUNS = 60
_MOST_KEPT = 64
_MOST_PAIRS = 4000


class Charting:
    """Curves of runs named by their ids. Safe to use from several threads."""

    def __init__(self, bench: Shelf) -> None:
        self.bench = bench
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, Curves]] = OrderedDict()
        self._said: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._paired: OrderedDict[str, Pair | None] = OrderedDict()
        self._data: dict[str, tuple[float, DataSet | None]] = {}

    def runs(self, ids: Sequence[str]) -> tuple[Run, ...]:
        """The runs of these ids; those that have gone are left out. Raises BadInput for too many at once."""
        if len(ids) > MOST_RUNS:
            raise BadInput(f"{len(ids)} runs are too many for one chart", f"Choose at most {MOST_RUNS}.")
        known = {run.id: run for run in self.bench.library(fresh=False).runs}
        return tuple(known[name] for name in dict.fromkeys(ids) if name in known)

    def stamp(self, runs: Iterable[Run]) -> str:
        """What changes when one of their logs or checkpoints does; asks the file system for sizes and times alone."""
        told = [(run.id, _marks(run.logs), tuple((c.key, c.flaw, c.converted) for c in run.checkpoints)) for run in runs]
        return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def curves(self, run: Run) -> Curves:
        """All curves of a run by step, read again only when a log of it has changed."""
        marks = repr(_marks(run.logs))
        with self._lock:
            kept = self._kept.get(run.id)
            if kept and kept[0] == marks:
                self._kept.move_to_end(run.id)
                return kept[1]
        read = self.bench.curves(run)
        found = Curves(tuple(curve for curve in read.curves if not is_epoch_axis(curve.tag)), read.notes)
        with self._lock:
            self._kept[run.id] = (marks, found)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return found

    def drawn(self, run: Run, tag: str) -> list[tuple[str, LossCurve]]:
        """The curves of a chart: under a tag that one, under "" the training loss and the held-out ones, each with what it is."""
        curves = self.curves(run).curves
        known = {curve.tag: curve for curve in curves}
        if tag:
            return [("tag", known[tag])] if tag in known else []
        loss = loss_tag(known)
        held = [("held", known[name]) for name in held_out_tags(tuple(known)) if name != loss]
        return ([("loss", known[loss])] if loss else []) + held

    def loss(self, run: Run) -> LossCurve | None:
        return next((curve for kind, curve in self.drawn(run, "") if kind == "loss"), None)

    def difference(self, run: Run, reference: str) -> LossCurve | None:
        """The training loss of a run minus that of another, None where one of them has none."""
        other = next(iter(self.runs([reference])), None)
        if other is None:
            raise NotFound(f"there is no run {reference!r}", "Reload the page.")
        first, second = self.loss(other), self.loss(run)
        return difference(first, second) if first and second else None

    def reading(self, run: Run) -> tuple[str, ...]:
        """How to read the run's loss."""
        steps = [c.step for c in run.checkpoints if c.step is not None]
        key = repr((_marks(run.logs), steps))
        kept = self._said.get(run.id)
        if kept is None or kept[0] != key:
            drawn = self.drawn(run, "")
            loss = next((curve for kind, curve in drawn if kind == "loss"), None)
            held = next((curve for kind, curve in drawn if kind == "held"), None)
            kept = self._said[run.id] = (key, read_curve(loss, steps, held) if loss else ())
        return kept[1]

    def pairs(self, runs: Sequence[Run]) -> tuple[Pair, ...]:
        """Which of the runs saw the same noise."""
        known = [(run, repr((run.id, _marks(run.logs))), loss) for run in runs if (loss := self.loss(run))]
        found = (self._pair(f"{one[1]} {two[1]}", one[2], two[2]) for one, two in combinations(known, 2))
        return tuple(pair for pair in found if pair)

    def _pair(self, key: str, first: LossCurve, second: LossCurve) -> Pair | None:
        if key not in self._paired:
            self._paired[key] = find_pair(first, second)
            while len(self._paired) > _MOST_PAIRS:
                self._paired.popitem(last=False)
        return self._paired.get(key)

    def data_set(self, run: Run) -> DataSet | None:
        """The run's images, looked at again after a minute."""
        kept = self._data.get(run.id)
        if kept is None or time.monotonic() - kept[0] > 60:
            kept = self._data[run.id] = (time.monotonic(), read_data_set(run))
        return kept[1]


def curve_picture(curves: Sequence[LossCurve], runs: Sequence[Run], view: View, kind: str, names: Mapping[str, str]) -> bytes:
    """The curves as a "png" or "svg" under the runs' names, with the steps of their checkpoints where there is one run."""
    from cmp.pictures.figures import curve_picture as draw

    named = [replace(curve, run_id=names.get(curve.run_id, curve.run_id)) for curve in curves]
    steps = [c.step for c in runs[0].checkpoints if c.step is not None] if len(runs) == 1 else []
    return draw(named, kind, smoothing=view.weight, way=view.way, log=view.log_y, log_x=view.log_x, markers=steps)


def _marks(files: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    found = []
    for file in files:
        try:
            state = os.stat(file)
        except OSError:
            continue
        found.append((str(file), state.st_size, state.st_mtime_ns))
    return tuple(found)
