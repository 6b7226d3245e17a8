"""The pictures of a run that can be scored: those that grids have drawn, in whichever process, and those that its trainer left."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cmp.core.runs import Checkpoint
from cmp.core.samples import Sample
from cmp.core.score_items import Item, Picture, Way
from cmp.disk.cell_index import CellIndex
from cmp.disk.store import Store

_Pictures = dict[Item, Picture]
_MODES = ("exact", "fast")  # both are within a grey level; the first is taken where both are there
_TRAINERS = Way("the trainer's own settings")


class Found(NamedTuple):
    """Pictures by way of drawing: of each checkpoint by its id, and of the base model."""

    pictures: dict[Way, dict[str, _Pictures]]
    bases: dict[Way, _Pictures]


def drawn_cells(store: Store, weights: Mapping[str, Iterable[str]], base_digest: str, base_id: str) -> Found:
    """The pictures of grids, by what they tell of themselves: which weights, which base model and how.

    `weights`: digest of what was loaded → ids of the checkpoints that hold it. Where another LoRA was worn too it is not of the checkpoint.
    """
    cells = [cell for cell in CellIndex(store).of_weights({*weights, ""}) if _is_ours(cell.told, base_digest, base_id)]
    found = Found({}, {})
    without: dict[Way, _Pictures] = {}
    for cell in sorted(cells, key=lambda cell: (_mode(cell.told), cell.key)):
        told, picture = cell.told, Picture(store.cell_path(cell.key))
        item = _item(told)
        if item is None:
            continue
        if not cell.weights:
            without.setdefault(_way(told, None), {}).setdefault(item, picture)
        for name in weights.get(cell.weights, ()):
            way = _way(told, told.get("strength"))
            found.pictures.setdefault(way, {}).setdefault(name, {}).setdefault(item, picture)
            found.bases.setdefault(way, without.setdefault(_way(told, None), {}))
    return found


def trainers_pictures(samples: Iterable[Sample], checkpoints: Iterable[Checkpoint], prompts: Sequence[str] = ()) -> Found:
    """The pictures that the trainer drew at the steps of checkpoints; what it drew at step 0 is the base model's.

    `prompts` are those that the run recorded, by their number, for pictures that have no text beside them.
    """
    at: dict[int, list[str]] = {}
    for c in checkpoints:
        if c.step is not None:
            at.setdefault(c.step, []).append(c.id)
    found = Found({_TRAINERS: {}}, {_TRAINERS: {}})
    for sample in samples:
        variant = f", {sample.variant}" if sample.variant else ""
        text = sample.text or (prompts[sample.prompt] if sample.prompt < len(prompts) else None)
        item = Item(text or None, f"prompt {sample.prompt}{variant}, picture {sample.image}")
        picture = Picture(sample.path, sample.within)
        if sample.step == 0:
            found.bases[_TRAINERS].setdefault(item, picture)
        for name in at.get(sample.step, ()) if sample.step is not None else ():
            found.pictures[_TRAINERS].setdefault(name, {}).setdefault(item, picture)
    return found


def _is_ours(told: Mapping[str, Any], base_digest: str, base_id: str) -> bool:
    base = told.get("base")
    if told.get("stack") or told.get("as_preview") or not isinstance(base, dict) or not isinstance(told.get("sampling"), dict):
        return False
    digest = told.get("base_digest")  # older pictures name their base alone
    return digest == base_digest if digest is not None else base.get("id") == base_id


def _item(told: Mapping[str, Any]) -> Item | None:
    prompt, seed, negative = told.get("prompt"), told.get("seed"), told.get("negative")
    if not isinstance(prompt, str) or not isinstance(seed, int):
        return None
    return Item(prompt, f"seed {seed}", negative if isinstance(negative, str) else "")


def _way(told: Mapping[str, Any], strength: object) -> Way:
    """By all that stands in the record beside prompt, seed and checkpoint."""
    sampling: Mapping[str, Any] = told["sampling"]
    words = [f"strength {float(strength):g}"] if isinstance(strength, (int, float)) else []
    words += [f"{name.replace('_', ' ')} {value}" for name, value in sorted(sampling.items()) if value is not None]
    sides = [value for name in ("width", "height", "steps") if isinstance(value := sampling.get(name), int)]
    # a preview tells its size, which is smaller than that of the model; what tells none has that
    return Way(", ".join(words), float(math.prod(sides)) if len(sides) == 3 else math.inf, _options(sampling, strength))


def _options(sampling: Mapping[str, Any], strength: object) -> str:
    told = {name: sampling.get(name) for name in ("steps", "guidance", "scheduler", "clip_skip", "vae")}
    told["size"] = f"{sampling['width']}x{sampling['height']}" if sampling.get("width") and sampling.get("height") else None
    told["strengths"] = strength
    usual = {"scheduler": "base", "clip_skip": 1, "strengths": 1.0}
    kept = {name: value for name, value in told.items() if value is not None and value != usual.get(name)}
    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in kept.items())


def _mode(told: Mapping[str, Any]) -> int:
    return _MODES.index(told["mode"]) if told.get("mode") in _MODES else len(_MODES)
