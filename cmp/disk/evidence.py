"""Collects what the files around a checkpoint say about its adapter's scale. `core.scale.resolve_scale` judges it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmp.core.network_args import evidence_of_alphas, read_network
from cmp.core.runs import Checkpoint, Run, Setting
from cmp.core.scale import Evidence, same_targets
from cmp.disk.checkpoint import Opened
from cmp.disk.json_table import read_json_table
from cmp.disk.numbers import as_float32
from cmp.disk.tensors import read_tensors
from cmp.errors import Refused, Unreadable

_ALPHA_KEYS = ("lora_alpha", "alpha", "network_alpha")
_RANK_KEYS = ("lora_rank", "rank", "r")
# the settings by which the log of one of diffusers' SD and SDXL LoRA scripts is known; other scripts may log a rank and hide an alpha
_OF_DIFFUSERS = {"pretrained_model_name_or_path", "train_batch_size", "max_train_steps", "checkpointing_steps"}
_KINDS = ("LORA", "LOHA", "LOKR")
_ALPHA_OF = {"LOHA": "alpha", "LOKR": "alpha"}
_NOTHING: tuple[object, ...] = (None, False, "none", [], {})
_TRAINED_BESIDE = ("bias", "modules_to_save")  # a dump shows them, an adapter file holds them
_UNREAD = {
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


def collect_evidence(run: Run, checkpoint: Checkpoint, opened: Opened, *, alpha_known: bool = False) -> tuple[Evidence, ...]:
    """Everything that speaks of this checkpoint's alpha, nearest first; raises Refused for a source that cannot be trusted at all.

    With `alpha_known` a source that cannot be read is passed over: the user has answered what it would have told.
    """
    return tuple(_evidence(run, checkpoint, opened, alpha_known))


def _evidence(run: Run, checkpoint: Checkpoint, opened: Opened, lenient: bool) -> Iterator[Evidence]:
    if alphas := _alpha_tensors(opened):
        network, source = read_network(opened.header.metadata), f"alpha tensors in {opened.header.path.name}"
        yield from evidence_of_alphas(opened.weights.adapted, alphas, network, source)
    if header := opened.header.metadata.get("lora_adapter_metadata"):
        yield from _from_header(header, opened, lenient)
    if not alphas and (told := opened.header.metadata.get("ss_network_alpha")):
        yield _from_kohya(told, opened, lenient)
    if why := _folded_by(opened):
        equal = {module.key: float(module.rank) for module in opened.weights.adapted if module.rank}
        yield Evidence(None, None, f"{opened.header.path.name}: {why}", decisive=True, alphas=equal)
    for folder in dict.fromkeys(path.parent for path, _ in opened.header.files if _has_config(path, opened)):
        if config := _adapter_config(folder, lenient):
            yield _from_config(config, _seen_from(run, folder / "adapter_config.json"), opened, decisive=True)
    own = {path.parent.resolve() for path, _ in opened.header.files}
    for final in _finals(opened.weights.chosen):
        other = run.folder / final
        if other.resolve() not in own and (config := _adapter_config(other, lenient)):
            yield _from_config(config, _seen_from(run, other / "adapter_config.json"), opened)
    if not alphas and not opened.weights.chosen:  # settings do not say of which adapter they speak
        yield from _from_hparams(run, checkpoint)


def _finals(adapter: str) -> tuple[str, ...]:
    """Where a run may have its final adapter's config, below its folder; PEFT gives each but the one called default its own folder."""
    if adapter and adapter != "default":
        return tuple(f"{place}/{adapter}" for place in ("lora_weights", ".") if re.fullmatch(r"[\w-]+", adapter))
    return ("lora_weights", "lora_weights/text_encoder", "final_pipeline/unet", ".")


def _has_config(file: Path, opened: Opened) -> bool:
    """Whether an adapter_config.json beside this file speaks of it: among loose LoRA files it may be that of another one."""
    return file.name.startswith("adapter_model.") or bool(opened.weights.dumped)


def _folded_by(opened: Opened) -> str | None:
    """Why the file is known to need alpha = rank, None if it is not; each producer is known by what it writes into its own files."""
    metadata, layout = opened.header.metadata, opened.weights.layout
    if any("alpha" in module.parts for module in opened.weights.adapted):
        return None
    if layout == "kohya" and "ss_network_alpha" not in metadata and all(module.method == "lora" for module in opened.weights.adapted):
        return "kohya's names without any alpha, as sd-scripts wrote them before it had one; it and the web UIs read them as alpha = rank"
    if layout == "attn-procs":
        return "attention processors of diffusers before 0.17, which have no alpha"
    if layout == "diffusers-lora" and "cmp_conversion" in metadata:
        return "converted by this program, which folds alpha into lora_B"
    if layout == "diffusers-lora" and "ot_branch" in metadata:
        return "written by OneTrainer in diffusers' names, with alpha folded into lora_B"
    if layout == "diffusers-lora" and "ai-toolkit" in metadata.get("software", "") and opened.weights.components == ("transformer",):
        return "written by ai-toolkit, which trains transformers with alpha = rank"
    return None


