"""The verbs that give the disk back. On a server that may change nothing none of them is there, so they stand together here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.progress import Progress
from cmp.core.runs import Checkpoint, Run, path_text
from cmp.errors import BadInput, CmpError, NotFound, Refused
from cmp.workbench.callers import caller
from cmp.workbench.judging import Judging

if TYPE_CHECKING:
    from cmp.core.storage import CleanupPlan, Item, Rules
    from cmp.disk.compact_planning import Against
    from cmp.disk.trash import Trashed
    from cmp.disk.trash_planning import Subject

Best = Callable[[Run], Collection[str]]  # the ids in the window of a verdict; raises what stands against one


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be done beside what the rules say.

    `drop` holds "converted" and "optimizer"; `older` are seconds in the trash, `share` is a way of
    disk.sharing.
    """

    compact: bool = False
    drop: frozenset[str] = frozenset()
    empty_trash: bool = False
    older: float | None = None
    share: str | None = None


@dataclass(frozen=True, slots=True)
class NotDone:
    """An item of a plan that did not come about, and why; it is as it was."""

    item: Item
    error: CmpError


@dataclass(frozen=True, slots=True)
class Restored:
    """What was brought back, from the trash or from its compact form."""

    path: Path
    checkpoint: str | None = None
    trash_id: str | None = None

    def as_json(self) -> dict[str, object]:
        return {"path": path_text(self.path), "checkpoint": self.checkpoint, "trash_id": self.trash_id}


