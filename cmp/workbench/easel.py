"""The verbs that draw: grids and their plans, over the models in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cmp.core.progress import Progress
from cmp.core.runs import Checkpoint, Run
from cmp.disk.ready import Answers, Ready, ready_checkpoint, readying
from cmp.errors import CmpError, NotFound, Refused
from cmp.settings import Settings
from cmp.workbench.callers import caller
from cmp.workbench.watching import Watching

if TYPE_CHECKING:
    from cmp.core.grids import GridPlan, GridSpec, Tile
    from cmp.engine.draw import Drawing
    from cmp.engine.elsewhere import Elsewhere
    from cmp.engine.prepare import Preparing
    from cmp.engine.ray_cluster import Spreading
    from cmp.engine.studio import Studio
    from cmp.workbench.zero import InRows

Self = TypeVar("Self", bound="Easel")


class Easel(Watching):
    """Everything that draws. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._studio: Studio | None = None

    def studio(self) -> Studio:
        """The models in memory; the first call imports torch."""
        with self.loading:
            from cmp.engine.studio import Studio

            self._studio = self._studio or Studio(self.settings.device, self.loading)
            return self._studio

    def own_studio(self) -> Studio:
        """The same for work that goes on for long; raises Refused where a card is only lent for a call."""
        self.require_own_card()
        return self.studio()

    def ready(self, run: Run, checkpoint: Checkpoint, given: Answers = Answers()) -> Ready:
        """A checkpoint ready to be drawn with; raises what stands against it."""
        return ready_checkpoint(run, checkpoint, self.bases, self.store, given, need_base=True)

    def own_sampler(self, run: Run, given: Answers = Answers()) -> str:
        """The sampler that the base model of a run comes with, "" where either is not known. No weights are read for it."""
        from cmp.disk.bases import sampler_of

        answers = self.answers(run) if given == Answers() else given
        for checkpoint in run.checkpoints:
            with suppress(CmpError):
                base = self.ready(run, checkpoint, answers).base
                return sampler_of(base.path) if base else ""
        return ""

    def draw_grid(
        self, spec: GridSpec, runs: Iterable[Run], given: Answers = Answers(), ray: str | None = None, *, watched: bool = False
    ) -> Iterator[Tile | Progress]:
        """Draws every cell of a grid that has not been drawn before: one Tile per cell, and between them how far it has come.

        `runs` are those that the checkpoints and the stacked LoRAs belong to; the base column is drawn with the base of the first. With
        `spec.preview` a cell's tile may come twice, first as a preview; where it is `watched`, the first picture is drawn alone. See
        `engine.draw.Drawing`. With the address of a Ray cluster its workers draw, see `engine.ray_cluster`; raises BadInput where Ray is
        not installed. With the address of another instance of this program that draws, see `engine.elsewhere`.
        """
        from cmp.core.grids import Tile
        from cmp.disk.cells import mark_used

        self.require_drawing(spec, given)
        runs = tuple(runs)
        with self._drawer(spec, runs, given, ray, watched) as drawer, closing(drawer.draw(spec.cells(), spec.preview)) as items:
            for item in items:
                if isinstance(item, Tile):
                    if item.reused and item.path:
                        mark_used(item.path)
                    self._keep_answer(item, runs, given)
                yield item

    def _drawer(
        self, spec: GridSpec, runs: tuple[Run, ...], given: Answers, ray: str | None, watched: bool
    ) -> AbstractContextManager[Drawing | Spreading | Elsewhere | InRows]:
        from cmp.core.errands import instance_address, is_instance

        if ray is None and self.lending:
            from cmp.workbench.zero import InRows, Row

            row = Row(self.settings, spec, runs, given)
            return nullcontext(InRows(self.lending, row, self.drawing(spec, runs, given), self.gpu))
        if ray is None:
            return nullcontext(self.drawing(spec, runs, given, watched))
        if is_instance(ray):
            with self.loading:
                from cmp.engine.elsewhere import Elsewhere

            there = instance_address(ray)
            return nullcontext(Elsewhere(there, self.settings.at_token, self._preparing(spec, runs, given), self.studio(), self.store))
        from cmp.workbench.cluster import Sent, needed_of, spread

        needed = needed_of(replace(self.settings, bases=self.bases), spec, given)
        return spread(ray, self.cluster, Sent(self.settings, spec, runs, given, tuple(map(self.answers, runs)), needed))

    def drawing(self, spec: GridSpec, runs: tuple[Run, ...], given: Answers, watched: bool = False) -> Drawing:
        """A grid to be drawn by this process; whoever draws does so through `draw_grid`."""
        studio = self.studio()
        with self.loading:
            from cmp.engine.draw import Drawing

        return Drawing(self._preparing(spec, runs, given), studio, self.store, self.gpu, watched)

    def plan_grid(self, spec: GridSpec, runs: Iterable[Run], given: Answers = Answers()) -> GridPlan:
        """What drawing a grid would do: cells that are new, that were drawn before, that cannot be drawn; time and size."""
        self.require_known(given)
        return self.drawing(spec, tuple(runs), given).plan(spec.cells(), spec.preview)

    def _preparing(self, spec: GridSpec, runs: tuple[Run, ...], given: Answers) -> Preparing:
        from cmp.engine.prepare import Preparing

        known: dict[tuple[Checkpoint | None, Path | None], Ready | CmpError] = {}

        def make_ready(checkpoint: Checkpoint | None, beside: Ready | None = None) -> Generator[Progress, None, Ready]:
            # by the checkpoint itself, not by its id: two runs given as paths may share an id; and by the base that it is to be worn on
            key = (checkpoint, beside.base.path if beside and beside.base else None)
            if key not in known:
                known[key] = yield from self._try_ready(checkpoint, runs, given, beside)
            found = known[key]
            if isinstance(found, CmpError):
                raise found
            return found

        return Preparing(make_ready, self.studio(), self.store, spec.mode)

    def _keep_answer(self, tile: Tile, runs: tuple[Run, ...], given: Answers) -> None:
        """Remembers what was said of base and alpha once it has drawn a checkpoint: a wrong answer must not outlive its grid."""
        if given == Answers() or tile.fault or tile.cell.checkpoint is None:
            return
        run = self._run_of(tile.cell.checkpoint, runs)
        if self.answers(run) != given:
            self.answer(run, given)

    def _try_ready(
        self, checkpoint: Checkpoint | None, runs: tuple[Run, ...], given: Answers, beside: Ready | None
    ) -> Generator[Progress, None, Ready | CmpError]:
        """Asked once per checkpoint and grid, so that a column that cannot be drawn says so at once in all its cells."""
        try:
            if checkpoint is None:
                return (yield from self._any_ready(runs[0], given))
            run = self._run_of(checkpoint, runs)
            if beside is None:
                return (yield from readying(run, checkpoint, self.bases, self.store, given, need_base=True))
            # a LoRA from elsewhere is worn on the base of the checkpoint that it stands beside
            on = replace(given, base=str(beside.base.path) if beside.base else None)
            return (yield from readying(run, checkpoint, self.bases, self.store, on, need_base=False))
        except CmpError as fault:
            return fault

    def _run_of(self, checkpoint: Checkpoint, runs: tuple[Run, ...]) -> Run:
        """The run of a checkpoint, if it is not among those at hand one that the library knows; raises NotFound."""
        for run in runs:
            if checkpoint in run.checkpoints:
                return run
        run, found = self.find(str(checkpoint.file or checkpoint.path))
        if found is None or found.file != checkpoint.file:
            raise NotFound(f"{checkpoint.id} is no longer at {checkpoint.path}", "Choose the checkpoints anew.")
        return run

    def _any_ready(self, run: Run, given: Answers) -> Generator[Progress, None, Ready]:
        """The base column needs a run's base, whichever of its checkpoints leads to it."""
        faults: list[CmpError] = []
        for checkpoint in run.checkpoints:
            try:
                return (yield from readying(run, checkpoint, self.bases, self.store, given, need_base=True))
            except CmpError as fault:
                faults.append(fault)
        raise faults[0] if faults else NotFound(f"run {run.id!r} has no checkpoint", "Its base model is known only through them.")

    # -- what is in memory ---------------------------------------------------------------------------------------------

    def device_name(self) -> str:
        """The kind of device that is drawn with: "cuda", "mps" or "cpu"."""
        return str(self.studio().device.type)

    def with_device(self: Self, device: str) -> Self:
        """The same workbench, drawing with another device and with models of its own."""
        other = copy(self)
        other.settings, other.gpu, other._studio = replace(self.settings, device=device), threading.Lock(), None
        return other

    def loaded_models(self) -> list[str]:
        """The base models in memory now."""
        return self._studio.loaded if self._studio else []


def existing_vaes(axis: str | None) -> str | None:
    """The axis of VAEs with its paths in full; raises NotFound before anything is drawn."""
    from cmp.core.asking import BASES_OWN
    from cmp.core.axes import parse_text_axis, quoted

    if axis is None:
        return None
    typed = parse_text_axis(axis, "vae")
    if not caller().owner and any(name.casefold() != BASES_OWN for name in typed):
        raise Refused("visitors name no VAE", "Leave it out: the base model has its own.")
    names = [BASES_OWN if name.casefold() == BASES_OWN else os.path.abspath(os.path.expanduser(name)) for name in typed]
    for name in names:
        if name != BASES_OWN and not os.path.exists(name):
            raise NotFound(f"there is no VAE at {name}", "Give a folder or a file; base is the base model's own.")
    return ", ".join(map(quoted, names))
