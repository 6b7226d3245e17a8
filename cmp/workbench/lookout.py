"""What lies in the folders that are looked at, kept up to date: headers and digests of large ones are read in the background."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

from cmp.core.runs import Library, Run
from cmp.core.stages import UNREAD
from cmp.disk.alias import merge_known, merge_same_weights
from cmp.disk.converted import converted_forms
from cmp.disk.scan import Scanner
from cmp.disk.shards import is_compact
from cmp.disk.store import Store
from cmp.disk.unchanged import told_unchanged

_FRESH = 2.0  # seconds for which a finished scan answers again
_TURN = 0.02  # seconds for which reading in the background keeps others waiting
_MOMENT = 0.5  # seconds that whoever does not wait may have to


class Lookout:
    """All runs below some folders. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._scanner = Scanner()
        self._library: tuple[float, Library] | None = None
        self._pause = _FRESH
        self._found: Library | None = None  # as the last scan told it
        self._done: dict[Path, tuple[Run, Run]] = {}  # each run as it was found, and completed
        self._undigested: dict[Path, Run] = {}
        self._reader: threading.Thread | None = None
        self._sizes: dict[Path, tuple[int, int]] = {}  # bytes of each run's checkpoints at the last scan, and how many are compacted
        self._grew: dict[Path, float] = {}

    @property
    def unread(self) -> int:
        """How many folders are known by names and sizes alone."""
        return self._scanner.unread

    @property
    def busy(self) -> bool:
        """Whether something is being read in the background."""
        return self._reader is not None

    @property
    def last(self) -> Library | None:
        """What the last scan found; None before the first."""
        known = self._library
        return known[1] if known else None

    def library(self, roots: tuple[Path, ...], bases: tuple[Path, ...], *, fresh: bool, wait: bool) -> Library:
        """All runs. Without `wait`, what takes longer than a moment is told by names and sizes for now, and read in the background.

        With `fresh=False` a scan of the last seconds will do. `bases` hold base models, which are no runs.
        """
        with self._lock:
            began = time.monotonic()
            if fresh or self._library is None or began - self._library[0] > self._pause:
                library = self._scan(roots, bases, began + (float("inf") if wait else _MOMENT))
                self._library = (time.monotonic(), library)
                self._pause = max(_FRESH, 5 * (self._library[0] - began))  # a page that polls leaves time for others
            return self._library[1]

    def forget(self) -> None:
        """Has the next call look again."""
        self._library = None

    def forget_sizes(self, folder: Path) -> None:
        """Takes the next sizes of what is in a folder as they are: this program itself has changed them."""
        with self._lock:
            self._sizes = {place: known for place, known in self._sizes.items() if folder not in place.parents and place != folder}
            self._library = None

    def read_now(self, folder: Path | None) -> None:
        """Reads the headers in one folder, or in all that are left."""
        with self._lock:
            while self._scanner.read_on(folder):
                pass
            self._library = None

    def completed(self, run: Run) -> Run:
        """The run with what its folder alone does not tell: forms that were made elsewhere, and which finals are steps once more."""
        return merge_same_weights(told_unchanged(self._with_forms(run, self._made_elsewhere()), self._store), self._store)

    def _scan(self, roots: tuple[Path, ...], bases: tuple[Path, ...], until: float) -> Library:
        found = self._scanner.scan(roots, headers=until == float("inf"), bases=bases)
        if self._scanner.unread:
            while time.monotonic() < until and self._scanner.read_on():
                pass
            found = self._scanner.scan(roots, headers=False, bases=bases)
        made = self._made_elsewhere()
        if found is self._found and not made and self._library:
            library = self._library[1]
        else:
            self._found, before, self._done = found, self._done, {}
            runs = tuple([self._known_or_completed(run, before.get(run.place), made, until) for run in found.runs])
            library = Library(runs, found.problems, found.unread)
        if (self._scanner.unread or self._undigested) and self._reader is None:
            self._reader = threading.Thread(target=self._read_on, args=(roots, bases), name="headers", daemon=True)
            self._reader.start()
        return library

    def _known_or_completed(self, run: Run, before: tuple[Run, Run] | None, made: frozenset[str], until: float) -> Run:
        if before and before[0] is run and not made:
            self._done[run.place] = before
            return before[1]
        watched = told_unchanged(self._with_forms(self._watched(run), made), self._store)
        merged = merge_known(watched, self._store) if time.monotonic() > until else merge_same_weights(watched, self._store)
        if merged is None:
            self._undigested[run.place] = run
        self._done[run.place] = (run, merged or watched)
        return merged or watched

    def _watched(self, run: Run) -> Run:
        """The run with the time at which its checkpoints were seen growing. What this program writes into a run does not count."""
        if any(checkpoint.layout == UNREAD for checkpoint in run.checkpoints):  # there may be more of them when they are read
            return run
        size = sum(checkpoint.bytes for checkpoint in run.checkpoints)
        compacted = sum(is_compact(checkpoint.file) for checkpoint in run.checkpoints)
        known, before = self._sizes.get(run.place, (size, compacted))
        if size > known and compacted >= before:
            self._grew[run.place] = time.time()
        self._sizes[run.place] = (size, compacted)
        return replace(run, grew_at=self._grew.get(run.place))

    def _with_forms(self, run: Run, made: frozenset[str]) -> Run:
        if not made or (elsewhere := self._store.stand_in(run.place)).name not in made:
            return run
        forms = ((c, dict(converted_forms(run, c, elsewhere)) | dict(c.converted)) for c in run.checkpoints)
        return replace(run, checkpoints=tuple(replace(c, converted=tuple(its.items())) for c, its in forms))

    def _made_elsewhere(self) -> frozenset[str]:
        """The runs that have forms in our own home, by their folders' names there."""
        try:
            return frozenset(os.listdir(self._store.stand_in(Path("/")).parent))
        except OSError:
            return frozenset()

    def _read_on(self, roots: tuple[Path, ...], bases: tuple[Path, ...]) -> None:
        """Reads what is left: first all headers, then the weights of which two may be the same."""
        try:
            while self._read_one(roots, bases):
                time.sleep(0.001)  # so that others get the lock
        finally:
            self._reader = None

    def _read_one(self, roots: tuple[Path, ...], bases: tuple[Path, ...]) -> bool:
        with self._lock:
            until = time.monotonic() + _TURN
            while more := self._scanner.read_on():
                if time.monotonic() > until:
                    break
            if more:
                return True
            if not self._undigested:
                self.library(roots, bases, fresh=True, wait=False)
                if not self._undigested:
                    return self._scanner.unread > 0
            place, run = next(iter(self._undigested.items()))
        completed = self.completed(run)  # may take long: without the lock
        with self._lock:
            self._undigested.pop(place, None)
            if place in self._done and self._done[place][0] is run:
                self._done[place] = (run, replace(completed, grew_at=self._grew.get(place)))
                self._found = None
        return True
