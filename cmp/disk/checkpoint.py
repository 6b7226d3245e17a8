"""Reads what one checkpoint folder holds, from names and headers alone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from cmp.core.runs import Checkpoint, Stage
from cmp.core.weights import Weights, read_weights
from cmp.disk.folders import Folder, list_folder, size_below
from cmp.disk.tensors import Header, Identity, identify, read_header
from cmp.errors import CmpError

# In this order: where a folder has both the small LoRA file and the whole wrapped model (diffusers' script before November 2025),
# the small one holds the same adapter.
_WEIGHT_FILES = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "unet/adapter_model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "transformer/diffusion_pytorch_model.safetensors",
    "model.safetensors",
)
_KNOWN_BUT_UNREAD = {
    "pytorch_model.bin": "its weights are a pickle (pytorch_model.bin), which is not read yet",
    "pytorch_lora_weights.bin": "its weights are a pickle (pytorch_lora_weights.bin), which is not read yet",
    "model.safetensors.index.json": "its weights are in several files (model.safetensors.index.json), which is not read yet",
    "pytorch_model_fsdp.bin": "it is an FSDP checkpoint (pytorch_model_fsdp.bin), which is not read yet",
    "pytorch_model_fsdp_0": "it is a sharded FSDP checkpoint; merge it with `accelerate merge-weights` first",
    "zero_to_fp32.py": "it is a DeepSpeed checkpoint; merge it with DeepSpeed's own zero_to_fp32 first",
}


# Accelerate calls the second and further models model_1, model_2 …
_FURTHER_MODEL = re.compile(r"(?:model|pytorch_model)_[0-9]+(?:\.safetensors|\.bin)(?:\.index\.json)?\Z", re.ASCII)
TRAINED_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "controlnet")


def left_aside(file: Path) -> str | None:
    """Why this weights file is not all of its checkpoint: further models and trained components beside it; None if it is."""
    inner = file.parent.name in TRAINED_PARTS
    listing = list_folder(file.parent.parent if inner else file.parent)
    # in a whole pipeline full parts are no sign of training: they are compared with the base's, see ready.require_same_parts
    signs = ("adapter_model", "pytorch_lora_weights") if "model_index.json" in listing.files else ("",)
    more = [name for name in sorted(listing.files) if _FURTHER_MODEL.match(name)]
    for name in TRAINED_PARTS:
        if name in listing.folders and not (inner and name == file.parent.name):
            there = sorted(list_folder(listing.path / name).files)
            more += [f"{name}/{n}" for n in there if n.startswith(signs) and n.endswith((".safetensors", ".bin"))]
    return f"it also holds {', '.join(more)}: {file.name} alone would leave that out, and several are not read yet" if more else None


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint's weights file with its header and what that says."""

    header: Header
    weights: Weights


def open_weights(file: Path) -> Opened:
    """Header and reading of a weights file; raises Unreadable. A file that has not changed is read once."""
    return _open_weights(file, identify(file))


@lru_cache(maxsize=64)  # a page that is open looks at every checkpoint every few seconds
def _open_weights(file: Path, identity: Identity) -> Opened:
    header = read_header(file)
    return Opened(header, read_weights(header.shapes))


def read_checkpoint(
    run_id: str, folder: Path, stage: Stage, *, open_file: Callable[[Path], Opened] = open_weights, beside: bool = False
) -> Checkpoint:
    """The checkpoint in `folder`. Never raises for what lies on disk: a damaged one comes back with its flaw.

    `beside`: the folder is the run's own, and only its weights file belongs to the checkpoint.
    """
    draft = Checkpoint(run_id, stage.key, folder, "unknown", "unknown", step=stage.step, epoch=stage.epoch)
    try:
        listing = list_folder(folder)
        file = find_weights(listing)
        size = file.stat().st_size if beside and file else size_below(folder)
        draft = replace(draft, bytes=size, written_at=_written_at(file or folder))
        if file is None:
            return replace(draft, flaw=_why_nothing(listing))
        draft = replace(draft, file=file, path=file if beside else folder)
        weights = open_file(file).weights
    except CmpError as fault:
        return replace(draft, flaw=fault.message)
    except OSError as fault:
        return replace(draft, flaw=f"cannot read {folder}: {fault.strerror}")
    flaw = "; ".join(filter(None, (*weights.flaws, left_aside(file)))) or None
    return replace(draft, layout=weights.layout, holds=weights.holds, flaw=flaw)


def read_loose(run_id: str, file: Path, stage: Stage, *, open_file: Callable[[Path], Opened] = open_weights) -> Checkpoint:
    """The checkpoint that is one weights file, as kohya and others write them. Never raises for what lies on disk."""
    draft = Checkpoint(run_id, stage.key, file, "unknown", "unknown", step=stage.step, epoch=stage.epoch)
    try:
        found = file.stat()
        draft = replace(draft, bytes=found.st_size, written_at=found.st_mtime, file=file)
        weights = open_file(file).weights
    except CmpError as fault:
        return replace(draft, flaw=fault.message)
    except OSError as fault:
        return replace(draft, flaw=f"cannot read {file}: {fault.strerror}")
    return replace(draft, layout=weights.layout, holds=weights.holds, flaw="; ".join(weights.flaws) or None)


def find_weights(listing: Folder) -> Path | None:
    """The file that holds the trained weights, None if there is none of a known name."""
    for name in _WEIGHT_FILES:
        head, _, rest = name.rpartition("/")
        if head in listing.folders:
            candidate = listing.path / head / rest
            if os.path.isfile(candidate) and not candidate.is_symlink():  # Path.is_file raises where it may not look
                return candidate
        elif not head and rest in listing.files:
            return listing.path / rest
    return None


def _why_nothing(listing: Folder) -> str:
    for name, why in _KNOWN_BUT_UNREAD.items():
        if name in listing:
            return why
    if "model.safetensors" in listing.folders:
        return "model.safetensors is a folder, not a file"
    if "model.safetensors" not in listing.links and os.path.lexists(listing.path / "model.safetensors"):
        return "model.safetensors is not a regular file"
    if closed := [name for name in sorted(listing.folders) if not os.access(listing.path / name, os.X_OK)]:
        return f"its folder {closed[0]} cannot be read: Permission denied"
    if any(name.startswith(".tmp") for name in listing.files):
        return "it is incomplete: still being written (a temporary file is there and no weights yet)"
    if links := sorted(listing.links):
        return f"its weights may lie behind a link ({links[0]}), and links are not followed"
    return "it holds no weights file of a known name"


def _written_at(path: Path) -> float:
    return path.stat().st_mtime
