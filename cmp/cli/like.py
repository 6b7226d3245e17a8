"""What --like takes from a picture, and what of it is not drawn with."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cmp.core.restored import Restored
from cmp.core.runs import Checkpoint, Run
from cmp.errors import BadInput, CmpError, NotFound
from cmp.workbench import Workbench


def read_like(picture: Path | None) -> tuple[Restored | None, list[str]]:
    """The settings in a picture, and what of them is not drawn with."""
    if picture is None:
        return None, []
    from cmp.pictures.settings import read_settings

    found = read_settings(picture)
    lost = list(found.not_restored)
    if found.source != "cmp" and found.model:
        lost.append(f"the model {found.model!r}: the base of the run is drawn with, see --base")
    if found.vae and not os.path.exists(found.vae):
        lost.append(f"the VAE {found.vae!r}, which is not here")
        found = replace(found, vae=None)
    return found, lost


def no_target(like: Restored | None, picture: Path | None) -> BadInput:
    """What is said where neither a run was named nor the picture names one."""
    hint = "Name a run that `python -m cmp list` shows, RUN@STEP, or a path"
    if like is None or picture is None:
        return BadInput("no run or checkpoint was given", f"{hint}.")
    if _is_sheet(picture):
        told = f"{picture} is a sheet of several pictures, and carries the settings of its first one"
        return BadInput(
            told, f"Give one of its pictures (`grid --output DIR` keeps each). {hint} before --like to draw with those settings."
        )
    return BadInput(f"{picture} names no checkpoint of ours", f"{hint} before --like.")


def _is_sheet(picture: Path) -> bool:
    """Whether the settings in a picture tell of axes, as sheets of ours and A1111's grids do."""
    from cmp.core.infotext import parse_infotext
    from cmp.pictures.settings import infotext_in

    with suppress(CmpError):
        return "X Type" in parse_infotext(infotext_in(picture)).pairs
    return False


def stacked_like(bench: Workbench, like: Restored) -> tuple[list[tuple[Run, Checkpoint, tuple[float, ...]]], list[str]]:
    """The further LoRAs that a picture of ours was drawn with, where they are found, and in words those that are not."""
    worn: list[tuple[Run, Checkpoint, tuple[float, ...]]] = []
    lost = []
    for name, strength in like.loras:
        try:
            run, checkpoint = bench.find(name, only_ids=True) if like.source == "cmp" else (None, None)
        except NotFound:
            run, checkpoint = None, None
        if run and checkpoint:
            worn.append((run, checkpoint, (strength,)))
        else:
            lost.append(f"the LoRA {name!r} at {strength:g}: give it with --stack PATH:{strength:g}")
    return worn, lost
