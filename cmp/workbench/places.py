"""Where a workbench looks: folders of this machine, and runs on the Hugging Face Hub in the mirrors that it keeps of them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.progress import Progress, run_through
from cmp.core.runs import Library, Problem
from cmp.disk.demo import Demo, open_demo
from cmp.disk.store import Store
from cmp.errors import BadInput, CmpError, Locked, NoSpace, NotFound, Refused, Unreadable
from cmp.settings import Settings
from cmp.workbench.permission import Permission

if TYPE_CHECKING:
    from cmp.disk.hub_mirrors import Mirror

HUB_EVERY = 300.0  # seconds between two looks of a server at what it shows of the Hub
_LOG = logging.getLogger("cmp.hub")
NOT_BROUGHT = (NotFound, Unreadable, Refused, Locked, NoSpace)  # why something of the Hub may not be here


class Places(Permission):
    """The folders to look in. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.store = Store(settings.home)
        self.serves = False  # scripts rely on being told of the given folders alone
        self._mirrors: tuple[Mirror, ...] | None = None if settings.hub else ()
        self._missing: tuple[Problem, ...] = ()
        self.not_brought: tuple[tuple[str, CmpError], ...] = ()  # places on the Hub, each with what stands against it
        self._fetching, self.ends = threading.Lock(), threading.Event()

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders to look in: those given at the start, or else the demo, and while serving those that were added on the page."""
        if self.shows_demo:
            open_demo(self.settings.home)
        run_through(self.fetching())
        return self.known_roots

    @property
    def known_roots(self) -> tuple[Path, ...]:
        """The same as far as they are there already: nothing is unpacked or fetched."""
        own = (Demo(self.settings.home / "demo").runs,) if self.shows_demo else self.settings.runs
        return (*own, *(mirror.root for mirror in self._mirrors or ()), *(self.added_folders() if self.serves else ()))

    @property
    def shows_demo(self) -> bool:
        return not (self.settings.runs or self.settings.hub)

    @property
    def bases(self) -> tuple[Path, ...]:
        """Folders in which base models are sought by name: those given at the start, while serving those that were added on the page, and
        the demo's.
        """
        of_demo = Demo(self.settings.home / "demo").bases
        return (*self.settings.bases, *(self.added_bases() if self.serves else ()), *((of_demo,) if of_demo.is_dir() else ()))

    def added_folders(self) -> tuple[Path, ...]:
        return tuple(Path(folder) for folder in sorted(self.store.all("folder")))

    def added_bases(self) -> tuple[Path, ...]:
        return tuple(Path(folder) for folder in sorted(self.store.all("base-folder")))

    def add_folder(self, text: str) -> Path:
        """Looks in one more folder for runs from now on; raises BadInput or NotFound."""
        return self._add("folder", text, "training runs")

    def add_base_folder(self, text: str) -> Path:
        """Seeks base models in one more folder from now on; raises as `add_folder`."""
        return self._add("base-folder", text, "base models")

    def _add(self, kind: str, text: str, holds: str) -> Path:
        self.require_writing()
        if not text.strip():
            raise BadInput("no folder was given", f"Type the path of a folder that holds {holds}.")
        folder = Path(os.path.abspath(os.path.expanduser(text.strip())))
        if not os.path.isdir(folder):
            raise NotFound(f"there is no folder {folder}", "Check the path as this computer knows it.")
        self.store.put(kind, str(folder), True)
        self._looked_elsewhere()
        return folder

    def remove_folder(self, text: str) -> None:
        """Looks there no longer. Nothing on disk is touched. Raises NotFound for a folder that was not added here."""
        self._remove("folder", text, self.added_folders())

    def remove_base_folder(self, text: str) -> None:
        """The same of a folder with base models."""
        self._remove("base-folder", text, self.added_bases())

    def _remove(self, kind: str, text: str, added: tuple[Path, ...]) -> None:
        self.require_writing()
        if Path(text.strip()) not in added:
            raise NotFound(f"{text!r} is not among the added folders", "Folders given at the start are removed by starting without them.")
        self.store.put(kind, str(Path(text.strip())), None)
        self._looked_elsewhere()

    def _looked_elsewhere(self) -> None:
        """What is done once other folders are looked in."""

    def cells_size(self) -> tuple[int, int]:
        """How many cells are kept, and their bytes."""
        from cmp.disk.cells import cells_size

        return cells_size(self.store)

    def fetching(self) -> Generator[Progress, None, None]:
        """Brings what was named on the Hub here: logs and LoRA bytes, see `disk.hub_runs`. Once in this process, but for a server, which
        follows it. Raises as that does where nothing else is to be looked at; otherwise what could not be brought is a problem of the
        library.
        """
        if self._mirrors is None:
            with self._fetching:
                if self._mirrors is None:
                    self._mirrors = yield from self._fetch()

    def follow_hub(self, every: float = HUB_EVERY) -> None:
        """Looks until `ends` is set whether the Hub has something newer, and brings it here."""
        if self.settings.hub and not self.settings.offline:
            threading.Thread(target=self._follow_hub, args=(every,), name="hub", daemon=True).start()

    def _follow_hub(self, every: float) -> None:
        while not self.ends.wait(every):
            try:
                before = self._mirrors
                with self._fetching:
                    self._mirrors = run_through(self._fetch())
                for mirror in self._mirrors:
                    if mirror.commit not in {known.commit for known in before or ()}:
                        _LOG.info("%s is at %s now", mirror.root.name, mirror.commit[:12])
            except CmpError as fault:  # what was fetched before is shown on, and the next look may succeed
                _LOG.warning("the Hub could not be looked at: %s", fault.told)

    def _fetch(self) -> Generator[Progress, None, tuple[Mirror, ...]]:
        from cmp.disk.hub_files import Hub, read_place
        from cmp.disk.hub_mirrors import mirror_folder
        from cmp.disk.hub_runs import mirroring

        places, home = [read_place(address) for address in self.settings.hub], self.settings.home
        hub, found, faults = None if self.settings.offline else Hub(), [], []
        for place in places:
            try:
                found.append((yield from mirroring(place, home, hub)))
            except NOT_BROUGHT as fault:
                faults.append((place, fault))
        fails = bool(faults) and not found and not self.settings.runs
        if not (fails and self._mirrors):  # what was fetched before is shown on
            self._missing = tuple(Problem(mirror_folder(place, home), f"{place} is not shown: {fault.told}") for place, fault in faults)
            self.not_brought = tuple((str(place), fault) for place, fault in faults)
        if fails:
            raise faults[0][1]
        return tuple(found)

    def _with_problems(self, library: Library) -> Library:
        """With what of the runs on the Hub is not here."""
        more: tuple[Problem, ...] = tuple(problem for mirror in self._mirrors or () for problem in mirror.problems)
        more += self._missing
        return replace(library, problems=(*library.problems, *more)) if more else library
