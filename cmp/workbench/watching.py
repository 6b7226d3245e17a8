"""A run that is being trained: each new complete checkpoint draws its column by itself."""

from __future__ import annotations

import json
import os
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmp.core.present import shortened
from cmp.core.progress import Progress, Rest
from cmp.core.runs import Checkpoint, Run, validation_prompts
from cmp.core.stages import UNREAD
from cmp.disk.ledger import Order
from cmp.disk.ready import Answers
from cmp.errors import BadInput, NotFound, Unreadable, json_place, why_not
from cmp.jobs import Job, Work
from cmp.settings import Settings
from cmp.workbench.long_work import LongWork, Started, answers_json, read_answers

if TYPE_CHECKING:
    from cmp.core.grids import GridSpec, Tile
    from cmp.core.measured import Measured, NotMeasured

_EVERY = 15.0  # seconds between two looks at a run
_GROWS = 2.0  # seconds in which a file that is being written grows
_STILL = 60.0  # seconds since its last change after which a file is written no more
_FRESH = 5.0  # the same where somebody waits for an answer

Written = tuple[tuple[str, int, int], ...]
Seen = tuple[Path, Written]


class Watching(LongWork):
    """Verbs for a run while it is trained. Nothing of the run is touched, and a file is read only once it has stopped growing."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.jobs.make("watch", self._watch_again)

    def watch(
        self,
        target: str,
        pattern: GridSpec,
        given: Answers = Answers(),
        *,
        once: bool = False,
        there: Iterable[Seen] = (),
        measure: bool = False,
    ) -> Iterator[Tile | Progress | Rest | Measured | NotMeasured]:
        """Draws the column of every complete checkpoint, the newest first, then rests and looks again; with `once` it ends there.

        The pattern's checkpoints do not count, nor do those that are as they were `there`, see `seen`. A checkpoint that is written anew
        is drawn anew. With `measure` the loss of each is measured as well, on the images that were last measured on. Raises NotFound if
        there is no such run.
        """
        there = frozenset(there)
        drawn: set[Seen] = set(there)
        before: dict[Path, Written] = {}  # as it was at the last rest
        rested = False
        while True:
            run = self._look_at(target)
            now = dict(seen(run))
            new = [c for c in run.checkpoints if now.get(c.path) and (c.path, now[c.path]) not in drawn]
            settled = [c for c in new if before.get(c.path) == now[c.path] or _since(now[c.path]) > _STILL]
            if settled:
                drawn.add((settled[-1].path, now[settled[-1].path]))
                yield from self.draw_when_free(replace(pattern, checkpoints=(settled[-1],)), (run,), given)
                if measure:
                    landed = drawn.difference(there)
                    yield from self.measure_landed(run, [c for c in run.checkpoints if (c.path, now.get(c.path)) in landed], given)
                continue
            if once and (rested or not new):
                return
            before, rested = now, True
            if new:
                yield Rest(_GROWS, f"seeing whether {new[-1].id} is still being written")
            else:
                yield Rest(_EVERY, f"waiting for the next checkpoint of {run.id}")

    @abstractmethod
    def measure_landed(self, run: Run, checkpoints: Iterable[Checkpoint], given: Answers) -> Iterator[Any]: ...

    @abstractmethod
    def require_images(self, run: Run) -> None: ...

    def start_watch(self, target: str, pattern: GridSpec, given: Answers = Answers(), *, measure: bool = False) -> Job:
        """The same as a job that ends when it is cancelled; other jobs have their turn while it rests."""
        return self.jobs.start(*self._watching(target, pattern, given, False, measure=measure))

    def follow_watch(
        self,
        target: str,
        pattern: GridSpec,
        given: Answers = Answers(),
        *,
        once: bool = False,
        there: Iterable[Seen] = (),
        measure: bool = False,
    ) -> Iterator[Tile | Progress | Measured | NotMeasured]:
        """The same within the caller's thread."""
        return self.jobs.follow(*self._watching(target, pattern, given, once, tuple(there), measure))  # type: ignore[return-value]

    def _watching(
        self, target: str, pattern: GridSpec, given: Answers, once: bool, there: tuple[Seen, ...] = (), measure: bool = False
    ) -> Started:
        from cmp.core.orders import grid_to_json, run_reference

        self.require_writing()
        self.require_own_card()
        run = self._look_at(target)
        if measure:
            self.require_images(run)
        order = {"run": run_reference(run), "grid": grid_to_json(pattern), "once": once, "there": _seen_json(there), **answers_json(given)}
        order |= {"measure": measure}
        title = f"watch {run.id}, “{shortened(pattern.prompts[0].name or pattern.prompts[0].text, 60)}”"
        return "watch", title, 0, lambda: self.watch(target, pattern, given, once=once, there=there, measure=measure), pattern, order

    def _watch_again(self, order: Order) -> tuple[Work, object]:
        run, pattern = self.run_again(order["run"]), self._pattern(order["grid"])
        known = any(own.id == run.id and own.place == run.place for own in self.library(fresh=False).runs)
        target = run.id if known else order["run"]["path"]
        told: dict[str, Any] = {"once": bool(order["once"]), "there": _read_seen(order.get("there", []))}
        told |= {"measure": bool(order.get("measure"))}
        return lambda: self.watch(target, pattern, read_answers(order), **told), pattern

    def _look_at(self, target: str) -> Run:
        self._lookout.forget()
        run, checkpoint = self.find(target)
        if checkpoint is not None:
            raise BadInput(f"{target!r} is a checkpoint, and runs are watched", f"Name the run: {run.id}.")
        return run

    # -- what is drawn -------------------------------------------------------------------------------------------------

    def sample_newest(self, target: str, pattern: GridSpec) -> tuple[GridSpec, Run]:
        """The grid whose only column is the newest complete checkpoint of a run, and the run; raises NotFound if there is none yet."""
        run = self._look_at(target)
        for checkpoint in reversed(run.checkpoints):
            if checkpoint.flaw is None and _since(_written(checkpoint)) > _FRESH:
                return replace(pattern, checkpoints=(checkpoint,)), run
        raise NotFound(f"run {run.id!r} has no complete checkpoint yet", "Try again when the trainer has written one.")

    def pattern(self, told: str | None, run: Run, *, only_ids: bool = False) -> GridSpec:
        """The prompts, seeds and sampling to draw with: of an earlier job, by its id, or of a JSON file, unless it is `only_ids`.

        None means the prompts last drawn with this run, or those that its trainer drew with; raises BadInput where there are none.
        """
        from cmp.core.grids import GridSpec, Prompt

        usual = self.usual_sampling([run])
        if told is None:
            texts = self.last_prompts(run) or validation_prompts(run)
            if not texts:
                hint = (
                    "Draw a grid of it first, and give that job's id."
                    if only_ids
                    else "Give --grid: a JSON file, or the id of an earlier grid job."
                )
                raise BadInput(f"nothing says what to draw with {run.id}", hint)
            return GridSpec((None,), tuple(map(Prompt, texts)), samplings=(usual,))
        file = Path(os.path.expanduser(told))
        if only_ids or not (file.suffix == ".json" or os.path.exists(file)):
            order = self.jobs.order(told)
            if order is None or "grid" not in order:
                raise BadInput(f"{told!r} is no grid", "`python -m cmp jobs` lists earlier grids.")
            return self._pattern(order["grid"])
        try:
            value = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as fault:
            why = f"cannot be read: {why_not(fault)}" if isinstance(fault, OSError) else "is no JSON"
            hint = 'Give a JSON file such as {"prompts": ["a red shoe"], "seeds": [1]}.'
            raise Unreadable(f"{file} {why}{json_place(fault)}", hint) from fault
        return self._pattern(value, usual.guidance)

    def _pattern(self, told: object, guidance: float | None = None) -> GridSpec:
        """The pattern that a JSON value describes; `guidance` stands where it says none."""
        from cmp.core.orders import pattern_from_json

        if guidance is not None and isinstance(told, dict) and isinstance(samplings := told.get("samplings", [{}]), list):
            told = {**told, "samplings": [{"guidance": guidance, **one} if isinstance(one, dict) else one for one in samplings]}
        return pattern_from_json(told, lambda reference: self.checkpoint_again(reference)[1])


def seen(run: Run) -> tuple[Seen, ...]:
    """The complete checkpoints of a run as they are now: one that is written on, or anew, is another."""
    return tuple((c.path, _written(c)) for c in run.checkpoints if c.flaw is None and c.layout != UNREAD)


def _seen_json(there: Iterable[Seen]) -> list[object]:
    return [[str(path), [list(file) for file in written]] for path, written in there]


def _read_seen(told: list[Any]) -> tuple[Seen, ...]:
    return tuple((Path(path), tuple((name, size, changed) for name, size, changed in written)) for path, written in told)


def _written(checkpoint: Checkpoint) -> Written:
    """Sizes and times of a checkpoint's files; empty if one is gone."""
    try:
        found = [(str(file), os.stat(file)) for file in checkpoint.files]
    except OSError:
        return ()
    return tuple((name, each.st_size, each.st_mtime_ns) for name, each in found)


def _since(written: Written) -> float:
    """Seconds since the last change; negative where there is none, and for times to come."""
    return min((time.time() - changed / 1e9 for _, _, changed in written), default=-1.0)
