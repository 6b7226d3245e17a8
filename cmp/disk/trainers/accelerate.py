"""Runs whose checkpoints are folders `checkpoint-N`: Accelerate's save_state, and diffusers' example scripts, which are built on it.

Recognised by the folders' names; what is in each is told from the files' headers, since one script may write several layouts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cmp.core.runs import Checkpoint, Sample, Stage, read_stage
from cmp.disk.checkpoint import find_weights, read_checkpoint
from cmp.disk.folders import Folder, list_folder
from cmp.errors import CmpError

FINAL_FOLDERS = ("lora_weights", "final_pipeline", "final")
_SAMPLE = re.compile(r"(?:epoch(?P<epoch>[0-9]+)_)?step(?P<step>[0-9]+)_prompt(?P<prompt>[0-9]+)_img(?P<image>[0-9]+)\.(png|jpg|webp)\Z")
_FINAL = Stage("final")


@dataclass(frozen=True, slots=True)
class Found:
    """What a trainer's reader makes of a folder: the run without its logs."""

    trainer: str
    checkpoints: tuple[Checkpoint, ...]
    samples: tuple[Sample, ...] = ()
    warnings: tuple[str, ...] = ()


def recognise(run_id: str, folder: Folder) -> Found | None:
    """The run in this folder, None if it is no run of this kind."""
    finals = [name for name in FINAL_FOLDERS if name in folder.folders]
    holder, closed = None, None
    try:
        holder = _with_steps(folder)
    except CmpError as fault:
        closed = fault
    checkpoints = [*(_steps(run_id, holder) if holder else ()), *_finals(run_id, folder, finals)]
    if holder is None and not any(map(_is_sure, checkpoints)):
        if closed:  # steps that nobody may look at are a problem to be told, and no reason to see no run
            raise closed
        return None
    warnings = _dangerous(folder) if holder is not None and holder.path == folder.path else ()
    return Found(_trainer(checkpoints), tuple(checkpoints), _samples(folder), (*warnings, *([closed.message] if closed else [])))


def _is_sure(final: Checkpoint) -> bool:
    """Whether a final alone makes a run. Any library calls its files `model.safetensors`; the other names mean trained weights."""
    return final.holds != "unknown" or (final.file is not None and final.file.name != "model.safetensors")


def _with_steps(folder: Folder) -> Folder | None:
    """The folder that holds the checkpoint folders: this one, or `checkpoints/` in it; raises Unreadable if that is not permitted."""
    if any(read_stage(name) for name in folder.folders):
        return folder
    if "checkpoints" in folder.folders:
        inner = list_folder(folder.path / "checkpoints")
        if any(read_stage(name) for name in inner.folders):
            return inner
    return None


def _steps(run_id: str, holder: Folder) -> list[Checkpoint]:
    stages = ((name, read_stage(name)) for name in sorted(holder.folders))
    return [read_checkpoint(run_id, holder.path / name, stage) for name, stage in stages if stage]


def _finals(run_id: str, folder: Folder, names: list[str]) -> list[Checkpoint]:
    found = [read_checkpoint(run_id, folder.path / name, _FINAL) for name in names]
    if find_weights(folder):
        found.append(read_checkpoint(run_id, folder.path, _FINAL, beside=True))
    # a pipeline folder that a trainer keeps for its scheduler or tokenizer alone is no checkpoint; one that cannot be listed is told
    return [c for c in found if c.file is not None or not c.written_at]


def _trainer(checkpoints: list[Checkpoint]) -> str:
    """Named after what the steps are; the final adapter of an Accelerate loop is PEFT's, whoever trained."""
    layouts = {c.layout for c in checkpoints if c.step is not None} or {c.layout for c in checkpoints}
    if "diffusers-lora" in layouts:
        return "diffusers"
    return "accelerate" if layouts - {"peft-adapter"} else "peft"


def _samples(folder: Folder) -> tuple[Sample, ...]:
    """The pictures that the trainer drew, from its `validation/` folder."""
    if "validation" not in folder.folders:
        return ()
    try:
        names = sorted(list_folder(folder.path / "validation").files)
    except CmpError:
        return ()
    return tuple(sample for name in names if (sample := _sample(folder.path / "validation" / name)))


def _sample(path: Path) -> Sample | None:
    found = _SAMPLE.match(path.name)
    return Sample(path, int(found["step"]), int(found["prompt"]), int(found["image"])) if found else None


def _dangerous(folder: Folder) -> tuple[str, ...]:
    """diffusers' example scripts call int(name.split("-")[1]) on everything that begins with `checkpoint`, and crash on resume."""
    bad = [name for name in sorted(folder.folders | folder.files) if name.startswith("checkpoint") and not read_stage(name)]
    return tuple(
        f"{name}: a name that begins with 'checkpoint' beside checkpoint-N makes diffusers' scripts fail on resume" for name in bad
    )
