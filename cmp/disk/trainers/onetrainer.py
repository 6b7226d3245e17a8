"""A workspace of Nerogar's OneTrainer: `save/`, `backup/`, `samples/` and `tensorboard/`.

Names are those of `modules/trainer/GenericTrainer.py`; keys those of `TrainConfig`, which stands in the header as `ot_config` and in each
backup. A saved file holds the averaged weights where averaging is on, a backup the raw ones. The alpha in the settings is folded
into the weights by some of its output formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cmp.core.runs import Checkpoint
from cmp.core.stages import read_file_name
from cmp.disk.checkpoint import read_checkpoint
from cmp.disk.folders import Folder, list_folder
from cmp.disk.trainers.found import Facts, Found, Settings, parse_table, read_json, settings_from, tables, trigger_words
from cmp.disk.trainers.series import Member, newest_facts, read_member, weights_files
from cmp.errors import CmpError

_NAMES = {
    "base_model_name": "base_model",
    "model_type": "model_type",
    "training_method": "training_method",
    "peft_type": "peft_type",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_decompose": "use_dora",
    "learning_rate": "learning_rate",
    "learning_rate_scheduler": "lr_scheduler",
    "batch_size": "train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "epochs": "num_train_epochs",
    "resolution": "resolution",
    "seed": "seed",
    "ema": "ema",
    "train_dtype": "mixed_precision",
    "output_model_format": "output_model_format",
}


def read_facts(file: Path, metadata: Mapping[str, str]) -> Facts | None:
    """What OneTrainer wrote into the header, None if it did not write it."""
    if not any(key.startswith("ot_") for key in metadata):
        return None
    return Facts("onetrainer", _settings(parse_table(metadata.get("ot_config", "")), f"ot_config in {file}"))


def recognise(run_id: str, folder: Folder) -> tuple[Found, ...]:
    """The workspace in this folder, as one run or none."""
    saves, backups = _inner(folder, "save"), _inner(folder, "backup")
    files = [saves.path / name for name in weights_files(saves.files) if _is_ours(Path(name).stem)] if saves else []
    members = [read_member(run_id, file, (read_facts,)) for file in files]
    models = [_folder(run_id, saves.path / name) for name in sorted(saves.folders) if _is_ours(name)] if saves else []
    kept = [backups.path / name for name in sorted(backups.folders) if _is_ours(name)] if backups else []
    checkpoints = [*(m.checkpoint for m in members), *models, *(_folder(run_id, backup) for backup in kept)]
    if not checkpoints:
        return ()
    settings = _recorded(folder, members, kept)
    mixed = kept and members and "ema" in settings and settings["ema"].value != "OFF"
    warnings = ("the files in save/ hold averaged weights (EMA), the backups the raw ones: compare only within one kind",) if mixed else ()
    return (Found("onetrainer", tuple(checkpoints), warnings, settings),)


def _inner(folder: Folder, name: str) -> Folder | None:
    try:
        return list_folder(folder.path / name) if name in folder.folders else None
    except CmpError:
        return None


def _is_ours(name: str) -> bool:
    return read_file_name(name).trainer == "onetrainer"


def _folder(run_id: str, path: Path) -> Checkpoint:
    """A backup, or a model saved as a folder."""
    return read_checkpoint(run_id, path, read_file_name(path.name).stage)


def _recorded(folder: Folder, members: list[Member], backups: list[Path]) -> Settings:
    """The settings of the newest backup, else of the newest file, else of the newest start."""
    starts = _inner(folder, "config")
    sources = [path / "onetrainer_config" / "args.json" for path in reversed(backups)]
    found = next((told for file in sources if (told := _settings(read_json(file), str(file)))), {})
    facts = newest_facts(members)
    if not found and facts:
        found = dict(facts.settings)
    if not found and starts:
        files = [starts.path / name for name in sorted(starts.files, reverse=True) if name.endswith(".json")]
        found = next((told for file in files[:3] if (told := _settings(read_json(file), str(file)))), {})
    return found


def _settings(config: Mapping[str, object], source: str) -> Settings:
    # every configuration has a placeholder for an embedding, also where none is trained
    own = tables(config.get("embedding")) if config.get("training_method") == "EMBEDDING" else ()
    embeddings = (*own, *tables(config.get("additional_embeddings")))
    return settings_from(config, _NAMES, source) | trigger_words((e.get("placeholder") for e in embeddings), source)