def _alpha_tensors(opened: Opened) -> dict[str, float]:
    """`component.module` → the alpha that the file itself holds for it, as kohya's do."""
    sharing = [(module.parts["alpha"], module.key) for module in opened.weights.adapted if "alpha" in module.parts]
    found = {}
    for name, values in read_tensors(opened.header, dict(sharing)):
        numbers = as_float32(values, opened.header.tensors[name].dtype).reshape(-1)
        if numbers.size != 1:
            raise Refused(f"{name} holds {numbers.size} numbers, and alpha is one", "The file is damaged; give --alpha X if you know it.")
        found[name] = float(numbers[0])
    return {key: found[name] for name, key in sharing}


def _from_kohya(text: str, opened: Opened, lenient: bool) -> Evidence:
    rank = opened.header.metadata.get("ss_network_dim", "")
    try:
        return Evidence(
            float(text), int(rank) if rank.isdecimal() else None, f"ss_network_alpha in {opened.header.path.name}", decisive=not lenient
        )
    except ValueError:
        raise Refused(f"ss_network_alpha in {opened.header.path.name} is {text[:40]!r}", "If you know alpha, give --alpha X.") from None


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
    components = [c for c in opened.weights.components if opened.weights.of(c).adapted]
    told = [c for c in components if f"{c}.lora_alpha" in config]
    if told and told != components and not lenient:
        missing = ", ".join(c for c in components if c not in told)
        raise Refused(f"{source} says nothing of the alpha of {missing}", "If you know alpha, give --alpha X.")
    for component in told:
        own = {key.removeprefix(f"{component}."): value for key, value in config.items() if key.startswith(f"{component}.")}
        found = _from_config(own, source, opened, decisive=True)
        if found.targets is not None and not same_targets(found.targets, opened.weights.of(component).targets):
            raise Refused(f"{source} names other modules of {component} than the file holds", "It may belong to another run.")
        yield replace(found, targets=None, component=component)


def _adapter_config(folder: Path, lenient: bool) -> dict[str, Any] | None:
    file = folder / "adapter_config.json"
    try:
        if not file.is_file() or file.is_symlink():
            return None
        return read_json_table(file, links=False)
    except (OSError, Unreadable) as fault:
        if lenient:
            return None
        told = fault.message if isinstance(fault, Unreadable) else f"cannot read {file}: {fault.strerror}"
        raise Refused(told, "Correct the file or give --alpha X.") from fault


def _seen_from(run: Run, file: Path | str) -> str:
    """A file's path as seen from the run's folder: short, and the same after the run has moved."""
    return os.path.relpath(file, run.folder)


def _from_config(config: Mapping[str, Any], source: str, opened: Opened, decisive: bool = False) -> Evidence:
    kind = config.get("peft_type", "LORA")
    if kind not in _KINDS:
        raise Refused(f"{source} is of the kind {kind!r}", f"Adapters of the kinds {', '.join(_KINDS)} are converted.")
    for key, what in _UNREAD.items():
        if config.get(key) not in _NOTHING:
            raise Refused(f"{source} has {key} = {config[key]!r}: {what}", "Merge it with PEFT first, and give the merged model.")
    start = config.get("init_lora_weights", True)
    if start not in _HARMLESS_STARTS and decisive and not opened.weights.dumped:
        raise Refused(
            f"{source} says init_lora_weights = {start!r}: it changed the base's own weights, and B·A on the plain base is something else",
            "Convert it with PEFT (path_initial_model_for_weight_conversion), or take a checkpoint that holds the whole model.",
        )
    _require_what_was_trained(config, source, opened, decisive)
    targets = config.get("target_modules")
    listed = tuple(map(str, targets)) if isinstance(targets, (list, tuple)) else None
    patterns = [value if isinstance(value := config.get(key), dict) else {} for key in ("rank_pattern", "alpha_pattern")]
    return Evidence(
        config.get(_ALPHA_OF.get(kind, "lora_alpha")), config.get("r"), source, listed, bool(config.get("use_rslora")), decisive,
        rank_pattern=patterns[0], alpha_pattern=patterns[1],
        only_pairs=start in _HARMLESS_STARTS and all(config.get(key) in _NOTHING for key in _TRAINED_BESIDE),
    )  # fmt: skip


def _require_what_was_trained(config: Mapping[str, Any], source: str, opened: Opened, decisive: bool) -> None:
    """Raises Refused where a config says that more was trained than the file beside it holds."""
    parts = {role for module in opened.weights.adapted for role in module.parts}
    missing = [key for key in _TRAINED_BESIDE if config.get(key) not in _NOTHING and not opened.weights.plain]
    missing += ["use_dora"] if config.get("use_dora") and not {"magnitude", "dora_scale"} & parts else []
    missing += ["lora_bias"] if config.get("lora_bias") and "up_bias" not in parts else []
    if decisive and missing:
        told = ", ".join(f"{key} = {config[key]!r}" for key in missing)
        raise Refused(f"{source} says {told}, and the file holds nothing of it", "The file is not whole, or the config is another run's.")


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
