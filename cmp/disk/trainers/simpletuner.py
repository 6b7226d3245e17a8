"""A run of bghira's SimpleTuner: `checkpoint-N`, `checkpoint-N-rolling`, and `checkpoint-N-tmp` while it is written.

Known by `training_state.json` in its checkpoints (`helpers/training/save_hooks.py`); LyCORIS networks bring their `lycoris_config.json`.
"""

from __future__ import annotations

from dataclasses import replace

from cmp.core.runs import Checkpoint, read_stage
from cmp.disk.folders import Folder, is_file
from cmp.disk.trainers import accelerate
from cmp.disk.trainers.found import Found, Settings, count_in, read_json, settings_from
from cmp.errors import CmpError

_STATE = "training_state.json"
_NETWORK = "lycoris_config.json"
_NETWORK_NAMES = {"algo": "network_args.algo", "linear_dim": "rank", "linear_alpha": "alpha", "factor": "network_args.factor"}


def recognise(run_id: str, folder: Folder) -> tuple[Found, ...]:
    """The run in this folder, as one or none."""
    try:
        holder = accelerate.with_steps(folder)
    except CmpError:
        return ()  # told by the reader of all checkpoint folders
    if holder is None or not any(is_file(holder.path / name / _STATE) for name in holder.folders if read_stage(name)):
        return ()
    (found,) = accelerate.recognise(run_id, folder)
    warnings = tuple(f"{name}: SimpleTuner was writing it and has not finished" for name in sorted(holder.folders) if name.endswith("-tmp"))
    checkpoints = tuple(map(_with_epoch, found.checkpoints))
    settings = {**found.settings, **_network(checkpoints)}
    return (replace(found, trainer="simpletuner", checkpoints=checkpoints, warnings=warnings, settings=settings),)


def _with_epoch(checkpoint: Checkpoint) -> Checkpoint:
    """With the epoch that the checkpoint's state tells."""
    if checkpoint.path == checkpoint.file:  # its folder is the run's own
        return checkpoint
    return replace(checkpoint, epoch=count_in(read_json(checkpoint.path / _STATE).get("epoch")))


def _network(checkpoints: tuple[Checkpoint, ...]) -> Settings:
    for checkpoint in reversed(checkpoints):
        file = (checkpoint.path.parent if checkpoint.path == checkpoint.file else checkpoint.path) / _NETWORK
        if found := settings_from(read_json(file), _NETWORK_NAMES, str(file)):
            return found
    return {}
