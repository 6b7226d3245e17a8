"""A component as the checkpoint means it, tensor by tensor: the base's weights, replaced and added to by what was trained."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cmp.core.conversion import Writing
from cmp.core.deltas import apply_delta
from cmp.core.fitting import RECOMPUTED, check_fits, check_input, find_module, find_tensor
from cmp.core.progress import Progress
from cmp.core.scale import Scale
from cmp.core.weights import Adapted
from cmp.disk.bases import Component
from cmp.disk.checkpoint import Opened
from cmp.disk.numbers import FLOATS, WIDTHS, all_finite, as_float32, cast_bits, narrowed
from cmp.disk.raw import RawReader
from cmp.disk.tensors import read_float32, read_tensor
from cmp.errors import Refused

_WIDER = ("F64", "F32", "BF16", "F16")  # of BF16 and F16 neither holds the other


@dataclass(frozen=True, slots=True)
class MergedComponent:
    """One component with its checkpoint merged in.

    `described` gives type and shape of every tensor under the base's names, `own` where the checkpoint has the tensor itself, `adapted`
    which module's adapter is added to it. `strength` 1 is as trained; 0 would be the base.
    """

    opened: Opened
    base: Component
    scale: Scale | None
    described: Mapping[str, tuple[str, tuple[int, ...]]]
    own: Mapping[str, str]
    adapted: Mapping[str, Adapted]
    strength: float = 1.0

    @property
    def bytes(self) -> int:
        return sum(math.prod(shape) * WIDTHS[dtype] for dtype, shape in self.described.values())

    def read(self, name: str) -> np.ndarray:
        """One tensor in its described type (see numbers.NUMPY_TYPES)."""
        dtype, source = self._source(name)
        if name in self.own:
            require_finite(name, source, dtype)
        if name not in self.adapted and (self.strength == 1 or name not in self.own):
            return narrowed(name, source, dtype, self.described[name][0])
        values = as_float32(source, dtype)
        if module := self.adapted.get(name):
            values = self._with_adapter(module, name, values)
        if self.strength != 1:
            base = read_float32(self.base.header, name)
            values = base + np.float32(self.strength) * (values - base)
        require_finite(name, values, "F32")
        return narrowed(name, np.ascontiguousarray(values, dtype="<f4"), "F32", self.described[name][0])

    def copied(self, name: str, own: RawReader, base: RawReader) -> Iterator[memoryview] | None:
        """The very bytes of a tensor, None for one that is computed or cast. The readers are of the checkpoint and of the base."""
        if name in self.adapted or (name in self.own and self.strength != 1):
            return None
        reader, stored = (own, self.own[name]) if name in self.own else (base, name)
        if reader.header.tensors[stored].dtype != self.described[name][0]:
            return None
        return _finite_blocks(name, reader, stored) if name in self.own else reader.blocks(stored)

    def changes(self) -> Generator[Progress, None, bool]:
        """Whether one tensor at least is not the base's; reads until the first that is not."""
        for name in {**self.adapted, **self.own}:
            yield Progress(2, 4, "looking for what was changed")
            base = cast_bits(read_tensor(self.base.header, name), self.base.header.tensors[name].dtype, self.described[name][0])
            if not np.array_equal(self.read(name), base):
                return True
        return False

    def _source(self, name: str) -> tuple[str, np.ndarray]:
        if stored := self.own.get(name):
            return self.opened.header.tensors[stored].dtype, read_tensor(self.opened.header, stored)
        return self.base.header.tensors[name].dtype, read_tensor(self.base.header, name)

    def _with_adapter(self, module: Adapted, name: str, values: np.ndarray) -> np.ndarray:
        scale = self.scale.of(module.key) if self.scale else 1.0
        header = self.opened.header
        if name.endswith(".bias"):
            if stored := module.parts.get("diff_b"):
                return values + module.cut("diff_b", read_float32(header, stored))
            return values + scale * module.cut("up_bias", read_float32(header, module.parts["up_bias"]))
        parts = {role: read_float32(header, stored) for role, stored in module.weight_parts.items()}
        return apply_delta(module.method, parts, scale, values, rows=module.rows) if parts else values


def require_finite(name: str, raw: memoryview | np.ndarray, dtype: str) -> None:
    """Raises Refused if numbers, given as they are stored, hold NaN or infinity."""
    if not all_finite(raw, dtype):
        raise Refused(f"{name} holds NaN or infinity", "The training broke down here; take an earlier step.")


def _finite_blocks(name: str, reader: RawReader, stored: str) -> Iterator[memoryview]:
    for block in reader.blocks(stored):
        require_finite(name, block, reader.header.tensors[stored].dtype)
        yield block


def merge(opened: Opened, name: str, base: Component, scale: Scale | None, writing: Writing = Writing()) -> MergedComponent:
    """The component `name` as the checkpoint has it, to be written as asked; raises Refused where they do not fit."""
    weights = opened.weights.of(name)
    shapes = base.shapes
    own = _own(opened, name, shapes)
    whole = not weights.adapted
    if whole:
        _require_all(name, own, shapes)
    check_fits(weights, shapes, opened.header.shapes)
    adapted: dict[str, Adapted] = {}
    for module in weights.adapted:
        for tensor in _tensors_of(module, shapes):
            adapted[tensor] = module
    described = {}
    for tensor, entry in base.header.tensors.items():
        kinds = [entry.dtype] if not (whole and tensor in own) else []
        kinds += [opened.header.tensors[own[tensor]].dtype] if tensor in own else []
        widest = _widest(kinds)
        described[tensor] = (writing.dtype if writing.dtype and widest in FLOATS else widest, entry.shape)
    return MergedComponent(opened, base, scale, described, own, adapted, writing.strength)


def _own(opened: Opened, name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The base's name of each tensor that the checkpoint has itself → its stored name; raises Refused for one that the base has not."""
    own = {}
    for stored, inner in opened.weights.plain_of(name).items():
        known = find_tensor(inner, shapes)
        ours = opened.header.tensors[stored].shape
        if known is None or shapes[known] != ours:
            check_input(inner, ours, shapes[known] if known else ours)
            theirs = f"{list(shapes[known])} in the base" if known else "not in the base"
            raise Refused(
                f"{name}.{inner} is {list(ours)} in the checkpoint and {theirs}",
                "It was trained on another base; give it with --base. A text encoder with new words needs its own tokenizer.",
            )
        own[known] = stored
    return own


def _require_all(name: str, own: Mapping[str, str], shapes: Iterable[str]) -> None:
    if missing := sorted(tensor for tensor in shapes if tensor not in own and not tensor.endswith(RECOMPUTED)):
        raise Refused(
            f"{len(missing)} tensors of {name} are in the base and not in the checkpoint, for example {missing[0]}",
            "It was trained on another base, or is not whole. Give its own base with --base.",
        )


def _tensors_of(module: Adapted, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    known = find_module(module.module, shapes)  # it is there: check_fits has seen to that
    touched = [f"{known}.weight"]
    if {"diff_b", "up_bias"} & set(module.parts):
        if f"{known}.bias" not in shapes:
            raise Refused(
                f"{module.module} has no bias in the base, and its adapter adds one", "Such an adapter cannot be merged; use --to lora."
            )
        touched.append(f"{known}.bias")
    return touched


def _widest(kinds: list[str]) -> str:
    first = kinds[0]
    if len(set(kinds)) == 1 or any(kind not in _WIDER for kind in kinds):
        return first
    return "F32" if set(kinds) == {"BF16", "F16"} else min(kinds, key=_WIDER.index)
