"""The verbs that give the disk back. On a server that may change nothing none of them is there, so they stand together here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.progress import Progress, run_through
from cmp.core.runs import Run, path_text
from cmp.disk.store import subject_of
from cmp.errors import CmpError, NotFound, Refused
from cmp.workbench.judging import Judging
from cmp.workbench.marking import starred_and_gone

if TYPE_CHECKING:
    from cmp.core.storage import Choice, CleanupPlan, Item, Rules
    from cmp.disk.compact_planning import Against
    from cmp.disk.trash_planning import Subject

TRASH = "trash"  # the store's kind of folders that have one
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
    left: bool = False  # the trash of folders in which no run is left, too
    unjudged: bool = False  # a run on which there is no verdict stays whole instead of being an error where the best is to stay


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
        return run_through(self.planning(runs, rules, asked, stars=stars, best=best))

    def planning(
        self,
        runs: Iterable[Run],
        rules: Rules,
        asked: Asked = Asked(),
        *,
        stars: Mapping[str, object] | None = None,
        best: Best | None = None,
        overview: bool = True,
    ) -> Generator[Progress, None, CleanupPlan]:
        """The same a run at a time, for whoever wants to see how far it has come. Without `overview` only what would go is looked at."""
        from cmp.core.storage import CleanupPlan
        from cmp.disk.compact_planning import referred_to
        from cmp.disk.disks import disks
        from cmp.disk.trash import FOLDER, list_trash
        from cmp.disk.trash_overview import occupancy, trash_json
        from cmp.disk.trash_planning import emptied
        from cmp.disk.usage import freed_by, occupied

        runs, now = tuple(runs), time.time()
        left = self._left_homes() if asked.left else ()
        homes = (*self._homes(runs), *left)
        trashed = [each for home in homes for each in list_trash(home)]
        missed = {(home, name) for run in runs for name in starred_and_gone(self.store, run) for home in self._homes([run])}
        items = [*emptied(trashed, now, asked.older, missed)] if asked.empty_trash else []
        told: list[Mapping[str, object]] = []
        others = referred_to(*self._with_compacted())
        for done, run in enumerate(runs):
            yield Progress(done, len(runs), f"looking at {run.id}")
            items += self._items(self._subject(run, rules, self._stars(run) if stars is None else stars, now, others), asked, best)
            told += [occupancy(run, self._homes([run]), self.bases, self.store, now)] if overview else []
        yield Progress(len(runs), len(runs), "adding up")
        count, used = self.cells_size() if overview else (0, 0)
        places = [*self._homes(runs), *(home / FOLDER for home in left), *(c.path for run in runs for c in run.checkpoints)]
        found = disks(runs, homes, self.store, now) if overview else ()
        return CleanupPlan(
            tuple(items), occupied(places), freed_by(each.place for each in trashed), homes, self._begun(homes), tuple(told),
            {"cells": count, "bytes": used}, tuple(found),
            tuple(trash_json(each) for each in trashed if each.home in left), rules, asked.share,
        )  # fmt: skip

    def _choices(self, subject: Subject, asked: Asked, best: Best | None) -> tuple[Choice, ...]:
        """What the rules make of a run's checkpoints; raises Refused where they name the best and nothing says which that is."""
        from cmp.core.storage import Choice
        from cmp.disk.trash_planning import retention, units_of

        run, units = subject.run, units_of(subject)
        if not subject.rules.best:
            return retention(subject, units, ())
        try:
            if best is None:
                told = f"nothing says which checkpoints of {run.id} are the best"
                raise Refused(told, "Name others to keep, such as --keep last,starred,every:1000.")
            window = best(run)
            if not window:
                raise Refused(f"there is no verdict on {run.id}, so that its best is not known", "Measure it first, or keep others.")
        except Refused as fault:
            if not asked.unjudged:
                raise
            return tuple(Choice(unit, True, unit.guards[0] if unit.guards else fault.message) for unit in units)
        return retention(subject, units, window)

    def _items(self, subject: Subject, asked: Asked, best: Best | None) -> Iterator[Item]:
        from cmp.disk.trash_planning import compactions, dropped_forms, dropped_optimizers, going

        run, rules = subject.run, subject.rules
        choices = self._choices(subject, asked, best)
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

    def _subject(self, run: Run, rules: Rules, stars: Mapping[str, object], now: float, others: Mapping[str, str] | None = None) -> Subject:
        from cmp.disk.trash_planning import Subject

        return Subject(run, tuple(stars), now, rules, others or {})

    def _with_compacted(self) -> tuple[Path, ...]:
        """The folders of all runs in which something compacted lies, or may lie in the trash."""
        from cmp.disk.shards import is_compact
        from cmp.disk.trash import FOLDER

        runs = {run.folder: run for run in self.library(fresh=False).runs}
        holds = (
            any(is_compact(file) for c in run.checkpoints for file in c.files) or (run.folder / FOLDER).is_dir() for run in runs.values()
        )
        return tuple(compress(runs, holds))

    def _homes(self, runs: Iterable[Run]) -> tuple[Path, ...]:
        """The folders whose trash is these runs' own: theirs, and those in CMP_HOME that stand in where nothing can be written."""
        from cmp.disk.trash import FOLDER

        found: dict[Path, None] = {}
        for run in runs:
            elsewhere = self.store.stand_in(run.place)
            found |= dict.fromkeys(place for place in (run.folder, elsewhere) if place.is_dir())
            found |= dict.fromkeys(trash.parent for trash in sorted(elsewhere.glob(f"converted/*/{FOLDER}")))
        return tuple(found)

    def _left_homes(self, *, anywhere: bool = False) -> tuple[Path, ...]:
        """Folders below those that are looked at, or `anywhere`, that have something of ours in their trash and are no run's by now."""
        from cmp.disk.trash import list_trash

        known, roots = set(self._homes(self.library(fresh=False).runs)), self.roots
        found = sorted({Path(str(place)) for place in self.store.all(TRASH).values()} - known)
        return tuple(place for place in found if (anywhere or any(map(place.is_relative_to, roots))) and list_trash(place))

    def _remember_trash(self, home: Path) -> None:
        """Has the trash of a folder found again when no run is left in it."""
        with suppress(Refused):
            self.store.put(TRASH, subject_of(home), str(home))

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
        try:
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
                            told = f"the run in {item.home} is being trained"
                            raise Refused(told, "Nothing of it is touched; try again when it is done.")
                        became = yield from self._carry_out_item(item, plan, done)
                        yield became
                    except CmpError as fault:
                        yield NotDone(item, fault)
                self.recognise_in({item.home for item in plan.changes if item.action == "compact"})
        finally:  # also where it is left half way
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
            require_free(item, self._with_compacted())
            self._remember_trash(item.home)
            trashed = move_to_trash(item.home, item.path, item.why, item.names)
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
