"""Finds the run and checkpoint that a path means, also outside every known folder."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from cmp.core.runs import Checkpoint, Run, Stage, escape_id, run_id
from cmp.disk.checkpoint import read_loose
from cmp.disk.converted import converted_forms
from cmp.disk.folders import list_folder
from cmp.disk.scan import read_folder
from cmp.errors import CmpError, NotFound

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}\Z", re.ASCII)
_IN_HUB = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def locate(target: str) -> tuple[Run, str | None] | None:
    """Run and checkpoint key of a path to a run, a checkpoint folder or a weights file; None if the text is no path.

    It is one if it begins like one, or exists as given. Raises NotFound for a path that leads to nothing usable.
    """
    # os.path, since Path raises for names that are too long and for the home of nobody
    if not (target.startswith(("/", "./", "../", "~")) or os.path.exists(target)):
        return None
    path = Path(os.path.abspath(os.path.expanduser(target)))  # without `..`: X/checkpoint-500/../checkpoint-1000 is 1000
    if not os.path.exists(path):
        if series := next((run for run in _runs_in(path.parent) if run.series and run.folder / run.series == path), None):
            return series, None
        raise NotFound(f"there is nothing at {path}", "Check the path, or give an id that `python -m cmp list` shows.")
    # the outermost run that knows the path: RUN/checkpoints and RUN/checkpoints/checkpoint-500 look like runs themselves
    for folder in reversed((path, *list(path.parents)[:4])):
        for run in _runs_in(folder):
            if (key := _key_of(run, path)) is not None:
                return run, key or None
    if (loose := _loose(path)) is not None:
        return loose, loose.checkpoints[0].key
    if several := [run.name for run in _runs_in(path) if run.series]:
        raise NotFound(f"{path} holds {len(several)} runs", f"Name one, such as {path / several[0]}, or one of its files.")
    raise NotFound(f"{path} is no training run, checkpoint or weights file", "`python -m cmp doctor PATH` says why.")


def locate_in_hub(target: str) -> Run | None:
    """The LoRA that a repository `owner/name` in the Hugging Face cache holds, as a run of one checkpoint; None if there is none.

    Nothing is downloaded. The cache holds links into its blobs, which are followed: the cache is not a run.
    """
    if not _REPOSITORY.match(target):
        return None
    from huggingface_hub import try_to_load_from_cache  # slow to import, and needed only for ids that nothing else bears

    for name in _IN_HUB:
        found = try_to_load_from_cache(target, name)
        if isinstance(found, str):
            return _loose(Path(found), escape_id(target))
    return None


def _runs_in(folder: Path) -> tuple[Run, ...]:
    try:
        return read_folder(list_folder(folder), folder).runs
    except (CmpError, OSError):
        return ()


def _loose(path: Path, name: str | None = None) -> Run | None:
    """The run, of that name, that is this one weights file and nothing else in its folder; None if the path is no such file."""
    if path.suffix.lower() not in _WEIGHTS or not os.path.isfile(path):
        return None
    name = name or run_id(path.parent, path.parent)
    checkpoint = read_loose(name, path, Stage(escape_id(path.stem)))
    run = Run(name, path.parent, path.parent, "unknown", bytes=checkpoint.bytes, series=path.stem)
    return replace(run, checkpoints=(replace(checkpoint, converted=converted_forms(run, checkpoint)),))


def _key_of(run: Run, path: Path) -> str | None:
    """The key of the checkpoint at `path`, "" if the path is the run itself, None if the run does not know it."""
    if path == run.place and run.checkpoints:
        return ""
    meant = [checkpoint for checkpoint in run.checkpoints if _means(checkpoint, path)]
    # averaged weights lie within the folder of the raw ones
    return max(meant, key=lambda checkpoint: len(checkpoint.path.parts)).key if meant else None


def _means(checkpoint: Checkpoint, path: Path) -> bool:
    return path == checkpoint.path or checkpoint.path in path.parents or path == checkpoint.file
