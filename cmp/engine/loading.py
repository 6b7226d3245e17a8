"""Reads a base model from this disk into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline

from cmp.core.fitting import RECOMPUTED
from cmp.core.progress import Progress
from cmp.disk.bases import NEVER_LOADED, read_index
from cmp.engine.device import without_memory
from cmp.engine.steps import Report
from cmp.errors import Unreadable


def round_as_trained(model: torch.nn.Module, folder: Path, kind: torch.dtype) -> None:
    """Gives a base's component the values that it was trained on: rounded once, from what lies on the disk, then held as drawn with.

    What was loaded in half precision is rounded already, and rounding it again gives other values.
    """
    whole = dict(model.named_parameters())
    if any(values.dtype != torch.float32 for values in whole.values()):
        exact: Any = type(model)
        whole = dict(exact.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32).named_parameters())
    for name, parameter in model.named_parameters():
        parameter.data = whole[name].data.to(kind).to(parameter.dtype)


def import_classes(folder: Path) -> None:
    """Imports the libraries' classes that a pipeline is made of; they come when they are asked for, and two threads may not ask at once."""
    index = read_index(folder)
    with suppress(ImportError, RuntimeError, AttributeError):  # told when it is loaded
        getattr(diffusers, str(index.get("_class_name")), None)
        for told in index.values():
            _model_class(told)


@contextmanager
def _numbers_as_before() -> Iterator[None]:
    """diffusers has torch make all numbers of the type that a model is loaded in, and leaves it so where that fails: whatever is computed
    afterwards, of whichever model, would be of half precision.
    """
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@_numbers_as_before()
def load_pipeline(folder: Path, dtype: torch.dtype, report: Report) -> Any:
    """The pipeline in a folder, from this disk alone; never runs code that lies in the folder. Can be left between its components."""
    index = read_index(folder)
    parts: dict[str, Any] = {name: None for name in NEVER_LOADED if name in index}
    if "requires_safety_checker" in index:
        parts["requires_safety_checker"] = False
    quiet: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": dtype}
    models = {name: kind for name, told in index.items() if name not in parts and (kind := _model_class(told))}
    try:
        for number, (name, kind) in enumerate(models.items()):
            report(Progress(number, len(models), f"loading {name} of {folder.name}"))
            parts[name], told = kind.from_pretrained(folder, subfolder=name, output_loading_info=True, **quiet)
            require_all(folder, name, told)
        report(Progress(len(models), len(models), f"loading {folder.name}"))
        pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=False, **quiet, **parts)
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, ImportError) as fault:
        if without_memory(fault):
            raise
        raise Unreadable(f"cannot load the base model {folder}: {fault}", "Check that the folder is complete.") from fault
    pipe.set_progress_bar_config(disable=True)
    return pipe


def require_all(folder: Path, name: str, told: Mapping[str, Any]) -> None:
    """The libraries fill what is missing in a file with random numbers, and only log it."""
    lost = [str(key) for kind in ("missing_keys", "mismatched_keys") for key in told.get(kind) or ()]
    if lost := sorted(key for key in lost if not key.endswith(RECOMPUTED)):
        told_of = f"{len(lost)} tensors of the {name} of {folder} are missing or of another shape, for example {lost[0][:120]}"
        raise Unreadable(told_of, "Check that the folder is complete.")


def _model_class(told: object) -> Any:
    """The libraries' class that a pipeline's index names for a component, None for what is no model (a tokenizer, a scheduler)."""
    if not isinstance(told, list) or len(told) != 2 or told[0] not in ("diffusers", "transformers"):
        return None
    kind = getattr(diffusers if told[0] == "diffusers" else transformers, str(told[1]), None)
    return kind if isinstance(kind, type) and issubclass(kind, torch.nn.Module) else None
