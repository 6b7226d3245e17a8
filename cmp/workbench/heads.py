"""What the heads of a grid say of a checkpoint beside its name: the loss there, its converted forms, a flaw, a star."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from cmp.core.curves import LossCurve
from cmp.core.losses import losses_at
from cmp.core.runs import Checkpoint, Library, Run
from cmp.errors import CmpError

_MOST_RUNS = 64  # whose losses are remembered


class Heads:
    """Remembers the losses of runs whose logs have not changed: a grid that is being drawn asks several times a second."""

    def __init__(self, curves: Callable[[Run], Sequence[LossCurve]]) -> None:
        self._curves = curves
        self._losses: dict[str, tuple[tuple[object, ...], dict[int, float]]] = {}

    def of(self, run: Run, checkpoint: Checkpoint) -> dict[str, Any]:
        """The mark of a checkpoint; without what is not known."""
        forms = ", ".join(form for form, _ in checkpoint.converted)
        loss = self._loss_at(run).get(checkpoint.step) if checkpoint.step is not None else None
        told = {"loss": loss, "converted": forms, "flaw": checkpoint.flaw}
        return {name: value for name, value in told.items() if value not in (None, "")}

    def by_id(self, library: Library, wanted: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The marks of the checkpoints of these ids that the library has."""
        ids = set(wanted)
        return {c.id: self.of(run, c) for run in library.runs for c in run.checkpoints if c.id in ids}

    def _loss_at(self, run: Run) -> dict[int, float]:
        stamp = _stamp(run)
        if self._losses.get(run.id, (None,))[0] != stamp:
            self._losses[run.id] = stamp, _losses(self._curves, run)
            for name in list(self._losses)[:-_MOST_RUNS]:
                self._losses.pop(name, None)
        return self._losses[run.id][1]


def _stamp(run: Run) -> tuple[object, ...]:
    found: list[object] = [tuple(c.step for c in run.checkpoints)]
    for path in run.logs:
        with suppress(OSError):
            state = path.stat()
            found.append((str(path), state.st_size, state.st_mtime_ns))
    return tuple(found)


def _losses(read: Callable[[Run], Sequence[LossCurve]], run: Run) -> dict[int, float]:
    try:
        return losses_at(read(run), [c.step for c in run.checkpoints if c.step is not None])
    except CmpError:
        return {}
