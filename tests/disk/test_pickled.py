"""Files of torch.save read without torch: what they hold is found where it lies, and what they would have run is not run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from cmp.disk.inert import read_inert
from cmp.disk.pickled import LONGEST_TABLE, read_pickled_header
from cmp.disk.tensors import Header, read_tensors
from cmp.errors import CmpError, Refused, Unreadable

from ..support import at_most

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.bool]
LEGACY_CASE = Path(__file__).parents[1] / "data" / "corpus" / "legacy_attn_procs" / "pytorch_lora_weights.bin"


def saved(folder: Path, value: object, name: str = "model.bin", **more: Any) -> Path:
    path = folder / name
    torch.save(value, path, **more)
    return path


def small() -> dict[str, Any]:
    return OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.nn.Parameter(torch.ones(4).bfloat16()), c=torch.tensor(7))


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def check_equal(header: Header, state: dict[str, torch.Tensor]) -> None:
    read = dict(read_tensors(header, header.tensors))
    assert list(header.tensors) == list(state)
    for name, tensor in state.items():
        assert read[name].shape == tuple(tensor.shape) and read[name].tobytes() == bits(tensor), name


def zipped(path: Path, pickled: bytes, data: dict[str, bytes] | None = None, compressed: bool = False, **more: bytes) -> Path:
    """A file laid out as torch.save does, around any pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as made:
        made.writestr("archive/data.pkl", pickled)
        made.writestr("archive/byteorder", more.get("byteorder", b"little"))
        for key, numbers in (data or {}).items():
            made.writestr(f"archive/data/{key}", numbers)
    return path


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_of_every_type_are_those_that_were_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {"w": torch.arange(12).reshape(3, 4).to(dtype), "scalar": torch.tensor(1).to(dtype), "none": torch.zeros(0, 3).to(dtype)}
    header = read_pickled_header(saved(tmp_path, state))
    check_equal(header, state)
    assert header.shapes == {"w": (3, 4), "scalar": (), "none": (0, 3)} and header.metadata == {}


def test_parameters_views_and_shared_storages_are_read_from_their_own_places(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(6, 4)
    state = {"whole": whole, "rows": whole[2:4], "one": whole[5, 3], "again": whole, "parameter": torch.nn.Parameter(whole[1])}
    header = read_pickled_header(saved(tmp_path, state))
    check_equal(header, state)
    assert header.tensors["rows"].start == header.tensors["whole"].start + 2 * 4 * 4


def test_the_state_of_a_module_with_its_versions_is_a_plain_table(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    check_equal(read_pickled_header(saved(tmp_path, module.state_dict())), module.state_dict())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_that_torch_can_be_asked_for_is_read(tmp_path: Path, protocol: int) -> None:
    check_equal(read_pickled_header(saved(tmp_path, small(), pickle_protocol=protocol)), small())


def test_a_file_saved_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path, small())
    finally:
        torch.serialization.set_crc32_options(True)
    check_equal(read_pickled_header(path), small())


@pytest.mark.parametrize("table", ["model_state_dict", "state_dict", "module", "model"])
def test_an_inner_table_is_taken_and_what_stood_beside_it_is_noted(tmp_path: Path, table: str) -> None:
    weights = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weights])
    weights.sum().backward()
    optimizer.step()
    beside = {"step": 500, "epoch": 2, "loss": 0.25, "optimizer_state_dict": optimizer.state_dict(), "note": "x", "size": torch.Size([2])}
    header = read_pickled_header(saved(tmp_path, {**beside, table: small()}))
    check_equal(header, small())
    left = "loss, optimizer_state_dict, note, size"
    assert header.metadata == {"step": "500", "epoch": "2", "table": table, "left aside": left}


def test_a_step_beside_plain_tensors_is_noted_and_no_tensor(tmp_path: Path) -> None:
    header = read_pickled_header(saved(tmp_path, {**small(), "global_step": 40}))
    assert header.metadata == {"global_step": "40"} and list(header.tensors) == ["a", "b", "c"]


