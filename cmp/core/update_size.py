"""How large what was trained is: the Frobenius norm of each module's change, from the parts of its adapter, and of a model's blocks.

No product is multiplied out where its parts tell as much. ‖BA‖² is tr(BᵀB AAᵀ), and with Aᵀ = QR it is ‖BRᵀ‖², a sum of squares which is
right also where large factors nearly cancel. ‖W₁ ⊗ W₂‖ is ‖W₁‖·‖W₂‖. A LoHa of small ranks is one product of the rank r₁·r₂
(Khatri–Rao); of large ones its rows are multiplied out, a few at a time. The parts are those of core.deltas; all is computed in float64.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmp.core.curves import Floats
from cmp.core.deltas import rank_of, take_rows
from cmp.core.fused_names import Rows
from cmp.core.measured import UPDATE, UPDATE_RELATIVE, WHOLE, Measured

REVISION = "1"  # raised by every change of ours that changes sizes
_CANCELS = 1e-6  # of what a square could be: less has lost digits that count
_ROWS_AT_ONCE = 1 << 22  # numbers of a product that are held at once
_MAGNITUDES = ("magnitude", "dora_scale")
# where a module is: the first part of its name that has a number or is the middle
_BLOCK = re.compile(
    r"(?:\A|\.)((?:down_blocks|up_blocks|transformer_blocks|single_transformer_blocks|layers|block|controlnet_down_blocks)\.[0-9]+|mid_block)"
    r"(?=\.|\Z)"
)


@dataclass(frozen=True, slots=True)
class BlockSize:
    """The norm of the change of one block, and of its base's weights where these are known: of the same modules alone."""

    block: str
    size: float
    modules: int
    base: float | None = None

    @property
    def relative(self) -> float | None:
        return self.size / self.base if self.base else None

    def as_json(self) -> dict[str, object]:
        size = self.size if math.isfinite(self.size) else None  # no JSON number is infinite
        return {"block": self.block, "size": size, "modules": self.modules, "base": self.base, "relative": self.relative if size else size}


@dataclass(frozen=True, slots=True)
class UpdateSize:
    """The norms by block, the whole first; `told` says of what there is none, and why."""

    blocks: tuple[BlockSize, ...]
    told: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        return {"blocks": [block.as_json() for block in self.blocks], "warnings": list(self.told)}

    def as_measured(self, checkpoint_id: str, weights: str, base: str) -> tuple[Measured, ...]:
        """The same as measured values, with a band for each block: absolute, and where the base is known relative to it."""
        found = [_as_measured(UPDATE, [(one.block, one.size) for one in self.blocks], self.told, checkpoint_id, weights, base)]
        relative = [(one.block, one.relative) for one in self.blocks if one.relative is not None]
        if self.blocks and relative and relative[0][0] == WHOLE:
            found.append(_as_measured(UPDATE_RELATIVE, relative, self.told, checkpoint_id, weights, base))
        return tuple(found) if self.blocks else ()


def _as_measured(
    metric: str, blocks: Sequence[tuple[str, float]], told: tuple[str, ...], checkpoint_id: str, weights: str, base: str
) -> Measured:
    bands = tuple(block for block, _ in blocks)
    setup = hashlib.sha256("\n".join((REVISION, *bands)).encode()).hexdigest()
    values = np.array([[size for _, size in blocks]], dtype=np.float64)
    return Measured(metric, checkpoint_id, weights, base, setup, ("weights",), values, bands, told=told)


@dataclass(frozen=True, slots=True)
class ModuleSize:
    """The square of a module's change, and that of its weight in the base, None where that is not known."""

    module: str
    square: float
    base: float | None = None


def square_of(method: str, parts: Mapping[str, np.ndarray], scale: float, rows: Rows = ()) -> float:
    """‖scale · ΔW‖² of one module, `parts` as in core.deltas; `rows` are those of the product that are the module's, () for all.

    NaN and infinity stay in the result. Parts with a DoRA magnitude have no change without their base, and must be multiplied out with it.
    Raises Refused for parts that do not belong together.
    """
    if set(_MAGNITUDES) & set(parts):
        raise ValueError("the change that a DoRA makes depends on its base")
    rank_of(method, {role: part.shape for role, part in parts.items()})
    with np.errstate(over="ignore", invalid="ignore"):
        squares = _row_squares(method, {role: np.asarray(part, np.float64) for role, part in parts.items()})
        return float(take_rows(squares, rows).sum()) * scale**2


def squares_of(values: np.ndarray) -> float:
    """The sum of the squares of an array's numbers, in float64."""
    flat = np.asarray(values).reshape(-1)
    parts = (flat[at : at + _ROWS_AT_ONCE] for at in range(0, flat.size, _ROWS_AT_ONCE))
    with np.errstate(over="ignore", invalid="ignore"):
        return sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)


