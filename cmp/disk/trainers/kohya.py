"""What kohya's sd-scripts leaves beside its weights, LyCORIS networks trained with it included.

The header's `ss_…` keys are those of `library/train_util.py` and `train_network.py`. They hold the paths of the images and all their
tags, so keys pass by a list of what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from cmp.core.runs import Checkpoint, Setting, Stage
from cmp.core.stages import read_file_name, to_stage
from cmp.disk.checkpoint import read_checkpoint
from cmp.disk.folders import Folder, list_folder
from cmp.disk.logs.sessions import Session
from cmp.disk.trainers.found import (
    Facts,
    count_in,
    parse_json,
    parse_table,
    plain_number,
    read_json,
    settings_from,
    tables,
    trigger_words,
)
from cmp.errors import CmpError

_NAMES = {
    "ss_output_name": "output_name",
    "ss_network_module": "network_module",
    "ss_network_dim": "rank",
    "ss_network_alpha": "alpha",
    "ss_network_dropout": "dropout",
    "ss_base_model_version": "base_model_version",
    "ss_v2": "v2",
    "ss_learning_rate": "learning_rate",
    "ss_unet_lr": "unet_lr",
    "ss_text_encoder_lr": "text_encoder_lr",
    "ss_optimizer": "optimizer",
    "ss_lr_scheduler": "lr_scheduler",
    "ss_lr_warmup_steps": "lr_warmup_steps",
    "ss_max_train_steps": "max_train_steps",
    "ss_num_epochs": "num_train_epochs",
    "ss_num_train_images": "num_train_images",
    "ss_num_batches_per_epoch": "num_batches_per_epoch",
    "ss_total_batch_size": "train_batch_size",
    "ss_gradient_accumulation_steps": "gradient_accumulation_steps",
    "ss_resolution": "resolution",
    "ss_clip_skip": "clip_skip",
    "ss_seed": "seed",
    "ss_mixed_precision": "mixed_precision",
    "ss_noise_offset": "noise_offset",
    "ss_min_snr_gamma": "snr_gamma",
    "ss_prior_loss_weight": "prior_loss_weight",
    "modelspec.architecture": "architecture",
    "modelspec.prediction_type": "prediction_type",
}
_MARKS = {"ss_network_module", "ss_sd_scripts_commit_hash", "ss_training_started_at"}  # other trainers write some of the rest
_NETWORK_ARGS = (
    "algo conv_dim conv_alpha factor dora_wd wd_on_output use_tucker use_scalar decompose_both full_matrix rs_lora train_norm "
    "block_dims block_alphas conv_block_dims conv_block_alphas rank_dropout module_dropout loraplus_lr_ratio"
)
_NETWORK_NAMES = {key: f"network_args.{key}" for key in _NETWORK_ARGS.split()}
_REPEATED = re.compile(r"[0-9]+_(.+)", re.DOTALL)  # `10_sks cat`: how often a folder of images is repeated, and what they show
_IN_MOST = 0.8  # of the images: a tag that so many have is one that calls them up
_STATE = "-state"


def read_facts(file: Path, metadata: Mapping[str, str]) -> Facts | None:
    """What sd-scripts wrote into the header, None if it did not write it."""
    if not _MARKS & metadata.keys() and not metadata.get("modelspec.implementation_version", "").startswith("sd-scripts"):
        return None
    values = {key: plain_number(value) for key, value in metadata.items()}
    settings = {
        **settings_from(values, _NAMES, str(file)),
        **settings_from(parse_table(metadata.get("ss_network_args", "")), _NETWORK_NAMES, f"ss_network_args in {file}"),
        **trigger_words(_words(metadata), f"ss_tag_frequency in {file}"),
    }
    if base := _base(metadata.get("ss_sd_model_name", "")):
        settings["base_model"] = Setting(base, f"ss_sd_model_name in {file}")
    step, epoch = count_in(metadata.get("ss_steps")), count_in(metadata.get("ss_epoch"))
    name = str(settings["output_name"].value) if "output_name" in settings else None
    return Facts("kohya", settings, name, step, epoch, "ss_steps", _session(values))


def _base(name: str) -> str | None:
    """The base's name or id. Of a path only its last part says something elsewhere."""
    if name in ("", "None"):
        return None
    return PureWindowsPath(name).name if PureWindowsPath(name).is_absolute() or PurePosixPath(name).is_absolute() else name


def _session(values: Mapping[str, object]) -> Session | None:
    started, finished = values.get("ss_training_started_at"), values.get("ss_training_finished_at")
    if not isinstance(started, (int, float)):
        return None
    return Session(started, finished if isinstance(finished, (int, float)) else started)


def _words(metadata: Mapping[str, str]) -> Iterator[object]:
    """What the folders of images are called after, then the tags that most of their images have."""
    frequencies = parse_table(metadata.get("ss_tag_frequency", ""))
    yield from (found[1] for name in frequencies if (found := _REPEATED.fullmatch(name)))
    for dataset in tables(parse_json(metadata.get("ss_datasets", ""))):
        yield from (subset.get("class_tokens") for subset in tables(dataset.get("subsets")))
    folders = parse_table(metadata.get("ss_dataset_dirs", ""))
    for name, tags in frequencies.items():
        images = next((count_in(told.get("img_count")) for told in tables(folders.get(name))), None)
        if images and images > 1 and isinstance(tags, dict):
            often = [(n, tag) for tag, n in tags.items() if isinstance(n, int) and n >= _IN_MOST * images]
            yield from (tag for _, tag in sorted(often, reverse=True)[:4])


def state_checkpoints(
    run_id: str, folder: Folder, taken: Iterable[Checkpoint], series: str | None = None
) -> tuple[list[Checkpoint], list[str]]:
    """The folders to resume from, of one series if several lie here: as checkpoints those of a stage that no file of `taken` has, and
    the names of all.

    Such a folder holds the network of the file that was written with it, so that a second row would show the same again.
    """
    taken = tuple(taken)
    stems, steps = {c.path.stem for c in taken}, {c.step for c in taken if c.step is not None}
    names, found = [], []
    for name in sorted(n for n in folder.folders if n.endswith(_STATE)):
        of_series = series is None or read_file_name(name.removesuffix(_STATE)).series == series
        if not of_series or (stage := _state_stage(folder.path / name)) is None:
            continue
        names.append(name)
        if name.removesuffix(_STATE) not in stems and stage.step not in steps:
            checkpoint = read_checkpoint(run_id, folder.path / name, stage)
            found.append(replace(checkpoint, step_source=f"train_state.json in {name}" if stage.step is not None else None))
    return found, names


def _state_stage(folder: Path) -> Stage | None:
    """How far the training had come, None if this is no folder of sd-scripts."""
    try:
        files = list_folder(folder).files
    except CmpError:
        return None
    if "train_state.json" not in files and not any(name.startswith("random_states_") for name in files):
        return None
    told = read_json(folder / "train_state.json") if "train_state.json" in files else {}
    named = read_file_name(folder.name.removesuffix(_STATE)).stage
    step = count_in(told.get("current_step"))
    return to_stage(step, named.epoch) if step is not None and named.step is None else named
