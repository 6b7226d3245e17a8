"""The number types of stored tensors: how numpy holds them, and their values in another type."""

from __future__ import annotations

import numpy as np

from cmp.errors import Refused, Unreadable

# numpy has no bfloat16 and no float8: their bits are carried in unsigned integers of the same width
NUMPY_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "|u1", "F8_E5M2": "|u1", "F8_E8M0": "|u1", "C64": "<c8",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
FLOATS = frozenset(("F64", "F32", "F16", "BF16"))
WIDTHS = {name: np.dtype(kind).itemsize for name, kind in NUMPY_TYPES.items()}  # bytes


# type → an unsigned type of its width, and the bits that are all set in NaN, and but for F8_E4M3 in infinity, and in nothing finite
_SPECIAL = {
    "F64": ("<u8", 0x7FF0 << 48), "F32": ("<u4", 0x7F80 << 16), "C64": ("<u4", 0x7F80 << 16), "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80), "F8_E4M3": ("|u1", 0x7F), "F8_E5M2": ("|u1", 0x7C), "F8_E8M0": ("|u1", 0xFF),
}  # fmt: skip


def all_finite(raw: memoryview | np.ndarray, dtype: str) -> bool:
    """Whether there is no NaN and no infinity among numbers given as they are stored. Whole numbers are always finite."""
    if dtype not in _SPECIAL:
        return True
    kind, mask = _SPECIAL[dtype]
    bits = np.frombuffer(raw, kind) if isinstance(raw, memoryview) else np.ascontiguousarray(raw).reshape(-1).view(kind)
    return not bits.size or int((bits & bits.dtype.type(mask)).max()) != mask


def as_float32(array: np.ndarray, dtype: str) -> np.ndarray:
    """The values as float32, exact for every floating type that is not wider."""
    if dtype == "BF16":
        return (array.astype("<u4") << 16).view("<f4")
    if dtype in FLOATS:
        return array.astype("<f4", copy=False)
    raise Unreadable(f"tensors of type {dtype} hold no weights that can be computed with here", "Save the LoRA in a float type.")


def cast_bits(array: np.ndarray, dtype: str, wanted: str) -> np.ndarray:
    """The array as `wanted` would store it, rounded to nearest even as torch does."""
    if dtype == wanted:
        return array
    values = as_float32(array, dtype)
    if wanted == "BF16":
        bits = values.view("<u4")
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2")
    return values.astype(NUMPY_TYPES[wanted])


def narrowed(name: str, array: np.ndarray, dtype: str, wanted: str) -> np.ndarray:
    """The array as `wanted` stores it; raises Refused, and names the tensor, where a finite value would become infinite."""
    with np.errstate(over="ignore"):
        cast = cast_bits(array, dtype, wanted)
    if wanted == "F16" != dtype and (lost := np.isinf(cast)).any():
        exact = as_float32(array, dtype)[lost]
        if (finite := exact[np.isfinite(exact)]).size:
            raise Refused(f"{name} holds {finite[0]:g}, which fp16 cannot hold", "Write it as bf16 or fp32.")
    return cast
