"""Which of a run's checkpoints a batch takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cmp.core.curves import LossCurve, held_out_losses
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


def best_of(run_id: str, checkpoints: Sequence[Checkpoint], curves: Iterable[LossCurve], count: int) -> tuple[list[Checkpoint], str]:
    """The `count` with the lowest held-out loss, and in words how they were found. Training loss says nothing of that: BadInput."""
    if count < 1:
        raise BadInput(f"the best {count} were asked for", "Use a number of checkpoints, such as 1.")
    losses = held_out_losses(curves, [c.step for c in checkpoints if c.step is not None])
    if not losses:
        raise BadInput(
            f"{run_id} has no held-out loss in its logs at its checkpoints", "Without one the best is not known: name the checkpoints."
        )
    best = sorted(losses, key=losses.__getitem__)[:count]
    told = f"best of {run_id} by logged held-out loss: {', '.join(f'{step} ({losses[step]:.4g})' for step in best)}"
    return [c for c in checkpoints if c.step in best], told
