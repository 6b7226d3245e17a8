"""The verb that hands a run over to others: a page without weights, or the chosen LoRA with a card. First as a plan, file by file."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmp import __version__
from cmp.core.progress import Progress
from cmp.core.publishing import INDEX, MODEL, README, REPOSITORIES, SharePlan, Wanted
from cmp.core.runs import Checkpoint, Run, plain_text, rename_run
from cmp.disk.ready import Answers
from cmp.errors import BadInput, CmpError, Refused
from cmp.jobs import Job
from cmp.workbench.exporting import Matrix
from cmp.workbench.reclaiming import Reclaiming
from cmp.workbench.share_parts import Draft, drawn_values, heads_shared, laid_out, loss_of, places_of, row_of, samples_of, settings_of

if TYPE_CHECKING:
    from cmp.core.curves import LossCurve
    from cmp.core.picking import Verdict
    from cmp.core.votes import Shown
    from cmp.viewer.shared import Section

Planning = Generator[Progress, None, SharePlan]
SCRATCH = "within"  # of a draft, and gone before it is a plan


@dataclass(frozen=True, slots=True)
class Handed:
    """A run as others are told of it: its ids say its name instead of where it lies. `own` is the run as it is here."""

    own: Run
    run: Run
    name: str
    chosen: Checkpoint | None  # of `run`
    verdicts: tuple[Verdict, ...]
    matrices: tuple[tuple[str, dict[str, Any]], ...]
    shown: tuple[Shown, ...]
    curves: tuple[LossCurve, ...]


class Sharing(Reclaiming):
    """What leaves this computer. Safe to use from several threads."""

    @contextmanager
    def shared(self, target: str, wanted: Wanted, given: Answers = Answers(), *, only_ids: bool = False) -> Iterator[Planning]:
        """What sharing a run would write, made in a folder of ours that goes when the block ends.

        TARGET is a run, or where a model is wanted also a checkpoint. Raises what stands against it, Refused as well where anything would
        tell a folder of the user's.
        """
        from cmp.disk.publishing import drop_draft, new_draft, require_place

        self.require_writing()
        if wanted.output is not None:
            require_place(wanted.output, force=wanted.force)
        run, checkpoint = self.find(target, only_ids=only_ids)
        _require_fitting(run, checkpoint, wanted)
        folder = new_draft(self.settings.home)
        try:
            yield self._planning(run, checkpoint, wanted, given, folder)
        finally:
            drop_draft(folder)

    def _planning(self, run: Run, checkpoint: Checkpoint | None, wanted: Wanted, given: Answers, folder: Path) -> Planning:
        from cmp.disk.publishing import drop_draft, require_nothing_of
        from cmp.workbench.share_models import write_model

        draft = Draft(folder, places_of(self, run))
        subject = self._handed(run, checkpoint, wanted)
        yield Progress(0, 0, "preparing")
        if wanted.kind == MODEL:
            yield from write_model(self, subject, wanted, given, draft)
        else:
            yield from self._write_page(subject, wanted, draft)
        drop_draft(folder / SCRATCH)
        require_nothing_of(folder, draft.places)
        title = f"{subject.name} {subject.chosen.key}" if subject.chosen else subject.name
        return SharePlan(run.id, title, wanted, folder, draft.listed, tuple(draft.notes))

    def _handed(self, own: Run, checkpoint: Checkpoint | None, wanted: Wanted) -> Handed:
        from cmp.core.agreeing import leading

        name = plain_text(self.name_of(own)).strip() or "run"
        run = rename_run(own, name)
        here = dict(zip((c.id for c in run.checkpoints), own.checkpoints, strict=True))
        self.recognise(own)
        verdicts = self.verdicts(run)
        chosen = run.checkpoint(checkpoint.key) if checkpoint else None
        if wanted.kind == MODEL and chosen is None:
            chosen = _best(own, run, leading(verdicts))
        heads = heads_shared(self.heads(c.id for c in own.checkpoints))
        label: Callable[[Checkpoint | None], tuple[str, str]] = lambda c: (self.column_name(here[c.id] if c else None), "")  # noqa: E731
        shown = self._drawn.of(run)
        drawn = drawn_values(run, shown, label, self.store.cell_path, lambda c: heads.get(here[c].id, {}), self._bases_of(own, shown))
        matrices = [(f"Drawn with each checkpoint: {told}", value) for told, value in drawn]
        if samples := samples_of(self, run, name):
            matrices.append(("Drawn by the trainer, while training", samples))
        return Handed(own, run, name, chosen, verdicts, tuple(matrices), shown, tuple(self._curves_of(run)))

    def _bases_of(self, own: Run, shown: Sequence[Shown]) -> dict[tuple[Any, ...], str]:
        """The keys of the base model's pictures that stand beside these. A base's name proves nothing: its keys are computed anew, from its
        digest and the library's versions as they are now.
        """
        from cmp.core.grids import USUAL_MODE, Cell, GridSpec, Prompt
        from cmp.core.votes import kept_cell
        from cmp.disk.cell_index import CellIndex

        rows, found = {row_of(one) for one in shown}, dict[tuple[Any, ...], str]()
        told = ((cell.key, kept_cell(cell.key, "", cell.told)) for cell in (CellIndex(self.store).of_weights([""]) if rows else ()))
        kept = {key for key, one in told if one and row_of(one) in rows}
        if not kept:
            return {}
        self.load_engine()
        preparing = self._preparing(GridSpec((None,), (Prompt(""),), mode=USUAL_MODE), (own,), Answers())
        with suppress(CmpError):  # a base that has gone has no column
            for row in rows:
                prompt, negative, seed, sampling, base = row
                one = preparing.prepare(Cell(None, Prompt(prompt, negative), seed, 1.0, sampling))
                key = next((key for key in one.keys.values() if key in kept), None)
                if key and one.clothes.ready.base and str(one.clothes.ready.base.as_json()["id"]) == base:
                    found[row] = key
        return found

    # -- the page ------------------------------------------------------------------------------------------------------

    def _write_page(self, subject: Handed, wanted: Wanted, draft: Draft) -> Generator[Progress, None, None]:
        from cmp.core.cards import page_readme
        from cmp.viewer.shared import Section, shared_page

        sections = []
        for title, value in subject.matrices:
            matrix = Matrix(self, value, scratch=draft.folder / SCRATCH)
            for item in laid_out(matrix, draft, png=wanted.png):
                if isinstance(item, Progress):
                    yield item
                else:
                    sections.append(Section(draft.cut(title), matrix=item))
        if not sections:
            draft.notes.append("there are no pictures: nothing was drawn of this run here, and its trainer left none")
        sections += self._words(subject, draft)
        if not sections:
            raise Refused(f"of {subject.own.id} there is nothing to show: no pictures, no logs, no settings", "Draw a grid of it first.")
        told = draft.cut(self.verdict_told(subject.run))
        draft.write(INDEX, shared_page(subject.name, told, sections).encode("utf-8", "replace"), "the page")
        draft.write(README, page_readme(subject.name, told).encode("utf-8", "replace"), "what it is, and on the Hub the Space's settings")

    def _words(self, subject: Handed, draft: Draft) -> Iterator[Section]:
        from cmp.core.agreeing import agreement
        from cmp.core.cards import judgement, tally_text
        from cmp.viewer.shared import Section, Table

        if loss := loss_of(subject.run, subject.curves, subject.name, "svg"):
            path = draft.add_image(loss[0], "svg", "the loss")
            yield Section("Loss", notes=tuple(map(draft.cut, loss[1])), picture=(path, f"The loss of {subject.name} over its steps."))
        judged = [judgement(subject.run, verdict) for verdict in subject.verdicts]
        if judged:
            tables = tuple(Table(one.title, one.heads, one.rows) for one in judged if one.rows)
            told = dict.fromkeys((agreement(subject.run, subject.verdicts).told, *(one.told for one in judged)))
            warnings = dict.fromkeys(warning for one in judged for warning in one.warnings)
            votes = [tally_text(self.tally(subject.run))] if self.votes(subject.run) else []
            yield Section("Which is the best", tuple(map(draft.cut, (*told, *votes))), tuple(map(draft.cut, warnings)), tables=tables)
        if rows := settings_of(subject.run, draft.cut):
            yield Section("Trained with", tables=(Table("Settings", ("setting", "value"), rows),))

    # -- carrying out --------------------------------------------------------------------------------------------------

    def share(self, plan: SharePlan) -> Generator[Progress, None, str]:
        """Carries out a plan: writes the folder, or uploads it. Gives where it is now."""
        from cmp.disk.hub import upload
        from cmp.disk.publishing import put_in_place

        self.require_writing()
        if plan.wanted.repository is not None:
            self._require_online()
            return (yield from upload(plan, __version__))
        assert plan.wanted.output is not None
        yield from put_in_place(plan.draft, plan.wanted.output, force=plan.wanted.force)
        return plain_text(os.path.abspath(plan.wanted.output))

    def follow_share(self, plan: SharePlan) -> Iterator[object]:
        """The same as a job within the caller's thread: how far it is, and at the end where it is. Leaving it cancels the job."""
        title = f"share {plan.run}: {REPOSITORIES[plan.wanted.kind] if plan.wanted.repository else 'folder'}"
        at: list[str] = []  # no item of the job, which counts files

        def work() -> Iterator[object]:
            at.append((yield from self.share(plan)))

        yield from self.jobs.follow("share", title, len(plan.files), work)
        yield from at

    def start_share(self, target: str, wanted: Wanted, given: Answers = Answers()) -> Job:
        """Queues planning and carrying out; TARGET is an id. A process that ends meanwhile leaves nothing to go on with."""
        self.require_writing()
        run, checkpoint = self.find(target, only_ids=True)
        name = (checkpoint or run).id
        _require_fitting(run, checkpoint, wanted)
        self._require_online()

        def work() -> Iterator[object]:
            with self.shared(name, wanted, given, only_ids=True) as planning:
                plan = yield from planning
                yield from self.share(plan)

        # visitors see which jobs there are, and a repository may be private
        return self.jobs.start("share", f"share {name}: {REPOSITORIES[wanted.kind]}", 0, work)

    def _require_online(self) -> None:
        if self.settings.offline:
            raise Refused("HF_HUB_OFFLINE is set, so nothing is uploaded", "Unset it, or write a folder with --output DIR.")


