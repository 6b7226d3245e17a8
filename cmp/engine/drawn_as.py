"""What is told of how a cell is drawn where it was left to the base model: the size in pixels, and the sampler by its name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from cmp.core.grids import Sampling
from cmp.disk.bases import native_size
from cmp.engine.prepare import Prepared
from cmp.engine.samplers import own_sampler


def drawn_as(one: Prepared) -> dict[str, object]:
    """`width`, `height` and `sampler` of what is drawn; they say what the base model decides, and change no key."""
    width, height, sampler = _drawn_as(one.clothes.folder, one.clothes.base, one.drawn.sampling)
    return {"width": width, "height": height, "sampler": sampler}


@lru_cache(maxsize=256)  # by the base's digest as well, since its settings are read
def _drawn_as(folder: Path, digest: str, sampling: Sampling) -> tuple[int, int, str]:
    width, height = native_size(folder)
    return sampling.width or width, sampling.height or height, own_sampler(folder) if sampling.scheduler == "base" else sampling.scheduler
