"""The verbs. Page, command line and REST all call these and nothing below them; the store, the jobs and the one GPU belong here.

What only one verb needs is imported in it: `list` has nobody wait for what converts, draws or describes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.present import size_text
from cmp.core.progress import Progress, counted_from
from cmp.core.runs import Checkpoint, Run
from cmp.disk.ready import Answers, Ready, digesting, ready_checkpoint
from cmp.errors import BadInput, CmpError, NotFound, Refused
from cmp.settings import Settings
from cmp.workbench.shelf import Curves
from cmp.workbench.watching import Watching

if TYPE_CHECKING:
    from cmp.core.conversion import Conversion, ConversionPlan, Writing
    from cmp.core.grids import GridPlan, GridSpec, Tile
    from cmp.engine.draw import Drawing
    from cmp.engine.prepare import Preparing
    from cmp.engine.ray_cluster import Spreading
    from cmp.engine.studio import Studio

__all__ = ["Curves", "FailedConversion", "Workbench"]


@dataclass(frozen=True, slots=True)
class FailedConversion:
    """A conversion that did not come about, and why."""

    checkpoint: str
    error: CmpError


class Workbench(Watching):
    """Everything one process can do with runs. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._studio: Studio | None = None

    def doctor(self, path: Path | None = None) -> dict[str, object]:
        """Why a folder is not listed, or what this machine can do."""
        from cmp.disk.describe import describe_machine, why_not_listed

        if path is not None:
            return {"why": why_not_listed(Path(os.path.abspath(os.path.expanduser(path))))}
        from cmp.engine.device import describe_devices

        count, used = self.cells_size()
        cells = f"{count}, {size_text(used)}; `python -m cmp cells` makes room"
        return describe_machine(self.roots, self.bases, self.settings.home) | {"device": describe_devices(), "cells": cells}

    # -- conversion ----------------------------------------------------------------------------------------------------

    def plan_conversion(
        self,
        target: str,
        form: str,
        given: Answers = Answers(),
        *,
        output: Path | None = None,
        force: bool = False,
        writing: Writing | None = None,
    ) -> ConversionPlan:
        """What converting one checkpoint would do, from headers alone; raises what stands against it."""
        run, checkpoint = self.find(target)
        if checkpoint is None:
            raise BadInput(f"{target!r} is a run, and a checkpoint is converted", f"Name one, such as {target}@final, or all of them.")
        return self.plan_checkpoint(run, checkpoint, form, given, output=output, force=force, writing=writing)

    def plan_checkpoint(
        self,
        run: Run,
        checkpoint: Checkpoint,
        form: str,
        given: Answers = Answers(),
        *,
        output: Path | None = None,
        force: bool = False,
        writing: Writing | None = None,
    ) -> ConversionPlan:
        """The same for a checkpoint that has been found already."""
        from cmp.disk.planning import plan_conversion

        return plan_conversion(run, checkpoint, form, self.bases, self.store, given, output=output, force=force, writing=writing)

    def convert(self, plan: ConversionPlan) -> Generator[Progress, None, Conversion]:
        """Carries out a plan; raises NoSpace before the first byte if the result does not fit."""
        from cmp.disk.planning import check_space, make_way

        check_space([plan])
        if not plan.replaces and os.path.lexists(plan.target):
            raise Refused(f"{plan.target} has appeared since the conversion was planned", "Another process may have made it; plan again.")
        # a pipeline's folder is changed at the last moment, see engine.convert
        old = make_way(plan.target, plan.run.folder, link=True) if plan.replaces and plan.form != "pipeline" else None
        conversion = None
        try:
            conversion = yield from self._carry_out(plan)
        finally:
            if old is not None and conversion is None:  # failed or cancelled: what was there is better than nothing
                os.replace(old, plan.target)
                old.unlink(missing_ok=True)  # of two names of one file os.replace takes neither away
        self._lookout.forget()
        return conversion

    def _carry_out(self, plan: ConversionPlan) -> Generator[Progress, None, Conversion]:
        from cmp.core.conversion import LORA_FORMS
        from cmp.core.pace import bytes_of_work
        from cmp.disk.base_proof import bytes_to_compare, frozen_checks
        from cmp.disk.planning import open_planned

        opened = open_planned(plan)
        before = bytes_to_compare(opened, plan.whole, plan.base, self.store)
        total = before + bytes_of_work(plan)
        proofs = yield from counted_from(0, frozen_checks(opened, plan.whole, plan.base, self.store), total)
        digest = yield from counted_from(before, digesting(opened, self.store, plan.whole), total)
        if plan.base is not None and opened.weights.dumped:
            plan = replace(plan, base=replace(plan.base, proof="tensors"))
        if plan.form in LORA_FORMS:
            from cmp.disk.lora_file import convert_to_lora
            from cmp.engine.verify import verify_lora_file

            work = convert_to_lora(plan, opened, proofs, digest, verify_lora_file)
            return (yield from counted_from(before, work, total))
        from cmp.engine.convert import convert_to_pipeline, convert_to_single

        carry_out = convert_to_pipeline if plan.form == "pipeline" else convert_to_single
        return (yield from counted_from(before, carry_out(plan, opened, proofs, digest), total))

    def convert_all(
        self, plans: Iterable[ConversionPlan], given: Answers = Answers()
    ) -> Iterator[Progress | Conversion | FailedConversion]:
        """Converts one after another; one that fails is told as such and does not stop the rest.

        What the user said of scale and base is remembered for the run once a conversion with it has come out well.
        """
        from cmp.core.pace import bytes_of_work
        from cmp.disk.planning import check_space

        plans = [plan for plan in plans if not plan.done]
        check_space(plans)
        before, later = 0, sum(map(bytes_of_work, plans))  # bytes of work
        for done, plan in enumerate(plans):
            later -= bytes_of_work(plan)
            step = Progress(done, len(plans), "", 0, bytes_of_work(plan))
            try:
                with closing(self.convert(plan)) as work:
                    while True:
                        try:
                            step = next(work)
                        except StopIteration as finished:
                            conversion = finished.value
                            break
                        told = f"{plan.checkpoint.id}: {step.what}"
                        yield Progress(done, len(plans), told, before + step.done_bytes, before + step.total_bytes + later)
                if given != Answers():
                    self.answer(plan.run, given)
                before += step.total_bytes
                yield conversion
            except CmpError as fault:
                before += step.done_bytes
                yield FailedConversion(plan.checkpoint.id, fault)
        yield Progress(len(plans), len(plans), "done", before, before)

    # -- grids ---------------------------------------------------------------------------------------------------------

    def studio(self) -> Studio:
        """The models in memory; the first call imports torch."""
        if self._studio is None:
            from cmp.engine.studio import Studio

            self._studio = Studio(self.settings.device)
        return self._studio

    def ready(self, run: Run, checkpoint: Checkpoint, given: Answers = Answers()) -> Ready:
        """A checkpoint ready to be drawn with; raises what stands against it."""
        return ready_checkpoint(run, checkpoint, self.bases, self.store, given, need_base=True)

    def draw_grid(
        self, spec: GridSpec, runs: Iterable[Run], given: Answers = Answers(), ray: str | None = None
    ) -> Iterator[Tile | Progress]:
        """Draws every cell of a grid that has not been drawn before: one Tile per cell, and between them how far it has come.

        `runs` are those that the checkpoints and the stacked LoRAs belong to; the base column is drawn with the base of the first. With
        `spec.preview` a cell's tile may come twice, first as a preview. See `engine.draw.Drawing`. With the address of a Ray cluster its
        workers draw, see `engine.ray_cluster`; raises BadInput where Ray is not installed.
        """
        from cmp.core.grids import Tile
        from cmp.disk.cells import mark_used

        runs = tuple(runs)
        with self._drawer(spec, runs, given, ray) as drawer, closing(drawer.draw(spec.cells(), spec.preview)) as items:
            for item in items:
                if isinstance(item, Tile):
                    if item.reused and item.path:
                        mark_used(item.path)
                    self._keep_answer(item, runs, given)
                yield item

    def _drawer(
        self, spec: GridSpec, runs: tuple[Run, ...], given: Answers, ray: str | None
    ) -> AbstractContextManager[Drawing | Spreading]:
        if ray is None:
            return nullcontext(self.drawing(spec, runs, given))
        from cmp.workbench.cluster import Sent, needed_of, spread

        needed = needed_of(replace(self.settings, bases=self.bases), spec, given)
        return spread(ray, self.cluster, Sent(self.settings, spec, runs, given, tuple(map(self.answers, runs)), needed))

    def drawing(self, spec: GridSpec, runs: tuple[Run, ...], given: Answers) -> Drawing:
        """A grid to be drawn by this process; whoever draws does so through `draw_grid`."""
        from cmp.engine.draw import Drawing

        return Drawing(self._preparing(spec, runs, given), self.studio(), self.store, self.gpu)

    def plan_grid(self, spec: GridSpec, runs: Iterable[Run], given: Answers = Answers()) -> GridPlan:
        """What drawing a grid would do: cells that are new, that were drawn before, that cannot be drawn; time and size."""
        return self.drawing(spec, tuple(runs), given).plan(spec.cells(), spec.preview)

    def _preparing(self, spec: GridSpec, runs: tuple[Run, ...], given: Answers) -> Preparing:
        from cmp.engine.prepare import Preparing

        known: dict[Checkpoint | None, Ready | CmpError] = {}

        def make_ready(checkpoint: Checkpoint | None, beside: Ready | None = None) -> Ready:
            # by the checkpoint itself, not by its id: two runs given as paths may share an id
            if checkpoint not in known:
                known[checkpoint] = self._try_ready(checkpoint, runs, given, beside)
            found = known[checkpoint]
            if isinstance(found, CmpError):
                raise found
            return found

        return Preparing(make_ready, self.studio(), self.store, spec.mode)

    def _keep_answer(self, tile: Tile, runs: tuple[Run, ...], given: Answers) -> None:
        """Remembers what was said of base and alpha once it has drawn a checkpoint: a wrong answer must not outlive its grid."""
        if given == Answers() or tile.fault or tile.cell.checkpoint is None:
            return
        run = next(run for run in runs if tile.cell.checkpoint in run.checkpoints)
        if self.answers(run) != given:
            self.answer(run, given)

    def _try_ready(self, checkpoint: Checkpoint | None, runs: tuple[Run, ...], given: Answers, beside: Ready | None) -> Ready | CmpError:
        """Asked once per checkpoint and grid, so that a column that cannot be drawn says so at once in all its cells."""
        try:
            if checkpoint is None:
                return self._any_ready(runs[0], given)
            run = next(run for run in runs if checkpoint in run.checkpoints)
            if beside is None:
                return self.ready(run, checkpoint, given)
            # a LoRA from elsewhere is worn on the base of the checkpoint that it stands beside
            on = replace(given, base=str(beside.base.path) if beside.base else None)
            return ready_checkpoint(run, checkpoint, self.bases, self.store, on, need_base=False)
        except CmpError as fault:
            return fault

    def _any_ready(self, run: Run, given: Answers) -> Ready:
        """The base column needs a run's base, whichever of its checkpoints leads to it."""
        faults: list[CmpError] = []
        for checkpoint in run.checkpoints:
            try:
                return self.ready(run, checkpoint, given)
            except CmpError as fault:
                faults.append(fault)
        raise faults[0] if faults else NotFound(f"run {run.id!r} has no checkpoint", "Its base model is known only through them.")

    # -- what is in memory ---------------------------------------------------------------------------------------------

    def device_name(self) -> str:
        """The kind of device that is drawn with: "cuda", "mps" or "cpu"."""
        return str(self.studio().device.type)

    def with_device(self, device: str) -> Workbench:
        """The same workbench, drawing with another device and with models of its own."""
        other = copy(self)
        other.settings, other.gpu, other._studio = replace(self.settings, device=device), threading.Lock(), None
        return other

    def loaded_models(self) -> list[str]:
        """The base models in memory now."""
        return self._studio.loaded if self._studio else []
