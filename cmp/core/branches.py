"""What a training logged and a later start of it wrote over: kept as curves of their own, and never among those of the run."""

from __future__ import annotations

from dataclasses import dataclass

from cmp.core.curves import LossCurve, as_json


@dataclass(frozen=True, slots=True, eq=False)
class Abandoned:
    """Points of weights that no longer exist. `number` counts the branches of one tag, the oldest being 1."""

    number: int
    curve: LossCurve


def abandoned_curves(curve: LossCurve) -> tuple[Abandoned, ...]:
    """The branches that later starts left behind, under the tag of the curve they were part of."""
    return tuple(
        Abandoned(number, LossCurve(curve.run_id, curve.tag, branch.steps, branch.values, branch.wall_times, curve.source))
        for number, branch in enumerate(curve.abandoned, 1)
    )


def abandoned_json(curve: LossCurve) -> list[dict[str, object]]:
    """The contract's values of a curve, each with the number of its branch; the file that they come from is not known any more."""
    told = [(one.number, as_json(one.curve)) for one in abandoned_curves(curve)]
    return [{"branch": number, **{key: value for key, value in one.items() if key != "source"}} for number, one in told]
