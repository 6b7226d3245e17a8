"""The settings that Accelerate writes beside its logs (`hparams.yml`): only those that may be shown; nothing is executed.

The file holds the whole command line of the training, access tokens included, so keys pass by a list of what is allowed and
never by one of what is forbidden.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from cmp.disk.logs.records import opened
from cmp.errors import Unreadable

Value: TypeAlias = "str | int | float | bool | tuple[str | int | float | bool | None, ...] | None"

_MOST_BYTES = 32 << 10
_MOST_OF_JOB = 256 << 10  # a whole job with all its prompts
_MOST_CHARACTERS = 2000
_MOST_ITEMS = 64
_MOST_BRACKETS = 500
_SECRET = re.compile(r"hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}", re.ASCII)
_MERGE = re.compile(rb"<<[\"']?\s*:")
_OUTPUT_DIR = re.compile(rb"^output_dir:.*(?:\n[ \t]+.*)*", re.MULTILINE)
_KEYS = """
rank lora_rank r alpha lora_alpha network_dim network_alpha use_rslora rslora use_dora dora lora_dropout dropout lora_bias
targets target_modules lora_layers init_lora_weights method
pretrained_model_name_or_path base_model base model_name base_model_name_or_path variant revision prediction_type
output_dir max_train_steps num_train_epochs steps checkpointing_steps resume_from_checkpoint
learning_rate lr text_encoder_lr unet_lr lr_scheduler lr_warmup_steps scale_lr optimizer use_8bit_adam max_grad_norm
adam_beta1 adam_beta2 adam_weight_decay adam_epsilon
train_batch_size batch_size gradient_accumulation_steps gradient_checkpointing mixed_precision seed
resolution center_crop random_flip noise_offset snr_gamma dream_training train_data_dir instance_data_dir dataset_repeats
with_prior_preservation prior_loss_weight num_class_images train_text_encoder use_ema
instance_prompt class_prompt validation_prompt validation_prompts num_validation_images validation_epochs validation_steps
"""
_SHOWN = frozenset(_KEYS.split())


@dataclass(frozen=True, slots=True)
class Hparams:
    """The settings of one start of a training. `flaw` says why the file could not be used; `values` is empty then."""

    path: Path
    values: Mapping[str, Value] = field(default_factory=dict)
    flaw: str | None = None


def read_hparams(path: Path) -> Hparams:
    """The settings in `path` that may be shown; never raises for what the file holds or for its absence, see `flaw`.

    A file with object tags, which a careless loader would execute, is unreadable as a whole.
    """
    try:
        content = _read(path)
        found = _load(path, content)
    except Unreadable as fault:
        return Hparams(path, flaw=fault.message)
    if not isinstance(found, dict):
        return Hparams(path, flaw=f"{path.name} holds no settings")
    shown = {key: value for key, value in found.items() if key in _SHOWN and may_be_shown(value)}
    return Hparams(path, {key: tuple(value) if isinstance(value, list) else value for key, value in shown.items()})


def read_output_dir(path: Path) -> str | None:
    """Only `output_dir`, None if it is not to be had: far faster than all of the file, for finding whose logs these are."""
    try:
        line = _OUTPUT_DIR.search(_read(path))
        found = _load(path, line[0]) if line else None
    except Unreadable:
        return None
    value = found.get("output_dir") if isinstance(found, dict) else None
    return value if isinstance(value, str) and value.strip() else None


def read_yaml(path: Path) -> dict[str, object]:
    """The table in a settings file of any trainer, empty if there is none that can be read. What may be shown is for the caller to say."""
    try:
        found = _load(path, _read(path, _MOST_OF_JOB))
    except Unreadable:
        return {}
    return found if isinstance(found, dict) else {}


def _read(path: Path, most: int = _MOST_BYTES) -> bytes:
    with opened(path) as (file, size):
        if size > most:
            raise Unreadable(f"{path.name} is {size} bytes long; settings are at most {most}")
        return file.read(most)


def _load(path: Path, content: bytes) -> object:
    if _MERGE.search(content):
        raise Unreadable(f"{path.name} merges mappings, which no trainer writes; a few such lines can fill the memory")
    if content.count(b"[") + content.count(b"{") > _MOST_BRACKETS:  # the loader's time grows with the square of the depth
        raise Unreadable(f"{path.name} is nested too deeply for settings")
    try:
        found: object = yaml.safe_load(content)
    # Beside its own errors the safe loader lets those of its conversions through: `!!int ""`, `!!bool maybe`, `2001-99-99`.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as fault:
        raise Unreadable(_reason(path, fault)) from fault
    return found


def _reason(path: Path, fault: Exception) -> str:
    if "could not determine a constructor" in str(getattr(fault, "problem", "")):
        return f"{path.name} holds an object that only running code could make; none of it was read"
    return f"{path.name} is no valid YAML ({type(fault).__name__})"


def may_be_shown(value: object) -> bool:
    """Whether a value may leave its file: not if it is anything but plain, or text that looks like an access token under whatever key."""
    items = value if isinstance(value, list) else [value]
    return len(items) <= _MOST_ITEMS and all(_is_plain(item) for item in items)


def _is_plain(item: object) -> bool:
    if isinstance(item, str):
        return len(item) <= _MOST_CHARACTERS and not _SECRET.search(item)
    if isinstance(item, float):
        return math.isfinite(item)
    return item is None or isinstance(item, bool) or (isinstance(item, int) and abs(item) < 1 << 63)
