"""The table of contents of a file that torch.save wrote (.bin, .pt, .pth, .ckpt), read without torch and without unpickling.

Such a file is a zip whose entries are stored uncompressed: `NAME/data.pkl` says which tensors there are, and the numbers of each lie in
`NAME/data/KEY`. So tensors can be read from their places as they are from a safetensors file. Layout: `torch/serialization.py`, since 1.6.
"""

from __future__ import annotations

import io
import math
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from cmp.disk.inert import Tensor, read_inert
from cmp.disk.numbers import NUMPY_TYPES
from cmp.disk.tensors import Entry, Header, identify, without_waiting
from cmp.errors import Refused, Unreadable

LONGEST_TABLE = 8_000_000  # bytes of data.pkl, and of the zip's own directory; SDXL's UNet has some 0.6 MB and 0.2 MB
_MOST_AXES = 64
_LOCAL, _DIRECTORY, _SUMS = b"PK\x03\x04", b"PK\x01\x02", b"PK\x07\x08"  # how the parts of a zip begin
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickled magic number
_DEEPSPEED = re.compile(r"(?:(?:bf|fp)16_)?(?:mp|zero_pp)_rank_.*_states\.pt\Z")
_JOIN = "Join the parts with DeepSpeed's own zero_to_fp32: python -m deepspeed.utils.zero_to_fp32 FOLDER OUTPUT --safe_serialization"
_TABLES = ("model_state_dict", "state_dict", "module", "model")
_COUNTERS = ("step", "global_step", "epoch")
_SURROGATE = re.compile("[\ud800-\udfff]")  # pickles can spell halves of pairs, which no encoding takes
_INCOMPLETE = "It may still be being written; it is picked up when it is whole. If nothing writes to it, copy it again."


@dataclass(frozen=True, slots=True)
class _Place:
    start: int
    end: int


class _Capped(io.FileIO):
    """A file that gives no more at once than a zip's directory may be long, whatever length the zip claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(LONGEST_TABLE if size is None or size < 0 else min(size, LONGEST_TABLE)) or b""


def read_pickled_header(path: Path) -> Header:
    """The names, types, shapes and places of the tensors in a file of torch.save; nothing in it is imported, called or unpickled.

    The tensors may stand in one of the usual tables ("model_state_dict", "state_dict", "module", "model"); `metadata` then says which
    ("table"), has the step or epoch beside it, and names what was left aside ("left aside"), such as an optimizer.
    Raises Unreadable for a damaged or incomplete file and Refused for what cannot be read without running code, with what to do.
    """
    identity = identify(path)
    if identity.size == 0:
        raise Unreadable(f"{path} is empty (0 bytes)", "It may still be being written; look again later.")
    try:
        if _DEEPSPEED.match(path.name):
            raise Refused("it is DeepSpeed's part of a checkpoint, which was split by processes", _JOIN)
        with _Capped(path, "rb", opener=without_waiting) as file:
            _check_kind(file)
            pickled, places = _read_zip(file)
        tensors, metadata = _select(read_inert(pickled))
        return Header(path, {name: _entry(name, tensor, places) for name, tensor in tensors.items()}, metadata, identity)
    except OSError as fault:
        raise Unreadable(f"cannot read {path}: {fault.strerror or fault}", "Check its permissions.") from fault
    except (Refused, Unreadable) as fault:
        raise type(fault)(f"{path} cannot be read: {fault.message}", fault.hint or _rewriting(path)) from fault


def _rewriting(path: Path) -> str:
    saved = "save_file({k: v.clone().contiguous() for k, v in torch.load(f, weights_only=True).items()}, f + '.safetensors')"
    program = f"import sys, torch; from safetensors.torch import save_file; f = sys.argv[1]; {saved}"
    return f'Rewrite it where torch is: python -c "{program}" {shlex.quote(str(path))}'


def _check_kind(file: io.FileIO) -> None:
    """Raises for what is no zip; torch knows its files by the same four bytes."""
    head = file.read(512)
    if head.startswith(_LOCAL):
        return
    if head.startswith((b"\x80", _LOCAL[:1])) and len(head) < 16:
        raise Unreadable(f"it is incomplete: it has {len(head)} bytes", _INCOMPLETE)
    if head.startswith(_OLD_TORCH) or head[257:262] == b"ustar":
        raise Refused("it was written by torch before 1.6, or in its format, and cannot be read without unpickling it", "")
    if head.startswith(b"\x80"):
        raise Refused("it is a bare pickle, not a file of torch.save, and needs arbitrary code to be read", "Nothing of it was run.")
    raise Unreadable(f"it is no weights file: it begins with {head[:8]!r}", "Check what wrote it.")


def _read_zip(file: io.FileIO) -> tuple[bytes, dict[str, _Place]]:
    """The pickled table, and where the storages lie by their keys."""
    try:
        with zipfile.ZipFile(file) as opened:
            infos = {info.filename: info for info in opened.infolist()}
            if len(infos) != len(opened.infolist()):
                raise Unreadable("two entries of it have one name", "It is damaged, or was not written by torch.")
            root = _root(infos)
            pickled = _read(file, infos[f"{root}data.pkl"])
            order = infos.get(f"{root}byteorder")
            if order and _read(file, order) != b"little":
                raise Refused("its numbers are big-endian", "Rewrite it on the machine that made it, as safetensors.")
            stem = f"{root}data/"
            places = {name.removeprefix(stem): _locate(file, info) for name, info in infos.items() if name.startswith(stem)}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, IndexError, OverflowError, struct.error) as fault:
        raise Unreadable("it is incomplete: the directory at its end is missing or damaged", _INCOMPLETE) from fault
    ordered = sorted(places.values(), key=lambda place: place.start)
    if any(before.end > after.start for before, after in pairwise(ordered)):
        raise Unreadable("entries of it overlap", "It is damaged, or was not written by torch.")
    return pickled, places


def _root(infos: Mapping[str, zipfile.ZipInfo]) -> str:
    """The folder in which torch put everything: `archive/`."""
    roots = [name.removesuffix("data.pkl") for name in infos if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(roots) != 1:
        raise Unreadable("it is a zip without one data.pkl: torch.save did not write it", "Check what wrote it.")
    if f"{roots[0]}constants.pkl" in infos:
        raise Refused("it is a TorchScript program", "Only tables of weights are read; save the model's state_dict().")
    return roots[0]


def _locate(file: io.FileIO, info: zipfile.ZipInfo) -> _Place:
    """Where an entry's bytes lie: behind its own head, whose length the directory does not tell."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
        raise Refused(f"its entry {info.filename!r} is compressed or encrypted", "torch.save stores them plainly; check what wrote it.")
    if info.header_offset < 0:
        raise Unreadable("it is incomplete: the directory at its end points before its beginning", _INCOMPLETE)
    file.seek(info.header_offset)
    head = file.read(30)
    signature, name_length, extra_length = struct.unpack("<4s22xHH", head)
    name = file.read(name_length)
    start = info.header_offset + 30 + name_length + extra_length
    file.seek(start + info.file_size)  # a head whose length is wrong by a few bytes would shift every number
    follows = file.read(8)
    whole = follows == _SUMS + info.CRC.to_bytes(4, "little") if info.flag_bits & 8 else follows[:4] in (_LOCAL, _DIRECTORY)
    told = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
    if signature != _LOCAL or name != told or not whole:
        raise Unreadable(f"it is incomplete: its entry {info.filename!r} is not where the directory says", _INCOMPLETE)
    return _Place(start, start + info.file_size)


