"""The logs of runs: whose they are, what was said about that, and the curves in them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cmp.core.curves import LossCurve
from cmp.core.runs import Library, Run, escape_id
from cmp.disk.logs.curves import read_curves, read_latest
from cmp.disk.logs.index import LogIndex
from cmp.disk.logs.match import logs_of_run
from cmp.disk.logs.others import logs_in
from cmp.disk.store import Store, subject_of
from cmp.errors import NotFound

_NONE = "no scalars yet: no log of this run holds a value"
_FRESH = 2.0  # seconds for which the ends of logs that were answered are not looked at again
MATCHED = "auto"  # said instead of a folder: the logs that are matched, whatever was answered before


@dataclass(frozen=True, slots=True)
class Curves:
    """What was logged, and in words what had to be left out or repaired. `logs`: each log, and why it is taken for this run's."""

    curves: tuple[LossCurve, ...]
    notes: tuple[str, ...]
    logs: tuple[tuple[Path, str], ...] = ()


class Logbook:
    """Reads curves, and remembers which logs are a run's where somebody has said so."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index = LogIndex(store.home)
        self._seen: tuple[float, Library, dict[str, object], Library] | None = None

    def curves(self, run: Run, tags: Iterable[str] = (), given: Path | None = None) -> Curves:
        """The curves of a run out of the logs in `given`, or those that were answered, or those matched. Raises NotFound for a tag that
        was never logged, and where `given` is nothing.
        """
        answered = self.answered(run) if given is None else None
        place = given or answered
        notes: tuple[str, ...] = ()
        if answered and not answered.exists():
            place, notes = None, (f"the logs that were answered for this run are gone: {answered}; shown are those that were matched",)
        files = run.logs if place is None else _files_in(place)
        curves, told = read_curves(run.id, files, self._index.read)
        return Curves(_wanted(run.id, curves, tags), (*notes, *told, *(() if curves else (_NONE,))))

    def with_reasons(self, run: Run, found: Curves, given: Path | None = None) -> Curves:
        """The same with the logs that were read and what makes them this run's."""
        place = given or self.answered(run)
        if place is not None and place.exists():
            return replace(found, logs=tuple((file, f"it was answered for this run: {place}") for file in _files_in(place)))
        whys = {} if run.series else {file: log.why for log in logs_of_run(run.folder) for file in log.event_files}
        begun = "it was begun when the training of these weights began"
        kept = "its trainer keeps it in the run's folder"
        return replace(found, logs=tuple((f, whys.get(f, kept if run.folder in f.parents else begun)) for f in run.logs))

    def answered(self, run: Run) -> Path | None:
        """The logs that somebody has said are this run's; None where nobody has."""
        known = self._store.get("logs", subject_of(run.place))
        return Path(known) if isinstance(known, str) else None

    def with_answers(self, library: Library, *, fresh: bool = True) -> Library:
        """The same runs with the logs that were answered for them instead of those that were matched, and with what those logged last.

        With `fresh=False` what was seen of them in the last seconds will do.
        """
        answers = self._store.all("logs")
        if not answers:
            return library
        seen = self._seen
        if seen and not fresh and seen[1] is library and seen[2] == answers and time.monotonic() - seen[0] < _FRESH:
            return seen[3]
        told = replace(library, runs=tuple(map(self.with_answer, library.runs)))
        self._seen = (time.monotonic(), library, answers, told)
        return told

    def with_answer(self, run: Run) -> Run:
        """The same of one run; where its logs were not answered, or have gone, it is as it was."""
        place = self.answered(run)
        try:
            files = _files_in(place) if place else ()
        except NotFound:
            return run
        if not files:
            return run
        latest = read_latest(files)
        loss, logged = (latest.loss, latest.wall_time) if latest else (None, None)
        return replace(run, logs=files, last_loss=loss, last_logged=logged)

    def answer(self, run: Run, place: Path | None) -> None:
        """Remembers whose logs lie at `place`; None forgets it."""
        self._store.put("logs", subject_of(run.place), None if place is None else os.path.abspath(place))

    def opened(self, place: Path, tags: Iterable[str] = ()) -> tuple[Run, Curves]:
        """A log file or a folder of them on its own, as a run without checkpoints; raises NotFound where there is none, Unreadable.

        Nothing says that logs in several folders are of one training: there each tag has its folder's name in front.
        """
        groups = logs_in(place)
        name = escape_id(place.stem if place.is_file() else place.name)
        if not groups:
            raise NotFound(f"{place} holds no log that is known here", "Give the folder or the file that the trainer logged to.")
        files = tuple(file for _, mine, _ in groups for file in mine)
        run = Run(name, place.parent if place.is_file() else place, place.parent, "unknown", logs=files)
        curves: list[LossCurve] = []
        notes: list[str] = []
        for folder, mine, _ in groups:
            if place.is_file():
                self._index.read(place)  # a file that is no log is said to be none
            found, told = read_curves(name, mine, self._index.read)
            before = f"{folder.relative_to(place).as_posix()}/" if len(groups) > 1 and folder != place else ""
            curves += [replace(curve, tag=before + curve.tag) for curve in found]
            notes += told
        logs = tuple((file, why) for _, mine, why in groups for file in mine)
        return run, Curves(_wanted(name, curves, tags), (*notes, *(() if curves else (_NONE,))), logs)


def _files_in(place: Path) -> tuple[Path, ...]:
    """The logs that a person means by a folder or a file; raises NotFound."""
    place = Path(os.path.abspath(place))
    if place.is_file():
        return (place,)
    if not place.is_dir():
        raise NotFound(f"there is no folder {place}", "--logs takes the folder or the file that holds the logs.")
    matched = tuple(file for log in logs_of_run(place) for file in log.event_files)
    return matched or tuple(file for _, mine, _ in logs_in(place) for file in mine)


def _wanted(run_id: str, curves: Iterable[LossCurve], tags: Iterable[str]) -> tuple[LossCurve, ...]:
    known = {curve.tag: curve for curve in curves}
    for tag in (wanted := tuple(tags) or tuple(known)):
        if tag not in known:
            raise NotFound(f"{run_id!r} has no curve {tag!r}", f"It has: {', '.join(known) or 'none'}.")
    return tuple(known[tag] for tag in wanted)
