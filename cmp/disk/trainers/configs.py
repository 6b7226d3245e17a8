"""What the configuration files and headers beside a run's weights record: rank, alpha and targets of an adapter, and the base model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cmp.core.runs import Checkpoint, Setting
from cmp.disk.trainers.found import Settings, header_of, parse_table, read_json, settings_from, trigger_words

_ADAPTER = {
    "r": "rank",
    "lora_alpha": "alpha",
    "target_modules": "targets",
    "peft_type": "peft_type",
    "base_model_name_or_path": "base_model",
}
# keys under which a training script may have logged the same
_SAME = (
    frozenset(("rank", "lora_rank", "r", "network_dim")),
    frozenset(("alpha", "lora_alpha", "network_alpha")),
    frozenset(("targets", "target_modules", "lora_layers")),
    frozenset(("base_model", "pretrained_model_name_or_path", "base", "base_model_name_or_path")),
)
_VARIANTS = {"use_dora": "use_dora", "use_rslora": "use_rslora"}
_BASE_KEYS = ("pretrained_model_name_or_path", "base_model", "base")
_CONFIG_OF_PIPELINE = "model_index.json"


def recorded_settings(checkpoints: Iterable[Checkpoint]) -> Settings:
    """What lies beside the last weights: `adapter_config.json`, the header's `lora_adapter_metadata`, and a component's `config.json`.

    Beside the final adapter first: only there does an Accelerate loop leave a configuration.
    """
    files = [c.file for c in sorted(checkpoints, key=lambda c: c.sort_key, reverse=True) if c.file]
    found: Settings = {}
    for file in files[:2]:
        config = file.parent / "adapter_config.json"
        found = _from_table(read_json(config), str(config)) | found
    if files:
        found = _from_header(files[0]) | found
        if "base_model" not in found and (base := _base(files[0].parent)):
            found["base_model"] = base
    return found


def without_repeats(logged: Mapping[str, Setting], recorded: Mapping[str, Setting]) -> Settings:
    """Both, without what is `recorded` of something that is `logged` under another name."""
    known = {key for same in _SAME if same & logged.keys() for key in same} | set(logged)
    return {**{key: setting for key, setting in recorded.items() if key not in known}, **logged}


def _from_table(config: Mapping[str, object], source: str) -> Settings:
    names = _ADAPTER | {key: name for key, name in _VARIANTS.items() if config.get(key) is True}
    found = settings_from(config, names, source)
    if "targets" in found and isinstance(targets := found["targets"].value, tuple):
        found["targets"] = Setting(tuple(sorted(map(str, targets))), source)  # PEFT writes a set, in any order
    return found


def _from_header(file: Path) -> Settings:
    """diffusers ≥ 0.34 writes the LoraConfig of each component into the header; of several the first is told."""
    header = header_of(file) if file.suffix == ".safetensors" else None
    if header is None:
        return {}
    words = trigger_words([header.metadata.get("modelspec.trigger_phrase")], f"modelspec.trigger_phrase in {file}")
    table = parse_table(header.metadata.get("lora_adapter_metadata", ""))
    component = min((key.partition(".")[0] for key in table if "." in key), default="")
    own = {key.removeprefix(f"{component}."): value for key, value in table.items() if key.startswith(f"{component}.")}
    return words | _from_table(own, f"lora_adapter_metadata in {file}")


def _base(folder: Path) -> Setting | None:
    """Where the trained component was loaded from, as diffusers notes it; another checkpoint of a training is no base."""
    for file in (folder / "config.json", folder.parent / _CONFIG_OF_PIPELINE, folder / _CONFIG_OF_PIPELINE):
        name = read_json(file).get("_name_or_path")
        if isinstance(name, str) and name and "checkpoint-" not in name:
            return next(iter(settings_from({"name": name}, {"name": "base_model"}, str(file)).values()), None)
    return None


def base_model(settings: Settings) -> str | None:
    """The base model that a run recorded, None if it did not."""
    for key in _BASE_KEYS:
        if key in settings and isinstance(settings[key].value, str):
            return str(settings[key].value)
    return None
