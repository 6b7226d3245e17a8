"""Which of a run's checkpoints a batch takes."""

from __future__ import annotations

from collections.abc import Iterable

from cmp.core.runs import Checkpoint
from cmp.errors import BadInput


def every_steps(checkpoints: Iterable[Checkpoint], every: int) -> list[Checkpoint]:
    """Those at multiples of so many steps; raises BadInput if none is."""
    if every < 1:
        raise BadInput(f"every {every} steps were asked for", "Use a number of steps, such as 1000.")
    found = [c for c in checkpoints if c.step is not None and c.step % every == 0]
    if not found:
        raise BadInput(f"no checkpoint lies at a multiple of {every} steps", "Choose another number of steps.")
    return found
