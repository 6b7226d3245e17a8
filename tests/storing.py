"""Runs whose frozen weights are worth compacting, and what lies in a folder to the last byte."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.in_process import Said, command
from tests.support import Training, base_pipeline, base_tensors, origin_run, save, wrapped_tensors

BIG = "mid_block.resnets.0.conv1.weight"  # frozen, and far larger than all else
RUN = "lora_casual_shoes"
OLD = 3 * 86400.0  # seconds


def big_base() -> dict[str, np.ndarray]:
    return base_tensors() | {BIG: np.random.default_rng(7).normal(size=(32, 64, 3, 3)).astype(np.float32)}


def dumped(step: int) -> dict[str, np.ndarray]:
    return wrapped_tensors(step) | {f"base_model.model.{BIG}": big_base()[BIG]}


def frozen_run(training: Path, steps: Iterable[int] = (500, 1000), *, base: bool = True, final: bool = False) -> Training:
    """An Accelerate + PEFT run, three days old, whose dumps hold 74 kB of the base beside 5 kB of adapter."""
    made = origin_run(training, steps, base=False, final=final)
    for step in steps:
        save(made.checkpoint(step) / "model.safetensors", dumped(step), {"format": "pt"})
    if base:
        base_pipeline(made.bases, big_base())
    made.bases.mkdir(exist_ok=True)
    grow_old(training)
    return made


def grow_old(folder: Path, seconds: float = OLD) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (time.time() - seconds,) * 2)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder but the trash's own notes, with the digest of its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if ".cmp-trash" not in path.parts or not path.name.startswith(".")
    }


def cmp(made: Training, *arguments: str) -> Said:
    return command(made.bases.parent / "home", "--runs", str(made.outputs), "--bases", str(made.bases), *arguments, "--json")
