"""Where converted forms lie, and which of them are really ours.

`checkpoint_pipelines/` stands only where checkpoints are in `checkpoints/`: beside `checkpoint-N` itself, a folder of that name would make
diffusers' example scripts fail when they resume.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

from cmp.core.conversion import FORMS, GENERATOR
from cmp.core.runs import Checkpoint, Run
from cmp.disk.tensors import read_header
from cmp.errors import Unreadable

METADATA = "checkpoint_metadata.json"  # in a pipeline's folder
RECORD = "cmp_conversion"  # in a LoRA file's header
_LONGEST_NAME = 255  # bytes; what Linux and macOS take
_LARGEST_METADATA = 4_000_000  # bytes


def default_target(run: Run, checkpoint: Checkpoint, form: str, within: Path | None = None) -> Path:
    """The path of a converted form, below `within` (the run's folder unless that cannot be written)."""
    home = within or run.folder
    if form != "pipeline":
        ending = f"-{_file_key(checkpoint)}.safetensors"
        return home / "converted" / form / f"{_shortened(run.name, _LONGEST_NAME - len(os.fsencode(ending)))}{ending}"
    if checkpoint.path.parent.name == "checkpoints" and within is None:
        return home / "checkpoint_pipelines" / (checkpoint.path.stem if checkpoint.path == checkpoint.file else checkpoint.path.name)
    return home / "converted" / "pipeline" / (f"{run.name}-{_file_key(checkpoint)}" if run.series else _file_key(checkpoint))


def _shortened(name: str, most: int) -> str:
    """A name of at most so many bytes; one that had to be cut ends in a digest of the whole, so that two of them stay two."""
    raw = os.fsencode(name)
    if len(raw) <= most:
        return name
    return f"{raw[: most - 9].decode('utf-8', 'ignore')}~{hashlib.sha256(raw).hexdigest()[:8]}"


def _file_key(checkpoint: Checkpoint) -> str:
    return checkpoint.key.replace("/", "_")


def converted_forms(run: Run, checkpoint: Checkpoint, within: Path | None = None) -> tuple[tuple[str, Path], ...]:
    """The forms of this checkpoint that exist at their default place and were made by this program."""
    targets = ((form, default_target(run, checkpoint, form, within)) for form in FORMS)
    return tuple((form, target) for form, target in targets if is_ours(target))


def is_ours(target: Path) -> bool:
    """Whether a converted form carries our proof. A pipeline without it may be the base model under a checkpoint's name."""
    return read_record(target).get("generator") == GENERATOR


def read_record(target: Path) -> dict[str, object]:
    """What a converted form says of itself, see `lora_file.conversion_record`; empty if it says nothing that can be read."""
    try:
        if target.suffix == ".safetensors":
            text: str | bytes = read_header(target).metadata.get(RECORD, "{}") if not target.is_symlink() else "{}"
        else:
            text = _metadata(target / METADATA)
        read = json.loads(text)
    except (OSError, ValueError, RecursionError, Unreadable):
        return {}
    return read if isinstance(read, dict) else {}


def _metadata(file: Path) -> bytes:
    found = file.lstat()
    return file.read_bytes() if stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST_METADATA else b"{}"