class Storing(Judging):
    """What runs occupy, and how room is made without losing anything. Safe to use from several threads."""

    # -- planning ------------------------------------------------------------------------------------------------------

    def plan_cleanup(
        self,
        runs: Iterable[Run],
        rules: Rules,
        asked: Asked = Asked(),
        *,
        stars: Mapping[str, object] | None = None,
        best: Best | None = None,
    ) -> CleanupPlan:
        """What would go and what stays, and why; nothing is changed. `stars` has the ids of the starred ones, None has them looked up.

        Raises Refused where `rules` name the best and nothing says which checkpoint that is.
        """
        from cmp.core.storage import CleanupPlan
        from cmp.disk.trash import list_trash
        from cmp.disk.trash_overview import occupancy
        from cmp.disk.trash_planning import emptied
        from cmp.disk.usage import freed_by, occupied

        runs, now = tuple(runs), time.time()
        known = {run.place: self._stars(run) if stars is None else stars for run in runs}
        items = [item for run in runs for item in self._items(run, rules, asked, known[run.place], best, now)]
        homes = self._homes(runs)
        trashed = [each for home in homes for each in list_trash(home)]
        if asked.empty_trash:
            items = [*emptied(trashed, now, asked.older), *items]
        places = [*homes, *(c.path for run in runs for c in run.checkpoints)]
        count, used = self.cells_size()
        return CleanupPlan(
            tuple(items), occupied(places), freed_by(each.place for each in trashed), homes, self._begun(homes),
            tuple(occupancy(run, self._homes([run]), self.bases, self.store, now) for run in runs), {"cells": count, "bytes": used}, rules,
            asked.share,
        )  # fmt: skip

    def _items(self, run: Run, rules: Rules, asked: Asked, stars: Mapping[str, object], best: Best | None, now: float) -> Iterator[Item]:
        from cmp.disk.trash_planning import compactions, dropped_forms, dropped_optimizers, going, retention, units_of

        if rules.best and best is None:
            told = f"nothing says which checkpoints of {run.id} are the best"
            raise Refused(told, "Name others to keep, such as --keep last,starred,every:1000.")
        subject = self._subject(run, rules, stars, now)
        window = best(run) if best and rules.best else ()
        if rules.best and not window:
            raise Refused(f"there is no verdict on {run.id}, so that its best is not known", "Measure it first, or keep others.")
        choices = retention(subject, units_of(subject), window)
        paths = {choice.unit.path for choice in choices if choice.stays}
        staying = [c for c in run.checkpoints if c.path in paths or any(path in c.path.parents for path in paths)]
        if "converted" in asked.drop:
            yield from dropped_forms(subject, staying, self.bases, self.store)
        if rules.asked:
            yield from going(subject, choices)
        if "optimizer" in asked.drop:
            yield from dropped_optimizers(subject, choices)
        if asked.share:
            from cmp.disk.bases import pipelines_below
            from cmp.disk.sharing import twins

            yield from twins(subject, pipelines_below(self.bases), asked.share, self.store)
        if asked.compact:
            yield from (item for item, _ in compactions(subject, choices, self.bases, self.store))

    def _stars(self, run: Run) -> dict[str, object]:
        """The ids of the run's starred checkpoints, as the verb for stars gives them by id or by key."""
        starred = getattr(self, "starred", None)
        return {name if "@" in name else f"{run.id}@{name}": note for name, note in dict(starred(run)).items()} if starred else {}

    def _subject(self, run: Run, rules: Rules, stars: Mapping[str, object], now: float) -> Subject:
        from cmp.disk.trash_planning import Subject

        return Subject(run, tuple(stars), now, rules)

    def _homes(self, runs: Iterable[Run]) -> tuple[Path, ...]:
        """The folders whose trash is these runs' own: theirs, and those in CMP_HOME that stand in where nothing can be written."""
        found = [place for run in runs for place in (run.folder, self.store.stand_in(run.place)) if place.is_dir()]
        return tuple(dict.fromkeys(found))

    def _begun(self, homes: Iterable[Path]) -> tuple[str, ...]:
        from cmp.disk.trash import begun

        words = {"compact": "was being compacted", "restore": "was being restored"}
        return tuple(f"{file} {words.get(str(told.get('act')), 'was being changed')}" for home in homes for _, file, told in begun(home))

    # -- carrying out --------------------------------------------------------------------------------------------------

    def clean_up(self, plan: CleanupPlan) -> Iterator[Progress | Item | NotDone]:
        """Carries out a plan, and first ends what a killed process had begun. Each item that is done comes back as it became.

        Raises Locked while another process reclaims room in one of the folders. A run that is being trained by now is left alone.
        """
        from cmp.disk.compact_restoring import end_begun
        from cmp.disk.trash import FOLDER, reclaiming, tidy

        self.require_writing()
        concerned = {item.home for item in plan.changes}
        with ExitStack() as locks:
            for home in plan.homes:
                if home in concerned or os.access(home / FOLDER, os.W_OK):
                    locks.enter_context(reclaiming(home))
                    for told in (*tidy(home), *end_begun(home)):
                        yield Progress(0, len(plan.changes), told)
            self._lookout.forget()
            training = self._in_training()
            for done, item in enumerate(plan.changes):
                try:
                    if item.home in training and item.action != "delete":
                        raise Refused(f"the run in {item.home} is being trained", "Nothing of it is touched; try again when it is done.")
                    became = yield from self._carry_out_item(item, plan, done)
                    yield became
                except CmpError as fault:
                    yield NotDone(item, fault)
        for home in plan.homes:
            self._lookout.forget_sizes(home)

    def _in_training(self) -> set[Path]:
        return {run.folder for run in self.library().runs if run.state(time.time()) == "training"}

    def _carry_out_item(self, item: Item, plan: CleanupPlan, done: int) -> Generator[Progress, None, Item]:
        from cmp.disk.compact_planning import compact
        from cmp.disk.trash import delete, list_trash, move_to_trash
        from cmp.disk.trash_planning import require_free, still_there

        assert item.home is not None
        yield Progress(done, len(plan.changes), f"{item.action} {item.path}")
        still_there(item)
        if item.action == "trash":
            require_free(item)
            trashed = move_to_trash(item.home, item.path, item.why)
            return replace(item, trash_id=trashed.id, undo=f"restore {trashed.id}")
        if item.action == "share":
            from cmp.disk.sharing import share

            share(item, plan.share or "reflink")
            return item
        if item.action == "delete":
            delete(next(each for each in list_trash(item.home) if each.place == item.path))
            return item
        freed = yield from compact(item.home, item.path, self._against(item, plan.rules), self.store)
        return replace(item, bytes=freed)

    def _against(self, item: Item, rules: Rules) -> tuple[Against, ...]:
        """What a dump is compacted against, as it is now."""
        from cmp.disk.trash_planning import compactions, retention, units_of

        run, _ = self.find(str(item.path.parent))
        subject = self._subject(run, replace(rules, named=False, max_count=None, max_bytes=None), {}, time.time())
        for found, against in compactions(subject, retention(subject, units_of(subject), ()), self.bases, self.store):
            if found.path == item.path:
                if found.action != "compact":
                    raise Refused(f"{item.path} stays: {found.why}", "Plan again.")
                return against
        raise NotFound(f"{item.path} is no dump of {run.id} any more", "Plan again.")

    # -- bringing back -------------------------------------------------------------------------------------------------

    def restore(self, target: str) -> Iterator[Progress | Restored]:
        """Brings back what is in the trash under this id, or makes the dumps of a run or checkpoint again to the last byte."""
        from cmp.disk.compact_restoring import end_begun
        from cmp.disk.trash import reclaiming, take_back, tidy

        self.require_writing()
        if trashed := self._in_trash(target):
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
        homes = self._homes(self.library(fresh=False).runs)
        return next((each for home in homes for each in list_trash(home) if each.id == target), None)

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
