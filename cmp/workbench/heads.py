"""What the heads of a grid say of a checkpoint beside its name: the loss there, the verdict, its converted forms, a flaw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from cmp.core.curves import LossCurve
from cmp.core.losses import losses_at
from cmp.core.runs import Checkpoint, Run
from cmp.disk.held import files_of
from cmp.errors import CmpError

_MOST_RUNS = 64  # that are remembered
Verdicts = dict[str, dict[str, object]]  # by a checkpoint's id


class Heads:
    """Remembers losses and verdicts of runs whose logs and checkpoints have not changed, and of which no more was measured: a grid that
    is being drawn asks several times a second.
    """

    def __init__(
        self,
        curves: Callable[[Run], Sequence[LossCurve]],
        verdict: Callable[[Run], Verdicts],
        measured: Callable[[Run], object],
        told: Callable[[Run], str] = lambda run: "",
    ) -> None:
        self._curves, self._verdict, self._measured, self._told = curves, verdict, measured, told
        self._sentences: dict[str, tuple[tuple[object, ...], str]] = {}
        self._known: dict[str, tuple[tuple[object, ...], dict[int, float], Verdicts]] = {}

    def of(self, run: Run, checkpoints: Iterable[Checkpoint]) -> dict[str, dict[str, Any]]:
        """The marks of some of a run's checkpoints by their ids; without what is not known. The run's logs are looked at once."""
        losses, verdicts = self._of_run(run)
        found = {}
        for checkpoint in checkpoints:
            forms = ", ".join(form for form, _ in checkpoint.converted)
            loss = losses.get(checkpoint.step) if checkpoint.step is not None else None
            told = {"loss": loss, "converted": forms, "flaw": checkpoint.flaw, **verdicts.get(checkpoint.id, {})}
            found[checkpoint.id] = {name: value for name, value in told.items() if value not in (None, "")}
        return found

    def sentence(self, run: Run, votes: object) -> str:
        """The verdict on a run in words; `votes` is what changes when one is cast."""
        stamp = (*_stamp(run), self._measured(run), votes)
        known = self._sentences.get(run.id)
        if known is None or known[0] != stamp:
            known = self._sentences[run.id] = stamp, self._told(run)
            for name in list(self._sentences)[:-_MOST_RUNS]:
                self._sentences.pop(name, None)
        return known[1]

    def _of_run(self, run: Run) -> tuple[dict[int, float], Verdicts]:
        stamp = (*_stamp(run), self._measured(run))
        known = self._known.get(run.id)
        if known is None or known[0] != stamp:
            known = self._known[run.id] = stamp, _losses(self._curves, run), self._verdict(run)
            for name in list(self._known)[:-_MOST_RUNS]:
                self._known.pop(name, None)
        return known[1], known[2]


def _stamp(run: Run) -> tuple[object, ...]:
    """Another value once a log or a checkpoint's file is another. Nothing is opened for it."""
    found: list[object] = [tuple((c.step, files_of(c)) for c in run.checkpoints)]
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
