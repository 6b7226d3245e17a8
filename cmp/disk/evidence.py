"""Collects what the files around a checkpoint say about its adapter's scale. `core.conversion.resolve_scale` judges it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmp.core.conversion import Evidence, same_targets
from cmp.core.runs import Checkpoint, Run, Setting
from cmp.disk.checkpoint import Opened
from cmp.errors import Refused

_ALPHA_KEYS = ("lora_alpha", "alpha", "network_alpha")
_RANK_KEYS = ("lora_rank", "rank", "r")
# the settings by which the log of one of diffusers' SD and SDXL LoRA scripts is known; other scripts may log a rank and hide an alpha
_OF_DIFFUSERS = {"pretrained_model_name_or_path", "train_batch_size", "max_train_steps", "checkpointing_steps"}
_LORA_KINDS = ("LORA",)
_MORE_THAN_PAIRS = {
    "bias": "biases were trained too",
    "lora_bias": "the adapter has biases",
    "modules_to_save": "whole modules were trained too",
    "trainable_token_indices": "token embeddings were trained too",
    "target_parameters": "it adapts bare parameters",
    "layer_replication": "it repeats layers",
    "fan_in_fan_out": "its matrices are transposed",
    "alora_invocation_tokens": "it is switched on by tokens",
    "use_qalora": "it pools its input",
    "arrow_config": "it routes between adapters",
    "use_bdlora": "its matrices are block-diagonal",
    "kasa_config": "it truncates the base's weights",
    "monteclora_config": "its weights are drawn at random",
}
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # the others, such as pissa and olora, change the base
_LARGEST_CONFIG = 4_000_000  # bytes


def collect_evidence(run: Run, checkpoint: Checkpoint, opened: Opened, *, alpha_known: bool = False) -> tuple[Evidence, ...]:
    """Everything that speaks of this checkpoint's alpha, nearest first; raises Refused for a source that cannot be trusted at all.

    With `alpha_known` a source that cannot be read is passed over: the user has answered what it would have told.
    """
    return tuple(_evidence(run, checkpoint, opened, alpha_known))


def _evidence(run: Run, checkpoint: Checkpoint, opened: Opened, lenient: bool) -> Iterator[Evidence]:
    if header := opened.header.metadata.get("lora_adapter_metadata"):
        yield from _from_header(header, opened, lenient)
    folder = opened.header.path.parent
    if config := _adapter_config(folder, lenient):
        yield _from_config(config, _seen_from(run, folder / "adapter_config.json"), decisive=True)
    for final in ("lora_weights", "final_pipeline/unet", "."):
        other = run.folder / final
        if other.resolve() != folder.resolve() and (config := _adapter_config(other, lenient)):
            yield _from_config(config, _seen_from(run, other / "adapter_config.json"))
    yield from _from_hparams(run, checkpoint)


def _from_header(text: str, opened: Opened, lenient: bool) -> Iterator[Evidence]:
    """diffusers ≥ 0.34 writes the LoraConfig of every component as JSON, keys `unet.r`, `unet.lora_alpha`."""
    source = f"lora_adapter_metadata in {opened.header.path.name}"
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        if lenient:
            return
        raise Refused(f"{source} is not JSON: {text[:40]!r}…", "The file is damaged. If you know alpha, give --alpha X.")
    components = sorted({pair.component for pair in opened.weights.pairs})
    told = [c for c in components if f"{c}.lora_alpha" in config]
    if told and told != components and not lenient:
        missing = ", ".join(c for c in components if c not in told)
        raise Refused(f"{source} says nothing of the alpha of {missing}", "If you know alpha, give --alpha X.")
    for component in components:
        own = {key.removeprefix(f"{component}."): value for key, value in config.items() if key.startswith(f"{component}.")}
        if "lora_alpha" in own:
            found = _from_config(own, source, decisive=True)
            mine = replace(opened.weights, pairs=tuple(p for p in opened.weights.pairs if p.component == component))
            if found.targets is not None and not same_targets(found.targets, mine.targets):
                raise Refused(f"{source} names other modules of {component} than the file holds", "It may belong to another run.")
            yield replace(found, targets=None)  # it speaks of this component alone


def _adapter_config(folder: Path, lenient: bool) -> dict[str, Any] | None:
    file = folder / "adapter_config.json"
    try:
        if not file.is_file() or file.is_symlink():
            return None
        if file.stat().st_size > _LARGEST_CONFIG:
            raise ValueError("it is far too large")
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as fault:
        if lenient:
            return None
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
    for key, what in _MORE_THAN_PAIRS.items():
        if config.get(key) not in (None, False, "none", [], {}):
            raise Refused(f"{source} has {key} = {config[key]!r}: {what}", "Only plain LoRA adapters are converted so far.")
    if (start := config.get("init_lora_weights", True)) not in _HARMLESS_STARTS:
        raise Refused(
            f"{source} says init_lora_weights = {start!r}: it changed the base's own weights, and B·A on the plain base is something else",
            "Convert it to a plain LoRA with PEFT (path_initial_model_for_weight_conversion) first.",
        )
    if config.get("use_dora"):
        raise Refused(f"{source} says that this is a DoRA", "DoRA is not converted yet.")
    targets = config.get("target_modules")
    listed = tuple(map(str, targets)) if isinstance(targets, (list, tuple)) else None
    rslora = bool(config.get("use_rslora"))
    return Evidence(config.get("lora_alpha"), config.get("r"), source, listed, rslora, decisive)


def _from_hparams(run: Run, checkpoint: Checkpoint) -> Iterator[Evidence]:
    for settings in run.starts or (run.settings,):
        yield from _from_start(run, checkpoint, settings)


def _from_start(run: Run, checkpoint: Checkpoint, settings: Mapping[str, Setting]) -> Iterator[Evidence]:
    """One start's recorded settings. A diffusers script that records a rank and has no alpha setting uses alpha = rank in its code."""
    rank = next((settings[key] for key in _RANK_KEYS if key in settings), None)
    alpha = next((settings[key] for key in _ALPHA_KEYS if key in settings), None)
    rslora = any(bool(settings[key].value) for key in ("use_rslora", "rslora") if key in settings)
    if alpha is not None:
        yield Evidence(alpha.value, rank.value if rank else None, _seen_from(run, alpha.source), rslora=rslora)
    elif rank is not None and checkpoint.layout == "diffusers-lora" and set(settings) >= _OF_DIFFUSERS:
        source = f"{_seen_from(run, rank.source)} (diffusers' script: it has no alpha setting and uses alpha = rank)"
        yield Evidence(rank.value, rank.value, source)
