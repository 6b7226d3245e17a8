"""Where a workbench looks: folders of this machine, and runs on the Hugging Face Hub in the mirrors that it keeps of them."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmp.core.progress import Progress, run_through
from cmp.core.runs import Library, Problem
from cmp.disk.demo import Demo, open_demo
from cmp.disk.store import Store
from cmp.settings import Settings
from cmp.workbench.permission import Permission

if TYPE_CHECKING:
    from cmp.disk.hub_runs import Mirror


class Places(Permission):
    """The folders to look in. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.store = Store(settings.home)
        self.serves = False  # scripts rely on being told of the given folders alone
        self._mirrors: tuple[Mirror, ...] | None = None if settings.hub else ()
        self._fetching = threading.Lock()

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
        """Folders in which base models are sought by name."""
        of_demo = Demo(self.settings.home / "demo").bases
        return (*self.settings.bases, *((of_demo,) if of_demo.is_dir() else ()))

    def added_folders(self) -> tuple[Path, ...]:
        return tuple(Path(folder) for folder in sorted(self.store.all("folder")))

    def fetching(self) -> Generator[Progress, None, None]:
        """Brings what was named on the Hub here, once in this process: logs and LoRA bytes, see `disk.hub_runs`. Raises as that does."""
        if self._mirrors is not None:
            return
        from cmp.disk.hub_files import Hub, read_place
        from cmp.disk.hub_runs import mirroring

        with self._fetching:
            if self._mirrors is None:
                hub, found = Hub(), []
                for address in self.settings.hub:
                    found.append((yield from mirroring(read_place(address), self.settings.home, hub)))
                self._mirrors = tuple(found)

    def _with_problems(self, library: Library) -> Library:
        """With what of the mirrored runs is not here."""
        more: tuple[Problem, ...] = tuple(problem for mirror in self._mirrors or () for problem in mirror.problems)
        return replace(library, problems=(*library.problems, *more)) if more else library
