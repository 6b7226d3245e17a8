"""The same weights found twice in a run are one checkpoint: candidates by their headers, confirmed by a digest of the trained tensors."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import replace

import numpy as np

from cmp.core.runs import Checkpoint, Run
from cmp.core.scale import resolve_scale
from cmp.disk.checkpoint import Opened, open_weights
from cmp.disk.evidence import collect_evidence
from cmp.disk.ready import digest_of, knows_digest
from cmp.disk.store import Store
from cmp.disk.tensors import Header, read_tensor
from cmp.errors import CmpError


class _NotYet(Exception):
    """Weights would have to be read."""


def merge_known(run: Run, store: Store) -> Run | None:
    """As merge_same_weights, from headers and what is remembered; None if weights would have to be read."""
    try:
        return merge_same_weights(run, store, wait=False)
    except _NotYet:
        return None


def merge_same_weights(run: Run, store: Store, *, wait: bool = True) -> Run:
    """The run with equal weights merged into one row, the first of them, which keeps the others' ids as aliases.

    Compared are finals with the latest step, and what was saved twice at one step. Two different steps of a training never have equal
    weights, unless nothing was learned, and then both rows should be seen. A learned word is also in the dump of its whole text encoder.
    """
    candidates = (c for c in run.checkpoints if c.step is not None or c.key.startswith("final"))
    usable = [c for c in candidates if c.holds in ("lora", "loha", "lokr") and c.flaw is None]
    latest = max((c.step for c in usable if c.step is not None), default=None)
    places: dict[int | None, list[Checkpoint]] = defaultdict(list)
    for checkpoint in usable:
        places[latest if checkpoint.step is None else checkpoint.step].append(checkpoint)
    groups: dict[tuple[object, ...], list[Checkpoint]] = defaultdict(list)
    for step, alike in places.items():
        for checkpoint, opened in _alike(alike):
            if (same := _weights_and_scale(run, checkpoint, opened, store, wait)) is not None:
                groups[(step, *same)].append(checkpoint)
    for word in (c for c in run.checkpoints if c.holds == "embedding" and c.flaw is None):
        dumps = [c for c in run.checkpoints if c.step == word.step and c.holds == "full" and _holds_words(c, word, store, wait)]
        groups[(word.key,)] += [word, *dumps]
    merged: dict[str, Checkpoint | None] = {}
    for first, *others in groups.values():
        merged[first.key] = replace(first, aliases=tuple(other.id for other in others))
        merged.update({other.key: None for other in others})
    kept = (merged.get(c.key, c) for c in run.checkpoints)
    return replace(run, checkpoints=tuple(c for c in kept if c is not None))


def _alike(checkpoints: list[Checkpoint]) -> list[tuple[Checkpoint, Opened]]:
    """Those of which another has the same tensors by its header, with what they hold."""
    if len(checkpoints) < 2:
        return []
    groups: dict[object, list[tuple[Checkpoint, Opened]]] = defaultdict(list)
    for checkpoint in checkpoints:
        with suppress(CmpError):
            opened = open_weights(*checkpoint.files)
            entries = ((name, opened.header.tensors[stored]) for stored, name in opened.weights.canonical.items())
            groups[frozenset((name, entry.dtype, entry.shape) for name, entry in entries)].append((checkpoint, opened))
    return [each for alike in groups.values() if len(alike) > 1 for each in alike]


def _weights_and_scale(run: Run, checkpoint: Checkpoint, opened: Opened, store: Store, wait: bool) -> tuple[str, str] | None:
    """None where either is not known: a row that hides another must not hide what contradicts it."""
    try:
        if not wait and not knows_digest(opened, store):
            raise _NotYet
        return digest_of(opened, store), resolve_scale(opened.weights, collect_evidence(run, checkpoint, opened)).fingerprint
    except CmpError:
        return None


def _holds_words(dump: Checkpoint, word: Checkpoint, store: Store, wait: bool) -> bool:
    """Whether a text encoder's dump is the training state that the word's file was taken from: its last rows are the word's."""
    try:
        whole, learned = open_weights(*dump.files), open_weights(*word.files)
        tables = [n for n in whole.header.tensors if n.endswith("embeddings.token_embedding.weight")]
        if whole.weights.components != ("text_encoder",) or len(tables) != 1 or len(learned.header.tensors) != 1:
            return False
        subject = f"{whole.header.subject}|{learned.header.subject}"
        if not wait and store.get("same-word", subject) is None:
            raise _NotYet
        return store.remembered("same-word", subject, lambda: _ends_with(whole.header, tables[0], learned.header))
    except CmpError:
        return False


def _ends_with(whole: Header, table: str, learned: Header) -> bool:
    rows = read_tensor(learned, next(iter(learned.tensors)))
    return np.array_equal(read_tensor(whole, table)[-len(rows) :], rows)
