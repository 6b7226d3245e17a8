"""Proves that the frozen tensors of a full dump are those of a base model, by comparing every one of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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


def compare_with_base(opened: Opened, base: Component) -> Comparison:
    """Streams both files once, one tensor of each in memory at a time."""
    frozen = opened.weights.frozen or {}
    absent = tuple(sorted(base.names - set(frozen.values())))
    missing = tuple(stored for stored, name in frozen.items() if base.owner(name) is None)
    shaped = {s: n for s, n in frozen.items() if (o := base.owner(n)) and o.tensors[n].shape == opened.header.tensors[s].shape}
    differing = [s for s in frozen if s not in shaped and s not in missing]
    equal = 0
    in_base_order = sorted(shaped, key=lambda s: opened.header.tensors[s].start)
    for stored, ours in read_tensors(opened.header, in_base_order):
        name = shaped[stored]
        owner = base.owner(name)
        assert owner is not None  # `shaped` holds only names that the base has
        _, theirs = next(iter(read_tensors(owner, [name])))
        wanted = opened.header.tensors[stored].dtype
        if np.array_equal(_bits(ours), _bits(cast_bits(theirs, owner.tensors[name].dtype, wanted))):
            equal += 1
        else:
            differing.append(stored)
    return Comparison(equal, tuple(differing), missing, absent)


def _bits(array: np.ndarray) -> np.ndarray:
    """The raw bytes: NaN equals NaN here, and -0.0 does not equal 0.0."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
