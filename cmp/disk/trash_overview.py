"""What a run occupies, part by part, and what of it could be made free."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from cmp.core.present import iso_time
from cmp.core.runs import Run, path_text, plain_text
from cmp.core.storage import MIN_AGE, Rules, Unit, forecast
from cmp.disk.compact import manifest_beside, read_manifest
from cmp.disk.compact_planning import compact_files
from cmp.disk.disks import Parts, sizes_of
from cmp.disk.store import Store
from cmp.disk.trash import FOLDER, Trashed, list_trash
from cmp.disk.trash_planning import Subject, compactions, optimizer_files, retention, units_of
from cmp.disk.usage import freed_by, newest, occupied
from cmp.errors import CmpError


def occupancy(run: Run, homes: Collection[Path], bases: tuple[Path, ...], store: Store, now: float) -> dict[str, object]:
    """A run's parts with their bytes, what could be made free of it as far as headers tell, and what its training will still need.

    `homes` are the folders whose trash is the run's.
    """
    subject = Subject(run, (), now, Rules(min_age=0))
    units = units_of(subject)
    optimizers = {unit.path: optimizer_files(unit.path) for unit in units}
    made = [(c.id, form, target) for c in run.checkpoints for form, target in c.converted]
    compact = [item for item, _ in compactions(subject, retention(subject, units, ()), bases, store) if item.action == "compact"]
    first = min((newest(item.path.parent) + MIN_AGE for item in compact), default=0.0)
    trash = [each for home in homes for each in list_trash(home)]
    free = shutil.disk_usage(run.folder).free
    coming = forecast(run, free) if subject.training else None
    return {
        "run": plain_text(run.id),
        "folder": path_text(run.folder),
        "state": run.state(now),
        "bytes": occupied([*homes, *(unit.path for unit in units)]),
        "listed_bytes": run.bytes,  # as a list of runs tells it
        "checkpoints": [_unit(unit, optimizers[unit.path]) for unit in units],
        "parts": sizes_of(_parts(run, homes, units, [target for _, _, target in made], chain(*optimizers.values()))),
        "compacted": list(_compacted(run)),
        "converted": [{"checkpoint": c, "form": form, "path": path_text(p), "bytes": occupied([p])} for c, form, p in made],
        "trash": [trash_json(each) for each in trash],
        "could_be_freed": {
            "converted": freed_by(target for _, _, target in made),
            "trash": freed_by(each.place for each in trash),
            "compact": sum(item.bytes for item in compact),
            "optimizer": freed_by(file for files in optimizers.values() for file in files),
        },
        "compact_from": iso_time(first) if first > now else None,  # before that all of it is too young, unless --min-age says less
        "free_bytes": free,
        "forecast": coming.as_json() if coming else None,
    }


def _unit(unit: Unit, optimizers: Iterable[Path]) -> dict[str, object]:
    return {
        "checkpoint": plain_text(unit.ids[0]),
        "path": path_text(unit.path),
        "bytes": occupied([unit.path]),
        "optimizer_bytes": occupied(optimizers),
    }


def _parts(run: Run, homes: Collection[Path], units: Iterable[Unit], made: list[Path], optimizers: Iterable[Path]) -> Parts:
    """What a run consists of. Of several runs in one folder nobody can say whose the rest of it is."""
    whole = any(unit.path == run.folder for unit in units)  # a checkpoint that is the folder itself would be all of it
    return (
        ("trash", [home / FOLDER for home in homes]),
        ("converted", made),
        ("optimizer", optimizers),
        ("checkpoints", [file for c in run.checkpoints for file in c.files] if whole else [unit.path for unit in units]),
        ("logs", run.logs),
        ("samples", [sample.path for sample in run.samples]),
        ("other", [] if run.series else homes),
    )


def _compacted(run: Run) -> Iterator[dict[str, object]]:
    """The checkpoints that `restore` makes again, with the bytes that this takes."""
    for checkpoint in run.checkpoints:
        if files := compact_files(checkpoint):
            with suppress(CmpError):
                more = sum(read_manifest(manifest_beside(file)).size for file in files) - occupied(files)
                yield {"checkpoint": plain_text(checkpoint.id), "restore_bytes": more}


def trash_json(trashed: Trashed) -> dict[str, object]:
    """What lies in a trash, for JSON."""
    path = path_text(trashed.path) if trashed.path else None
    moved = iso_time(trashed.moved_at)
    return {"trash_id": plain_text(trashed.id), "path": path, "bytes": trashed.bytes, "moved_at": moved, "why": plain_text(trashed.why)}
