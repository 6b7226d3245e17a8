"""The verbs. Page, command line and REST all call these and nothing below them; the store, the jobs and the one GPU belong here.

What only one verb needs is imported in it: `list` has nobody wait for what converts, draws or describes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.present import counted, size_text
from cmp.core.progress import Progress, counted_from, run_through
from cmp.core.runs import Checkpoint, Library, Run
from cmp.disk.ready import Answers, digesting, trained_tensors
from cmp.errors import BadInput, CmpError, Refused
from cmp.settings import Settings
from cmp.workbench.places import NOT_BROUGHT
from cmp.workbench.sharing import Sharing
from cmp.workbench.shelf import Curves

if TYPE_CHECKING:
    from cmp.core.conversion import Conversion, ConversionPlan, Writing
    from cmp.disk.machine import GraphicsCard
    from cmp.workbench.alerting import Alerting

__all__ = ["Curves", "FailedConversion", "Workbench"]


@dataclass(frozen=True, slots=True)
class FailedConversion:
    """A conversion that did not come about, and why."""

    checkpoint: str
    error: CmpError


class Workbench(Sharing):
    """Everything one process can do with runs. Safe to use from several threads."""

    alerting: Alerting | None = None  # what a server looks out for
    cards: tuple[GraphicsCard, ...] | None = None  # of this machine, once they were asked for

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.began = time.monotonic()

    @property
    def is_loaded(self) -> bool:
        """Whether something was drawn, so that torch and the device are known."""
        return self._studio is not None

    def complete_library(self) -> Library:
        """All runs with what their headers tell. While serving, what is still being read is waited for, unlike by `library`."""
        if self._lookout.unread:
            self._lookout.read_now(None)
        return self.library(fresh=not self.serves)

    def doctor(self, path: Path | None = None) -> dict[str, object]:
        """Why a folder is not listed, or what this machine can do; and in `misfits` what does not fit, with what to type."""
        from cmp.core.misfits import hub_misfit
        from cmp.disk.describe import describe_machine, why_not_listed
        from cmp.disk.misfits import folder_misfits, machine_misfits

        library, roots = Library(), self.known_roots
        with suppress(*NOT_BROUGHT):  # what lies on the Hub and was not brought here is told below
            library, roots = self.library(), self.roots
        if path is not None:
            place = Path(os.path.abspath(os.path.expanduser(path)))
            why = why_not_listed(place, self.bases, self._lookout.completed)
            found = folder_misfits(place, self._runs_in(place, library), roots, self.bases, self.store)
            return {"why": why, "misfits": [misfit.as_json() for misfit in found]}
        self.load_engine()
        from cmp.engine.device import describe_devices, finds_cuda

        count, used = self.cells_size()
        told = {"device": describe_devices(), "cells": f"{counted(count, 'cell')}, {size_text(used)}; `python -m cmp cells` makes room"}
        found = machine_misfits(library, roots, self.bases, self.store, self.settings.device, finds_cuda())
        found += tuple(hub_misfit(place, fault.message, offline=self.settings.offline) for place, fault in self.not_brought)
        machine = describe_machine(roots, self.bases, self.settings.home)
        return machine | told | {"misfits": [misfit.as_json() for misfit in found]}

    def _runs_in(self, place: Path, library: Library) -> tuple[Run, ...]:
        """The runs in a folder, whether or not it is looked at; under the ids by which lists have them."""
        from cmp.disk.scan import scan

        known = {run.place: run for run in library.runs}
        return tuple(known.get(run.place) or self._lookout.completed(run) for run in scan([place], self.bases).runs)

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

    def check_space(self, plans: Iterable[ConversionPlan]) -> None:
        """Raises NoSpace if the results do not fit where they go."""
        from cmp.disk.planning import check_space

        check_space([plan for plan in plans if not plan.done])

    def prove(self, plan: ConversionPlan) -> ConversionPlan:
        """The plan with the proof of its base; raises Refused if the frozen weights beside an adapter are not the base's, as converting
        would. Reads both unless it is known.
        """
        from cmp.disk.base_proof import frozen_checks, proven_before
        from cmp.disk.planning import open_planned

        opened = open_planned(plan)
        run_through(frozen_checks(opened, plan.whole, plan.base, self.store))
        return replace(plan, base=proven_before(opened, plan.base, self.store)) if plan.base else plan

    def convert(self, plan: ConversionPlan) -> Generator[Progress, None, Conversion]:
        """Carries out a plan; raises NoSpace before the first byte if the result does not fit."""
        from cmp.disk.planning import check_space
        from cmp.disk.replaced import make_way, put_back

        self.require_writing()
        check_space([plan])
        if not plan.replaces and os.path.lexists(plan.target):
            return (yield from self._made_meanwhile(plan))
        # a pipeline's folder is changed at the last moment, see engine.convert
        old = make_way(plan.target, plan.run.folder, link=True) if plan.replaces and plan.form != "pipeline" else None
        conversion = None
        try:
            conversion = yield from self._carry_out(plan)
        except Refused:
            if not plan.replaces and os.path.lexists(plan.target):
                with suppress(Refused):
                    conversion = yield from self._made_meanwhile(plan)  # while this one was at it
            if conversion is None:
                raise
        finally:
            if old is not None and conversion is None:  # failed or cancelled: what was there is better than nothing
                put_back(old, plan.target)
        if plan.replaces:  # an --output may lie where no run is
            self._remember_trash(plan.run.folder if plan.target.is_relative_to(plan.run.folder) else plan.target.parent)
        self._lookout.forget()
        return conversion

    def _made_meanwhile(self, plan: ConversionPlan) -> Generator[Progress, None, Conversion]:
        """What another process has made since it was planned here; raises Refused where that is not what was to be made."""
        from cmp.core.conversion import Conversion
        from cmp.disk.planning import made_meanwhile, open_planned

        opened, told = open_planned(plan), f"{plan.target} has appeared since the conversion was planned"
        if not made_meanwhile(plan, (yield from digesting(opened, self.store, plan.whole))):
            raise Refused(told, "Another process may have made it, of other weights or in another way; plan again.")
        self._lookout.forget()
        return Conversion(
            plan.checkpoint.id, plan.form, plan.target, plan.bytes, 0.0, len(opened.header.tensors),
            len(trained_tensors(opened, plan.whole)), plan.left_out, plan.scale,
            ("another process has made it meanwhile: its record names the same weights, base and scale",),
        )  # fmt: skip

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
        self.load_engine()
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
