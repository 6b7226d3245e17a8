"""Proves that the frozen tensors of a full dump are those of a base model, by comparing every one of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmp.core.fitting import RECOMPUTED, find_tensor
from cmp.disk.bases import Component
from cmp.disk.checkpoint import Opened
from cmp.disk.tensors import cast_bits, read_tensors


@dataclass(frozen=True, slots=True)
class Comparison:
    """`equal` counts tensors that are the base's to the bit (in the dump's own type); the others are named.

    `missing` are names of the dump that the base does not have, `absent` names of the base that the dump does not have.
    """

    equal: int
    differing: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def proven(self) -> bool:
        return bool(self.equal) and not (self.differing or self.missing or self.absent)

    @property
    def related(self) -> bool:
        """Whether it is this base with some tensors trained further, such as all biases: the same names, and at least half to the bit."""
        return self.equal >= len(self.differing) > 0 and not (self.missing or self.absent)

    @property
    def told(self) -> str:
        """In words what speaks against it."""
        groups = (("differ", self.differing), ("are not in the base", self.missing), ("are only in the base", self.absent))
        return "; ".join(f"{len(names)} {how}, for example {names[0]}" for how, names in groups if names)


def compare_with_base(opened: Opened, name: str, base: Component) -> Comparison:
    """Compares the tensors that a checkpoint has of the component `name`. Streams both once, one tensor of each in memory at a time."""
    plain = opened.weights.plain_of(name)
    there = base.header.tensors
    known = {stored: find_tensor(inner, there) for stored, inner in plain.items()}
    absent = tuple(sorted(set(there) - set(known.values()) - {n for n in there if n.endswith(RECOMPUTED)}))
    missing = tuple(stored for stored, inner in known.items() if inner is None)
    shaped = {s: n for s, n in known.items() if n and there[n].shape == opened.header.tensors[s].shape}
    differing = [stored for stored in plain if stored not in shaped and stored not in missing]
    equal = 0
    ordered = sorted(shaped, key=lambda s: (opened.header.tensors[s].file, opened.header.tensors[s].start))
    theirs = read_tensors(base.header, (shaped[stored] for stored in ordered))
    for (stored, ours), (inner, values) in zip(read_tensors(opened.header, ordered), theirs, strict=True):
        wanted = opened.header.tensors[stored].dtype
        if np.array_equal(_bits(ours), _bits(cast_bits(values, there[inner].dtype, wanted))):
            equal += 1
        else:
            differing.append(stored)
    return Comparison(equal, tuple(differing), missing, absent)


def _bits(array: np.ndarray) -> np.ndarray:
    """The raw bytes: NaN equals NaN here, and -0.0 does not equal 0.0."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
