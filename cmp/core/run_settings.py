"""What several runs were trained with, side by side: only fields of this list, differences first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cmp.core.runs import Run, plain_text

# Settings files hold whole command lines, access tokens included; what is not named here is never shown.
_GROUPS = {
    "network": """rank lora_rank r alpha lora_alpha linear_alpha network_dim network_alpha network_module network_type conv conv_alpha
        use_rslora rslora use_dora dora lora_dropout dropout lora_bias targets target_modules lora_layers init_lora_weights method peft_type
        training_method""",
    "base": """pretrained_model_name_or_path base_model base_model_name_or_path model_name base_model_version variant revision
        prediction_type architecture arch model_type v2""",
    "learning": """learning_rate lr unet_lr text_encoder_lr lr_scheduler lr_warmup_steps scale_lr optimizer use_8bit_adam max_grad_norm
        adam_beta1 adam_beta2 adam_weight_decay adam_epsilon train_text_encoder use_ema ema""",
    "length": "max_train_steps num_train_epochs steps checkpointing_steps train_batch_size batch_size gradient_accumulation_steps seed",
    "data": """resolution center_crop random_flip noise_offset snr_gamma dream_training clip_skip num_train_images num_batches_per_epoch
        dataset_repeats with_prior_preservation prior_loss_weight num_class_images instance_prompt class_prompt trigger_words""",
    "other": "mixed_precision gradient_checkpointing noise_scheduler timestep_type quantize resume_from_checkpoint",
}
_DATA = ("folder", "images", "captions", "tags", "repeats", "resolution", "digest")
_SAME = {"lora_rank": "rank", "r": "rank", "network_dim": "rank", "lora_alpha": "alpha", "network_alpha": "alpha", "linear_alpha": "alpha",
         "lr": "learning_rate", "batch_size": "train_batch_size", "steps": "max_train_steps", "lora_dropout": "dropout",
         "base_model_name_or_path": "base_model", "pretrained_model_name_or_path": "base_model", "model_name": "base_model"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One setting of every run, "" where a run does not say it. It differs where two runs that say it do not agree."""

    name: str
    values: tuple[str, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class DataSet:
    """The images a run was trained with, as far as they are known. `digest` is of names and contents, None where they are not at hand.

    `repeats` are those of each folder in turn; `tags` is how many different ones the captions have, `resolution` what they were trained at.
    """

    folder: str
    images: int | None = None
    captions: int | None = None
    repeats: tuple[int, ...] = ()
    digest: str | None = None
    whole: bool = True  # False: of names and sizes alone, since the images are large
    resolution: str = ""
    tags: int | None = None

    @property
    def text(self) -> str:
        """Digest and size as one value that two runs can share."""
        return f"{self.digest[:12]}{'' if self.whole else ' (names and sizes)'}" if self.digest else ""


def side_by_side(runs: Sequence[Run], data_sets: Mapping[str, DataSet]) -> tuple[Row, ...]:
    """Settings and data set of the runs, those that differ first, else in the list's order."""
    told = [{"trainer": run.trainer, **_listed(run), **_of_data(data_sets.get(run.id))} for run in runs]
    names = [*(_SAME.get(name, name) for group in _GROUPS.values() for name in group.split())]
    order = dict.fromkeys(["trainer", *names, *(f"data: {name}" for name in _DATA)])
    rows = []
    for name in order:
        values = tuple(values.get(name, "") for values in told)
        if any(values):
            rows.append(Row(name, values, len(set(filter(None, values))) > 1))
    return tuple(sorted(rows, key=lambda row: not row.differs))


def _listed(run: Run) -> dict[str, str]:
    names = [name for group in _GROUPS.values() for name in group.split()]
    found: dict[str, str] = {}
    for name in names:
        setting = run.settings.get(name)
        if setting is not None and setting.value not in (None, "", ()):
            found.setdefault(_SAME.get(name, name), _text(setting.value))
    if run.base_model:
        found.setdefault("base_model", plain_text(run.base_model))
    return found


def _text(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return plain_text(text if len(text) <= 300 else f"{text[:299]}…")


def _of_data(data: DataSet | None) -> dict[str, str]:
    if data is None:
        return {}
    counts = {"images": data.images, "captions": data.captions, "tags": data.tags}
    told = {f"data: {name}": f"{count:,}" for name, count in counts.items() if count is not None}
    each = dict.fromkeys(data.repeats) if len(set(data.repeats)) == 1 else data.repeats
    told |= {"data: repeats": ", ".join(map(str, each)), "data: resolution": data.resolution, "data: digest": data.text}
    return {"data: folder": plain_text(PurePosixPath(data.folder.replace("\\", "/")).name), **told}  # where it lies is nobody's business


def lineage(runs: Sequence[Run], data_sets: Mapping[str, DataSet], names: Mapping[str, str]) -> tuple[str, ...]:
    """What a run came from, in words: its base, the checkpoint it was resumed from, and which others had the same images."""
    lines = []
    for run in runs:
        label = names.get(run.id, run.id)
        parts = [f"base {plain_text(run.base_model)}"] if run.base_model else []
        resumed = run.settings.get("resume_from_checkpoint")
        if resumed is not None and resumed.value not in (None, "", "None", False):
            parts.append(f"resumed from {_text(resumed.value)}")
        if alike := [names.get(other.id, other.id) for other in runs if other.id != run.id and _same_data(run, other, data_sets)]:
            parts.append(f"same images as {', '.join(alike)}")
        if parts:
            lines.append(f"{label}: {'; '.join(parts)}")
    return tuple(lines)


def _same_data(one: Run, two: Run, data_sets: Mapping[str, DataSet]) -> bool:
    """Judged by the images themselves where both are at hand, and by nothing else: folders of one name may hold anything."""
    first, second = data_sets.get(one.id), data_sets.get(two.id)
    return bool(first and second and first.digest and first.digest == second.digest and first.whole == second.whole)
