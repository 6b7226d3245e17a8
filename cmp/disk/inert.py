"""What the pickle inside a torch file says, with nothing of it imported or called: a stack machine for the opcodes of a table of tensors.

Names of classes and functions are kept as inert `Symbol`s. Where the pickle would have one called, it must be one of the few that torch
itself writes for a tensor, and what the call would have been is noted as a value. Opcodes: the standard library's `pickletools`; calls:
`torch/_utils.py`, `torch/serialization.py` of torch 1.6 to 2.13.
"""

from __future__ import annotations

import pickletools
from collections.abc import Sequence
from dataclasses import dataclass

from cmp.errors import Refused, Unreadable

MOST_OPCODES = 400_000  # a tensor takes 30 to 50; SDXL's UNet beside its AdamW some 240,000
_ORDERED_DICT, _SIZE, _PARAMETER = "collections.OrderedDict", "torch.Size", "torch._utils._rebuild_parameter"
_TENSOR, _TYPED_TENSOR, _UNTYPED = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3", "torch.storage.UntypedStorage"
_STORAGES = {
    "torch.DoubleStorage": "F64", "torch.FloatStorage": "F32", "torch.HalfStorage": "F16", "torch.BFloat16Storage": "BF16",
    "torch.ComplexFloatStorage": "C64", "torch.LongStorage": "I64", "torch.IntStorage": "I32", "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8", "torch.ByteStorage": "U8", "torch.BoolStorage": "BOOL", _UNTYPED: "",
}  # fmt: skip
_DTYPES = {
    "torch.float64": "F64", "torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16", "torch.complex64": "C64",
    "torch.float8_e4m3fn": "F8_E4M3", "torch.float8_e5m2": "F8_E5M2", "torch.float8_e8m0fnu": "F8_E8M0", "torch.int64": "I64",
    "torch.int32": "I32", "torch.int16": "I16", "torch.int8": "I8", "torch.uint64": "U64", "torch.uint32": "U32", "torch.uint16": "U16",
    "torch.uint8": "U8", "torch.bool": "BOOL",
}  # fmt: skip
_KNOWN = {_ORDERED_DICT, _SIZE, _PARAMETER, _TENSOR, _TYPED_TENSOR, *_STORAGES, *_DTYPES}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}  # their own argument
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CALLING = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "EXT1", "EXT2", "EXT4", "BUILD"}
_TRUSTED = "Nothing of it was run. Only if you trust who made it: rewrite it as safetensors in an environment of your own."


@dataclass(frozen=True, slots=True)
class Symbol:
    """The name of a class or function; never looked up."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers in an entry of the zip: `numel` of them, or bytes where `dtype` is ""."""

    dtype: str
    key: str
    numel: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; `offset` and `stride` count numbers."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Broken(ValueError):
    """The opcodes contradict each other: no pickler wrote them."""