def test_a_file_in_the_layout_of_old_diffusers_equals_what_torch_reads() -> None:
    check_equal(read_pickled_header(LEGACY_CASE), torch.load(LEGACY_CASE, weights_only=True))


def test_reading_needs_neither_the_size_of_the_weights_in_memory_nor_many_seconds(tmp_path: Path) -> None:
    path = saved(tmp_path, {f"block.{n}.weight": torch.zeros(64, 256) for n in range(1000)})  # 64 MB
    tracemalloc.start()
    with at_most(20):
        header = read_pickled_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(header.tensors) == 1000 and peak < 16_000_000


@pytest.mark.parametrize(
    "value, told",
    [
        ([torch.ones(2), torch.ones(2)], "a list of weights without names"),
        (torch.ones(2), "a list of weights without names"),
        ({"w": torch.ones(3, 4).T}, "'w' is not stored row by row"),
        ({"w": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)}, "'w' is not stored row by row"),
        ({"w": torch.ones(1).expand(5)}, "'w' is not stored row by row"),
        ({"w": torch.ones(2, dtype=torch.complex64).conj()}, "conjugated"),
        ({"w": torch.ones(2, dtype=torch.complex128)}, "ComplexDoubleStorage"),
        ({"w": torch.ones(2, 2).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"unet": {"w": torch.ones(2)}, "ema": {"w": torch.ones(2)}}, "'unet' in its table is a dict"),
        ({"model": {"w": torch.ones(2)}, "state_dict": {"w": torch.ones(2)}}, "several tables of weights: state_dict, model"),
        ({"model": {"w": torch.ones(2), "deep": {"w": torch.ones(2)}}}, "'deep' in its table is a dict"),
        ({"w": torch.ones(2), 3: torch.ones(2)}, "3 in its table"),
        ({"w\ud800": torch.ones(2)}, "ud800"),
        ({"module": {"w": torch.ones(2)}, "ds_config": {}, "param_shapes": []}, "DeepSpeed"),
        ("text", "no table of tensors but a str"),
        ({"w": np.ones(2)}, r"needs arbitrary code to be read \(GLOBAL numpy"),
        (torch.nn.Linear(2, 2), r"needs arbitrary code to be read \(GLOBAL torch.nn.modules.linear.Linear\)"),
        ({"args": b"bytes"}, r"GLOBAL _codecs\.encode"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused_by_name(tmp_path: Path, value: object, told: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        read_pickled_header(saved(tmp_path, value))
    assert str(tmp_path / "model.bin") in refused.value.message and refused.value.hint


def test_a_file_of_old_torch_is_refused_with_the_command_that_rewrites_it(tmp_path: Path) -> None:
    path = saved(tmp_path, small(), "it's old.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(Refused, match=r"torch before 1\.6") as refused:
        read_pickled_header(path)
    command = refused.value.hint.removeprefix("Rewrite it where torch is: python")
    subprocess.run(f"{sys.executable}{command}", shell=True, check=True, timeout=120)
    assert all(torch.equal(tensor, small()[name]) for name, tensor in load_file(f"{path}.safetensors").items())


def test_deepspeeds_parts_are_known_by_their_name(tmp_path: Path) -> None:
    for name in (
        "mp_rank_00_model_states.pt",
        "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
        "zero_pp_rank_3_mp_rank_00_model_states.pt",
    ):
        with pytest.raises(Refused, match="DeepSpeed") as refused:
            read_pickled_header(saved(tmp_path, {"module": small()}, name))
        assert "zero_to_fp32" in refused.value.hint


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "script.pt", b"\x80\x02}.")
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("archive/constants.pkl", b"\x80\x02).")
    with pytest.raises(Refused, match="TorchScript"):
        read_pickled_header(path)


def test_an_empty_table_holds_no_tensors(tmp_path: Path) -> None:
    assert read_pickled_header(zipped(tmp_path / "model.pt", b"\x80\x02}r\xff\xff\xff\xff.")).tensors == {}


@pytest.mark.parametrize("kept", [0, 3, 4, 100, 400, 0.5, 0.9, -1])
def test_a_file_that_is_still_being_written_is_incomplete(tmp_path: Path, kept: float) -> None:
    path = saved(tmp_path, {"w": torch.ones(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(Unreadable, match=r"incomplete|empty"):
        read_pickled_header(path)


@pytest.mark.parametrize("begin", [b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b\x08\x00", b"x" * 300, b"\x00" * 600, b'{"a": 1}'])
def test_other_kinds_of_files_are_told_by_how_they_begin(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(begin)
    with pytest.raises(Unreadable, match="no weights file"):
        read_pickled_header(tmp_path / "model.pt")


def test_a_tar_of_the_oldest_torch_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.pt", "w") as made:
        made.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(Refused, match=r"torch before 1\.6"):
        read_pickled_header(tmp_path / "model.pt")


def test_a_fifo_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.bin")
    with at_most(5), pytest.raises(Unreadable, match="not a regular file"):
        read_pickled_header(tmp_path / "model.bin")


# what is hostile -------------------------------------------------------------------------------------------------------------------


class Calling:
    """Unpickles into a call, as any class may ask for."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.called = (function, arguments)

    def __reduce__(self) -> Any:
        return self.called


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that comes to be if anything hostile is run."""
    path = tmp_path / "PWNED"
    yield path
    assert not path.exists(), "it was executed"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {"w": bad}, lambda bad: {"model": {"w": torch.ones(2)}, "step": bad}])
def test_no_function_is_called_and_its_name_is_told(marker: Path, tmp_path: Path, protocol: int, wrap: Callable[[object], object]) -> None:
    for function, arguments in (
        (os.system, (f"touch {marker}",)),
        (eval, (f"open({str(marker)!r}, 'w')",)),
        (exec, (f"open({str(marker)!r}, 'w')",)),
        (getattr, ("", "join")),
        (__import__, ("antigravity",)),
        (torch.load, (str(marker),)),
        (open, (str(marker), "w")),
    ):
        path = saved(tmp_path, wrap(Calling(function, *arguments)), pickle_protocol=max(protocol, 2))
        if protocol < 2:
            zipped(path, pickle.dumps(Calling(function, *arguments), protocol))
        with pytest.raises(Refused) as refused:
            read_pickled_header(path)
        assert "needs arbitrary code" in refused.value.message or "opcode" in refused.value.message
        if protocol >= 2:
            assert f".{function.__name__})" in refused.value.message, refused.value.message


@pytest.mark.parametrize(
    "pickled, told",
    [
        (b"cos\nsystem\n(S'touch PWNED'\ntR.", r"GLOBAL os\.system"),
        (b"(ios\nsystem\n.", "INST os system"),
        (b"(cos\nsystem\no.", r"GLOBAL os\.system"),
        (b"(ctorch._utils\n_rebuild_tensor_v2\no.", "OBJ"),
        (b"\x80\x02ctorch.storage\nUntypedStorage\n)\x81.", "NEWOBJ"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "REDUCE torch.FloatStorage"),
        (b"\x80\x02ccollections\nOrderedDict\nX\x01\x00\x00\x00a\x85R.", "REDUCE collections.OrderedDict"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", r"GLOBAL builtins\.getattr"),
        (b"\x80\x04\x8c\x05torch\x8c\x11_utils.os.system_\x93.", "GLOBAL torch._utils.os.system_"),
        (b"\x80\x02}X\x01\x00\x00\x00a}b.", "BUILD"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "BUILD"),
    ],
)
def test_calls_spelt_by_hand_are_refused_by_name(marker: Path, tmp_path: Path, pickled: bytes, told: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        read_pickled_header(zipped(tmp_path / "model.pt", pickled.replace(b"PWNED", bytes(marker))))
    assert "needs arbitrary code to be read" in refused.value.message


def memo_bomb() -> bytes:
    """A tuple of two of a tuple of two of …: 2^64 leaves, each level named once."""
    return b"\x80\x02K\x01K\x01\x86q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(64))


HOSTILE = {
    "memo bomb": memo_bomb() + b".",
    "memo bomb as a key": b"\x80\x02}" + memo_bomb()[2:] + b"K\x01s.",
    "memo bomb as a shape": b"\x80\x02}X\x01\x00\x00\x00a" + memo_bomb()[2:] + b"s.",
    "nested tuples": b"\x80\x02)" + b"\x85" * 390_000 + b".",
    "nested lists": b"\x80\x02" + b"]" * 190_000 + b"a" * 189_999 + b".",
    "too many steps": b"\x80\x02" + b"}" * 7_000_000 + b".",
    "many marks": b"\x80\x02" + b"(" * 390_000 + b".",
    "itself": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
    "a huge long": b"\x80\x02\x8b" + struct.pack("<i", 4_000_000) + b"\xff" * 4_000_000 + b".",
    "a huge decimal": b"L" + b"9" * 4_000_000 + b"L\n.",
    "a huge text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"a.",
    "no stop": b"\x80\x02}",
    "two values": b"\x80\x02}}.",
    "nothing": b"\x80\x02.",
    "an open mark": b"\x80\x02}(.",
    "not in the memo": b"\x80\x02h\x07.",
    "no such opcode": b"\x80\x02\xff.",
    "a tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "a storage of nothing": b"\x80\x02)Q.",
    "odd items": b"\x80\x02}(K\x01u.",
    "items for a tuple": b"\x80\x02)K\x01K\x02s.",
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables_end_soon_and_take_little(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "model.pt", HOSTILE[name])
    tracemalloc.start()
    started = time.monotonic()
    with at_most(60), pytest.raises(CmpError):
        read_pickled_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000_000 and time.monotonic() - started < 30


def one_tensor(key: str = "0", numel: int = 3, offset: int = 0, shape: tuple[int, ...] = (3,), stride: tuple[int, ...] = (1,)) -> bytes:
    """The table {"w": tensor} as torch writes it, with any numbers in it."""

    class Made(pickle.Pickler):
        def persistent_id(self, found: object) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", numel) if found is made else None

    made = object()
    out = io.BytesIO()
    Made(out, 2).dump({"w": Calling(torch._utils._rebuild_tensor_v2, made, offset, shape, stride, False, OrderedDict())})
    return out.getvalue()


def test_the_hand_made_table_is_right_where_its_numbers_are(tmp_path: Path) -> None:
    path = zipped(tmp_path / "model.pt", one_tensor(), {"0": np.arange(3, dtype="<f4").tobytes()})
    (found,) = read_tensors(read_pickled_header(path), ["w"])
    assert found[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 1 << 70},
        {"shape": (4,)},
        {"shape": (-3,)},
        {"shape": (1 << 62, 1 << 62)},
        {"shape": (0, 1 << 62, 1 << 62), "stride": (1, 1, 1)},
        {"shape": (3, 1), "stride": (1,)},
        {"shape": (1,) * 100, "stride": (1,) * 100},
        {"shape": (True,)},
        {"shape": (3.0,)},
        {"stride": (2,)},
        {"numel": 4},
        {"numel": -3},
        {"key": "1"},
        {"key": "../0"},
        {"key": ""},
    ],
)
def test_a_tensor_that_does_not_lie_in_its_numbers_is_not_made(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = zipped(tmp_path / "model.pt", one_tensor(**wrong), {"0": b"\0" * 12})
    with pytest.raises((Unreadable, Refused)) as refused:
        read_pickled_header(path)
    assert "model.pt" in refused.value.message


def edited(path: Path, change: Callable[[bytearray], object]) -> Path:
    held = bytearray(path.read_bytes())
    change(held)
    path.write_bytes(held)
    return path


def directory_entry(held: bytearray, name: bytes) -> int:
    return held.index(name, held.index(b"PK\x01\x02")) - 46


@pytest.mark.parametrize("field, form, value", [(42, "<I", 1 << 30), (42, "<I", 7), (24, "<I", 13), (24, "<I", 0xFFFFFFFF), (10, "<H", 8)])
def test_an_entry_that_is_not_where_the_directory_says_is_refused(tmp_path: Path, field: int, form: str, value: int) -> None:
    path = zipped(tmp_path / "model.pt", one_tensor(), {"0": b"\0" * 12})

    def change(held: bytearray) -> None:
        place = directory_entry(held, b"archive/data/0") + field
        held[place : place + struct.calcsize(form)] = struct.pack(form, value)

    with pytest.raises(CmpError):
        read_pickled_header(edited(path, change))


def test_compressed_doubled_and_foreign_entries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="compressed"):
        read_pickled_header(zipped(tmp_path / "a.pt", one_tensor(), {"0": b"\0" * 12}, compressed=True))
    with pytest.raises(Refused, match="big-endian"):
        read_pickled_header(zipped(tmp_path / "b.pt", one_tensor(), {"0": b"\0" * 12}, byteorder=b"big"))
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as made:
        made.writestr("word/document.xml", "<a/>")
    with pytest.raises(Unreadable, match=r"without one data\.pkl"):
        read_pickled_header(tmp_path / "c.pt")
    doubled = zipped(tmp_path / "d.pt", one_tensor(), {"0": b"\0" * 12, "1": b"\1" * 12})
    with pytest.raises(Unreadable, match="one name"):
        read_pickled_header(edited(doubled, lambda held: held.__setitem__(directory_entry(held, b"archive/data/1") + 46 + 13, ord("0"))))
    bomb = zipped(tmp_path / "e.pt", b"\0" * (LONGEST_TABLE + 1))
    with pytest.raises(Refused, match="table of contents has"):
        read_pickled_header(bomb)


def test_a_table_whose_checksum_is_wrong_is_damaged(tmp_path: Path) -> None:
    path = saved(tmp_path, {"weight": torch.ones(3)})
    with pytest.raises(Unreadable, match="damaged"):
        read_pickled_header(edited(path, lambda held: held.__setitem__(held.index(b"weight"), ord("h"))))


@pytest.mark.parametrize("longer", [1, 8, 16, 64])
def test_an_entry_whose_head_claims_another_length_is_refused(tmp_path: Path, longer: int) -> None:
    """16 is the length of the sums behind an entry: what follows the shifted numbers then is the next entry, as it should be."""
    path = saved(tmp_path, {"w": torch.ones(3)})

    def change(held: bytearray) -> None:
        place = held.index(b"model/data/0") - 2
        held[place : place + 2] = struct.pack("<H", struct.unpack("<H", held[place : place + 2])[0] + longer)

    with pytest.raises(Unreadable, match="not where the directory says"):
        read_pickled_header(edited(path, change))


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("valid"), {"model": small(), "step": 3})


@given(data=st.data())
def test_changed_bytes_give_the_right_header_or_an_error_that_is_told(valid: Path, data: st.DataObject) -> None:
    whole = valid.read_bytes()
    right = read_pickled_header(valid)
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        kind = data.draw(st.sampled_from(["set", "set", "set", "flip", "cut", "insert", "remove"]))
        if kind == "set":
            changed[place] = data.draw(st.integers(0, 255))
        elif kind == "flip":
            changed[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del changed[max(place, 1) :]
        elif kind == "insert":
            changed[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        elif len(changed) > 1:
            del changed[place]
    path = valid.with_name("changed.bin")
    path.write_bytes(changed)
    try:
        header = read_pickled_header(path)
    except CmpError:
        return
    assert {n: (e.dtype, e.shape) for n, e in header.tensors.items()} == {n: (e.dtype, e.shape) for n, e in right.tensors.items()}
    assert header.metadata == right.metadata
    for name, entry in header.tensors.items():
        before = right.tensors[name]
        assert len(changed) != len(whole) or (entry.start, entry.end) == (before.start, before.end)


@given(pickled=st.binary(max_size=200))
def test_any_bytes_as_a_table_give_a_value_or_an_error_that_is_told(pickled: bytes) -> None:
    for head in (b"", b"\x80\x02}(", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("):
        try:
            read_inert(head + pickled + b".")
        except CmpError as told:
            assert told.message
