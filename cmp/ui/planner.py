"""Plans, made beside the page: the first one loads what draws, and reads headers that nobody has read before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from typing import Generic, NamedTuple, TypeVar

from cmp.core.grids import GridPlan, GridSpec
from cmp.core.runs import Run
from cmp.disk.ready import Answers
from cmp.errors import CmpError
from cmp.workbench import Workbench

_MOMENT = 0.2  # seconds for which a plan is waited for
_AT_ONCE = 2
_MOST = 8  # plans in the making that are remembered


class Planned(NamedTuple):
    """A plan, whether pictures take so long here that previews are worth it, and the sampler that the base model comes with."""

    plan: GridPlan
    slow: bool
    sampler: str = ""


T = TypeVar("T")


class Beside(Generic[T]):
    """Makes values in threads of its own. Safe to use from several threads."""

    def __init__(self) -> None:
        self._turns = threading.Semaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._making: OrderedDict[object, Future[T]] = OrderedDict()

    def made(self, key: object, make: Callable[[], T], seconds: float = _MOMENT) -> T | None:
        """What is made as things are now, None if it takes longer than a moment: who asks again is told once it is there."""
        with self._lock:
            future = self._making.get(key)
            if future is None:
                future = self._making[key] = Future()
                threading.Thread(target=self._make, args=(future, make), name="cmp-plan", daemon=True).start()
            while len(self._making) > _MOST:
                self._making.popitem(last=False)
        try:
            found = future.result(seconds)
        except TooLate:
            return None
        except CmpError:
            self._drop(key)
            raise
        self._drop(key)
        return found

    def _drop(self, key: object) -> None:
        with self._lock:
            self._making.pop(key, None)

    def _make(self, future: Future[T], make: Callable[[], T]) -> None:
        try:
            with self._turns:
                future.set_result(make())
        except CmpError as fault:
            future.set_exception(fault)
        finally:
            if not future.done():
                future.set_exception(CmpError("the plan could not be made", "It is a fault of ours; see where the server was started."))


class Planner(Beside[Planned]):
    """Makes plans of grids."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench

    def ask(self, spec: GridSpec, runs: Sequence[Run], given: Answers, seconds: float = _MOMENT) -> Planned | None:
        """The plan as things are now, or None, see `made`."""
        key = (spec, tuple(run.place for run in runs), given)

        def plan() -> Planned:
            bench = self._bench
            return Planned(bench.plan_grid(spec, runs, given), bench.slow_here(runs[0]), bench.own_sampler(runs[0], given))

        return self.made(key, plan, seconds)
