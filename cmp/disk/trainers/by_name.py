"""Runs by names and sizes alone, for the moment until their headers are read by the readers of each trainer.

Whatever has the name of a step counts. What the weights are, averages beside them, and runs that only headers tell apart come later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from cmp.core.runs import Checkpoint, read_stage
from cmp.core.stages import FINAL, UNREAD, read_file_name
from cmp.disk.folders import Folder, size_below, stat_of
from cmp.disk.trainers.accelerate import FINAL_FOLDERS, with_steps
from cmp.disk.trainers.found import Found
from cmp.disk.trainers.series import weights_files


def recognise(run_id: str, folder: Folder) -> tuple[Found, ...]:
    """The runs that this folder seems to hold."""
    if holder := with_steps(folder):
        finals = Folder(folder.path, folder.files, folder.folders & {*FINAL_FOLDERS})
        return (Found("unknown", (*_folders(run_id, holder), *_folders(run_id, finals))),)
    series: dict[str, list[Checkpoint]] = defaultdict(list)
    for name in weights_files(folder.files) if "config.json" not in folder.files else ():
        path = folder.path / name
        found, named = stat_of(path), read_file_name(path.stem)
        stage = named.stage
        series[named.series].append(
            Checkpoint(run_id, stage.key, path, UNREAD, "unknown", stage.step, stage.epoch, path, (), found.st_size, found.st_mtime)
        )
    alone = len(series) == 1
    return tuple(
        Found("unknown", tuple(its), series=None if alone else name or its[0].path.stem, whole=False)
        for name, its in sorted(series.items())
    )


def _folders(run_id: str, holder: Folder) -> Iterator[Checkpoint]:
    for name in holder.folders:
        if stage := FINAL if name in FINAL_FOLDERS else read_stage(name):
            path = holder.path / name
            size, written_at = size_below(path), stat_of(path).st_mtime
            yield Checkpoint(run_id, stage.key, path, UNREAD, "unknown", stage.step, stage.epoch, bytes=size, written_at=written_at)
