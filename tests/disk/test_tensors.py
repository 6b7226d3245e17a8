"""Reading safetensors: whole files exactly, damaged ones refused in an instant with the reason, whatever the bytes."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cmp.core.progress import run_through
from cmp.disk.numbers import as_float32, cast_bits
from cmp.disk.tensors import Header, digest_tensors, read_header, read_tensors
from cmp.errors import Unreadable
from tests.support import at_most, save

QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def raw_file(path: Path, table: object, body: bytes = b"", length: int | None = None) -> Path:
    head = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(head) if length is None else length) + head + body)
    return path


def described(**changes: object) -> dict:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


def read_all(path: Path) -> dict[str, np.ndarray]:
    header = read_header(path)
    return dict(read_tensors(header, header.tensors))


# whole files


def test_every_numpy_type_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    kinds = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "bool")
    stored = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in kinds} | {"scalar": np.array(3.5), "empty": np.zeros((0, 4))}
    path = save(tmp_path / "x.safetensors", stored, {"format": "pt"})
    read = read_all(path)
    assert set(read) == set(stored) and read_header(path).metadata == {"format": "pt"}
    for name, values in stored.items():
        assert read[name].dtype == values.dtype and np.array_equal(read[name], values)


@QUICK
@given(
    hnp.arrays(st.sampled_from(["f4", "i8", "u1"]), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)), st.text(max_size=9)
)
def test_whatever_the_library_writes_is_read_with_equal_bytes(tmp_path: Path, array: np.ndarray, name: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({name: array, name + "2": array.T.copy()}, path)
    assert read_all(path)[name].tobytes() == array.tobytes()


def test_only_the_wanted_tensors_are_read_in_the_wanted_order(tmp_path: Path) -> None:
    header = read_header(save(tmp_path / "x.safetensors", {n: np.full(3, i) for i, n in enumerate("abc")}))
    assert [name for name, _ in read_tensors(header, ["c", "a"])] == ["c", "a"]


def digest(header: Header, names: dict[str, str]) -> str:
    return run_through(digest_tensors(header, names))


def test_a_digest_names_tensors_as_told_and_depends_on_every_byte(tmp_path: Path) -> None:
    values = np.arange(4, dtype="f4")
    one = read_header(save(tmp_path / "1.safetensors", {"long.a": values, "long.b": values, "else": values}))
    two = read_header(save(tmp_path / "2.safetensors", {"a": values, "b": values}))
    other = read_header(save(tmp_path / "3.safetensors", {"a": values, "b": np.array([0, 1, 2, 4], "f4")}))
    names = {"a": "a", "b": "b"}
    assert digest(one, {"long.b": "b", "long.a": "a"}) == digest(two, names) != digest(other, names)
    swapped = digest(two, {"a": "b", "b": "a"})
    assert swapped == digest(two, names)  # equal values under both names
    assert digest(other, {"a": "b", "b": "a"}) != digest(other, names)


# damaged files


DAMAGED = {
    "nothing": (b"", "empty"),
    "seven bytes": (b"1234567", "7 bytes"),
    "a length of 2^62": (struct.pack("<Q", 1 << 62) + b"{}", str(1 << 62)),
    "a length of 2^64 - 1": (b"\xff" * 8 + b"{}", "header claims"),
    "a header of 95 MB in 1 kB": (struct.pack("<Q", 95_000_000) + b"{" * 1000, "incomplete"),
    "a header that is cut off": (struct.pack("<Q", 500) + b'{"a": ', "incomplete"),
    "not JSON": (struct.pack("<Q", 8) + b"{a: 1}  ", "not JSON"),
    "not UTF-8": (struct.pack("<Q", 8) + b'{"\xff": 1}', "not JSON"),
    "UTF-16": (struct.pack("<Q", 4) + "{}".encode("utf-16-le"), "not JSON"),
    "a list": (struct.pack("<Q", 8) + b"[1, 2]  ", "no table"),
    "deep JSON": (struct.pack("<Q", 200_000) + b"[" * 200_000, "not JSON"),
    "torch's zip": (b"PK\x03\x04\x00\x00\x08\x08\x00\x00", "header claims"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_head_is_refused_at_once_with_the_reason(tmp_path: Path, name: str) -> None:
    content, reason = DAMAGED[name]
    (tmp_path / "x.safetensors").write_bytes(content)
    started = time.process_time()
    with pytest.raises(Unreadable) as fault:
        read_header(tmp_path / "x.safetensors")
    assert reason in fault.value.message and "x.safetensors" in fault.value.message
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "table",
    [
        described(data_offsets=[0, 4]), described(data_offsets=[8, 0]), described(data_offsets=[-8, 0]), described(data_offsets=[0, 8, 9]),
        described(data_offsets="08"), described(data_offsets=[0.0, 8.0]), described(data_offsets=[False, 8]), described(data_offsets=None),
        described(shape=[-2]), described(shape="2"), described(shape=[2.0]), described(shape=None), described(shape=[True, 2]),
        described(shape=[1] * 65 + [2]), described(shape=[0, 1 << 63], data_offsets=[0, 0]), described(shape=[1 << 62, 4]),
        described(dtype="F33"), described(dtype=["F32"]), described(dtype=None), described(dtype={}), {"a": 1}, {"a": "F32"}, {"a": None},
        {"a": []}, {"\ud800": described()["a"]}, {"__metadata__": [1]},
        described(data_offsets=[4, 12]),  # a hole in front
        described() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]}},
        described() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        described() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    ],
    ids=str,
)  # fmt: skip
def test_a_table_that_does_not_hold_together_is_refused(tmp_path: Path, table: dict) -> None:
    with pytest.raises(Unreadable, match=r"wrongly|overlap|metadata|holds 'a' as"):
        read_header(raw_file(tmp_path / "x.safetensors", table, b"\0" * 20))


def test_a_half_written_body_is_told_with_how_much_is_there(tmp_path: Path) -> None:
    whole = save(tmp_path / "x.safetensors", {"a": np.zeros(1000, "f4")}).read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[:2000])
    with pytest.raises(Unreadable, match=f"incomplete: 2,000 of {len(whole):,} bytes"):
        read_header(tmp_path / "x.safetensors")


def test_headers_alike_are_read_once_and_each_file_keeps_its_own_name_and_bytes(tmp_path: Path) -> None:
    first, second = (save(tmp_path / name, {"a": np.full(2, value, np.float32)}) for name, value in (("one", 1), ("two", 2)))
    assert read_header(first).tensors is read_header(second).tensors
    assert [read_all(path)["a"].tolist() for path in (first, second)] == [[1, 1], [2, 2]]
    for path in (first, second):
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(Unreadable, match=f"^{path} is incomplete"):
            read_header(path)


def test_a_run_whose_metadata_differ_has_one_table_and_each_file_its_own_metadata(tmp_path: Path) -> None:
    values = {"a": np.zeros(2, "f4")}
    one, two = (read_header(save(tmp_path / step, values, {"ss_steps": step})) for step in ("1", "2"))
    assert one.tensors is two.tensors and (one.metadata, two.metadata) == ({"ss_steps": "1"}, {"ss_steps": "2"})


ENTRY = '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


@pytest.mark.parametrize(
    "text",
    [
        '{"__metadata__":{},}', '{"__metadata__":{},' + ENTRY + ',}', '{"__metadata__":{}' + ENTRY + "}", '{"__metadata__":{},' + ENTRY,
        '{"__metadata__":{"x":"1"},' + ENTRY + ',"__metadata__":{}}', '{"__metadata__":{"x":"1","x":"2"},' + ENTRY + "}",
        '{"__metadata__":null,' + ENTRY + ',"__metadata__":{"x":"1"}}', '{"__metadata__":{},' + ENTRY + "," + ENTRY + "}",
    ],
)  # fmt: skip
def test_metadata_in_front_hide_no_fault_behind_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + b"\0" * 8)
    with pytest.raises(Unreadable, match="not JSON"):
        read_header(path)


def test_bytes_behind_the_last_tensor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="3 bytes behind"):
        read_header(raw_file(tmp_path / "x.safetensors", described(), b"\0" * 11))


def test_offsets_far_past_the_end_allocate_nothing(tmp_path: Path) -> None:
    huge = described(shape=[1 << 40], data_offsets=[0, 4 << 40])
    with pytest.raises(Unreadable, match="incomplete"):
        read_header(raw_file(tmp_path / "x.safetensors", huge, b"\0" * 8))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with at_most(5), pytest.raises(Unreadable, match="not a regular file"):
        read_header(tmp_path / "model.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_file_that_became_a_fifo_after_it_was_looked_at_does_not_block(tmp_path: Path) -> None:
    header = read_header(save(tmp_path / "x.safetensors", {"a": np.zeros(2)}))
    header.path.unlink()
    os.mkfifo(header.path)
    with at_most(5), pytest.raises(Unreadable, match="changed"):
        list(read_tensors(header, ["a"]))


def test_a_folder_and_what_is_not_there_are_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / ("x" * 300)):
        with pytest.raises(Unreadable):
            read_header(path)


# files that change


def test_a_file_replaced_between_header_and_tensors_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path / "x.safetensors", {"a": np.zeros(4)})
    header = read_header(path)
    save(tmp_path / "new.safetensors", {"a": np.ones(4)}).replace(path)
    with pytest.raises(Unreadable, match="changed"):
        list(read_tensors(header, ["a"]))


def test_a_file_written_to_while_it_is_read_is_noticed_at_the_end(tmp_path: Path) -> None:
    path = save(tmp_path / "x.safetensors", {"a": np.zeros(4), "b": np.zeros(4)})
    reading = read_tensors(read_header(path), ["a", "b"])
    next(reading)
    os.utime(path, ns=(1, 1))
    with pytest.raises(Unreadable, match="changed"):
        list(reading)


def test_a_file_removed_after_its_header_was_read_is_unreadable_and_no_fault_of_ours(tmp_path: Path) -> None:
    header = read_header(save(tmp_path / "x.safetensors", {"a": np.zeros(4)}))
    header.path.unlink()
    with pytest.raises(Unreadable, match="cannot read"):
        list(read_tensors(header, ["a"]))


# any bytes


def _library(path: Path) -> dict[str, np.ndarray] | None:
    """What the library reads, None if it refuses."""
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError):
        return None


TABLES = st.dictionaries(
    st.sampled_from("abc"),
    st.fixed_dictionaries({
        "dtype": st.sampled_from(["F32", "I8", "BOOL", "X"]),
        "shape": st.lists(st.integers(0, 3), max_size=2),
        "data_offsets": st.lists(st.integers(0, 16), min_size=2, max_size=2).map(sorted),
    }),
    max_size=3,
)  # fmt: skip


@QUICK
@given(st.one_of(st.binary(max_size=64), st.binary(max_size=64).map(lambda b: struct.pack("<Q", max(0, len(b) - 8)) + b)))
def test_random_bytes_are_unreadable_or_read_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    try:
        read_all(path)
    except Unreadable:
        assert not _library(path)


@settings(parent=QUICK, max_examples=150)
@given(TABLES, st.integers(0, 32))
def test_what_the_library_accepts_is_read_equally_and_what_it_refuses_is_refused(tmp_path: Path, table: dict, size: int) -> None:
    path = raw_file(tmp_path / "x.safetensors", table, bytes(i % 2 for i in range(size)))
    expected = _library(path)
    try:
        read = read_all(path)
    except Unreadable:
        assert expected is None
        return
    assert expected is not None and set(read) == set(expected)
    for name, values in expected.items():
        assert read[name].shape == values.shape and read[name].tobytes() == values.tobytes()


# number types


def test_bfloat16_is_widened_exactly_and_integers_are_no_weights() -> None:
    values = np.array([0.0, -0.0, 1.5, -3.0, np.inf, 2.0**-133], "f4")
    assert np.array_equal(as_float32((values.view("u4") >> 16).astype("u2"), "BF16").view("u4"), values.view("u4"))
    assert np.array_equal(as_float32(np.array([1.5, np.nan], "f2"), "F16"), np.array([1.5, np.nan], "f4"), equal_nan=True)
    for dtype in ("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "C64"):
        with pytest.raises(Unreadable, match=dtype):
            as_float32(np.zeros(1, "u1"), dtype)


@settings(parent=QUICK, max_examples=20)
@given(hnp.arrays("u4", 64))
def test_casting_rounds_every_bit_pattern_as_torch_does(bits: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    edges = np.array([0, 1 << 31, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F808000, 0x3F818000, 0x3F807FFF, 0x7F7F8000, 1], "u4")
    values = np.concatenate([bits, edges]).view("f4")
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    nan = np.isnan(values)
    assert np.array_equal(cast_bits(values, "F32", "BF16")[~nan], theirs.view(torch.uint16).numpy()[~nan])
    assert np.isnan(as_float32(cast_bits(values, "F32", "BF16"), "BF16")[nan]).all()
    with np.errstate(over="ignore"):
        assert np.array_equal(cast_bits(values, "F32", "F16"), torch.from_numpy(values).half().numpy(), equal_nan=True)


def test_a_further_name_for_a_file_is_no_change_of_it_and_a_rewriting_is(tmp_path: Path) -> None:
    file = save(tmp_path / "x.safetensors", {"a": np.ones(4, "f4"), "b": np.zeros(4, "f4")})
    for number in range(3):
        header = read_header(file)
        reading = read_tensors(header, ["a", "b"])
        next(reading)
        os.link(file, tmp_path / f"name-{number}")  # as another process does that makes a pipeline on the same base
        assert [name for name, _ in reading] == ["b"]
    header, times = read_header(file), os.stat(file)
    time.sleep(0.05)  # the clock of the file system ticks coarsely
    save(file, {"a": np.ones(4, "f4"), "b": np.ones(4, "f4")})
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    with pytest.raises(Unreadable, match="has changed"):
        list(read_tensors(header, ["a"]))