def read_inert(pickled: bytes) -> object:
    """The value that unpickling would give, made of dicts, lists, tuples, plain values, Symbols and Tensors.

    Raises Refused for what would have to be called or is unknown, Unreadable for what no pickler wrote. The memory it takes is some 100
    bytes an opcode; dicts are keyed by str and int only, so that no hash takes long.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
            if count >= MOST_OPCODES:
                raise Refused(f"its table of contents is longer than {MOST_OPCODES:,} steps", "No trainer known here writes such a file.")
            machine.step(opcode.name, argument)
        return machine.result()
    except (ValueError, IndexError, KeyError, OverflowError) as fault:  # IndexError: the stack is empty, KeyError: not in the memo
        raise Unreadable("its table of contents is damaged", "Copy it again.") from fault


class _Machine:
    def __init__(self) -> None:
        self._stack: list[object] = []
        self._below: list[list[object]] = []  # the stacks below each mark
        self._memo: dict[int, object] = {}

    def result(self) -> object:
        if len(self._stack) != 1 or self._below:
            raise _Broken("something is left on the stack")
        return self._stack[0]

    def step(self, name: str, argument: object) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[argument if isinstance(argument, int) else len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[_integer(argument)])
        elif name == "MARK":
            self._below.append(stack)
            self._stack = []
        elif name == "TUPLE":
            self._push_above_mark(tuple(stack))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._pop(int(name[-1]))))
        elif name in ("SETITEM", "SETITEMS", "APPEND", "APPENDS"):
            self._fill(name)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_symbol(".".join(map(_text, self._pop(2))) if argument is None else str(argument).replace(" ", ".", 1)))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            stack.append(_call(*self._pop(2)))
        elif name == "BUILD" and len(stack) > 1 and isinstance(stack[-2], dict):
            stack.pop()  # what a module notes beside its tensors: versions
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise _needs_code(f"{name} {argument}" if argument else name) if name in _CALLING else _unknown(name)

    def _push_above_mark(self, value: object) -> None:
        self._stack = self._below.pop()
        self._stack.append(value)

    def _pop(self, count: int) -> list[object]:
        if len(self._stack) < count:
            raise _Broken("the stack is too short")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _fill(self, name: str) -> None:
        """Adds to the list or dict below what lies on the stack."""
        if name in ("SETITEMS", "APPENDS"):
            added = self._stack
            self._stack = self._below.pop()
        else:
            added = self._pop(2 if name == "SETITEM" else 1)
        target = self._stack[-1]
        if name in ("APPEND", "APPENDS") and isinstance(target, list):
            target.extend(added)
        elif name in ("SETITEM", "SETITEMS") and isinstance(target, dict) and len(added) % 2 == 0:
            for key, value in zip(added[::2], added[1::2], strict=True):
                if not isinstance(key, str | int):
                    raise Refused(f"it has a table keyed by {type(key).__name__}", "Tables of weights are keyed by names.")
                target[key] = value
        else:
            raise _Broken(f"{name} on {type(target).__name__}")


def _symbol(name: str) -> Symbol:
    if name not in _KNOWN:
        raise _needs_code(f"GLOBAL {name}")
    return Symbol(name)


def _storage(told: object) -> Storage:
    match told:
        case ("storage", Symbol(kind), str(key), str(), int(numel)) if kind in _STORAGES and numel >= 0 and key.isascii() and key.isdigit():
            return Storage(_STORAGES[kind], key, numel)
    raise _Broken("a reference to something that is no storage")


def _call(function: object, arguments: object) -> object:
    """What torch would make of it; the function is one of a few, and is not called."""
    match (function, arguments):
        case (Symbol(name), ()) if name == _ORDERED_DICT:
            return {}
        case (Symbol(name), (tuple(sizes),)) if name == _SIZE:
            return sizes
        case (Symbol(name), (Tensor() as tensor, bool(), dict())) if name == _PARAMETER:
            return tensor
        case (Symbol(name), (Storage() as storage, offset, shape, stride, bool(), dict(), *more)) if name == _TENSOR:
            return _tensor(storage, storage.dtype, offset, shape, stride, more)
        case (Symbol(name), (Storage() as storage, offset, shape, stride, bool(), dict(), Symbol(dtype), *more)) if name == _TYPED_TENSOR:
            return _tensor(storage, _DTYPES.get(dtype, ""), offset, shape, stride, more)
    raise _needs_code(f"REDUCE {function.name}" if isinstance(function, Symbol) else "REDUCE")


def _tensor(storage: Storage, dtype: str, offset: object, shape: object, stride: object, more: Sequence[object]) -> Tensor:
    if any(more):
        raise Refused("a tensor in it is stored conjugated or negated", "Its bytes are not its values; save it with .contiguous().")
    if not dtype:
        raise _Broken("a tensor without a type")
    return Tensor(storage, dtype, _integer(offset), _integers(shape), _integers(stride))


def _integer(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise _Broken("a number was expected")
    return value


def _integers(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple):
        raise _Broken("a shape was expected")
    return tuple(map(_integer, values))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Broken("a name was expected")
    return value


def _unknown(name: str) -> Refused:
    hint = "Save the model's state_dict() alone."
    return Refused(f"its table of contents is written in a way that is not read here (opcode {name})", hint)


def _needs_code(told: str) -> Refused:
    return Refused(f"it needs arbitrary code to be read ({ascii(told[:120])[1:-1]})", _TRUSTED)
