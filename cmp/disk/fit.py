"""Finds an adapter's scale where nothing says it: from a run's final merged pipeline, which is the base plus scale times the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cmp.core.fitting import find_module
from cmp.core.runs import Run
from cmp.core.scale import Evidence
from cmp.core.weights import Adapted
from cmp.disk.bases import Component, is_pipeline, read_component
from cmp.disk.checkpoint import Opened, open_weights
from cmp.disk.tensors import Header, read_float32
from cmp.errors import CmpError

_PIPELINES = ("final_pipeline", "pipeline", "final", ".")
_ADAPTERS = ("lora_weights/adapter_model.safetensors", "lora_weights/pytorch_lora_weights.safetensors", "pytorch_lora_weights.safetensors")
_MODULES = 12  # looked at, spread over the model
_RESIDUE = 0.05  # of the difference may stay unexplained: half precision rounds it
_SPREAD = 0.01  # by which the modules' scales may differ


def fit_scale(run: Run, opened: Opened, base: Path) -> Evidence | None:
    """Least squares of (merged − base) on B·A over some modules; None where the run has no such pair, or where they do not fit together.

    The final adapter stands for all of the run's checkpoints whose rank and targets it shares.
    """
    for pipeline, file in _pairs(run):
        try:
            adapter = open_weights(file)
            name = str(adapter.weights.component)
            if adapter.weights.flaws or adapter.weights.targets != opened.weights.targets or adapter.weights.ranks != opened.weights.ranks:
                continue
            scales = list(_scales(adapter, read_component(pipeline, name), read_component(base, name)))
        except CmpError:
            continue
        if len(scales) > 1 and max(scales) - min(scales) <= _SPREAD * abs(float(np.median(scales))) and min(scales) > 0:
            alpha = float(np.median(scales)) * adapter.weights.ranks[0]
            alpha = round(alpha * 4) / 4 if abs(alpha - round(alpha * 4) / 4) < 0.01 * alpha else alpha
            return Evidence(
                alpha, adapter.weights.ranks[0], f"least squares of {pipeline.name}, the base and {file.name}", adapter.weights.targets
            )
    return None


def _pairs(run: Run) -> Iterator[tuple[Path, Path]]:
    for place in _PIPELINES:
        pipeline = run.folder / place
        if is_pipeline(pipeline) and not pipeline.is_symlink():
            for inside in _ADAPTERS:
                file = run.folder / inside
                if file.is_file() and not file.is_symlink():
                    yield pipeline, file


def _scales(adapter: Opened, merged: Component, base: Component) -> Iterator[float]:
    """Each module's scale; nothing at all where one module is not explained by it."""
    modules = [module for module in adapter.weights.adapted if module.attachable]
    found = []
    for module in modules[:: max(1, len(modules) // _MODULES)]:
        product = _product(adapter.header, module)
        difference = _weight(merged, module) - _weight(base, module)
        scale = float((difference * product).sum() / max(float((product * product).sum()), 1e-30))
        if not np.linalg.norm(difference - scale * product) <= _RESIDUE * np.linalg.norm(difference):
            return
        found.append(scale)
    yield from found


def _product(header: Header, module: Adapted) -> np.ndarray:
    down, up = (read_float32(header, module.parts[role]) for role in ("down", "up"))
    return np.asarray(module.cut("up", up.reshape(len(up), -1)) @ down.reshape(len(down), -1), dtype="<f8")


def _weight(component: Component, module: Adapted) -> np.ndarray:
    values = read_float32(component.header, f"{find_module(module.module, component.shapes)}.weight")
    return values.reshape(len(values), -1).astype("<f8")
