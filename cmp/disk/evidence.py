"""Collects what the files around a checkpoint say about its adapter's scale. `core.conversion.resolve_scale` judges it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmp.core.conversion import Evidence
from cmp.core.runs import Checkpoint, Run
from cmp.disk.checkpoint import Opened
from cmp.errors import Refused

_ALPHA_KEYS = ("lora_alpha", "alpha", "network_alpha")
_RANK_KEYS = ("lora_rank", "rank", "r")
_LORA_KINDS = ("LORA",)
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")  # values of init_lora_weights
_LARGEST_CONFIG = 4_000_000  # bytes


def collect_evidence(run: Run, checkpoint: Checkpoint, opened: Opened) -> tuple[Evidence, ...]:
    """Everything that speaks of this checkpoint's alpha, nearest first; raises Refused for a source that cannot be trusted at all."""
    return tuple(_evidence(run, checkpoint, opened))


def _evidence(run: Run, checkpoint: Checkpoint, opened: Opened) -> Iterator[Evidence]:
    if header := opened.header.metadata.get("lora_adapter_metadata"):
        yield from _from_header(header, opened)
    folder = opened.header.path.parent
    if config := _adapter_config(folder):
        yield _from_config(config, _seen_from(run, folder / "adapter_config.json"), decisive=True)
    for final in ("lora_weights", "final_pipeline/unet", "."):
        other = run.folder / final
        if other.resolve() != folder.resolve() and (config := _adapter_config(other)):
            yield _from_config(config, _seen_from(run, other / "adapter_config.json"))
    yield from _from_hparams(run, checkpoint)


def _from_header(text: str, opened: Opened) -> Iterator[Evidence]:
    """diffusers ≥ 0.34 writes the LoraConfig of every component as JSON, keys `unet.r`, `unet.lora_alpha`."""
    source = f"lora_adapter_metadata in {opened.header.path.name}"
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise Refused(f"{source} is not JSON: {text[:40]!r}…", "The file is damaged. If you know alpha, give --alpha X.")
    for component in sorted({pair.component for pair in opened.weights.pairs}):
        own = {key.removeprefix(f"{component}."): value for key, value in config.items() if key.startswith(f"{component}.")}
        if "lora_alpha" in own:
            yield _from_config(own, source, decisive=True)


def _adapter_config(folder: Path) -> dict[str, Any] | None:
    file = folder / "adapter_config.json"
    try:
        if not file.is_file() or file.is_symlink():
            return None
        if file.stat().st_size > _LARGEST_CONFIG:
            raise ValueError("it is far too large")
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as fault:
        raise Refused(f"{file} cannot be read: {fault}", "Correct the file or give --alpha X.") from fault
    if not isinstance(config, dict):
        raise Refused(f"{file} holds no table", "Correct the file or give --alpha X.")
    return config


def _seen_from(run: Run, file: Path | str) -> str:
    """A file's path as seen from the run's folder: short, and the same after the run has moved."""
    return os.path.relpath(file, run.folder)


def _from_config(config: Mapping[str, Any], source: str, decisive: bool = False) -> Evidence:
    kind = config.get("peft_type", "LORA")
    if kind not in _LORA_KINDS:
        raise Refused(f"{source} is of the kind {kind!r}, which is no plain LoRA", "Only LoRA adapters are converted so far.")
    for pattern in ("rank_pattern", "alpha_pattern"):
        if config.get(pattern):
            raise Refused(f"{source} has a {pattern}: modules differ in scale", "Adapters with patterns are not converted yet.")
    if config.get("use_dora"):
        raise Refused(f"{source} says that this is a DoRA", "DoRA is not converted yet.")
    targets = config.get("target_modules")
    listed = tuple(map(str, targets)) if isinstance(targets, (list, tuple)) else None
    rslora = bool(config.get("use_rslora"))
    return Evidence(config.get("lora_alpha"), config.get("r"), source, listed, rslora, decisive)


def refuse_changed_base(opened: Opened) -> None:
    """Raises Refused for an adapter whose start changed the base's own weights, as PiSSA does: on the plain base it draws something else.

    A whole dump passes, since its base weights are compared.
    """
    if opened.weights.frozen:
        return
    try:
        config = _adapter_config(opened.header.path.parent) or {}
    except Refused:  # says nothing; whether alpha is known all the same is judged elsewhere
        return
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGE_THE_BASE):
        raise Refused(
            f"the adapter was started by {start!r}, which changes the base model's own weights, and those are not in this file",
            "Save it with PEFT's path_initial_model_for_weight_conversion, or use the whole model's checkpoint.",
        )


def _from_hparams(run: Run, checkpoint: Checkpoint) -> Iterator[Evidence]:
    """The run's recorded settings. A diffusers script that records a rank and has no alpha setting uses alpha = rank in its code."""
    rank = next((run.settings[key] for key in _RANK_KEYS if key in run.settings), None)
    alpha = next((run.settings[key] for key in _ALPHA_KEYS if key in run.settings), None)
    rslora = any(bool(run.settings[key].value) for key in ("use_rslora", "rslora") if key in run.settings)
    if alpha is not None:
        yield Evidence(alpha.value, rank.value if rank else None, _seen_from(run, alpha.source), rslora=rslora)
    elif rank is not None and checkpoint.layout == "diffusers-lora":
        source = f"{_seen_from(run, rank.source)} (diffusers' script: it has no alpha setting and uses alpha = rank)"
        yield Evidence(rank.value, rank.value, source)
