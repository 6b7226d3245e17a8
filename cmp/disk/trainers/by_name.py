"""Runs by names and sizes alone, for the moment until their headers are read by the readers of each trainer.

Whatever has the name of a step counts. What the weights are, averages beside them, and runs that only headers tell apart come later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from cmp.core.runs import Checkpoint, read_stage
from cmp.core.stages import FINAL, UNREAD, read_file_name
from cmp.disk.folders import Folder, size_and_time, size_below
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
        named = read_file_name(name[: name.rindex(".")])
        found = Checkpoint(
            run_id, named.stage.key, path, UNREAD, "unknown", named.stage.step, named.stage.epoch, path, (), *size_and_time(path)
        )
        series[named.series].append(found)
    names = {name: None if len(series) == 1 else name or its[0].path.stem for name, its in series.items()}
    return tuple(Found("unknown", tuple(its), series=names[name], whole=False) for name, its in sorted(series.items()))


def _folders(run_id: str, holder: Folder) -> Iterator[Checkpoint]:
    for name in holder.folders:
        if stage := FINAL if name in FINAL_FOLDERS else read_stage(name):
            path = holder.path / name
            size = size_below(path)
            yield Checkpoint(run_id, stage.key, path, UNREAD, "unknown", stage.step, stage.epoch, None, (), size, size_and_time(path)[1])
