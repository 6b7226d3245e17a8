"""The verb that measures: metrics of saved checkpoints, on the same items for all of them, each of them kept by the weights."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.progress import Progress, Rest, run_through
from cmp.core.runs import Checkpoint, Run
from cmp.disk.ledger import Order
from cmp.disk.ready import Answers
from cmp.errors import BadInput, CmpError, Refused
from cmp.jobs import Job, Work
from cmp.settings import Settings
from cmp.workbench.long_work import Started, answers_json, read_answers
from cmp.workbench.scoring import Scoring

if TYPE_CHECKING:
    from cmp.core.measured import Measured, MeasurePlan, MeasureSpec, NotMeasured
    from cmp.disk.labelled import Labelled, LabelledFolder
    from cmp.engine.measuring import LossMeter, Meant


class Measuring(Scoring):
    """What measures. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.jobs.make("measure", self._measure_again)

    # -- measuring -----------------------------------------------------------------------------------------------------

    def plan_measure(self, run: Run, spec: MeasureSpec, given: Answers = Answers()) -> MeasurePlan:
        """What measuring would do, how long it takes, and how small a difference it will see. Measures nothing."""
        from cmp.core.score_asking import both_plans, parted

        losses, others = parted(self._completed(run, spec))
        plans = [self._plan_losses(run, losses, given)] if losses else []
        plans += [self.plan_score(run, others, given, alone=not losses)] if others else []
        return plans[0] if len(plans) == 1 else both_plans(plans[0], plans[1])

    def _plan_losses(self, run: Run, spec: MeasureSpec, given: Answers) -> MeasurePlan:
        from cmp.core.measured import MeasurePlan, NotMeasured
        from cmp.disk.measures import Measures

        meters, measures = self._meters(run, spec, given), Measures(self.store)
        new: list[tuple[LossMeter, Meant]] = []
        faults: list[NotMeasured] = []
        told: list[str] = []
        for checkpoint in (None, *spec.checkpoints):
            for meter in meters:
                try:
                    meant = run_through(meter.prepare(checkpoint))
                    told += [*meter.labelled.told, *meter.sizes_told(meant)] if checkpoint is None else []
                    if measures.find(*meter.key(meant)) is None:
                        new.append((meter, meant))
                except CmpError as fault:
                    if checkpoint is None:
                        raise
                    faults.append(NotMeasured(meter.metric, checkpoint.id, fault))
        seconds = [meter.expect(meant) for meter, meant in new]
        return MeasurePlan(
            tuple(meter.metric for meter in meters), len(meters) * (1 + len(spec.checkpoints)), len(new),
            tuple((meter.metric, len(meter.labelled.images)) for meter in meters), meters[0].draws.total,
            None if None in seconds else sum(filter(None, seconds)), self._smallest(run, meters[0]), tuple(faults),
            tuple(dict.fromkeys(told)),
        )  # fmt: skip

    def measure(self, run: Run, spec: MeasureSpec, given: Answers = Answers()) -> Iterator[Progress | Measured | NotMeasured]:
        """Measures, first the base model, then each checkpoint; what is known already comes as it is.

        One Measured for each of them and each metric, kept as it comes; a checkpoint that cannot be measured is told and does not stop
        the rest. Raises what stands against all: no images, or a base model of a kind that is not measured. Metrics that are no losses
        come before, see `score`.
        """
        from cmp.core.score_asking import parted

        self.require_writing()
        losses, others = parted(self._completed(run, spec))
        yield from self.score(run, others, given, alone=not losses) if others else ()
        yield from self._losses(run, losses, given) if losses else ()

    def _losses(self, run: Run, spec: MeasureSpec, given: Answers) -> Iterator[Progress | Measured | NotMeasured]:
        from cmp.core.measured import NotMeasured
        from cmp.disk.held import files_of

        meters = self._meters(run, spec, given)
        self._remember(run, spec)
        files: dict[Checkpoint | None, str] = {}
        total, done, proven = len(meters) * (1 + len(spec.checkpoints)), 0, False
        for checkpoint in (None, *spec.checkpoints):
            was = files.setdefault(checkpoint, files_of(checkpoint))  # once, as the weights that all meters measure are read once
            for meter in meters:
                name = checkpoint.id if checkpoint else "base model"
                try:
                    with closing(self._one(run, meter, checkpoint, was, given)) as work:
                        found = yield from _told(work, done, total, name)
                    yield found
                    proven = proven or checkpoint is not None
                except CmpError as fault:
                    if checkpoint is None:
                        raise
                    yield NotMeasured(meter.metric, checkpoint.id, fault)
                done += 1
        if proven and given != Answers() and self.answers(run) != given:  # a wrong answer must not outlive what it was given for
            self.answer(run, given)

    def _one(
        self, run: Run, meter: LossMeter, checkpoint: Checkpoint | None, files: str, given: Answers
    ) -> Generator[Progress, None, Measured]:
        """One metric of one checkpoint: from what is kept, or measured and kept; `files` are what its files were before."""
        from cmp.core.evidence import BASE
        from cmp.disk.measures import Measures

        measures = Measures(self.store)
        meant = yield from meter.prepare(checkpoint)
        known = measures.find(*meter.key(meant), checkpoint.id if checkpoint else BASE)
        if known is None:
            found = yield from meter.measure(meant)
            measures.keep(found)
        else:  # what is to be known of the folder may have changed, though not the images that are measured on
            found = replace(known, told=tuple(dict.fromkeys((*meter.labelled.told, *known.told))))
        return self._note(run, found, checkpoint, files, given, meant.one.clothes.ready)

    def _meters(self, run: Run, spec: MeasureSpec, given: Answers) -> list[LossMeter]:
        """One for each set of images that the loss is measured on."""
        from cmp.core.draws import Draws
        from cmp.core.grids import GridSpec, Prompt

        studio = self.own_studio()
        draws, sets = Draws(spec.draws or 0, spec.seed or 0), self._sets(run, spec)
        with self.loading:
            from cmp.engine.measuring import LossMeter
        preparing = self._preparing(GridSpec((None,), (Prompt(""),), mode="exact"), (run,), given)
        predicts = _prediction(run)
        return [LossMeter(preparing, studio, self.store, self.gpu, metric, labelled, draws, predicts) for metric, labelled in sets]

    def _sets(self, run: Run, spec: MeasureSpec) -> list[tuple[str, LabelledFolder]]:
        """The folders of images by the metric that is measured on them. Held-out images that were trained with are left out."""
        from cmp.core.measured import LOSS, TRAINING_LOSS
        from cmp.disk.labelled import read_labelled, without

        held, training = spec.held_out, spec.training
        if held is None and training is None:
            hint = "Give a folder of images that were not trained with as --held-out, and those that were as --training."
            raise BadInput(f"nothing says on which images the loss of {run.id} is to be measured", hint)
        trained = read_labelled(training, self.store) if training else None
        found = []
        if held is not None:
            labelled = read_labelled(held, self.store)
            others = trained.images if trained else self._trained(run)
            labelled = without(labelled, others, "training images")
            if not labelled.images:
                raise Refused(f"every image in {held} was trained with, so that none of them is held out", "Give other images.")
            found.append((LOSS, labelled))
        return [*found, *([(TRAINING_LOSS, trained)] if trained else [])]

    def _trained(self, run: Run) -> list[Labelled]:
        """The images that a run was trained with, as far as they are at hand."""
        from cmp.disk.datasets import data_folders
        from cmp.disk.labelled import read_labelled

        found: list[Labelled] = []
        for folder in data_folders(run):
            with suppress(CmpError):  # nobody named it now, so that what is wrong with it stands against nothing
                found += read_labelled(folder, self.store).images
        return found

    def _smallest(self, run: Run, meter: LossMeter) -> float | None:
        """The smallest difference that will be seen, by how much the images differed that were measured before; None without any."""
        from cmp.core.measured import smallest_difference

        known = {one.metric: one for one in self.measured(run)}.get(meter.metric)
        if known is None or known.items is None or (before := smallest_difference(known.items)) is None:
            return None
        return before * math.sqrt(known.items.shape[1] / len(meter.labelled.images))

    # -- as a job ------------------------------------------------------------------------------------------------------

    def start_measure(self, run: Run, spec: MeasureSpec, given: Answers = Answers()) -> Job:
        """Queues measuring; what was measured by then is not measured again if this process is killed."""
        return self.jobs.start(*self._measuring(run, spec, given))

    def follow_measure(self, run: Run, spec: MeasureSpec, given: Answers = Answers()) -> Iterator[Progress | Measured | NotMeasured]:
        """The same within the caller's thread. Leaving it cancels the job."""
        return self.jobs.follow(*self._measuring(run, spec, given))  # type: ignore[return-value]

    def _measuring(self, run: Run, spec: MeasureSpec, given: Answers) -> Started:
        from cmp.core.measured import WITHOUT_BASE
        from cmp.core.orders import checkpoint_reference, run_reference
        from cmp.core.score_asking import parted

        self.require_writing()
        losses, others = parted(spec := self._completed(run, spec))
        metrics = [*(others.metrics if others else ()), *(metric for metric, _ in (self._sets(run, losses) if losses else ()))]
        told = {
            "metrics": list(spec.metrics), "checkpoints": list(map(checkpoint_reference, spec.checkpoints)), "draws": spec.draws,
            "held_out": str(spec.held_out) if spec.held_out else None, "training": str(spec.training) if spec.training else None,
            "seed": spec.seed, "given": [list(pair) for pair in spec.given], "exactly": spec.exactly,
        }  # fmt: skip
        order = {"measure": told, "run": run_reference(run), **answers_json(given)}
        title = f"measure {', '.join(metrics)} of {run.id}"
        self._remember_asked(run, spec)
        total = sum(len(spec.checkpoints) + (metric not in WITHOUT_BASE) for metric in metrics)
        return "measure", title, total, lambda: self.measure_when_free(run, spec, given), spec, order

    def _measure_again(self, order: Order) -> tuple[Work, object]:
        from cmp.core.measured import MeasureSpec

        run, told = self.run_again(order["run"]), order["measure"]
        folders = {name: Path(told[name]) if told[name] else None for name in ("held_out", "training")}
        spec = MeasureSpec(
            tuple(told["metrics"]), tuple(self.checkpoint_again(one)[1] for one in told["checkpoints"]), draws=told["draws"],
            seed=told["seed"], given=tuple((name, value) for name, value in told["given"]), exactly=bool(told.get("exactly")), **folders,
        )  # fmt: skip
        return lambda: self.measure_when_free(run, spec, read_answers(order)), spec

    def measure_when_free(
        self, run: Run, spec: MeasureSpec, given: Answers = Answers()
    ) -> Iterator[Progress | Rest | Measured | NotMeasured]:
        """The same once no other program uses the graphics card."""
        bench = yield from self.when_free(0)
        yield from bench.measure(run, spec, given)

    # -- while it is trained -------------------------------------------------------------------------------------------

    def require_images(self, run: Run) -> None:
        """Raises BadInput where nothing says on which images the loss of a run is to be measured, and what reading them raises."""
        from cmp.core.measured import MeasureSpec

        self._sets(run, self._completed(run, MeasureSpec()))

    def measure_landed(
        self, run: Run, checkpoints: Iterable[Checkpoint], given: Answers
    ) -> Iterator[Progress | Rest | Measured | NotMeasured]:
        """Measures checkpoints as the run was measured last; those that are known cost nothing. What stands against it is told."""
        from cmp.core.measured import LOSS, MeasureSpec, NotMeasured

        checkpoints = tuple(checkpoints)
        try:
            yield from self.measure_when_free(run, MeasureSpec(checkpoints=checkpoints), given)
        except CmpError as fault:
            yield NotMeasured(LOSS, checkpoints[-1].id, fault)


def _prediction(run: Run) -> str | None:
    """What a run's settings say that it was trained to predict, None where they do not."""
    said = {name: setting.value for name in ("prediction_type", "v_parameterization") if (setting := run.settings.get(name))}
    if said.get("v_parameterization") in (True, "True", "true"):
        return "v_prediction"
    return str(said["prediction_type"]) if said.get("prediction_type") in ("epsilon", "v_prediction", "sample") else None


def _told(work: Generator[Progress, None, Measured], done: int, total: int, name: str) -> Generator[Progress, None, Measured]:
    """What the work gives; its steps as those of the whole, told in words."""
    while True:
        try:
            step = next(work)
        except StopIteration as finished:
            found: Measured = finished.value
            return found
        inside = f" {step.done}/{step.total}" if step.total > 1 and not step.total_bytes else ""
        yield replace(step, done=done, total=total, what=f"{name}: {step.what}{inside}")
