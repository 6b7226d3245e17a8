"""Verbs whose work goes on when the page is closed: each as a job, with an order from which another process makes it again."""

from __future__ import annotations

import os
import threading
import time
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cmp.core.present import counted
from cmp.core.progress import Progress, Rest
from cmp.core.runs import Checkpoint, Run
from cmp.disk.ledger import Ledger, Order
from cmp.disk.ready import Answers, ready_checkpoint
from cmp.errors import CmpError, NotFound, Refused
from cmp.jobs import Job, Jobs, Work
from cmp.settings import Settings
from cmp.workbench.callers import Caller, acting_for, caller
from cmp.workbench.shelf import Shelf

if TYPE_CHECKING:
    from cmp.core.conversion import ConversionPlan, Writing
    from cmp.core.grids import GridPlan, GridSpec, Tile
    from cmp.workbench.lending import Lending

_SLOW_ON_CPU = 500_000_000  # bytes of a base model; Stable Diffusion 1.5 has 2 GB in half precision
_ASK_AGAIN = 10.0  # seconds after which a card in use is asked for again
Self = TypeVar("Self", bound="LongWork")
Started = tuple[str, str, int, Work, object, Order]  # what `Jobs.start` takes


class LongWork(Shelf):
    """Grids and conversions as jobs. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.gpu, self.loading = threading.Lock(), threading.Lock()
        self.lending: Lending | None = None  # where a card is lent for a call at a time
        self.cluster = threading.Lock()  # a process has one connection to Ray
        self.jobs = Jobs(Ledger(self.store))
        self.jobs.make("grid", self._grid_again)
        self.jobs.make("convert", self._conversions_again)

    @abstractmethod
    def draw_grid(
        self, spec: GridSpec, runs: Iterable[Run], given: Answers = Answers(), ray: str | None = None, *, watched: bool = False
    ) -> Iterator[Any]: ...

    @abstractmethod
    def plan_grid(self, spec: GridSpec, runs: Iterable[Run], given: Answers = Answers()) -> GridPlan: ...

    @abstractmethod
    def convert_all(self, plans: Iterable[ConversionPlan], given: Answers = Answers()) -> Iterator[Any]: ...

    @abstractmethod
    def plan_checkpoint(
        self, run: Run, checkpoint: Checkpoint, form: str, given: Answers = Answers(),
        *, output: Path | None = None, force: bool = False, writing: Writing | None = None,
    ) -> ConversionPlan: ...  # fmt: skip

    @abstractmethod
    def device_name(self) -> str: ...

    @abstractmethod
    def loaded_models(self) -> list[str]: ...

    @abstractmethod
    def with_device(self: Self, device: str) -> Self: ...

    def load_engine(self) -> None:
        """Imports what converts, one thread at a time: transformers' modules, which load others when asked, fail for two."""
        with self.loading:
            import cmp.engine.convert
            import cmp.engine.verify  # noqa: F401

    # -- grids ---------------------------------------------------------------------------------------------------------

    def start_grid(self, spec: GridSpec, runs: Iterable[Run], given: Answers = Answers()) -> Job:
        """Queues a grid, see `draw_grid`; it is taken up again where it was if this process is killed."""
        self.require_drawing(spec, given)
        return self._queue_grid(spec, tuple(runs), given)

    def _queue_grid(self, spec: GridSpec, runs: tuple[Run, ...], given: Answers) -> Job:
        return self.hold_place(lambda: self.jobs.start(*self._grid(spec, runs, given, watched=True)))

    def follow_grid(
        self, spec: GridSpec, runs: Iterable[Run], given: Answers = Answers(), ray: str | None = None
    ) -> Iterator[Tile | Progress]:
        """The same within the caller's thread: the tiles as they come. Leaving it cancels the job. `ray` is a cluster's address,
        or that of another instance of this program.
        """
        self.require_drawing(spec, given)
        return self.jobs.follow(*self._grid(spec, tuple(runs), given, ray))  # type: ignore[return-value]

    def _grid(self, spec: GridSpec, runs: tuple[Run, ...], given: Answers, ray: str | None = None, *, watched: bool = False) -> Started:
        from cmp.core.errands import instance_address, is_instance
        from cmp.core.orders import grid_title, grid_to_json, run_reference

        if is_instance(ray):
            ray = instance_address(str(ray))
        elif ray is not None:
            from cmp.engine.ray_cluster import check_address

            check_address(ray)
        order = {"grid": grid_to_json(spec), "runs": list(map(run_reference, runs)), "ray": ray, **answers_json(given)}
        title = grid_title(spec, [run.id for run in runs])
        return "grid", title, spec.size, self._as_asked(lambda: self.draw_when_free(spec, runs, given, ray, watched=watched)), spec, order

    def require_own_card(self) -> None:
        """Raises Refused where a card is only lent for a call."""
        if self.lending:
            told = "a graphics card is lent here for rows of grids alone"
            raise Refused(told, "Measure, watch, and draw for others where there is one.")

    def _as_asked(self, work: Work) -> Work:
        """The work in the context of the request that asks for it, where a card is lent to that."""
        if self.lending is None:
            return work
        from cmp.workbench.zero import as_asked

        return as_asked(work)

    def show_drawn(self, spec: GridSpec, runs: Iterable[Run], given: Answers = Answers()) -> Job | None:
        """A grid as a job, if all of it is there already. None where any would have to be drawn: looking draws nothing. Raises TooOften."""
        self.take_turn()
        runs = tuple(runs)
        with acting_for(Caller()):  # whoever looks may see what others had drawn here
            plan = self.plan_grid(spec, runs, given)
        return None if plan.new or plan.faults else self._queue_grid(spec, runs, given)

    def kept_grid(self, job_id: str) -> tuple[GridSpec, tuple[Run, ...], Answers] | None:
        """What a job of whatever process draws; None where that was not kept, or a checkpoint of it has gone."""
        with suppress(CmpError):
            order = self.jobs.order(job_id)
            with acting_for(Caller()):  # the order names runs by their places
                return (*self._grid_in(order), read_answers(order)) if order and "grid" in order else None
        return None

    def grid_again(self, job_id: str) -> Job | None:
        """The grid of a job that an earlier process has ended, as a new job, see `show_drawn`.

        None as well where it was not kept how the job was made, and for visitors where it shows a run that is not served here.
        """
        kept = self.kept_grid(job_id)
        if kept and not caller().owner and not {run.place for run in kept[1]} <= {run.place for run in self.library(fresh=False).runs}:
            return None
        with suppress(CmpError):  # a base model has gone since, or whoever asks has asked too often
            return self.show_drawn(*kept) if kept else None
        return None

    def _grid_again(self, order: Order) -> tuple[Work, object]:
        spec, runs = self._grid_in(order)
        return lambda: self.draw_when_free(spec, runs, read_answers(order), order.get("ray"), watched=True), spec

    def _grid_in(self, order: Order) -> tuple[GridSpec, tuple[Run, ...]]:
        from cmp.core.orders import grid_from_json

        runs = {run.place: run for run in map(self.run_again, order["runs"])}

        def find(told: Mapping[str, object]) -> Checkpoint:
            run, checkpoint = self.checkpoint_again(told)
            runs.setdefault(run.place, run)
            return checkpoint

        spec = grid_from_json(order["grid"], find)
        return spec, tuple(runs.values())

    def draw_when_free(
        self, spec: GridSpec, runs: tuple[Run, ...], given: Answers, ray: str | None = None, *, watched: bool = False
    ) -> Iterator[Tile | Progress | Rest]:
        """Draws a grid once no other program uses the graphics card; or with CMP_BUSY=cpu meanwhile without it.

        What a Ray cluster's cards are used for is the cluster's to know; `local` is this machine.
        """
        bench = self if ray is not None and not ray.startswith("local") else (yield from self.when_free(spec.size))
        yield from bench.draw_grid(spec, runs, given, ray, watched=watched)

    def when_free(self: Self, total: int) -> Generator[Progress | Rest, None, Self]:
        """Waits until no other program uses the graphics card, and gives what to go on with: with CMP_BUSY=cpu that is the CPU at once."""
        while why := self.why_busy():
            if self.settings.busy == "cpu":
                yield Progress(0, total, f"drawing on the CPU: {why}")
                return self.with_device("cpu")
            yield Rest(_ASK_AGAIN, f"waiting: {why}")
        return self

    def why_busy(self) -> str | None:
        """Why the device should be left alone for now, in words. None where it is free, lent to us, no CUDA device, or holds our models."""
        if self.lending or self.settings.busy == "draw" or self.settings.device in ("cpu", "mps"):
            return None
        if self.loaded_models() or self.device_name() != "cuda":
            return None
        from cmp.disk.occupied import read_cards, who_holds
        from cmp.engine.device import card_uuid

        training = [run.id for run in self.library(fresh=False).runs if run.state(time.time()) == "training"]
        return who_holds(read_cards(), card_uuid(self.settings.device), os.getpid(), training)

    def slow_here(self, run: Run, given: Answers = Answers()) -> bool:
        """Whether a picture of this run takes so long here that a small one is worth drawing first: on a CPU, with a base of some size."""
        if self.device_name() != "cpu":
            return False
        for checkpoint in run.checkpoints:
            with suppress(CmpError):
                answers = self.answers(run) if given == Answers() else given
                base = ready_checkpoint(run, checkpoint, self.bases, self.store, answers, need_base=True).base
                return base is not None and sum(file.stat().st_size for file in base.path.rglob("*.safetensors")) > _SLOW_ON_CPU
        return False

    # -- conversions ---------------------------------------------------------------------------------------------------

    def start_conversions(self, plans: Iterable[ConversionPlan], given: Answers = Answers(), subject: object = None) -> Job:
        """Queues conversions, see `convert_all`."""
        return self.jobs.start(*self._conversions(plans, given, subject))

    def follow_conversions(self, plans: Iterable[ConversionPlan], given: Answers = Answers()) -> Iterator[object]:
        """The same within the caller's thread: each conversion as it is done. Leaving it cancels the job."""
        return self.jobs.follow(*self._conversions(plans, given))

    def _conversions(self, plans: Iterable[ConversionPlan], given: Answers, subject: object = None) -> Started:
        from cmp.core.orders import checkpoint_reference

        self.require_writing()
        plans = tuple(plan for plan in plans if not plan.done)
        each = ({"form": p.form, "target": str(p.target), "replaces": p.replaces, **p.writing.as_json()} for p in plans)
        told = [{"checkpoint": checkpoint_reference(p.checkpoint)} | one for p, one in zip(plans, each, strict=True)]
        order = {"conversions": told, "asked_at": time.time(), **answers_json(given)}
        source, form = (", ".join(dict.fromkeys(names)) for names in ([p.run.id for p in plans], [p.form for p in plans]))
        title = f"convert {counted(len(plans), 'checkpoint')} of {source} to {form}"
        return "convert", title, len(plans), lambda: self.convert_all(plans, given), subject, order

    def _conversions_again(self, order: Order) -> tuple[Work, object]:
        """What is left of them: results that have appeared since they were asked for stay as they are."""
        from cmp.core.conversion import Writing

        given, plans = read_answers(order), []
        for told in order["conversions"]:
            run, checkpoint = self.checkpoint_again(told["checkpoint"])
            target, writing = Path(told["target"]), Writing(told["dtype"], told["strength"])
            force = told["replaces"] and not _appeared_since(target, order["asked_at"])
            plan = self.plan_checkpoint(run, checkpoint, told["form"], given, output=target, force=force, writing=writing)
            plans += [] if plan.done else [plan]
        return lambda: self.convert_all(plans, given), None

    # -- finding again -------------------------------------------------------------------------------------------------

    def run_again(self, told: Mapping[str, object]) -> Run:
        """The run of a reference, also where other folders are looked at now; raises NotFound."""
        path = str(told.get("path", ""))
        with suppress(NotFound):
            run, _ = self.find(str(told.get("id")), only_ids=True)
            if str(run.folder / run.series if run.series else run.folder) == path:
                return run
        return self.find(path)[0]

    def checkpoint_again(self, told: Mapping[str, object]) -> tuple[Run, Checkpoint]:
        """Run and checkpoint of a reference. Raises NotFound if it is no longer where it was: another would be taken for it."""
        name, path = str(told.get("id")), str(told.get("path", ""))
        with suppress(NotFound):
            run, checkpoint = self.find(name, only_ids=True)
            # by now its weights may be known to be those of another, under whose name it is an alias
            if checkpoint and (_is_at(checkpoint, path) or (name in checkpoint.aliases and run.folder in Path(path).parents)):
                return run, checkpoint
        run, checkpoint = self.find(path)
        if checkpoint is None:
            raise NotFound(f"{path} is no longer the checkpoint {name}", "Choose the checkpoints anew.")
        return run, checkpoint


def _is_at(checkpoint: Checkpoint, path: str) -> bool:
    return str(checkpoint.file or checkpoint.path).replace(".compact.safetensors", ".safetensors") == path.replace(".compact.", ".")


def _appeared_since(target: Path, when: float) -> bool:
    with suppress(OSError):
        return target.lstat().st_mtime >= when
    return False


def answers_json(given: Answers) -> dict[str, object]:
    return {"alpha": given.alpha, "base": given.base}


def read_answers(order: Order) -> Answers:
    return Answers(order.get("alpha"), order.get("base"))
