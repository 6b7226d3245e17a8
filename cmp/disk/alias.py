"""The same weights found twice in a run are one checkpoint: candidates by their headers, confirmed by a digest of the trained tensors."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from cmp.core.runs import Checkpoint, Run
from cmp.core.scale import resolve_scale
from cmp.disk.checkpoint import Opened, open_weights
from cmp.disk.evidence import collect_evidence
from cmp.disk.ready import digest_of
from cmp.disk.store import Store
from cmp.errors import CmpError


def merge_same_weights(run: Run, store: Store) -> Run:
    """The run with equal weights merged into one row, the first of them, which keeps the others' ids as aliases.

    Compared are finals with the latest step, and what was saved twice at one step. Two different steps of a training never have equal
    weights, unless nothing was learned, and then both rows should be seen.
    """
    candidates = (c for c in run.checkpoints if c.step is not None or c.key.startswith("final"))
    usable = [c for c in candidates if c.holds in ("lora", "loha", "lokr") and c.flaw is None]
    latest = max((c.step for c in usable if c.step is not None), default=None)
    places: dict[int | None, list[Checkpoint]] = defaultdict(list)
    for checkpoint in usable:
        places[latest if checkpoint.step is None else checkpoint.step].append(checkpoint)
    groups: dict[tuple[object, ...], list[Checkpoint]] = defaultdict(list)
    for step, alike in places.items():
        for checkpoint in alike if len(alike) > 1 else ():
            if (same := _weights_and_scale(run, checkpoint, store)) is not None:
                groups[(step, *same)].append(checkpoint)
    merged: dict[str, Checkpoint | None] = {}
    for first, *others in groups.values():
        merged[first.key] = replace(first, aliases=tuple(other.id for other in others))
        merged.update({other.key: None for other in others})
    kept = (merged.get(c.key, c) for c in run.checkpoints)
    return replace(run, checkpoints=tuple(c for c in kept if c is not None))


def _weights_and_scale(run: Run, checkpoint: Checkpoint, store: Store) -> tuple[str, str] | None:
    """None where either is not known: a row that hides another must not hide what contradicts it."""
    try:
        opened: Opened = open_weights(*checkpoint.files)
        return digest_of(opened, store), resolve_scale(opened.weights, collect_evidence(run, checkpoint, opened)).fingerprint
    except CmpError:
        return None
