"""Two checkpoints side by side in pictures that are there: which cells of a matrix show both, and which drawn rows have both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from cmp.core.grid_axes import RUN
from cmp.core.grids import USUAL_MODE, GridSpec, Prompt
from cmp.core.runs import Checkpoint
from cmp.core.votes import Shown

MOST_SEEDS = 8  # rows of what is shown beside the two
At = list[int | None]  # a cell's index into each axis' values


def cells_of_both(value: Mapping[str, Any], run_id: str, ends: Sequence[Collection[str]], done: bool = True) -> list[At] | None:
    """Where in a matrix's value the first two cells stand that differ in nothing but which end they are of; None where there are none.

    `ends` are the keys that each goes by on the axis of steps. With `done` both pictures are there, and are no previews.
    """
    axes = value.get("axes") or []
    step = next((i for i, axis in enumerate(axes) if axis["key"] == value.get("step_axis")), None)
    if step is None:
        return None
    run = next((i for i, axis in enumerate(axes) if axis["key"] == RUN), None)
    found: list[list[At]] = [[] for _ in ends]
    for cell in value["cells"]:
        at = cell["at"]
        if at[step] is None or (done and (cell["state"] != "done" or cell.get("mark"))):
            continue
        if run is not None and at[run] is not None and axes[run]["values"][at[run]]["key"] != run_id:
            continue
        for end, places in zip(ends, found, strict=True):
            if axes[step]["values"][at[step]]["key"] in end:
                places.append(at)
    first, last = found
    return next(([one, other] for one in first for other in last if _alike(one, other, step)), None)


def _alike(one: At, other: At, step: int) -> bool:
    """None stands for all values of an axis: the base model has no strength."""
    return all(i == step or a == b or None in (a, b) for i, (a, b) in enumerate(zip(one, other, strict=True)))


def grid_of_both(shown: Iterable[Shown], first: Checkpoint, last: Checkpoint) -> GridSpec | None:
    """The grid of the prompt and sampling that most pictures of both were drawn with; None where there is no such pair."""
    rows: dict[tuple[Any, ...], set[str]] = {}
    for one in shown:
        rows.setdefault(one.row, set()).add(one.checkpoint)
    seeds: dict[tuple[Any, ...], list[int]] = {}
    for (text, negative, seed, strength, sampling, stack, _), names in rows.items():
        if not stack and {first.id, last.id} <= names:
            seeds.setdefault((text, negative, strength, sampling), []).append(seed)
    if not seeds:
        return None
    (text, negative, strength, sampling), most = max(seeds.items(), key=lambda item: len(item[1]))
    kept = tuple(sorted(set(most))[:MOST_SEEDS])
    return GridSpec((first, last), (Prompt(text, negative),), kept, (strength,), (sampling,), mode=USUAL_MODE)