def _read(file: io.FileIO, info: zipfile.ZipInfo) -> bytes:
    place = _locate(file, info)
    if info.file_size > LONGEST_TABLE:
        raise Refused(f"its table of contents has {info.file_size:,} bytes", "No trainer known here writes such a file.")
    file.seek(place.start)
    found = file.read(info.file_size)
    if len(found) != info.file_size or info.CRC not in (0, zlib.crc32(found)):  # 0: torch.serialization.set_crc32_options(False)
        raise Unreadable(f"its entry {info.filename!r} is damaged", "Copy it again.")
    return found


def _select(value: object) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name, and what to note of what stood beside them."""
    if isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value)):
        raise Refused("it is a list of weights without names", "Nothing says which modules they belong to; save them by name.")
    if not isinstance(value, dict):
        raise Refused(f"it holds no table of tensors but a {type(value).__name__}", "Save the model's state_dict().")
    if {"ds_config", "ds_version", "param_shapes"} & value.keys():
        raise Refused("it is DeepSpeed's part of a checkpoint, which was split by processes", _JOIN)
    inner = [name for name in _TABLES if isinstance(value.get(name), dict) and any(isinstance(v, Tensor) for v in value[name].values())]
    if len(inner) > 1:
        raise Refused(f"it holds several tables of weights: {', '.join(inner)}", "Save the one that is meant.")
    noted = {name: str(value[name]) for name in _COUNTERS if type(value.get(name)) in (int, float)}
    if inner:
        noted["table"] = inner[0]
        if aside := [str(name)[:80] for name in value if name not in noted and name != inner[0]]:
            noted["left aside"] = ", ".join(aside[:20])
    table = value[inner[0]] if inner else {name: found for name, found in value.items() if name not in noted}
    for name, found in table.items():
        if not isinstance(found, Tensor) or not isinstance(name, str) or _SURROGATE.search(name):
            kind = "tensor under a strange name" if isinstance(found, Tensor) else type(found).__name__
            raise Refused(f"{ascii(name)[:80]} in its table is a {kind}, no named tensor", "Save the model's state_dict() alone.")
    return table, noted


def _entry(name: str, tensor: Tensor, places: Mapping[str, _Place]) -> Entry:
    """Raises Unreadable for a tensor that does not lie within its numbers, Refused for one whose numbers are not row by row."""
    width = np.dtype(NUMPY_TYPES[tensor.dtype]).itemsize
    storage, shape, numel = tensor.storage, tensor.shape, math.prod(tensor.shape)
    place = places.get(storage.key)
    if place is None or place.end - place.start != storage.numel * (width if storage.dtype else 1):
        raise Unreadable(f"the numbers of {name[:80]!r} are missing or of another length", "It is damaged; copy it again.")
    if not len(shape) == len(tensor.stride) <= _MOST_AXES or math.prod(size or 1 for size in shape) >= 1 << 48:
        raise Unreadable(f"it describes {name[:80]!r} wrongly, as {list(shape)[:9]}", "It is damaged; copy it again.")
    expected = 1
    for size, stride in zip(reversed(shape), reversed(tensor.stride), strict=True):
        if numel and size > 1 and stride != expected:
            raise Refused(f"{name[:80]!r} is not stored row by row: it is {list(shape)} with the strides {list(tensor.stride)}", "")
        expected *= size
    start = place.start + (tensor.offset * width if numel else 0)
    if start + numel * width > place.end:
        raise Unreadable(f"{name[:80]!r} reaches past the end of its numbers", "It is damaged; copy it again.")
    return Entry(tensor.dtype, shape, start, start + numel * width)
