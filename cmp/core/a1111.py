"""Settings out of A1111's text, and out of ours, which is written in its form. See infotext for the form itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from cmp.core.axes import split_axis
from cmp.core.infotext import Infotext, parse_infotext
from cmp.core.restored import Finding, Restored
from cmp.core.samplers import from_a1111
from cmp.errors import BadInput, Unreadable

_WHOLE = re.compile(r"-?[0-9]{1,19}\Z", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,40})?(?:e-[0-9]{1,3})?\Z", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})\Z", re.ASCII)
# what says nothing that could be restored: digests, versions, and what follows from other values
_SILENT = re.compile(
    r"(?:.* hash(?:es)?|Version|RNG|Weights digest|User|Schedule type|Title|Script|(?:Fixed )?(?:[XYZ]|Axis [0-9]+) (?:Type|Values))\Z"
)


def read_infotext(text: str) -> Restored:
    """What a settings text says, ours or A1111's; raises Unreadable for one of another program that only shares its place."""
    told = parse_infotext(text)
    pairs = dict(told.pairs)
    if text.lstrip()[:1] in ("{", "[") and _is_json(text):  # a prompt may begin with them too
        raise Unreadable("the settings in the picture are JSON of an unknown program", "A1111's, ComfyUI's and our own are read.")
    ours = pairs.get("Version", "").startswith("cmp ")
    finding = Finding("cmp" if ours else "A1111")
    finding.prompt("prompt", told.prompt, foreign=not ours)
    finding.prompt("negative", told.negative, foreign=not ours)
    if not pairs:
        finding.lose("the settings: there is only a prompt")
        return finding.restored()
    if not ours and "VAE" in pairs:
        finding.lose(f"VAE: {pairs.pop('VAE')}")  # a file's name, and not where it is
    _scheduler(finding, pairs, ours)
    _plain_values(finding, pairs)
    if "Script" in pairs:
        finding.lose(f"the grid ({_grid_text(told)}): these are the settings of its first picture")
    for name, value in pairs.items():
        if not _SILENT.match(name):
            finding.lose(f"{name}: {value}")
    return finding.restored()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as fault:
        return isinstance(fault, RecursionError)
    return True


def _grid_text(told: Infotext) -> str:
    return ", ".join(value for name, value in told.pairs.items() if name.endswith(" Type")) or told.pairs["Script"]


def _scheduler(finding: Finding, pairs: dict[str, str], ours: bool) -> None:
    sampler = pairs.pop("Sampler", None)
    if sampler is None:
        finding.keep("scheduler", "base" if ours else None)
        return
    found, lost = from_a1111(sampler, pairs.get("Schedule type"))
    finding.keep("scheduler", found)
    if lost:
        finding.lose(lost)


def _plain_values(finding: Finding, pairs: dict[str, str]) -> None:
    """Takes the values that are read as they stand out of the pairs; what is then left is not restored."""
    kinds: dict[str, tuple[str, Callable[[str], Any]]] = {
        "Steps": ("steps", _whole),
        "CFG scale": ("guidance", _number),
        "Distilled CFG Scale": ("guidance", _number),  # Forge's, with Flux, where CFG scale is 1
        "Seed": ("seed", _whole),
        "Clip skip": ("clip_skip", _whole),
        "VAE": ("vae", str),
        "Checkpoint": ("checkpoint", str),
        "Strength": ("strength", _number),
        "Model": ("model", str),
    }
    for label, (name, read) in kinds.items():
        if (text := pairs.pop(label, None)) is not None:
            value = read(text)
            finding.keep(name, value, f"{label}: {text}") if value is not None else finding.lose(f"{label}: {text}")
    if (size := pairs.pop("Size", None)) is not None:
        found = _SIZE.match(size)
        for name, side in zip(("width", "height"), found.groups() if found else (), strict=False):
            finding.keep(name, int(side), f"Size: {size}")
        if not found:
            finding.lose(f"Size: {size}")
    if (loras := pairs.pop("LoRAs", None)) is not None:
        try:
            parts = [part.text.rpartition(":") for part in split_axis(loras, "LoRAs")]
        except BadInput:
            parts = [(loras, "", "")]
        for name, _, strength in parts:
            finding.wear(name, _number(strength))


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.match(text) else None


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.match(text) and math.isfinite(float(text)) else None
