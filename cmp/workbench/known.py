"""What was measured of runs: values of their checkpoints, what these say, and how each run was measured last."""

from __future__ import annotations

import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.progress import run_through
from cmp.core.runs import Checkpoint, Run
from cmp.disk.demo import Demo
from cmp.disk.ready import Answers, Ready, digest_of
from cmp.disk.store import subject_of
from cmp.errors import CmpError, Refused
from cmp.settings import Settings
from cmp.workbench.easel import Easel

if TYPE_CHECKING:
    from cmp.core.evidence import Evidence
    from cmp.core.measured import Measured, MeasureSpec

_LAST = "measured-last"  # how the loss of a run was measured last
_AT_ONCE = 128_000_000  # bytes of files that are looked into while somebody waits for a page
_ASKED = "measure-asked"  # what was last asked to be measured of it


class Known(Easel):
    """What was measured of runs. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._looking: dict[Path, threading.Thread] = {}  # who looks into the files of a run, by its place
        self._looks = 0

    def recognise(self, run: Run) -> None:
        """Looks into those files of a run that were others when it was measured, however long that takes; see disk.recognised.

        Before a verdict that something follows. What only shows one, `measurements`, reads little and leaves the rest to the background.
        """
        self._recognise(run, None)

    def recognise_in(self, folders: Collection[Path | None]) -> None:
        """The same of the runs in these folders, in which other files have just taken the place of those that were measured."""
        if folders:
            self._lookout.forget()
            for run in self.library().runs:
                if run.folder in folders:
                    self.recognise(run)

    def _recognise(self, run: Run, most: int | None) -> bool:
        from cmp.disk.recognised import recognising

        with suppress(CmpError):
            return run_through(recognising(run, self.bases, self.store, most))
        return True

    def _recognise_behind(self, run: Run) -> None:
        """The same while others go on; nothing where somebody is about it."""

        def look() -> None:
            self._recognise(run, None)
            self._looks += 1

        before = self._looking.get(run.place)
        if before is None or not before.is_alive():
            self._looking[run.place] = threading.Thread(target=look, daemon=True)
            self._looking[run.place].start()

    def measurements(self, run: Run) -> dict[str, tuple[Measured, ...]]:
        """By metric what is known of the run's checkpoints as they are now, and of its base model; nothing where nothing can be kept."""
        return self._noted(run)[0]

    def _noted(self, run: Run) -> tuple[dict[str, tuple[Measured, ...]], dict[str, tuple[str, ...]]]:
        """The same, and by metric of whom nobody knows whether they still hold what was measured."""
        from cmp.disk.measures import Measures

        if not self._recognise(run, _AT_ONCE):
            self._recognise_behind(run)
        try:
            return Measures(self.store).noted(run)
        except CmpError:
            return {}, {}

    def measured(self, run: Run, *, base: bool = False) -> tuple[Evidence, ...]:
        """What was measured, one for each metric of which two checkpoints have values; the held-out loss first. With `base` the base
        model stands among them, as evidence.BASE.

        A metric names no best as long as it may be known of more checkpoints than can be told: the verdict would be on a part.
        """
        from cmp.core.evidence import withheld
        from cmp.core.image_scores import with_limits
        from cmp.core.measured import LOSS, TRAINING_LOSS, evidence_of
        from cmp.core.picking import candidates

        (known, unsettled), ids = self._noted(run), [c.id for c in candidates(run)]
        order = sorted(known, key=lambda metric: (metric != LOSS, metric != TRAINING_LOSS, metric))
        found = ((metric, evidence_of(known[metric], ids, base=base)) for metric in order)
        return tuple(with_limits(withheld(one, unsettled.get(metric, ()))) for metric, one in found if one is not None)

    def require_settled(self, run: Run, metric: str) -> None:
        """Raises Refused where a metric was measured of checkpoints that may by now hold other weights, or the same: nobody can say."""
        from cmp.core.evidence import why_withheld
        from cmp.core.measured import LOSS, MEASURED

        self.recognise(run)
        if left := self._noted(run)[1].get(LOSS if metric == MEASURED else metric):
            hint = f"`python -m cmp measure {run.id}` again: nothing is measured anew where the weights are the same."
            raise Refused(f"no best of {run.id} is named: {why_withheld(left)}", hint)

    def measured_last(self, run: Run) -> object:
        """Another value once more was measured of the run."""
        from cmp.disk.measures import Measures

        with suppress(CmpError):
            return Measures(self.store).changed(run), self._looks
        return None

    def last_measured(self, run: Run) -> MeasureSpec:
        """On which folders, and with which draws, the loss of a run was measured last; the demo comes with images of its own."""
        from cmp.core.measured import MeasureSpec

        known = self.store.get(_LAST, subject_of(run.place))
        told = known if isinstance(known, dict) else {}
        demo = Demo(self.settings.home / "demo")
        own = demo.data / "held_out" if run.folder.is_relative_to(demo.folder) else None
        held, training = (Path(str(told[name])) if told.get(name) else None for name in ("held_out", "training"))
        return MeasureSpec(held_out=held or own, training=training, draws=told.get("draws"), seed=told.get("seed"))

    def asked_last(self, run: Run) -> MeasureSpec:
        """What was last asked to be measured of a run, with all that was said for it; before the first time the loss."""
        last = self.last_measured(run)
        told = self.store.get(_ASKED, subject_of(run.place))
        if not isinstance(told, dict):
            return last
        held, training = (Path(str(told[name])) if told.get(name) else None for name in ("held_out", "training"))
        given = tuple((str(name), str(value)) for name, value in told.get("given", ()))
        metrics = tuple(map(str, told["metrics"]))
        return replace(last, metrics=metrics, held_out=held, training=training, draws=told.get("draws"), given=given)

    def measured_on(self, run: Run) -> tuple[Path, ...]:
        """The folders that whoever runs this has named already: those of runs and of base models, the images that the run was trained with,
        and what it was measured on, and with, before.
        """
        from cmp.disk.datasets import data_folders

        last, asked = self.last_measured(run), self.asked_last(run)
        told = [last.held_out, last.training, asked.held_out, asked.training, *(Path(value) for _, value in asked.given if value)]
        known = [place for place in told if place and place.is_absolute()]
        demo = Demo(self.settings.home / "demo").data
        return (*self.roots, *self.bases, demo, *data_folders(run), *known)

    def _completed(self, run: Run, spec: MeasureSpec) -> MeasureSpec:
        """The spec with all that it leaves open as it was the last time."""
        from cmp.core.draws import USUAL_DRAWS
        from cmp.core.picking import candidates

        last = self.last_measured(run)
        draws = next(value for value in (spec.draws, last.draws, USUAL_DRAWS) if value is not None)
        seed = next(value for value in (spec.seed, last.seed, 0) if value is not None)
        if not spec.exactly:
            spec = replace(spec, held_out=spec.held_out or last.held_out, training=spec.training or last.training)
        return replace(spec, checkpoints=spec.checkpoints or candidates(run), draws=draws, seed=seed)

    def _note(self, run: Run, found: Measured, checkpoint: Checkpoint | None, files: str, given: Answers, ready: Ready) -> Measured:
        """Notes a result under its checkpoint's name; where its `files` are others by now, the result says so instead."""
        from cmp.disk.held import hold
        from cmp.disk.measures import Measures

        alpha = self.answers(run).alpha if given.alpha is None else given.alpha
        if Measures(self.store).note(run, found, checkpoint, files, "" if alpha is None else str(alpha)):
            if checkpoint is not None:  # by which it is known again when its files have become others
                hold(self.store, files, {",".join(ready.replaced): digest_of(ready.opened, self.store, ready.replaced)})
            return found
        told = f"{found.checkpoint_id} was written anew meanwhile: this is of what it held before; measure it again"
        return replace(found, told=(*found.told, told))

    def _remember_asked(self, run: Run, spec: MeasureSpec) -> None:
        told = {name: str(folder) if folder else None for name, folder in (("held_out", spec.held_out), ("training", spec.training))}
        now = told | {"metrics": list(spec.metrics), "given": [list(pair) for pair in spec.given], "draws": spec.draws}
        self.store.put(_ASKED, subject_of(run.place), now)

    def _remember(self, run: Run, spec: MeasureSpec) -> None:
        held, training = (str(folder.absolute()) if folder else None for folder in (spec.held_out, spec.training))
        now = {"held_out": held, "training": training, "draws": spec.draws, "seed": spec.seed}
        self.store.put(_LAST, subject_of(run.place), now)
