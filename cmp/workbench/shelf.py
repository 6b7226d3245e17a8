"""The runs that a workbench knows: where it looks, what it found, what things are called, and the pictures that belong to them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmp.core.curves import LossCurve
from cmp.core.runs import Checkpoint, Library, Run, display_name
from cmp.core.stages import UNREAD
from cmp.disk.demo import Demo, open_demo
from cmp.disk.locate import locate, locate_in_hub
from cmp.disk.logs.curves import read_curves
from cmp.disk.logs.match import logs_of_run
from cmp.disk.ready import Answers, remember_answers, remembered_answers
from cmp.disk.store import Store, subject_of
from cmp.errors import BadInput, NotFound, Refused
from cmp.settings import Settings
from cmp.workbench.gallery import Gallery
from cmp.workbench.lookout import Lookout
from cmp.workbench.marks import Marks

if TYPE_CHECKING:
    from cmp.core.restored import Restored

_PICTURE = re.compile(r"([0-9a-f]{64})(?:\.(256|512)\.webp|\.png|\.txt)\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Curves:
    """What was logged, and in words what had to be left out or repaired."""

    curves: tuple[LossCurve, ...]
    notes: tuple[str, ...]


class Shelf:
    """Runs, their names and notes. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.home)
        self._lookout = Lookout(self.store)
        self.serves = False  # scripts rely on being told of the given folders alone
        self.gallery = Gallery(lambda run: self.curves(run).curves)
        self._marks = Marks(lambda run: self.curves(run).curves)

    # -- runs ----------------------------------------------------------------------------------------------------------

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders to look in: those given at the start, or else the demo, and while serving those that were added on the page."""
        added = self.added_folders() if self.serves else ()
        return (*(self.settings.runs or (self._demo_runs(),)), *added)

    def _demo_runs(self) -> Path:
        return open_demo(self.settings.home).runs

    @property
    def shows_demo(self) -> bool:
        return not self.settings.runs

    @property
    def bases(self) -> tuple[Path, ...]:
        """Folders in which base models are sought by name."""
        of_demo = Demo(self.settings.home / "demo").bases
        return (*self.settings.bases, *((of_demo,) if of_demo.is_dir() else ()))

    def added_folders(self) -> tuple[Path, ...]:
        return tuple(Path(folder) for folder in sorted(self.store.all("folder")))

    def add_folder(self, text: str) -> Path:
        """Looks in one more folder from now on; raises BadInput or NotFound."""
        if not text.strip():
            raise BadInput("no folder was given", "Type the path of a folder that holds training runs.")
        folder = Path(os.path.abspath(os.path.expanduser(text.strip())))
        if not os.path.isdir(folder):
            raise NotFound(f"there is no folder {folder}", "Check the path as this computer knows it.")
        self.store.put("folder", str(folder), True)
        self._lookout.forget()
        return folder

    def remove_folder(self, text: str) -> None:
        """Looks there no longer. Nothing on disk is touched. Raises NotFound for a folder that was not added here."""
        if Path(text) not in self.added_folders():
            raise NotFound(f"{text!r} is not among the added folders", "Folders given at the start are removed by starting without them.")
        self.store.put("folder", text, None)
        self._lookout.forget()

    def library(self, *, fresh: bool = True) -> Library:
        """All runs of all roots. With `fresh=False` a scan of the last seconds will do; while serving, see `Lookout.library`."""
        return self._lookout.library(self.roots, fresh=fresh, wait=not self.serves)

    def find(self, target: str, *, only_ids: bool = False) -> tuple[Run, Checkpoint | None]:
        """The run, and the checkpoint if one is meant, of a TARGET: an id, or unless `only_ids` a path. Raises NotFound."""
        if not only_ids and (located := locate(target)):
            run, key = located
            run = self._lookout.completed(run)
            return run, run.checkpoint(key) if key else None
        library = self.library(fresh=False)
        try:
            run, checkpoint = library.find(target)
            if any(c.layout == UNREAD for c in run.checkpoints):
                self._lookout.read_now(run.folder)
                return self.library().find(target)
            return run, checkpoint
        except NotFound:
            if self._lookout.unread:  # a run that only its headers show
                self._lookout.read_now(None)
                return self.find(target, only_ids=only_ids)
            if "@" in target and any(run.id == target for run in library.runs):
                return library.run(target), None
            if not only_ids and (cached := locate_in_hub(target)):
                return cached, cached.checkpoints[0]
            raise

    def name_of(self, item: Run | Checkpoint) -> str:
        """The name people gave it, else one made from its folder's name or its step."""
        given = self.store.get("name", item.id)
        if isinstance(given, str):
            return given
        return (display_name(item.name) or item.name) if isinstance(item, Run) else item.key

    def rename(self, target: str, name: str) -> None:
        """Gives a run or checkpoint a display name, used everywhere; empty takes it away. Ids do not change."""
        run, checkpoint = self.find(target, only_ids=True)
        if len(name) > 200:
            raise BadInput(f"the name has {len(name)} characters", "Use at most 200.")
        self.store.put("name", (checkpoint or run).id, name.strip() or None)

    def show(self, target: str, given: Answers = Answers()) -> dict[str, object]:
        """Everything known about one run or checkpoint; what stands against using it is told, not raised."""
        from cmp.disk.describe import describe_checkpoint, describe_run

        run, checkpoint = self.find(target)
        if checkpoint is None:
            return describe_run(run, self.answers(run))
        return describe_checkpoint(run, checkpoint, self.bases, self.store, given)

    # -- curves --------------------------------------------------------------------------------------------------------

    def curves(self, run: Run, tags: Iterable[str] = (), logs: Path | None = None) -> Curves:
        """The logged curves of a run, the training loss first; without `tags` all of them, with `logs` those in that folder.

        Raises NotFound for a tag that was never logged, and for a folder that is not there.
        """
        if logs is not None and not logs.is_dir():
            raise NotFound(f"there is no folder {logs}", "--logs takes the folder that holds the event files.")
        files = run.logs if logs is None else tuple(file for log in logs_of_run(logs.absolute()) for file in log.event_files)
        curves, notes = read_curves(run.id, files)
        known = {curve.tag: curve for curve in curves}
        wanted = tuple(tags) or tuple(known)
        for tag in wanted:
            if tag not in known:
                raise NotFound(f"{run.id!r} has no curve {tag!r}", f"It has: {', '.join(known) or 'none'}.")
        if not curves:
            notes = (*notes, "no scalars yet: no event file of this run holds a value")
        return Curves(tuple(known[tag] for tag in wanted), notes)

    def marks(self, wanted: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What is known of these checkpoints beside their names, by id: loss, converted forms, flaw."""
        return self._marks.by_id(self.library(fresh=False), wanted)

    def answers(self, run: Run) -> Answers:
        return remembered_answers(run, self.store)

    def answer(self, run: Run, given: Answers) -> None:
        """Remembers alpha and base for this run."""
        remember_answers(run, self.store, given)

    def last_prompts(self, run: Run) -> tuple[str, ...]:
        """What was last drawn with this run here; empty if nothing was."""
        found = self.store.get("prompts", subject_of(run.place))
        return tuple(map(str, found)) if isinstance(found, list) else ()

    def remember_prompts(self, run: Run, prompts: Iterable[str]) -> None:
        """Keeps what is drawn with this run, to be offered again; where nothing can be kept, nothing is."""
        with suppress(Refused):
            self.store.put("prompts", subject_of(run.place), list(prompts))

    # -- pictures ------------------------------------------------------------------------------------------------------

    def picture(self, kind: str, name: str) -> tuple[bytes, str]:
        """Bytes and media type of a drawn cell or of a trainer's sample, as `DIGEST.png` or `DIGEST.256.webp`, or as `DIGEST.txt` of the
        settings in it; raises NotFound.
        """
        from cmp.pictures.files import thumbnail, whole

        found = _PICTURE.match(name)
        if not found:
            raise NotFound(f"there is no picture {name[:100]!r}", "Pictures are named by their digest.")
        digest, side = found[1], found[2]
        if kind == "sample":
            return self.gallery.picture(digest, int(side) if side else None)
        path = self.store.cell_path(digest)
        if not path.is_file():
            raise NotFound(f"the picture {digest[:12]}… is not here", "Draw it again, or reload the page.")
        if name.endswith(".txt"):
            from cmp.pictures.settings import infotext_in

            return infotext_in(path).encode(), "text/plain; charset=utf-8"
        return (thumbnail(path, int(side)), "image/webp") if side else whole(path)

    def settings_in(self, picture: bytes) -> Restored:
        """The settings that a PNG, JPEG or WebP carries, whoever drew it; raises NotFound where it has none, Unreadable."""
        from cmp.pictures.settings import read_settings

        return read_settings(picture)
