"""Weights files that lie side by side, as kohya's sd-scripts, LyCORIS, ai-toolkit and OneTrainer write them: `NAME-000010.safetensors`,
`NAME-step00000500.safetensors`, `NAME_000000500.safetensors`, and `NAME.safetensors` at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cmp.core.runs import Checkpoint
from cmp.core.stages import FINAL, read_file_name, to_stage
from cmp.disk.checkpoint import read_loose
from cmp.disk.trainers.found import Facts, header_of

ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth")
# what any library calls a component's file, and what is saved beside weights
_OF_LIBRARIES = re.compile(
    r"(?:pytorch_lora_weights|adapter_model|(?:pytorch_)?model(?:_[0-9]+)?|diffusion_pytorch_model(?:\..+)?|learned_embeds)\.[a-z]+"
    r"|(?:lr_)?(?:optimizer|scheduler|scaler|sampler|rng_state|random_states).*",
    re.ASCII | re.DOTALL,
)
_SHARD = re.compile(r".+-[0-9]{5}-of-[0-9]{5}", re.ASCII | re.DOTALL)
_ADAPTER = re.compile(r"lora[_.]|\Aunet:[0-9]+:(?:up|down)|lokr_|hada_|oft_|dora_scale|glora_|\.diff(?:_b)?\Z|\A(?:emb_params|clip_[lg])\Z")
FactsReader = Callable[[Path, Mapping[str, str]], Facts | None]


@dataclass(frozen=True, slots=True)
class Member:
    """One weights file of a series, and what its header says. `adapter`: its tensors are those of an adapter, not of a whole model."""

    series: str
    checkpoint: Checkpoint
    facts: Facts | None
    numbered: bool
    adapter: bool
    trainer: str | None
    warning: str | None = None


def weights_files(names: Iterable[str]) -> list[str]:
    """The names that may be those of a series, numbered or not."""
    ours = (n for n in names if n.endswith(ENDINGS) and not n.startswith("."))
    return sorted(n for n in ours if not _SHARD.fullmatch(n[: n.rindex(".")]) and not _OF_LIBRARIES.fullmatch(n))


def read_member(run_id: str, file: Path, readers: Iterable[FactsReader]) -> Member:
    """A weights file with its step from its name or else from its header. Never raises for what lies on disk."""
    named = read_file_name(file.stem)
    header = header_of(file) if file.suffix == ".safetensors" else None
    metadata = header.metadata if header else {}
    facts = next((facts for read in readers if (facts := read(file, metadata))), None) if metadata else None
    if facts and facts.name == file.stem and named.stage != FINAL:
        named = replace(named, series=file.stem, stage=FINAL, trainer=None)  # the number is part of the name
    stage, source, warning = named.stage, None, None
    if facts:
        epoch = stage.epoch if stage.epoch is not None else facts.epoch
        if stage.step is None and facts.step is not None:
            source = f"{facts.told_by} in its header"
        elif None not in (stage.step, facts.step) and stage.step != facts.step:
            warning = f"{file.name}: by its name it is step {stage.step}, by {facts.told_by} in its header step {facts.step}"
        step = stage.step if stage.step is not None else facts.step
        stage = replace(FINAL, step=step, epoch=epoch) if stage == FINAL else to_stage(step, epoch)
    checkpoint = read_loose(run_id, file, stage)
    checkpoint = replace(checkpoint, step_source=source) if source else checkpoint
    adapter = header is not None and any(map(_ADAPTER.search, header.tensors))
    trainer = facts.trainer if facts else named.trainer
    return Member(named.series, checkpoint, facts, named.stage != FINAL, adapter, trainer, warning)


def newest_facts(members: Iterable[Member]) -> Facts | None:
    """What the header of the furthest file says that says anything."""
    told = [m for m in members if m.facts]
    return max(told, key=lambda m: (m.checkpoint.step or 0, m.checkpoint.key == "final")).facts if told else None
