"""The pictures that trainers left, and the loss beside them, read again only where something has changed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cmp.core.curves import LossCurve, loss_tag
from cmp.core.runs import Run
from cmp.core.samples import Sample, apart, dated, from_log, placed_by_time
from cmp.disk import samples
from cmp.disk.logs.event_pictures import EventPictures, read_pictures
from cmp.disk.logs.tfevents import oldest_first, read_name
from cmp.errors import CmpError, NotFound

_REST = 20  # times as long as reading a log took, it is not read again while it grows
_REST_LEAST = 5.0  # seconds
Curves = Callable[[Run], tuple[LossCurve, ...]]


@dataclass(frozen=True, slots=True)
class _Loss:
    marks: object
    read_at: float
    took: float
    curve: LossCurve | None


class Gallery:
    """All pictures of trainers that were asked for. Safe to use from several threads."""

    def __init__(self, curves: Curves) -> None:
        self._curves = curves
        self._lock = threading.RLock()
        self._logs: dict[Path, EventPictures] = {}
        self._found: dict[Path, tuple[str, tuple[Sample, ...]]] = {}
        self._losses: dict[Path, _Loss] = {}
        self._named: dict[str, Sample] = {}

    def samples(self, run: Run) -> tuple[Sample, ...]:
        """The run's pictures as they are now: those in its folder, or else those in its logs, which some trainers keep twice."""
        with self._lock:
            stamp = self.stamp(run)
            before, found = self._found.get(run.place, ("", ()))
            if before != stamp:
                found = self._read(run)
                self._found[run.place] = (stamp, found)
            return found

    def stamp(self, run: Run) -> str:
        """Equal while the run's pictures are. The folders are listed and the ends of logs looked at; no picture is opened."""
        with self._lock:
            return f"{samples.stamp_of(run)}|{sum(len(self._log(path).pictures) for path in self._event_files(run))}|{len(run.checkpoints)}"

    def _read(self, run: Run) -> tuple[Sample, ...]:
        found = samples.of_run(run)
        if any(sample.step is None for sample in found):
            found = dated(placed_by_time(found, samples.written_at(found), self.loss(run)))
        if found:
            return found
        return apart([s for path in self._event_files(run) for s in from_log(path, self._log(path).pictures, run.settings)])

    def _event_files(self, run: Run) -> tuple[Path, ...]:
        return oldest_first(path for path in run.logs if read_name(path))

    def _log(self, path: Path) -> EventPictures:
        try:
            self._logs[path] = read_pictures(path, self._logs.get(path))
        except CmpError:
            self._logs.pop(path, None)
            return EventPictures()
        return self._logs[path]

    def loss(self, run: Run) -> LossCurve | None:
        """The training loss; of a log that grows as it was some seconds ago. None where none was logged."""
        with self._lock:
            marks, known, now = tuple(map(_marks, run.logs)), self._losses.get(run.place), time.monotonic()
            if known and (known.marks == marks or now - known.read_at < max(_REST_LEAST, _REST * known.took)):
                return known.curve
            curve = self._training_loss(run)
            self._losses[run.place] = _Loss(marks, time.monotonic(), time.monotonic() - now, curve)
            return curve

    def _training_loss(self, run: Run) -> LossCurve | None:
        try:
            curves = self._curves(run)
        except CmpError:
            return None
        wanted = loss_tag(curve.tag for curve in curves)
        return next((curve for curve in curves if curve.tag == wanted), None)

    def knows_loss(self, run: Run) -> bool:
        """Whether asking for the loss costs no reading."""
        return not run.logs or run.place in self._losses

    def has_found(self, run: Run) -> bool:
        """Whether pictures of the run were found when it was asked for them last."""
        return bool(self._found.get(run.place, ("", ()))[1])

    def name(self, sample: Sample) -> str | None:
        """The name under which a picture is served: a digest, so that no path ever comes from a caller. None if it has gone."""
        name = samples.digest_of(sample)
        if name is not None:
            self._named[name] = sample
        return name

    def file_of(self, name: str) -> Path | None:
        """The file that is a named picture, None for one that lies within a log."""
        sample = self._named.get(name)
        return sample.path if sample and sample.within is None else None

    def picture(self, name: str, side: int | None) -> tuple[bytes, str]:
        """Bytes and media type of a named picture; raises NotFound, Unreadable."""
        from cmp.pictures.samples import sample_picture

        sample = self._named.get(name)
        if sample is None:
            raise NotFound(f"the picture {name[:12]}… is not here", "Reload the page.")
        content = samples.read_bytes(sample.path, sample.within)
        return sample_picture(content, sample.path, side, sample.within.tile if sample.within else None)


def _marks(path: Path) -> object:
    try:
        now = os.stat(path)
    except OSError:
        return None
    return now.st_size, now.st_mtime_ns