def _require_fitting(run: Run, checkpoint: Checkpoint | None, wanted: Wanted) -> None:
    if checkpoint is not None and wanted.kind != MODEL:
        raise BadInput(f"{checkpoint.id!r} is a checkpoint, and a page is of a run", f"Name the run: {run.id}.")


def _best(own: Run, run: Run, verdict: Verdict | None) -> Checkpoint:
    """The one that the verdict names; raises Refused where it names none."""
    from cmp.core.agreeing import steps_text, told_by

    name = f"Name a checkpoint, such as {own.checkpoints[-1].id}." if own.checkpoints else "It has no checkpoint."
    if verdict is None:
        raise Refused(f"nothing says which checkpoint of {own.id} is the best", name)
    best = next((c for c in run.checkpoints if c.id == verdict.best), None)
    if best is None:
        tied = steps_text(verdict.window, [c.id for c in run.checkpoints])
        told = f"no checkpoint of {own.id} is known to be the best. {told_by(verdict)} Left are {tied}"
        raise Refused(told, name)
    return best


def raise_failed(items: Iterable[object]) -> Generator[Progress, None, None]:
    """Goes through conversions; raises what one has failed of."""
    for item in items:
        if isinstance(item, Progress):
            yield item
        elif isinstance(error := getattr(item, "error", None), CmpError):
            raise error
