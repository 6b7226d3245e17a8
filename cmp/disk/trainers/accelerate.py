"""Runs whose checkpoints are folders `checkpoint-N`: Accelerate's save_state, and diffusers' example scripts, which are built on it.

Recognised by the folders' names; what is in each is told from the files' headers, since one script may write several layouts. Averaged
weights (EMA) that lie in a folder of their own, `checkpoint-N/unet_ema`, are checkpoints of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from cmp.core.names import COMPONENTS
from cmp.core.runs import Checkpoint, Stage, read_stage
from cmp.core.stages import FINAL
from cmp.disk.checkpoint import ADAPTER_FILES, TRAINED_PARTS, find_weights, read_checkpoint
from cmp.disk.folders import Folder, list_folder
from cmp.disk.trainers.configs import recorded_settings
from cmp.disk.trainers.found import Found
from cmp.errors import CmpError

FINAL_FOLDERS = ("lora_weights", "final_pipeline", "final")
_WRITERS = (  # the first that fits: diffusers' script before November 2025 left the whole wrapped model beside its adapter
    ("pytorch_lora_weights.", "diffusers"),
    ("diffusion_pytorch_model.", "diffusers"),
    ("adapter_model.", "peft"),
    ("model", "accelerate"),
    ("pytorch_model", "accelerate"),
)


def recognise(run_id: str, folder: Folder) -> tuple[Found, ...]:
    """The run in this folder, as one or none."""
    finals = [name for name in FINAL_FOLDERS if name in folder.folders]
    holder, closed = None, None
    try:
        holder = with_steps(folder)
    except CmpError as fault:
        closed = fault
    checkpoints = [*(_steps(run_id, holder) if holder else ()), *_finals(run_id, folder, finals, holder is not None)]
    if holder is None and not any(map(_is_sure, checkpoints)):
        if closed:  # steps that nobody may look at are a problem to be told, and no reason to see no run
            raise closed
        return ()
    warnings = (*(_dangerous(folder) if holder and holder.path == folder.path else ()), *_averaged(folder, checkpoints))
    found = Found(
        trainer=_trainer(checkpoints),
        checkpoints=tuple(checkpoints),
        warnings=(*warnings, *([closed.message] if closed else [])),
        settings=recorded_settings(checkpoints),
        whole=any(c.path.parent != folder.path or c.file != c.path for c in checkpoints),
    )
    return (found,)


def _is_sure(final: Checkpoint) -> bool:
    """Whether a final alone makes a run. Any library calls its files `model.safetensors`; the other names mean trained weights."""
    return final.holds != "unknown" or (final.file is not None and final.file.name != "model.safetensors")


def with_steps(folder: Folder) -> Folder | None:
    """The folder that holds the checkpoint folders: this one, or `checkpoints/` in it; raises Unreadable if that is not permitted."""
    if any(read_stage(name) for name in folder.folders):
        return folder
    if "checkpoints" in folder.folders:
        inner = list_folder(folder.path / "checkpoints")
        if any(read_stage(name) for name in inner.folders):
            return inner
    return None


def _steps(run_id: str, holder: Folder) -> Iterator[Checkpoint]:
    for name in sorted(holder.folders):
        if stage := read_stage(name):
            raw = read_checkpoint(run_id, holder.path / name, stage)
            inner = _inner(run_id, raw.path, stage)
            if raw.file is None and len(inner) == 1 and inner[0].file and inner[0].file.name in ADAPTER_FILES:
                yield replace(inner[0], key=stage.key)  # the only adapter has a name of its own
            else:
                yield replace(raw, bytes=raw.bytes - sum(c.bytes for c in inner)) if inner else raw
                yield from inner


def _inner(run_id: str, path: Path, stage: Stage) -> list[Checkpoint]:
    """What a checkpoint's folders hold beside it: averaged weights (diffusers' `unet_ema/`, SimpleTuner's `ema/`), and the adapters to
    which PEFT's `save_pretrained` gives a folder each, all but the one called "default".
    """
    try:
        folders = [list_folder(path / name) for name in sorted(list_folder(path).folders) if name not in COMPONENTS]
    except CmpError:
        return []
    inner = [f for f in folders if f.path.name == "ema" or f.path.name.endswith("_ema") or set(ADAPTER_FILES) & set(f.files)]
    # a folder without weights that bear names holds the average's own state
    stages = (replace(stage, key=f"{stage.key}~{folder.path.name}") for folder in inner)
    return [read_checkpoint(run_id, folder.path, own) for folder, own in zip(inner, stages, strict=True) if find_weights(folder)]


def _finals(run_id: str, folder: Folder, names: list[str], has_steps: bool) -> list[Checkpoint]:
    found = [read_checkpoint(run_id, folder.path / name, FINAL) for name in names]
    found += [inner for name in names for inner in _inner(run_id, folder.path / name, FINAL)]
    if find_weights(folder) and (has_steps or not _is_of_others(folder)):
        found.append(read_checkpoint(run_id, folder.path, FINAL, beside=True))
    # a pipeline folder that a trainer keeps for its scheduler or tokenizer alone is no checkpoint; one that cannot be listed is told
    return [c for c in found if c.file is not None or not c.written_at]


def _is_of_others(folder: Folder) -> bool:
    """Whether what looks like weights here is a component of a model, or a run in a folder that is called like one."""
    if find_weights(replace(folder, folders=frozenset())):
        return "config.json" in folder.files and "model_index.json" not in folder.files
    try:
        return any(with_steps(list_folder(folder.path / name)) for name in TRAINED_PARTS if name in folder.folders)
    except CmpError:
        return False


def _averaged(folder: Folder, checkpoints: Iterable[Checkpoint]) -> tuple[str, ...]:
    """diffusers' scripts copy the average into the model before they save the last pipeline."""
    averaged = next((c.path.name for c in checkpoints if c.key.endswith("_ema")), None)
    if averaged is None or "model_index.json" not in folder.files:
        return ()
    return (f"the final pipeline holds averaged weights (EMA): compare it with the checkpoints ~{averaged}, not with the raw ones",)


def _trainer(checkpoints: Iterable[Checkpoint]) -> str:
    """Named after what the steps are; the final adapter of an Accelerate loop is PEFT's, whoever trained."""
    newest_first = sorted(checkpoints, key=lambda c: c.sort_key, reverse=True)
    steps = [c for c in newest_first if c.key != FINAL.key]
    return next((kind for c in steps or newest_first if (kind := _kind(c))), "accelerate")


def _kind(checkpoint: Checkpoint) -> str | None:
    """Who gives weights files such names, None if there are none yet."""
    names = {checkpoint.file.name} if checkpoint.file else _names_below(checkpoint.path)
    return next((kind for start, kind in _WRITERS if any(name.startswith(start) for name in names)), None)


def _names_below(path: Path) -> set[str]:
    """The files in a checkpoint and in its components' folders."""
    try:
        folder = list_folder(path)
        return set(folder.files).union(*(list_folder(path / name).files for name in folder.folders))
    except CmpError:
        return set()


def _dangerous(folder: Folder) -> tuple[str, ...]:
    """diffusers' example scripts call int(name.split("-")[1]) on everything that begins with `checkpoint`, and crash on resume."""
    bad = [name for name in sorted(folder.folders | folder.files) if name.startswith("checkpoint") and not read_stage(name)]
    return tuple(
        f"{name}: a name that begins with 'checkpoint' beside checkpoint-N makes diffusers' scripts fail on resume" for name in bad
    )
