"""The header reader against the safetensors library, on bytes that nobody would write: read equally, or refused in words."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as written

from cmp.disk.tensors import Header, read_header, read_tensors
from cmp.errors import CmpError

THOROUGH = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
VALID = written(
    {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.array(7, "i8"), "ab": np.zeros((0, 4), "f2"), "aa": np.array([[1, 0]], "bool")},
    {"format": "pt", "a": "1"},
)
HEAD = 8 + struct.unpack("<Q", VALID[:8])[0]
# what a header is made of: a random byte seldom gives JSON again
PIECES = (
    *(b"0", b"1", b"9", b"-1", b"1.0", b"1e0", b"[", b"]", b"{", b"}", b",", b":", b'"', b" ", b"a", b"b", b"ab", b"null", b"true", b"NaN"),
    *(b"F32", b"BF16", b"I64", b"__metadata__", b"18446744073709551616", b"\\u0061", b"\\ud800", b"\x00", b"\xff", b"\xef\xbb\xbf"),
)

Edit = tuple[str, int, bytes]
places, pieces = st.integers(8, HEAD) | st.integers(0, len(VALID)), st.sampled_from(PIECES) | st.binary(min_size=1, max_size=3)
gentle = st.lists(st.tuples(st.just("alike"), places, pieces), min_size=1, max_size=3)
rough = st.lists(st.tuples(st.sampled_from(["replace", "insert", "delete", "copy", "cut"]), places, pieces), min_size=1, max_size=3)
edits = gentle | rough


def edited(content: bytes, changes: list[Edit], mend: bool) -> bytes:
    """The file after some edits; with `mend` its first eight bytes tell the header's length again."""
    for kind, at, piece in changes:
        at = min(at, len(content))
        if kind == "alike":
            content = content[:at] + _alike(content[at : at + 1], piece[:1]) + content[at + 1 :]
        elif kind == "insert":
            content = content[:at] + piece + content[at:]
        elif kind == "cut":
            content = content[:at]
        elif kind == "copy":  # of a stretch of the header, to where another stretch was
            content = content[:at] + content[at : at + 20] + content[at:]
        else:
            content = content[:at] + (piece if kind == "replace" else b"") + content[at + len(piece) :]
    if mend and len(content) > 8:
        end = content.rfind(b"}", 8) + 1
        content = struct.pack("<Q", max(0, end - 8)) + content[8:]
    return content


def _alike(old: bytes, new: bytes) -> bytes:
    """Another of the same kind, so that what it stands in may still hold together: a digit, a letter, else a space or itself."""
    if old.isdigit():
        return b"%d" % (new[0] % 10)
    if old.isalpha():
        return b"abFI"[new[0] % 4 :][:1]
    return new if old in b"\x00\x01" else old


def by_library(path: Path) -> dict[str, Any] | None:
    """Names, shapes and values as the library reads them, with the metadata under no name; None if it refuses the file."""
    try:
        with safe_open(path, framework="np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (no mapping)
            return {"": file.metadata() or {}} | {name: (shape, _value(file, name)) for name, shape in shapes.items()}
    except SafetensorError:
        return None


def _value(file: Any, name: str) -> bytes | None:
    try:
        return file.get_tensor(name).tobytes()
    except (TypeError, SafetensorError, AttributeError):  # numpy has no bfloat16
        return None


def by_us(path: Path) -> dict[str, Any] | None:
    """The same by our reader, None if it refuses the file in words. Anything but a CmpError comes through."""
    try:
        header = read_header(path)
        values = dict(read_tensors(header, header.tensors))
    except CmpError as fault:
        assert fault.message and fault.hint
        return None
    assert isinstance(header, Header)
    return {"": dict(header.metadata)} | {name: (entry.shape, values[name].tobytes()) for name, entry in header.tensors.items()}


def agree(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    ours, theirs = by_us(path), by_library(path)
    if ours is None:
        return
    assert theirs is not None, "we read what the library refuses"
    assert ours.keys() == theirs.keys() and ours[""] == theirs[""]
    for name in ours.keys() - {""}:
        assert ours[name][0] == theirs[name][0] and theirs[name][1] in (None, ours[name][1])


@THOROUGH
@given(st.binary(max_size=200))
@example(b"")
@example(struct.pack("<Q", 2) + b"{}")
@example(struct.pack("<Q", 2**63) + b"{}")
@example(struct.pack("<Q", 2**64 - 1) + b"{}")
def test_arbitrary_bytes_are_read_as_the_library_reads_them_or_refused(tmp_path: Path, content: bytes) -> None:
    agree(tmp_path / "x.safetensors", content)


@THOROUGH
@given(edits, st.booleans())
def test_an_edited_file_is_read_as_the_library_reads_it_or_refused(tmp_path: Path, changes: list[Edit], mend: bool) -> None:
    agree(tmp_path / "x.safetensors", edited(VALID, changes, mend))


@pytest.mark.parametrize(
    "head",
    [
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":1,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}}',
        b'{"a:b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"c":"d:e"}}',
        b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"n":1}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"n":null}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"n":["x"]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":[]}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":null}',
        b' {"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}   ',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}\x00\x00',
        b'\xef\xbb\xbf{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"\\ud800":"x"}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"x":NaN}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[0],"data_offsets":[2,2]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}',
        b'{"a":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
        json.dumps({f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(50)}).encode()[:-1]
        + b',"z":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    ],
)
def test_a_header_on_the_edge_is_read_as_the_library_reads_it_or_refused(tmp_path: Path, head: bytes) -> None:
    agree(tmp_path / "x.safetensors", struct.pack("<Q", len(head)) + head + b"\x00\x00\x80\x3f")
