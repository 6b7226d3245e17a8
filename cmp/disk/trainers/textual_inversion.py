"""A run of diffusers' textual inversion script: `learned_embeds-steps-N.safetensors`, the last `learned_embeds.safetensors`.

Its `checkpoint-N` hold the whole text encoder of the step, enlarged by the new tokens.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from cmp.core.runs import Setting
from cmp.core.stages import FINAL, to_stage
from cmp.disk.checkpoint import read_loose
from cmp.disk.folders import Folder
from cmp.disk.trainers import accelerate
from cmp.disk.trainers.found import Found, Settings, header_of, trigger_words

_EMBEDDING = re.compile(r"learned_embeds(?:-steps-(?P<step>[0-9]{1,18}))?\.(?:safetensors|bin)", re.ASCII)


def recognise(run_id: str, folder: Folder) -> tuple[Found, ...]:
    """The run in this folder, as one or none."""
    read = [(name, found) for name in sorted(folder.files) if (found := _EMBEDDING.fullmatch(name))]
    if not read:
        return ()
    stages = ((name, to_stage(int(found["step"])) if found["step"] else FINAL) for name, found in read)
    embeddings = tuple(read_loose(run_id, folder.path / name, stage) for name, stage in stages)
    others = accelerate.recognise(run_id, folder)
    run = others[0] if others else Found("diffusers", (), whole=False)
    settings = {**run.settings, **_tokens(folder.path / read[-1][0])}
    # the embeddings first: a step's text encoder is the same once more, and bears its folder's name as well
    return (replace(run, trainer="diffusers", checkpoints=(*embeddings, *run.checkpoints), settings=settings),)


def _tokens(file: Path) -> Settings:
    """The tokens that were taught: each tensor is named after its own."""
    header = header_of(file) if file.suffix == ".safetensors" else None
    told = trigger_words(header.tensors if header else (), str(file))
    return told | ({"method": Setting("textual inversion", str(file))} if told else {})
