"""How far a training had come, out of the names that trainers give the weights files of one series.

Sources of the names: kohya-ss/sd-scripts `library/train_util.py` (EPOCH_FILE_NAME, STEP_FILE_NAME), ostris/ai-toolkit
`BaseSDTrainProcess.save`, Nerogar/OneTrainer `GenericTrainer.__save`, cloneofsimo/lora `train_lora_dreambooth.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from cmp.core.runs import Stage

UNREAD = "unread"  # the layout of weights that were only seen so far
FINAL = Stage("final")

# Eighteen digits are as many as every JSON reader takes. Only ASCII digits count: `int` also takes '٣' and '1_000'.
_NUMBER = "([0-9]{1,18})"
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2}"


@dataclass(frozen=True, slots=True)
class FileName:
    """What the name of a weights file says, without its ending: the series it belongs to, "" if it names none, and the stage.

    `trainer` is who names files so, None if anybody may.
    """

    series: str
    stage: Stage
    trainer: str | None = None


# (pattern of the whole name, what its numbers are, whose it is); the first that fits counts. A bare number at the end, as in
# `style-64`, may be anything and is no stage; kohya's epochs are known by their leading zero.
_PATTERNS = tuple(
    (re.compile(pattern, re.ASCII | re.DOTALL), numbers, trainer)
    for pattern, numbers, trainer in (
        (r"(.+)-step([0-9]{8,18})", ("step",), "kohya"),
        (rf"(.*?)(?:{_TIME})-(?:save|backup)-{_NUMBER}-{_NUMBER}-[0-9]+", ("step", "epoch"), "onetrainer"),
        (r"(.+)_([0-9]{9})", ("step",), "ai-toolkit"),
        (r"(.+)-(0[0-9]{5})", ("epoch",), "kohya"),
        (rf"(?:(.+?)[-_.])?epoch[-_=]?{_NUMBER}[-_.]step[-_=]?{_NUMBER}", ("epoch", "step"), None),
        (rf"(.+)_e{_NUMBER}_s{_NUMBER}", ("epoch", "step"), None),
        (rf"(?:(.+?)[-_.])?(?:global[-_])?steps?[-_=]?{_NUMBER}", ("step",), None),
        (rf"(?:(.+?)[-_.])?epoch[-_=]?{_NUMBER}", ("epoch",), None),
        (rf"(?:(.+?)[-_.])?checkpoint-{_NUMBER}", ("step",), None),
        (rf"(?:(.+?)[-_.])?checkpoint_{_NUMBER}", ("save",), None),  # Accelerate's own numbering counts saves
    )
)
# what stands where a name would: kohya's defaults for steps, epochs and the last, and what people call a last file
_NAMELESS = frozenset(("at", "epoch", "last", "final", "model", "lora", "checkpoint", "weights", "latest"))


@lru_cache(maxsize=4096)  # several readers ask for the same names
def read_file_name(stem: str) -> FileName:
    """What a weights file's name without its ending says; a name without a stage is the last of the series of that name."""
    for pattern, numbers, trainer in _PATTERNS:
        if found := pattern.fullmatch(stem):
            told = dict(zip(numbers, map(int, found.groups()[1:]), strict=True))
            return FileName(_series(found[1] or ""), to_stage(told.get("step"), told.get("epoch"), told.get("save")), trainer)
    return FileName(_series(stem), FINAL)


def to_stage(step: int | None, epoch: int | None = None, save: int | None = None) -> Stage:
    """The stage of these numbers, of which each may be missing; its key is the step if that is known."""
    if step is not None:
        return Stage(str(step), step, epoch)
    return Stage(f"epoch-{epoch}", None, epoch) if epoch is not None else Stage(f"save-{save}") if save is not None else FINAL


def _series(name: str) -> str:
    name = name.rstrip("-_. ")
    return "" if name.lower() in _NAMELESS else name
