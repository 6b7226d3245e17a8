"""What is on each disk: what runs, converted forms, drawn cells and the trash occupy there, what is free, and what is still to come."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cmp.core.runs import Run, path_text
from cmp.core.storage import Forecast, forecast
from cmp.disk.store import Store
from cmp.disk.trash import FOLDER
from cmp.disk.usage import inodes

PARTS = ("trash", "converted", "cells", "runs")  # a file that has several names belongs to the first of these that has it

Parts = Iterable[tuple[str, Iterable[Path]]]


def counted_once(parts: Parts) -> dict[str, dict[tuple[int, int], int]]:
    """The files of each part, by device and inode; each file in the first part that has it."""
    found: dict[str, dict[tuple[int, int], int]] = {}
    seen: set[tuple[int, int]] = set()
    for name, places in parts:
        own = {key: size for key, size in inodes(places).items() if key not in seen}
        seen.update(own)
        found.setdefault(name, {}).update(own)
    return found


def sizes_of(parts: Parts) -> dict[str, int]:
    """The same as bytes."""
    return {name: sum(files.values()) for name, files in counted_once(parts).items()}


def disks(runs: Collection[Run], homes: Collection[Path], store: Store, now: float) -> Iterator[dict[str, object]]:
    """Each disk that holds something of these runs or of the drawn cells. `homes` are the folders that have a trash."""
    found = counted_once(
        (
            ("trash", [home / FOLDER for home in homes]),
            ("converted", [target for run in runs for c in run.checkpoints for _, target in c.converted]),
            ("cells", [store.home / "cells"]),
            ("runs", [place for run in runs for place in (run.folder, *(c.path for c in run.checkpoints))]),
        )
    )
    coming = _coming(runs, now)
    for device, place in _devices([*(run.folder for run in runs), store.home]).items():
        with suppress(OSError):
            usage = shutil.disk_usage(place)
            own = {f"{name}_bytes": sum(size for (dev, _), size in found[name].items() if dev == device) for name in PARTS}
            yield {
                "path": path_text(_mount_of(place)), "total_bytes": usage.total, "free_bytes": usage.free, **own,
                "forecast": _told(coming.get(device, []), usage.free),
            }  # fmt: skip


def _devices(places: Iterable[Path]) -> dict[int, Path]:
    """Each device with the first of the places that is on it."""
    found: dict[int, Path] = {}
    for place in places:
        with suppress(OSError):
            found.setdefault(os.stat(place).st_dev, place)
    return found


def _mount_of(place: Path) -> Path:
    """Where the disk begins that a place is on."""
    place = place.resolve()
    return next((above for above in (place, *place.parents) if os.path.ismount(above)), place)


def _coming(runs: Iterable[Run], now: float) -> Mapping[int, list[Forecast]]:
    """By device, what each training will still write there."""
    found: dict[int, list[Forecast]] = {}
    for run in runs:
        if run.state(now) == "training" and (one := forecast(run, 0)):
            with suppress(OSError):
                found.setdefault(os.stat(run.folder).st_dev, []).append(one)
    return found


def _told(coming: Collection[Forecast], free: int) -> dict[str, object] | None:
    """What all trainings together need: each alone may fit, and all of them not."""
    count, needed = sum(one.count for one in coming), sum(one.needed for one in coming)
    told: dict[str, object] = {
        "trainings": len(coming),
        "checkpoints": count,
        "needed_bytes": needed,
        "free_bytes": free,
        "fits": needed <= free,
    }
    return told if coming else None
