"""The verb that measures: metrics of saved checkpoints, on the same items for all of them, each of them kept by the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cmp.core.progress import Progress
from cmp.core.runs import Run
from cmp.disk.ready import Answers
from cmp.errors import BadInput, CmpError
from cmp.workbench.easel import Easel

if TYPE_CHECKING:
    from cmp.core.evidence import Evidence
    from cmp.core.measured import Measured, MeasurePlan, MeasureSpec


class Measuring(Easel):
    """What was measured of runs, and measuring more. Safe to use from several threads."""

    def measurements(self, run: Run) -> dict[str, tuple[Measured, ...]]:
        """By metric what is known of the run's checkpoints as they are now, and of its base model; nothing where nothing can be kept."""
        from cmp.disk.measures import Measures

        try:
            return Measures(self.store).of(run)
        except CmpError:
            return {}

    def measured(self, run: Run, *, base: bool = False) -> tuple[Evidence, ...]:
        """What was measured, one for each metric of which two checkpoints have values; the held-out loss first. With `base` the base
        model stands among them, as evidence.BASE.
        """
        from cmp.core.measured import LOSS, TRAINING_LOSS, evidence_of
        from cmp.core.picking import candidates

        known, ids = self.measurements(run), [c.id for c in candidates(run)]
        order = sorted(known, key=lambda metric: (metric != LOSS, metric != TRAINING_LOSS, metric))
        found = (evidence_of(known[metric], ids, base=base) for metric in order)
        return tuple(one for one in found if one is not None)

    def plan_measure(self, run: Run, spec: MeasureSpec, given: Answers = Answers()) -> MeasurePlan:
        """What measuring would do, how long it takes, and how small a difference it will see. Measures nothing."""
        raise BadInput("nothing is measured yet", "It is being built.")

    def measure(self, run: Run, spec: MeasureSpec, given: Answers = Answers()) -> Iterator[Progress | Measured]:
        """Measures; what is known already comes as it is. One Measured for each metric, checkpoint and the base model, in that order."""
        raise BadInput("nothing is measured yet", "It is being built.")
