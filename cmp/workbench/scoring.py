"""The verbs that score pictures and measure how far weights have moved: metrics beside the loss, kept in the same way."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.progress import Progress, run_through
from cmp.core.runs import Checkpoint, Run, validation_prompts
from cmp.disk.bases import digesting_base
from cmp.disk.ready import Answers, Ready, readying
from cmp.errors import BadInput, CmpError, NotFound, Refused
from cmp.workbench.known import Known

if TYPE_CHECKING:
    from cmp.core.measured import Measured, MeasurePlan, MeasureSpec, NotMeasured
    from cmp.core.score_asking import ScoreAnswers
    from cmp.core.score_items import Shown
    from cmp.disk.embeddings import SeeingModel
    from cmp.disk.labelled import LabelledFolder
    from cmp.engine.embedding import Eye
    from cmp.engine.scoring import Scorer

Scored = Iterator["Progress | Measured | NotMeasured"]


@dataclass(frozen=True, slots=True)
class Owners:
    """What is known of the checkpoints that are scored: each ready, with the digest of its weights; and of those that are not, why.

    `base` is the base model's digest, "" where it is not on this disk. `files` are what each one's files were before they were read.
    """

    ready: Mapping[str, Ready]
    weights: Mapping[str, str]
    base: str
    base_id: str
    faults: Mapping[str, CmpError]
    files: Mapping[str, str]


class Scoring(Known):
    """Scores of pictures, and sizes of updates. Safe to use from several threads."""

    def score(self, run: Run, spec: MeasureSpec, given: Answers = Answers(), *, alone: bool = True) -> Scored:
        """Measures the metrics of a spec that are no losses: one Measured for each metric, checkpoint and the base model.

        Pictures are those that are there: nothing is drawn. A metric or a checkpoint that cannot be measured is told and does not stop the
        rest; where one metric is asked for `alone`, what stands against it is raised.
        """
        from cmp.core.measured import UPDATE, NotMeasured
        from cmp.core.score_asking import ScoreAnswers
        from cmp.core.score_items import CELLS

        self.require_writing()
        asked, chosen = ScoreAnswers.of(spec.given), self._some(run, spec)
        for metric in spec.metrics:  # before hours are spent on the first
            self._check_asked(run, spec, metric, asked)
        known = yield from self._known(run, chosen, given)
        shown: Shown | None = None
        eye: Eye | None = None
        for metric in spec.metrics:
            yield from (NotMeasured(metric, name, fault) for name, fault in known.faults.items())
            try:
                if metric == UPDATE:
                    yield from self._sizes(run, chosen, known, given)
                    continue
                shown = shown or self._pictures(run, chosen, known, asked)
                yield from (NotMeasured(metric, name, self._undrawn(run, name, shown)) for name in shown.without)
                scorer = yield from self._scorer(run, spec, metric, asked, known, shown, eye)
                eye = scorer.eye
                for found in (yield from scorer.score()):
                    yield found if isinstance(found, NotMeasured) else self._keep(run, found, chosen, known, given)
                if shown.source == CELLS and given != Answers() and self.answers(run) != given:  # that these weights drew them proves it
                    self.answer(run, given)
            except CmpError as fault:
                if alone and len(spec.metrics) == 1:
                    raise
                left = known.ready.keys() - (shown.without if shown else ())
                yield from (NotMeasured(metric, c.id, fault) for c in chosen if c.id in left)

    def plan_score(self, run: Run, spec: MeasureSpec, given: Answers = Answers(), *, alone: bool = True) -> MeasurePlan:
        """What scoring would do: of which pictures, how many of them no model has seen yet, and what a grid would have to draw first."""
        from cmp.core.measured import UPDATE, MeasurePlan, NotMeasured
        from cmp.core.score_asking import ScoreAnswers, needs_pictures
        from cmp.disk.update_sizes import knows_update_size

        asked, chosen = ScoreAnswers.of(spec.given), self._some(run, spec)
        for metric in spec.metrics:
            self._check_asked(run, spec, metric, asked)
        known = run_through(self._known(run, chosen, given))
        faults = [NotMeasured(metric, name, fault) for metric in spec.metrics for name, fault in known.faults.items()]
        items, told, seconds = {UPDATE: 1} if UPDATE in spec.metrics else {}, dict[str, None](), 0.0
        shown: Shown | None = None
        measured = 0
        for metric in needs_pictures(spec.metrics):
            try:
                shown = shown or self._pictures(run, chosen, known, asked)
                faults += [NotMeasured(metric, name, self._undrawn(run, name, shown)) for name in shown.without]
                scorer = run_through(self._scorer(run, spec, metric, asked, known, shown))
                items[metric] = len(scorer.items.items)
                unseen = {name: sum(not scorer.eye.knows(picture) for picture in own) for name, own in scorer.items.pictures.items()}
                seconds += sum(unseen.values()) * (scorer.eye.pace or math.nan) if any(unseen.values()) else 0.0
                measured += sum(not count and self._is_kept(scorer, name) for name, count in unseen.items())
                told |= dict.fromkeys(shown.told)
            except CmpError as fault:
                if alone and len(spec.metrics) == 1:
                    raise
                left = known.ready.keys() - (shown.without if shown else ())
                faults += [NotMeasured(metric, c.id, fault) for c in chosen if c.id in left]
        if UPDATE in spec.metrics:
            measured += sum(knows_update_size(self.store, digest, known.base) for digest in known.weights.values())
        total, took = len(spec.metrics) * len(chosen), None if math.isnan(seconds) else seconds
        new = total - len(faults) - measured
        return MeasurePlan(spec.metrics, total, new, tuple(items.items()), 0, took, None, tuple(faults), tuple(told))

    def _is_kept(self, scorer: Scorer, name: str) -> bool:
        from cmp.disk.measures import Measures

        return Measures(self.store).find(scorer.weights[name], scorer.base, scorer.metric, scorer.setup()) is not None

    # -- what is scored ------------------------------------------------------------------------------------------------

    def _some(self, run: Run, spec: MeasureSpec) -> tuple[Checkpoint, ...]:
        if not spec.checkpoints:
            raise NotFound(f"{run.id!r} has no checkpoint that can be used", "`python -m cmp list` shows what stands against each.")
        return spec.checkpoints

    def _known(self, run: Run, chosen: Sequence[Checkpoint], given: Answers) -> Generator[Progress, None, Owners]:
        from cmp.disk.held import files_of

        ready: dict[str, Ready] = {}
        weights: dict[str, str] = {}
        files: dict[str, str] = {}
        faults: dict[str, CmpError] = {}
        for checkpoint in chosen:
            files[checkpoint.id] = files_of(checkpoint)
            try:
                ready[checkpoint.id] = found = yield from self._as_ready(run, checkpoint, given)
                weights[checkpoint.id] = yield from found.digesting(self.store)
            except CmpError as fault:
                ready.pop(checkpoint.id, None)
                faults[checkpoint.id] = fault
        base = next((one.base for one in ready.values() if one.base), None)
        digest = (yield from digesting_base(base.path, self.store)) if base else ""
        if not ready:
            raise next(iter(faults.values()))
        return Owners(ready, weights, digest, str(base.as_json()["id"]) if base else "", faults, files)

    def _as_ready(self, run: Run, checkpoint: Checkpoint, given: Answers) -> Generator[Progress, None, Ready]:
        """As it is drawn with; or where that cannot be, since its base is not here, as far as it is known without."""
        try:
            return (yield from readying(run, checkpoint, self.bases, self.store, given, need_base=True))
        except CmpError as fault:
            with suppress(CmpError):
                return (yield from readying(run, checkpoint, self.bases, self.store, given, need_base=False))
            raise fault

    def _pictures(self, run: Run, chosen: Sequence[Checkpoint], known: Owners, asked: ScoreAnswers) -> Shown:
        """The pictures that are scored: of grids, or where these show fewer of the checkpoints, the trainer's."""
        from cmp.core.score_items import CELLS, SAMPLES, choose_pictures, drawing_hint
        from cmp.disk.drawn import drawn_cells, trainers_pictures

        ids, owners = [c.id for c in chosen if c.id in known.ready], dict[str, list[str]]()
        for name, digest in known.weights.items():
            owners.setdefault(digest, []).append(name)
        found = []
        if asked.pictures != SAMPLES:
            cells = drawn_cells(self.store, owners, known.base, known.base_id)
            found.append(choose_pictures(CELLS, cells.pictures, ids, cells.bases))
        if asked.pictures != CELLS:
            samples = trainers_pictures(self.gallery.samples(run), [c for c in chosen if c.id in known.ready], validation_prompts(run))
            found.append(choose_pictures(SAMPLES, samples.pictures, ids, samples.bases))
        best = max((one for one in found if one), key=lambda one: len(one.pictures), default=None)
        if best is None:
            told = "pictures of the same prompts and seeds" if len(ids) > 1 else "pictures"
            hint = drawing_hint(run.id, base=True) if known.base else "Its base model is not known here: say it with --base."
            raise NotFound(f"there are no {told} of the chosen checkpoints of {run.id}", hint)
        return best

    def _undrawn(self, run: Run, name: str, shown: Shown) -> CmpError:
        from cmp.core.score_items import drawing_hint

        told = f"there is no picture of {name} with {shown.way.words}"
        return NotFound(told, drawing_hint(run.id, shown, [name]))

    # -- pictures ------------------------------------------------------------------------------------------------------

    def _check_asked(self, run: Run, spec: MeasureSpec, metric: str, asked: ScoreAnswers) -> None:
        """Raises what an answer lacks, before anything is read."""
        from cmp.core.image_scores import CMMD, IDENTITY, LEAK, NEAREST, PREFERENCE
        from cmp.core.measured import UPDATE
        from cmp.core.score_asking import BY_CLIP
        from cmp.disk.embeddings import require_clip

        if metric == UPDATE:
            return
        model = self._seeing(asked.model_of(metric))
        if metric in BY_CLIP or metric == PREFERENCE:
            require_clip(model)
        if metric in (CMMD, IDENTITY):
            self._labelled(asked.reference_of(metric))
        if metric == NEAREST:
            self._labelled(self._trained_with(run, spec))
        if metric == LEAK:
            self._calling(run, asked)

    def _scorer(
        self, run: Run, spec: MeasureSpec, metric: str, asked: ScoreAnswers, known: Owners, shown: Shown, last: Eye | None = None
    ) -> Generator[Progress, None, Scorer]:
        """What scores by one metric; with the model that looked `last` where it is the same, since it is loaded."""
        from cmp.core.image_scores import CMMD, IDENTITY, LEAK, NEAREST

        yield Progress(0, 1, f"loading what {metric} needs")
        images = self._labelled(asked.reference_of(metric)) if metric in (CMMD, IDENTITY) else None
        images = self._labelled(self._trained_with(run, spec)) if metric == NEAREST else images
        words = self._calling(run, asked) if metric == LEAK else ()
        name = asked.model_of(metric)
        eye = last if last and last.model.name == name else self._eye(name)
        from cmp.engine.scoring import Scorer

        return Scorer(metric, shown, eye, known.weights, known.base, images, words)

    def _seeing(self, name: str) -> SeeingModel:
        from cmp.disk.embeddings import find_seeing_model

        return find_seeing_model(name, self.store)

    def _eye(self, name: str) -> Eye:
        model, studio = self._seeing(name), self.own_studio()
        with self.loading:
            from cmp.engine.embedding import Eye

        return Eye(model, studio.device, self.store, self.gpu, self.loading)

    def _labelled(self, folder: Path) -> LabelledFolder:
        from cmp.disk.labelled import read_labelled

        return read_labelled(folder, self.store)

    def _trained_with(self, run: Run, spec: MeasureSpec) -> Path:
        from cmp.disk.datasets import read_data_set

        data = read_data_set(run) if spec.training is None else None
        folder = spec.training or (Path(data.folder) if data and data.images else None)
        if folder is None:
            raise BadInput(f"nothing says which images {run.id} was trained with", "Give their folder as --training.")
        return folder

    def _calling(self, run: Run, asked: ScoreAnswers) -> tuple[str, ...]:
        """The words that call up what was trained: those that were given, or those of the run's settings."""
        setting = run.settings.get("trigger_words")
        told = setting.value if setting and isinstance(setting.value, (tuple, list)) else ()
        words = asked.words or tuple(str(word) for word in told)
        if not words:
            raise BadInput(f"nothing says which word calls up what {run.id} has learned", "Give it, or several with commas, as --subject.")
        return words

    def _keep(self, run: Run, found: Measured, chosen: Sequence[Checkpoint], known: Owners, given: Answers) -> Measured:
        """Keeps a result; one that was there and is the same comes as known."""
        from cmp.disk.measures import Measures

        measures = Measures(self.store)
        before = measures.find(found.weights, found.base, found.metric, found.setup, found.checkpoint_id)
        measures.keep(found)
        checkpoint = next((c for c in chosen if c.id == found.checkpoint_id), None)
        ready = known.ready[checkpoint.id] if checkpoint else next(iter(known.ready.values()))
        noted = self._note(run, found, checkpoint, known.files[checkpoint.id] if checkpoint else "", given, ready)
        return replace(noted, reused=before is not None and before.values.tobytes() == found.values.tobytes())

    # -- weights -------------------------------------------------------------------------------------------------------

    def _sizes(
        self, run: Run, chosen: Sequence[Checkpoint], known: Owners, given: Answers
    ) -> Generator[Progress | Measured | NotMeasured, None, None]:
        """How far each checkpoint's weights have moved, in all and by block; relative to the base's where it is here."""
        from cmp.core.measured import UPDATE, NotMeasured
        from cmp.disk.update_sizes import kept_update_size

        for checkpoint in (c for c in chosen if c.id in known.ready):
            name, digest = checkpoint.id, known.weights[checkpoint.id]
            try:
                size = yield from kept_update_size(known.ready[name], self.store, digest, known.base)
            except CmpError as fault:
                yield NotMeasured(UPDATE, name, fault)
                continue
            found = size.as_measured(name, digest, known.base)
            if not found:
                yield NotMeasured(UPDATE, name, Refused("; ".join(size.told) or f"{name} changes no weight", "Give its base with --base."))
            for one in found:
                yield self._keep(run, one, chosen, known, given)
