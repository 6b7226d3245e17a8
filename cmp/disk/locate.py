"""Finds the run and checkpoint that a path means, also outside every known folder."""

from __future__ import annotations

from pathlib import Path

from cmp.core.runs import Checkpoint, Run
from cmp.disk.scan import scan
from cmp.errors import NotFound


def locate(target: str) -> tuple[Run, str | None] | None:
    """Run and checkpoint key of a path to a run, a checkpoint folder or a weights file; None if the text is no path.

    It is one if it begins like one, or exists as given. Raises NotFound for a path that leads to nothing usable.
    """
    if not (target.startswith(("/", "./", "../", "~")) or Path(target).exists()):
        return None
    path = Path(target).expanduser().absolute()
    if not path.exists():
        raise NotFound(f"there is nothing at {path}", "Check the path, or give an id that `python -m cmp list` shows.")
    # upwards, at most as far as RUN/checkpoints/checkpoint-500/unet/file
    for folder in (path, *list(path.parents)[:4]):
        if folder.is_dir():
            for run in scan([folder]).runs:
                if run.folder == folder and run.checkpoints:
                    return run, _key_of(run, path)
    raise NotFound(f"{path} is no training run, checkpoint or weights file", "`python -m cmp doctor PATH` says why.")


def _key_of(run: Run, path: Path) -> str | None:
    if path == run.folder:
        return None
    for checkpoint in run.checkpoints:
        if _means(checkpoint, path):
            return checkpoint.key
    raise NotFound(f"{path} is no checkpoint of the run {run.folder}", f"It has: {', '.join(c.key for c in run.checkpoints)}.")


def _means(checkpoint: Checkpoint, path: Path) -> bool:
    return path == checkpoint.path or checkpoint.path in path.parents or path == checkpoint.file
