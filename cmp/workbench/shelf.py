"""The runs that a workbench knows: where it looks, what it found, what things are called, and the pictures that belong to them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cmp.core.marks import NONE, Mark, Marks, check_note, read_star, starred_value
from cmp.core.runs import Checkpoint, Library, Run, folder_name, path_text
from cmp.core.stages import UNREAD
from cmp.core.whereabouts import Told, told_of
from cmp.disk.demo import Demo
from cmp.disk.locate import locate, locate_in_hub
from cmp.disk.ready import Answers, remember_answers, remembered_answers
from cmp.disk.store import subject_of
from cmp.disk.thumbs import kept_thumbnail
from cmp.errors import BadInput, NotFound, Refused
from cmp.settings import Settings
from cmp.workbench.callers import caller
from cmp.workbench.gallery import Gallery
from cmp.workbench.logbook import MATCHED, Curves, Logbook
from cmp.workbench.lookout import Lookout
from cmp.workbench.marking import STAR, marks_of, subjects_of
from cmp.workbench.places import Places

if TYPE_CHECKING:
    from cmp.core.grids import Sampling
    from cmp.core.restored import Restored

_PICTURE = re.compile(r"([0-9a-f]{64})(?:\.(256|512)\.webp|\.png|\.txt)\Z", re.ASCII)


class Shelf(Places):
    """Runs, their names and notes. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._lookout = Lookout(self.store)
        self._logbook = Logbook(self.store)
        self.gallery = Gallery(lambda run: self.curves(run).curves)
        self._told_of_runs = Told()

    # -- runs ----------------------------------------------------------------------------------------------------------

    def usual_sampling(self, runs: Iterable[Run] | None = None) -> Sampling:
        """What is drawn with where nothing else is said: with these runs, or with those that are shown. The demo has its own guidance."""
        from cmp.core.asking import DEMO_GUIDANCE
        from cmp.core.grids import Sampling

        demo = Demo(self.settings.home / "demo").runs
        of_demo = self.shows_demo if runs is None else all(run.folder.is_relative_to(demo) for run in runs)
        return Sampling(guidance=DEMO_GUIDANCE) if of_demo else Sampling()

    def _looked_elsewhere(self) -> None:
        self._lookout.forget()

    def library(self, *, fresh: bool = True) -> Library:
        """All runs of all roots. With `fresh=False` a scan of the last seconds will do; while serving, see `Lookout.library`."""
        found = self._lookout.library(self.roots, self.bases, fresh=fresh, wait=not self.serves)
        return self._with_problems(self._logbook.with_answers(found, fresh=fresh))

    def told_of_runs(self) -> Told:
        """What sentences may say of the runs that the last scan found; nothing is looked for."""
        known = self._lookout.last
        if known is not None and known is not self._told_of_runs.library:
            places = (*self.known_roots, *self.bases, self.settings.home, Path.home())
            self._told_of_runs = told_of(known, {str(folder) for place in places for folder in place.parents})
        return self._told_of_runs

    def find(self, target: str, *, only_ids: bool = False) -> tuple[Run, Checkpoint | None]:
        """The run, and the checkpoint if one is meant, of a TARGET: an id, or unless `only_ids` a path. Raises NotFound.

        Whoever may not name paths names an id in any case.
        """
        only_ids = only_ids or caller().only_ids
        if not only_ids and (located := locate(target)):
            run, key = located
            run = self._logbook.with_answer(self._lookout.completed(run))
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
        """The name people gave it, else its folder's own, or its step."""
        return self.given_name(item) or (folder_name(item.name) if isinstance(item, Run) else item.key)

    def given_name(self, item: Run | Checkpoint) -> str | None:
        """The name people gave it, None for none."""
        given = self.store.get("name", item.id)
        return given if isinstance(given, str) else None

    def column_name(self, checkpoint: Checkpoint | None) -> str:
        """What a column of a grid is called; None is the base model's."""
        from cmp.core.labels import BASE_MODEL  # grids are nothing that a list of runs should load

        if checkpoint is None:
            return BASE_MODEL
        name = self.name_of(checkpoint)
        return f"step {name}" if name == str(checkpoint.step) else name

    def rename(self, target: str, name: str) -> None:
        """Gives a run or checkpoint a display name, used everywhere; empty takes it away. Ids do not change."""
        self.require_writing()
        run, checkpoint = self.find(target, only_ids=True)
        if len(name) > 200:
            raise BadInput(f"the name has {len(name)} characters", "Use at most 200.")
        self.store.put("name", (checkpoint or run).id, name.strip() or None)

    def show(self, target: str, given: Answers = Answers()) -> dict[str, object]:
        """Everything known about one run or checkpoint; what stands against using it is told, not raised."""
        from cmp.disk.describe import describe_checkpoint, describe_run

        run, checkpoint = self.find(target)
        if checkpoint is None:
            told = describe_run(run, self.answers(run), self._marks_in(run))
            logs = self._logbook.answered(run)
            return told | {"answers": {**cast(dict[str, object], told["answers"]), "logs": path_text(logs)}} if logs else told
        return describe_checkpoint(run, checkpoint, self.bases, self.store, given, self._marks_in(run).get(checkpoint.id, NONE))

    # -- marks ---------------------------------------------------------------------------------------------------------

    def star(self, target: str, on: bool = True, note: str | None = None, *, only_ids: bool = False) -> tuple[str, Mark]:
        """Puts a star on a checkpoint or takes it away, with `note` unless None; gives the checkpoint's id and how it is marked now.

        Raises BadInput for a run, and Refused where nothing can be kept.
        """
        self.require_writing()
        run, checkpoint = self.find(target, only_ids=only_ids)
        if checkpoint is None:
            raise BadInput(f"{target!r} is a run, and stars are for checkpoints", f"Name one, such as {run.id}@final.")
        text = None if note is None else check_note(note)
        listed = self._listed(run)
        own = next((c for c in listed.checkpoints if c.key == checkpoint.key), None) if listed else None
        kept = self.store.change(STAR, subjects_of(checkpoint, own), lambda before: starred_value(before, on, text))
        return (own or checkpoint).id, read_star(kept)

    def marks(self, runs: Iterable[Run]) -> Marks:
        """Stars, notes and given names of runs of the library and their checkpoints, by id; who has none is not in it."""
        return marks_of(self.store, runs)

    def starred(self, run: Run) -> dict[str, str]:
        """Which checkpoints of a run have a star, by id, each with its note."""
        return {name: mark.note for name, mark in self._marks_in(run).items() if mark.star}

    def _marks_in(self, run: Run) -> Marks:
        """The marks of a run wherever it was found, by its own ids."""
        listed = self._listed(run)
        if listed is None:  # its ids may be those of another run
            stars = self.store.all(STAR)
            told = {c.id: stars[name] for c in run.checkpoints for name in subjects_of(c, None) if name in stars}
            return {name: read_star(kept) for name, kept in told.items()}
        return {run.id + name[len(listed.id) :]: mark for name, mark in self.marks([listed]).items()}

    def _listed(self, run: Run) -> Run | None:
        """The same run as the roots have it, None if it lies outside all of them, which are not looked at then."""
        roots = self.known_roots
        place = os.path.realpath(run.folder)
        if not any(Path(place).is_relative_to(os.path.realpath(root)) for root in roots):
            return None
        runs = (own for own in self.library(fresh=False).runs if own is run or own.name == run.name)
        return next((own for own in runs if own is run or (os.path.realpath(own.folder) == place and own.series == run.series)), None)

    # -- curves --------------------------------------------------------------------------------------------------------

    def curves(self, run: Run, tags: Iterable[str] = (), logs: Path | None = None) -> Curves:
        """The logged curves of a run, the training loss first; without `tags` all of them. `logs`: the folder or file to read instead.

        Raises NotFound for a tag that was never logged, and where there are no such logs.
        """
        return self._logbook.curves(run, tags, logs)

    def curves_at(self, target: str, tags: Iterable[str] = (), logs: str | None = None) -> tuple[Run, Curves]:
        """The same for a TARGET, with the logs and why they are its own; a path may also lead to any log or folder of logs.

        `logs` is remembered for the run once it has told a curve; "auto" forgets what was said before.
        """
        try:
            run, _ = self.find(target)
        except NotFound:
            place = Path(os.path.abspath(os.path.expanduser(target)))
            if logs is not None or caller().only_ids or not os.path.exists(place):
                raise
            return self._logbook.opened(place, tags)
        given = None if logs in (None, MATCHED) else Path(os.path.abspath(os.path.expanduser(str(logs))))
        if logs == MATCHED:
            self._logbook.answer(run, None)
            run, _ = self.find(target)
        found = self._logbook.curves(run, tags, given)
        if given is not None and found.curves:
            with suppress(Refused):
                self._logbook.answer(run, given)
        return run, self._logbook.with_reasons(run, found, given)

    def logs_of(self, run: Run) -> tuple[tuple[Path, str], ...]:
        """The logs that are read for a run, each with what makes it the run's own."""
        return self._logbook.with_reasons(run, Curves((), ())).logs

    def answers(self, run: Run) -> Answers:
        return remembered_answers(run, self.store)

    def answer(self, run: Run, given: Answers) -> None:
        """Remembers alpha and base for this run."""
        self.require_writing()
        remember_answers(run, self.store, given)

    def last_prompts(self, run: Run) -> tuple[str, ...]:
        """What was last drawn with this run here; empty if nothing was."""
        found = self.store.get("prompts", subject_of(run.place))
        return tuple(map(str, found)) if isinstance(found, list) else ()

    def remember_prompts(self, run: Run, prompts: Iterable[str]) -> None:
        """Keeps what is drawn with this run, to be offered again; where nothing can be kept, nothing is."""
        with suppress(Refused):
            self.require_writing()
            self.store.put("prompts", subject_of(run.place), list(prompts))

    # -- pictures ------------------------------------------------------------------------------------------------------

    def picture(self, kind: str, name: str) -> tuple[bytes, str]:
        """Bytes and media type of a drawn cell or of a trainer's sample, as `DIGEST.png` or `DIGEST.256.webp`, or as `DIGEST.txt` of the
        settings in a cell; raises NotFound.
        """
        from cmp.pictures.files import thumbnail, whole

        digest, side = _named(name)
        home = self.settings.home
        if kind == "sample":
            if not side:
                return self.gallery.picture(digest, None)
            return kept_thumbnail(home, digest, side, lambda: self.gallery.picture(digest, side)[0]), "image/webp"
        path = self.picture_path(kind, name)
        if name.endswith(".txt"):
            from cmp.pictures.settings import infotext_in

            return infotext_in(path).encode(), "text/plain; charset=utf-8"
        return (kept_thumbnail(home, digest, side, lambda: thumbnail(path, side)), "image/webp") if side else whole(path)

    def picture_path(self, kind: str, name: str) -> Path:
        """Where the file of such a picture lies; raises NotFound, also for a sample that lies within a log."""
        digest, _ = _named(name)
        path = self.store.cell_path(digest) if kind == "cell" else self.gallery.file_of(digest)
        if path is None or not path.is_file():
            raise NotFound(f"the picture {digest[:12]}… is not here", "Draw it again, or reload the page.")
        return path

    def settings_in(self, picture: bytes) -> Restored:
        """The settings that a PNG, JPEG or WebP carries, whoever drew it; raises NotFound where it has none, Unreadable."""
        from cmp.pictures.settings import read_settings

        return read_settings(picture)


def _named(name: str) -> tuple[str, int]:
    """The digest in a picture's name, and the side of the thumbnail that is meant, 0 for the whole."""
    found = _PICTURE.match(name)
    if not found:
        raise NotFound(f"there is no picture {name[:100]!r}", "Pictures are named by their digest.")
    return found[1], int(found[2] or 0)
