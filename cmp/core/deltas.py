"""The weight of one adapted module, computed from the parts of its adapter: LoRA, LoCon, DoRA, LoHa, LoKr and plain differences.

`method` is "lora", "loha", "lokr" or "full"; `parts` are float32 arrays by role:

- lora: down (rank, in, …), up (out, rank, …), and mid (rank, rank, kh, kw) where the convolution was decomposed too (Tucker)
- loha: w1_a, w1_b, w2_a, w2_b, and t1, t2 in Tucker form
- lokr: w1 or w1_a and w1_b; w2 or w2_a and w2_b, and t2 in Tucker form
- full: diff, of the weight's own shape

The first three may have one of two DoRA magnitudes: `magnitude` (PEFT's lora_magnitude_vector; one number per output) or `dora_scale`
(LyCORIS, kohya, OneTrainer; its shape says whether a norm is taken per output or per input).
Formulas, and their order of operations: PEFT 0.21 `tuners/{lora,loha,lokr}`, LyCORIS 4.1.3 `functional/`. PEFT's LoHa and LoKr are copies
of LyCORIS's with the same orientation of every factor.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from cmp.core.fused_names import Rows
from cmp.errors import Refused

Shape = tuple[int, ...]

# the products that each method is made of: left factor, right factor, Tucker core if any
_PRODUCTS = {
    "lora": (("up", "down", "mid"),),
    "loha": (("w1_a", "w1_b", "t1"), ("w2_a", "w2_b", "t2")),
    "lokr": (("w1_a", "w1_b", ""), ("w2_a", "w2_b", "t2")),
    "full": (),
}
_CORES = ("mid", "t1", "t2")
_MAGNITUDES = ("magnitude", "dora_scale")
_ANOTHER_BASE = "It was trained on another base model; give it with --base."
_STRANGE = "No trainer known here writes this; nothing is guessed."


def fixed_scale(method: str, roles: Collection[str], producer: str) -> float | None:
    """The scale that no alpha changes, or None where it is alpha/rank (or alpha/√rank), which the caller has to find.

    LyCORIS, and kohya and ai-toolkit with it, puts alpha = rank where both factors of a LoKr are stored whole, whatever alpha was asked
    for; `producer` "peft" does not: it scales such a module by alpha/r like any other. LyCORIS with rs_lora=True scales it by √dim,
    which no tensor tells: see core.network_args.
    """
    if method == "full" or (method == "lokr" and producer != "peft" and {"w1", "w2"} <= set(roles)):
        return 1.0
    return None


def rank_of(method: str, shapes: Mapping[str, Shape]) -> int:
    """The rank that alpha is divided by; 0 where the shapes have none: "full", and a LoKr of two whole factors.

    Raises Refused for parts that are missing, unknown, or contradict each other.
    """
    _check_roles(method, shapes)
    ranks = {_product_shape(shapes, *product)[0] for product in _PRODUCTS[method] if product[0] in shapes}
    if len(ranks) > 1:
        raise Refused(f"its parts {_listed(shapes)} have the ranks {', '.join(map(str, sorted(ranks)))}", _STRANGE)
    return ranks.pop() if ranks else 0


def made_shape(method: str, shapes: Mapping[str, Shape]) -> Shape:
    """The shape of the weight that these parts make. Raises Refused as `rank_of` does."""
    rank_of(method, shapes)
    return _delta_shape(method, shapes)


def take_rows(values: np.ndarray, rows: Rows) -> np.ndarray:
    """The named ranges of rows one after the other; all of them for ()."""
    return np.concatenate([values[start:stop] for start, stop in rows]) if rows else values


def check_delta(method: str, shapes: Mapping[str, Shape], base_shape: Shape, module: str, rows: Rows = ()) -> None:
    """Raises Refused, with the module's name and both shapes, if these parts do not make a weight of `base_shape`; computes nothing.

    `rows` are those of the weight made that are the module's, () for all.
    """
    try:
        made = made_shape(method, shapes)
        if rows:
            shapes = _cut_magnitudes(shapes, made, rows)
            made = (_count(rows), *made[1:])
        if not _is_same(made, base_shape, flat=method in ("loha", "lokr")):
            raise Refused(f"its parts {_listed(shapes)} make a weight of {list(made)}", _ANOTHER_BASE)
        _norm_axis(shapes, base_shape)
    except Refused as fault:
        raise Refused(f"{module} is {list(base_shape)} in the base: {fault.message}", fault.hint) from fault


def apply_delta(
    method: str, parts: Mapping[str, np.ndarray], scale: float, base: np.ndarray, strength: float = 1.0, rows: Rows = ()
) -> np.ndarray:
    """The module's weight with its adapter added: float32, shape of `base`.

    The delta is multiplied by `scale` (see `fixed_scale`). `strength` moves the weight along the line from the base to the trained one,
    with DoRA too: W + strength · (W' - W). Overflow and NaN stay in the result. Raises Refused as `check_delta` does.
    """
    check_delta(method, {role: part.shape for role, part in parts.items()}, base.shape, "the module", rows)
    weight = np.asarray(base, np.float32)
    parts = {role: np.asarray(part, np.float32) for role, part in parts.items()}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        made = _delta(method, parts)
        delta = take_rows(made, rows).reshape(base.shape) * np.float32(scale)
        parts = {role: take_rows(part, rows) if role in _MAGNITUDES and len(part) == len(made) else part for role, part in parts.items()}
        shapes = {role: part.shape for role, part in parts.items()}
        axis = _norm_axis(shapes, base.shape)
        if axis is None:
            return weight + (delta if strength == 1 else delta * np.float32(strength))
        trained = _renormed(weight + delta, parts, axis)
        return trained if strength == 1 else weight + np.float32(strength) * (trained - weight)


def _delta(method: str, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    if method == "full":
        return parts["diff"]
    made = [_product(parts, *product) for product in _PRODUCTS[method] if product[0] in parts]
    if method == "lora":
        return made[0]
    if method == "loha":
        return made[0] * made[1]
    first = parts["w1"] if "w1" in parts else made.pop(0)
    second = parts["w2"] if "w2" in parts else made.pop(0)
    return np.kron(np.expand_dims(first, tuple(range(2, second.ndim))), second)


def _product(parts: Mapping[str, np.ndarray], left: str, right: str, core: str) -> np.ndarray:
    """left @ right; with a core, the core's two ranks are contracted with theirs."""
    a, b = parts[left], parts[right]
    a = a.reshape(a.shape[:2])
    if core not in parts:
        return (a @ b.reshape(len(b), -1)).reshape((len(a), *b.shape[1:]))
    if left == "up":  # (out, rank), where LoHa and LoKr store (rank, out)
        a = a.T
    half = np.tensordot(b.reshape(b.shape[:2]), parts[core], axes=([0], [1]))  # in, rank, kernel
    return np.tensordot(a, half, axes=([0], [1]))  # out, in, kernel


def _renormed(weight: np.ndarray, parts: Mapping[str, np.ndarray], axis: int) -> np.ndarray:
    """DoRA: every slice along `axis` scaled to the length that was trained."""
    others = tuple(a for a in range(weight.ndim) if a != axis)
    norm = np.sqrt(np.sum(np.square(weight), axis=others, keepdims=True, dtype=np.float64)).astype(np.float32)
    lengths = parts["magnitude"] if "magnitude" in parts else parts["dora_scale"]
    if "dora_scale" in parts:
        norm = norm + np.finfo(np.float32).eps  # LyCORIS; PEFT adds nothing
    return weight * (lengths.reshape(norm.shape) / norm)


def _check_roles(method: str, shapes: Mapping[str, Shape]) -> None:
    if method not in _PRODUCTS:
        raise ValueError(f"no such method: {method}")
    wanted: set[str] = {"diff"} if method == "full" else set()
    known = set() if method == "full" else set(_MAGNITUDES)
    for left, right, core in _PRODUCTS[method]:
        whole = left.removesuffix("_a") if method == "lokr" else ""
        if whole in shapes and not {left, right, core} & set(shapes):
            wanted.add(whole)
        else:
            wanted |= {left, right}
            known.add(core)
    if missing := wanted - set(shapes):
        raise Refused(f"of its {method} parts {', '.join(sorted(missing))} is missing among {_listed(shapes)}", _STRANGE)
    if strange := set(shapes) - wanted - known:
        raise Refused(f"{', '.join(sorted(strange))} is no part of a {method} beside {', '.join(sorted(wanted))}", _STRANGE)
    if ("t1" in shapes) != ("t2" in shapes) and method == "loha":
        raise Refused(f"only one half of it has a Tucker core: {_listed(shapes)}", _STRANGE)
    least = {role: 1 if role in _MAGNITUDES or role == "diff" else 3 if role in _CORES else 2 for role in shapes}
    if bad := [role for role, shape in shapes.items() if len(shape) < least[role] or 0 in shape]:
        raise Refused(f"its part {bad[0]} has the shape {list(shapes[bad[0]])}", _STRANGE)


def _product_shape(shapes: Mapping[str, Shape], left: str, right: str, core: str) -> tuple[int, Shape]:
    """The rank of a product and the shape it makes."""
    a, b = shapes[left], shapes[right]
    turned = core in shapes and left != "up"  # LoHa and LoKr store (rank, out) then
    rank, out = (a[0], a[1]) if turned else (a[1], a[0])
    fits = rank == b[0] and set(a[2:]) <= {1}
    if core in shapes:
        fits = fits and shapes[core][:2] == (rank, rank) and set(b[2:]) <= {1}
        made = (out, b[1], *shapes[core][2:])
    else:
        made = (out, *b[1:])
    if not fits:
        names = [name for name in (left, right, core) if name in shapes]
        raise Refused(f"its parts {_listed({name: shapes[name] for name in names})} cannot be multiplied", _STRANGE)
    return rank, made


def _delta_shape(method: str, shapes: Mapping[str, Shape]) -> Shape:
    if method == "full":
        return shapes["diff"]
    made = [_product_shape(shapes, *product)[1] for product in _PRODUCTS[method] if product[0] in shapes]
    if method == "lora":
        return made[0]
    if method == "loha":
        if made[0] != made[1]:
            raise Refused(f"its halves make {list(made[0])} and {list(made[1])}", _STRANGE)
        return made[0]
    first = shapes["w1"] if "w1" in shapes else made.pop(0)
    second = shapes["w2"] if "w2" in shapes else made.pop(0)
    if len(first) != 2 or len(second) == 3:  # PEFT and LyCORIS multiply a factor of three axes differently
        raise Refused(f"its factors have the shapes {list(first)} and {list(second)}", _STRANGE)
    return (first[0] * second[0], first[1] * second[1], *second[2:])


def _norm_axis(shapes: Mapping[str, Shape], base_shape: Shape) -> int | None:
    """The axis whose slices DoRA gives a length of their own: 0 is outputs, 1 inputs; None without DoRA."""
    role = next((role for role in _MAGNITUDES if role in shapes), None)
    if role is None:
        return None
    found = shapes[role]
    if not set(_MAGNITUDES) <= set(shapes) and len(base_shape) >= 2:
        ones = (1,) * (len(base_shape) - 1)
        if role == "magnitude" and math.prod(found) == max(found) == base_shape[0]:
            return 0
        if role == "dora_scale" and len(found) >= 2 and _is_same(found, (base_shape[0], *ones)):
            return 0
        if role == "dora_scale" and len(found) >= 2 and _is_same(found, (1, base_shape[1], *ones[1:])):
            return 1
    raise Refused(f"its DoRA parts {_listed({r: shapes[r] for r in _MAGNITUDES if r in shapes})} fit no axis of it", _ANOTHER_BASE)


def _count(rows: Rows) -> int:
    return sum(stop - start for start, stop in rows)


def _cut_magnitudes(shapes: Mapping[str, Shape], made: Shape, rows: Rows) -> dict[str, Shape]:
    """DoRA by outputs has a length for each row; by inputs it has those of whole columns, which parts of them do not tell."""
    cut = dict(shapes)
    for role in _MAGNITUDES:
        if role in shapes and shapes[role][0] == made[0]:
            cut[role] = (_count(rows), *shapes[role][1:])
        elif role in shapes and _count(rows) != made[0]:
            raise Refused(f"its {role} {list(shapes[role])} has lengths of the columns of several modules held in one", _STRANGE)
    return cut


def _is_same(made: Shape, base: Shape, flat: bool = False) -> bool:
    """Whether both are one shape but for axes of 1 at the end (a linear layer is a 1×1 convolution), or, if `flat`, an unrolled kernel."""
    axes = max(len(made), len(base))
    if (*made, *(1,) * (axes - len(made))) == (*base, *(1,) * (axes - len(base))):
        return True
    return flat and len(made) == 2 <= len(base) and made == (base[0], math.prod(base[1:]))


def _listed(shapes: Mapping[str, Shape]) -> str:
    return " · ".join(f"{role} {list(shape)}" for role, shape in sorted(shapes.items()))
