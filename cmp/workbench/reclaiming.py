"""Bringing back what was removed or compacted, and cleaning up as a job: what is carried out is what was shown, or nothing is."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.present import counted
from cmp.core.progress import Progress
from cmp.core.runs import Checkpoint, Run
from cmp.disk.ledger import Order
from cmp.errors import BadInput, NotFound, Refused
from cmp.jobs import Job, Work
from cmp.settings import Settings
from cmp.workbench.callers import Caller, acting_for, caller
from cmp.workbench.storing import Asked, NotDone, Restored, Storing

if TYPE_CHECKING:
    from cmp.core.storage import CleanupPlan, Item, Rules
    from cmp.disk.cells import PrunePlan
    from cmp.disk.trash import Trashed


_MOST_TOLD = 10  # things in the trash that an error names
_MOMENT = 0.1  # seconds between two looks whether all has been read


@dataclass(frozen=True, slots=True)
class Preview:
    """What was asked for, and the plan that was shown for it."""

    runs: tuple[Run, ...]
    rules: Rules
    asked: Asked
    plan: CleanupPlan


class Reclaiming(Storing):
    """Room that is made while nobody looks on. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.jobs.make("storage", self._cleanup_again)
        self.jobs.make("restore", self._restore_again)

    # -- pictures ------------------------------------------------------------------------------------------------------

    def plan_prune(self, *, most_bytes: int | None = None, unused_for: float | None = None) -> PrunePlan:
        """Which drawn cells would go; see `disk.cells.plan_prune`."""
        from cmp.disk.cells import plan_prune

        return plan_prune(self.store, self.jobs.unfinished(), most_bytes=most_bytes, unused_for=unused_for)

    def prune(self, plan: PrunePlan) -> int:
        """Deletes the cells of a plan that were not used since; gives the bytes that came free."""
        from cmp.disk.cells import prune

        self.require_writing()
        return prune(plan)

    # -- as jobs -------------------------------------------------------------------------------------------------------

    def settled(self) -> Generator[Progress, None, tuple[Run, ...]]:
        """All runs, once the headers of what is new have been read: before that some are known by names alone, or not at all."""
        library = self.library()
        while library.unread:  # the look has begun to read them in the background, and may have the last in hand just now
            yield Progress(0, 0, f"reading the headers of {counted(library.unread, 'folder')}")
            time.sleep(_MOMENT)
            library = self.library(fresh=not self._lookout.unread)
        return library.runs

    def previewing(self, runs: Iterable[Run], rules: Rules, asked: Asked) -> Generator[Progress, None, Preview]:
        """The plan that is to be shown before it may be started."""
        runs = tuple(runs)
        plan = yield from self.planning(runs, rules, asked, best=self.kept_as_best)
        return Preview(runs, rules, asked, plan)

    def start_cleanup(self, preview: Preview) -> Job:
        """Queues what was shown. It is planned anew when its turn comes, and refused where it would be another by then."""
        from cmp.core.orders import run_reference

        self.require_writing()
        shown = [list(each) for each in sorted(preview.plan.shown)]
        asked = asdict(preview.asked) | {"drop": sorted(preview.asked.drop)}
        order = {"runs": list(map(run_reference, preview.runs)), "rules": asdict(preview.rules), "asked": asked, "shown": shown}
        title = f"make room in {', '.join(run.id for run in preview.runs[:3])}{' …' if len(preview.runs) > 3 else ''}"
        return self.jobs.start("storage", title, len(shown), lambda: self._cleaning_up(order, begun=False), preview, order)

    def _cleanup_again(self, order: Order) -> tuple[Work, object]:
        return lambda: self._cleaning_up(order, begun=True), None

    def _cleaning_up(self, order: Order, *, begun: bool) -> Iterator[Progress | Item | NotDone]:
        """Carries an order out. Of one that was `begun` before, some may be done already."""
        from cmp.core.storage import Rules

        runs = [self.run_again(told) for told in order["runs"]]
        asked = Asked(**(order["asked"] | {"drop": frozenset(order["asked"]["drop"])}))
        plan = yield from self.planning(runs, Rules(**order["rules"]), asked, best=self.kept_as_best, overview=False)
        shown = {tuple(each) for each in order["shown"]}
        others = plan.shown - shown if begun else plan.shown ^ shown
        if others:
            action, path, *_ = min(others)
            told = f"something has changed since this was shown: {path} ({action})"
            raise Refused(told, "Nothing was done. Look at the new preview.")
        yield from self.clean_up(plan)

    def start_restore(self, target: str, *, by_id: bool = False) -> Job:
        """Queues what `restore` does; raises NotFound where there is no such thing. `by_id`: the target is an id and never a path."""
        self.require_writing()
        with acting_for(replace(caller(), by_id=by_id or caller().by_id)):
            order = {"target": target, "by_id": caller().only_ids}
            if not (self._in_trash(target) or self.checkpoint_in_trash(target)):
                self.find(target)
        return self.jobs.start("restore", f"restore {target}", 1, lambda: self._restoring(order), None, order)

    def _restore_again(self, order: Order) -> tuple[Work, object]:
        return lambda: self._restoring(order), None

    def _restoring(self, order: Order) -> Iterator[Progress | Restored]:
        with acting_for(Caller(by_id=bool(order.get("by_id")))):  # in the job's own thread, which nobody else has
            yield from self.restore(str(order["target"]))

    # -- bringing back -------------------------------------------------------------------------------------------------

    def restore(self, target: str) -> Iterator[Progress | Restored]:
        """Brings back what is in the trash under this id, or makes the dumps of a run or checkpoint again to the last byte."""
        from cmp.disk.compact_restoring import end_begun
        from cmp.disk.trash import reclaiming, take_back, tidy

        self.require_writing()
        if trashed := self._in_trash(target) or self.checkpoint_in_trash(target):
            with reclaiming(trashed.home):
                tidy(trashed.home)
                yield Restored(take_back(trashed), None, trashed.id)
            self._lookout.forget_sizes(trashed.home)
        else:
            run, checkpoint = self.find(target)
            with reclaiming(run.folder):
                for told in (*tidy(run.folder), *end_begun(run.folder)):
                    yield Progress(0, 0, told)
                yield from self._restore_dumps(target, run, checkpoint)
            self._lookout.forget_sizes(run.folder)

    def _in_trash(self, target: str) -> Trashed | None:
        from cmp.disk.trash import FOLDER, list_trash

        path = Path(os.path.abspath(os.path.expanduser(target)))
        if path.parent.name == FOLDER and not caller().only_ids:  # of a run that lies elsewhere
            return next((each for each in list_trash(path.parent.parent) if each.id == path.name), None)
        if os.sep in target or "@" in target:
            return None
        homes = (*self._homes(self.library(fresh=False).runs), *self._left_homes(anywhere=True))
        return next((each for home in homes for each in list_trash(home) if each.id == target), None)

    def checkpoint_in_trash(self, target: str) -> Trashed | None:
        """What a checkpoint that is no longer there went to the trash as; raises NotFound and names what lies there if that is not one."""
        from cmp.core.storage import trash_name
        from cmp.disk.trash import list_trash

        try:
            self.find(target)
            return None
        except NotFound as fault:
            name, at, key = target.rpartition("@")
            try:
                run = self.find(name)[0] if at else None
            except NotFound:
                run = None
            homes = self._homes([run]) if run else self._left_homes()
            lying = [each for home in homes for each in list_trash(home) if each.path]
            found = [each for each in lying if run and trash_name(run, key) in each.names]
            if len(found) == 1:
                return found[0]
            if not lying:
                raise
            more = f" and {len(lying) - _MOST_TOLD} more" if len(lying) > _MOST_TOLD else ""
            named = ", ".join(each.id for each in (found or lying)[-_MOST_TOLD:])
            raise NotFound(
                fault.message, f"{fault.hint} In the trash: {named}{more if not found else ''}; restore one by its id."
            ) from fault

    def _restore_dumps(self, target: str, run: Run, checkpoint: Checkpoint | None) -> Iterator[Progress | Restored]:
        from cmp.disk.bases import find_base, pipelines_below
        from cmp.disk.compact import manifest_beside, read_manifest
        from cmp.disk.compact_planning import compact_files, moved_references
        from cmp.disk.compact_restoring import restoring

        chosen = (checkpoint,) if checkpoint else run.checkpoints
        found = [(c, file) for c in chosen for file in compact_files(c)]
        if not found:
            raise BadInput(f"{target!r} is not compacted", "There is nothing to restore; ids of the trash are shown by `storage`.")
        bases = pipelines_below(self.bases)
        with suppress(NotFound):
            bases.insert(0, find_base(run, self.bases, None, self.answers(run).base).path)
        for c, file in found:
            moved = moved_references(read_manifest(manifest_beside(file)), file.parent, bases)
            yield Restored((yield from restoring(run.folder, file, moved)), c.id)
        self.recognise_in({run.folder})
