"""A grid on other machines: what a worker is told, and how it opens the same drawing where it runs."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.runs import Run
from cmp.disk.ready import Answers
from cmp.disk.store import Store
from cmp.errors import Locked, Refused, why_not
from cmp.settings import Settings, prepare_libraries

if TYPE_CHECKING:
    from cmp.core.grids import GridSpec
    from cmp.engine.draw import Drawing
    from cmp.engine.ray_cluster import Spreading


@dataclass(frozen=True, slots=True)
class Sent:
    """All that a worker needs to draw a grid's cells as this process would: it is called in the worker, see `ray_cluster.Opens`.

    `needed` are files and folders that are there for whoever asks; `answers` is what was remembered for each run.
    """

    settings: Settings
    spec: GridSpec
    runs: tuple[Run, ...]
    given: Answers
    answers: tuple[Answers, ...]
    needed: tuple[Path, ...]

    def __call__(self, device: str, machine: str | None) -> Drawing:
        from cmp.workbench import Workbench

        home, where = self.settings.home, machine or "a worker"
        for path in self.needed:
            if not os.path.lexists(path):
                told = f"{where} does not see {path}"
                raise Refused(told, f"Keep {home}, runs and base models on a file system that all machines share, under the same paths.")
        bench = Workbench(replace(self.settings, device=device))
        if machine is not None:
            bench.store = Store(home, home / "machines" / machine)
            for run, answers in zip(self.runs, self.answers, strict=True):
                bench.answer(run, answers)
        drawing = bench.drawing(self.spec, self.runs, self.given)
        drawing.keeps_pace = False
        return drawing


@contextmanager
def spread(address: str, lock: threading.Lock, sent: Sent) -> Iterator[Spreading]:
    """The grid on a Ray cluster. Meanwhile a mark lies in CMP_HOME, by which workers know that it is the same.

    Raises Locked while another grid of this process holds `lock`.
    """
    from cmp.engine.ray_cluster import Spreading, check_address

    check_address(address)
    environment: dict[str, str] = {}
    prepare_libraries(environment)
    if not lock.acquire(blocking=False):
        raise Locked("another grid of this process is drawn with Ray", "Try again when it is done, or resume and end it if it is paused.")
    mark = sent.settings.home / f".cluster-{secrets.token_hex(8)}"
    try:
        _leave_mark(mark)
        yield Spreading(address, replace(sent, needed=(mark, *sent.needed)), sent.settings.device, environment, sent.spec.mode == "exact")
    finally:
        mark.unlink(missing_ok=True)
        lock.release()


def _leave_mark(mark: Path) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch(exist_ok=False)
    except OSError as fault:
        raise Refused(f"nothing can be written to {mark.parent}: {why_not(fault)}", "Set CMP_HOME to a folder that can be.") from fault


def needed_of(settings: Settings, spec: GridSpec, given: Answers) -> tuple[Path, ...]:
    """The checkpoints' files and the folders of base models, as far as they are there."""
    stacked = (one.checkpoint for stack in spec.stacks for one in stack)
    files = [file for checkpoint in (*spec.checkpoints, *stacked) if checkpoint for file in checkpoint.files]
    places = [*settings.bases, *([Path(given.base)] if given.base and os.path.isabs(given.base) else [])]
    return tuple(path for path in dict.fromkeys((*files, *places)) if path.exists())
