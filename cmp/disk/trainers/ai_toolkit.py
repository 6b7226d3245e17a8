"""A job of ostris' ai-toolkit: `JOB/JOB_000000500.safetensors`, the last `JOB.safetensors`, `config.yaml`, `samples/` and `loss_log.db`.

Names and keys are those of `jobs/process/BaseSDTrainProcess.py`. The alpha in the job's settings is not always the one that holds: for
transformers the trainer takes the rank instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cmp.core.runs import Checkpoint
from cmp.core.stages import read_file_name
from cmp.disk.checkpoint import read_checkpoint
from cmp.disk.folders import Folder
from cmp.disk.logs.hparams import read_yaml
from cmp.disk.logs.loss_db import NAME as LOSS_DB
from cmp.disk.trainers.found import (
    Facts,
    Found,
    Settings,
    count_in,
    parse_table,
    settings_from,
    tables,
    trigger_words,
)
from cmp.disk.trainers.series import newest_facts, read_member, weights_files

_CONFIGS = ("config.yaml", "config.yml")
_NETWORK = {"type": "network_type", "linear": "rank", "linear_alpha": "linear_alpha", "conv": "conv", "conv_alpha": "conv_alpha"}
_TRAIN = {
    "steps": "max_train_steps",
    "lr": "learning_rate",
    "batch_size": "train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "optimizer": "optimizer",
    "noise_scheduler": "noise_scheduler",
    "train_text_encoder": "train_text_encoder",
    "timestep_type": "timestep_type",
}
_SECTIONS = {
    "network": _NETWORK,
    "train": _TRAIN,
    "save": {"save_every": "checkpointing_steps", "dtype": "save_dtype"},
    "model": {"name_or_path": "base_model", "arch": "arch", "is_flux": "is_flux", "is_xl": "is_xl", "quantize": "quantize"},
    "sample": {"seed": "sample_seed", "prompts": "validation_prompts"},
}


def read_facts(file: Path, metadata: Mapping[str, str]) -> Facts | None:
    """What ai-toolkit wrote into the header, None if it did not write it."""
    software = parse_table(metadata.get("software", ""))
    if software.get("name") != "ai-toolkit":
        return None
    training = parse_table(metadata.get("training_info", ""))
    settings = settings_from(metadata, {"ss_base_model_version": "base_model_version"}, f"ss_base_model_version in {file}")
    words = (name.partition("_")[2] for name in parse_table(metadata.get("ss_tag_frequency", "")))
    settings |= trigger_words(words, f"ss_tag_frequency in {file}")
    step, epoch = count_in(training.get("step")), count_in(training.get("epoch"))
    return Facts("ai-toolkit", settings, metadata.get("name"), step, epoch, "training_info")


def recognise(run_id: str, folder: Folder) -> tuple[Found, ...]:
    """The job in this folder, as one or none: its settings or its log are here, or its files bear the folder's name."""
    job = _job(folder)
    files = [folder.path / name for name in weights_files(folder.files)]
    named = any(read_file_name(f.stem).series == folder.path.name and read_file_name(f.stem).trainer == "ai-toolkit" for f in files)
    if not job and not named and LOSS_DB not in folder.files:
        return ()
    members = [read_member(run_id, file, (read_facts,)) for file in files]
    series = {m.series for m in members if m.trainer}  # a last file may say nothing of itself
    members = [m for m in members if m.series in series]
    checkpoints = [*(m.checkpoint for m in members), *_whole_models(run_id, folder)]
    if not checkpoints and LOSS_DB not in folder.files:
        return ()
    facts = newest_facts(members)
    found = Found(
        trainer="ai-toolkit",
        checkpoints=tuple(checkpoints),
        warnings=tuple(m.warning for m in members if m.warning),
        settings={**(facts.settings if facts else {}), **job},
        logs=(folder.path / LOSS_DB,) if LOSS_DB in folder.files else (),
    )
    return (found,)


def _job(folder: Folder) -> Settings:
    """The settings in the job's own file; empty if there is none of ai-toolkit's form."""
    for name in _CONFIGS:
        config = read_yaml(folder.path / name).get("config") if name in folder.files else None
        processes = tables(config.get("process")) if isinstance(config, dict) else ()
        if processes:
            source = str(folder.path / name)
            settings: Settings = {}
            for section, names in _SECTIONS.items():
                for values in tables(processes[0].get(section)):
                    settings |= settings_from(values, names, source)
            return settings | trigger_words([processes[0].get("trigger_word")], source)
    return {}


def _whole_models(run_id: str, folder: Folder) -> list[Checkpoint]:
    """Full fine-tunes, which lie in folders of the files' names."""
    found = []
    for name in sorted(folder.folders):
        named = read_file_name(name)
        if named.trainer == "ai-toolkit":
            found.append(read_checkpoint(run_id, folder.path / name, named.stage))
    return found