def depends_on_base(parts: Iterable[str]) -> bool:
    """Whether an adapter with parts of these roles changes its module by something that only the base's weight tells."""
    return bool(set(_MAGNITUDES) & set(parts))


def _row_squares(method: str, parts: Mapping[str, np.ndarray]) -> Floats:
    """The sum of squares of each row of the change: (out,)."""
    if method == "full":
        return _of_matrix(parts["diff"])
    if method == "lora":
        return _of_product(*_factors(parts, "up", "down", "mid"))
    if method == "loha":
        return _of_hadamard(*_factors(parts, "w1_a", "w1_b", "t1"), *_factors(parts, "w2_a", "w2_b", "t2"))
    first = _of_matrix(parts["w1"]) if "w1" in parts else _of_product(*_factors(parts, "w1_a", "w1_b", ""))
    second = _of_matrix(parts["w2"]) if "w2" in parts else _of_product(*_factors(parts, "w2_a", "w2_b", "t2"))
    return np.outer(first, second).reshape(-1)


def _factors(parts: Mapping[str, np.ndarray], left: str, right: str, core: str) -> tuple[Floats, Floats]:
    """The two matrices (out, rank) and (rank, in · kernel) whose product is meant; a Tucker core belongs to the second."""
    a, b = parts[left], parts[right]
    a = a.reshape(a.shape[:2])
    if core not in parts:
        return a, b.reshape(len(b), -1)
    half = np.tensordot(parts[core], b.reshape(b.shape[:2]), axes=([1], [0]))  # rank, kernel, in; the order within a row counts not
    return a if left == "up" else a.T, half.reshape(len(half), -1)


def _of_matrix(values: Floats) -> Floats:
    found: Floats = np.square(values.reshape(len(values), -1)).sum(axis=1)
    return found


def _of_product(a: Floats, b: Floats) -> Floats:
    """Of a @ b, by the small product b @ bᵀ; where rows nearly cancel by bᵀ = QR, since those of a·Rᵀ are as long."""
    gram = b @ b.T
    squares: Floats = ((a @ gram) * a).sum(axis=1)
    if (squares >= _CANCELS * np.square(a).sum(axis=1) * np.trace(gram)).all():
        return squares
    if not np.isfinite(b).all():  # LAPACK may raise for such
        return np.full(len(a), np.nan)
    triangle: Floats = np.linalg.qr(b.T)[1]
    return _of_matrix(a @ triangle.T)


def _of_hadamard(a: Floats, b: Floats, c: Floats, d: Floats) -> Floats:
    """Of (a @ b) ∘ (c @ d)."""
    rank, width = a.shape[1] * c.shape[1], b.shape[1]
    if rank * rank * (2 * width + len(a)) < len(a) * width * (a.shape[1] + c.shape[1]):
        return _of_product((a[:, :, None] * c[:, None, :]).reshape(len(a), -1), (b[:, None, :] * d[None, :, :]).reshape(-1, width))
    step = max(1, _ROWS_AT_ONCE // width)
    return np.concatenate([_of_matrix((a[at : at + step] @ b) * (c[at : at + step] @ d)) for at in range(0, len(a), step)])


def block_of(component: str, module: str) -> str:
    """Where in a model a module is: `unet down_blocks.1`, `transformer single_transformer_blocks.3`, `unet others`."""
    found = _BLOCK.search(module)
    return f"{component} {found[1] if found else 'others'}"


def by_block(sizes: Iterable[tuple[str, ModuleSize]]) -> tuple[BlockSize, ...]:
    """The norms of the whole, under WHOLE, and of each block in the order in which the model computes them; `sizes` have their component.

    A block's base is known only where that of all its modules is.
    """
    groups: dict[str, list[ModuleSize]] = {}
    for component, one in sizes:
        groups.setdefault(block_of(component, one.module), []).append(one)
    every = [one for group in groups.values() for one in group]
    return tuple(_block(name, group) for name, group in [(WHOLE, every), *sorted(groups.items(), key=lambda item: _place(item[0]))])


def _block(name: str, group: list[ModuleSize]) -> BlockSize:
    bases = [one.base for one in group]
    known = [base for base in bases if base is not None]
    base = math.sqrt(sum(known)) if group and len(known) == len(bases) else None
    return BlockSize(name, math.sqrt(sum(one.square for one in group)), len(group), base)


_ORDER = ("down_blocks", "controlnet_down_blocks", "mid_block", "up_blocks", "transformer_blocks", "single_transformer_blocks")


def _place(block: str) -> tuple[str, int, int, str]:
    component, _, inside = block.partition(" ")
    kind, _, number = inside.partition(".")
    order = _ORDER.index(kind) if kind in _ORDER else len(_ORDER) + (kind == "others")
    return component, order, int(number) if number.isdigit() else 0, inside
