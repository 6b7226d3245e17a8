"""How a server does, for whoever looks after it: cheap to ask again and again, and asked it loads nothing that is not loaded."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from cmp import __version__
from cmp.disk.machine import GraphicsCard, graphics_cards, likely_device, memory_available, memory_total, memory_used, torch_build

if TYPE_CHECKING:
    from cmp.workbench import Workbench


def vitals(bench: Workbench) -> dict[str, object]:
    """The origin's fields (`device` is the one that is expected until the first picture loads torch), and more."""
    states = [job.state for job in bench.jobs.all()]
    return {
        "status": "stopping" if bench.jobs.closing else "healthy",
        "device": device_known(bench),
        "models_cached": bench.loaded_models(),
        "memory": {"used_bytes": memory_used(), "available_bytes": memory_available(), "total_bytes": memory_total()},
        "gpus": cards_in_use(),
        "queue": {"waiting": states.count("waiting"), "running": states.count("running")},
        "uptime_seconds": round(time.monotonic() - bench.began, 1),
        "version": __version__,
    }


def device_known(bench: Workbench) -> str:
    """The kind of device that is drawn with, without loading what draws."""
    if bench.is_loaded:
        return bench.device_name()
    if bench.settings.device != "auto":
        return likely_device(bench.settings.device, (), None)
    return likely_device("auto", _cards(bench), torch_build())


def _cards(bench: Workbench) -> tuple[GraphicsCard, ...]:
    """Asked once: the driver's tool takes a moment, and cards do not come and go."""
    if bench.cards is None:
        bench.cards = graphics_cards()
    return bench.cards


def cards_in_use() -> list[dict[str, object]]:
    """Memory of the cards that this process computes on; none before it has."""
    if "cmp.engine.device" not in sys.modules:
        return []
    from cmp.engine.device import memory_of_cards

    return memory_of_cards()
