"""Writing: a target is whole or as it was, whatever happens in between."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from cmp.disk.replacing import keep_if_possible, replacing
from cmp.disk.tensors import read_header
from cmp.disk.writing import write_tensors
from cmp.errors import BadInput, NoSpace, Refused

TENSORS = {
    "b.half": np.arange(3, dtype="f2"), "a.single": np.arange(6, dtype="f4").reshape(2, 3), "scalar": np.array(8, "f4"),
    "none": np.zeros((0, 3), "f4"), "c.double": np.arange(2, dtype="f8"), "ünïcode": np.ones(1, "u1"),
    "turned": np.arange(6, dtype="f4").reshape(2, 3).T,
}  # fmt: skip
TYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "uint8": "U8"}
DESCRIBED = {name: (TYPES[str(values.dtype)], values.shape) for name, values in TENSORS.items()}


@pytest.fixture(params=[0o022, 0o077, 0o002])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "x.safetensors"
    write_tensors(target, DESCRIBED, TENSORS.__getitem__, {"generator": "cmp", "text": '"ü"\n'})
    with safe_open(target, "np") as file:
        assert file.metadata() == {"generator": "cmp", "text": '"ü"\n'}
        for name, values in TENSORS.items():
            assert np.array_equal(file.get_tensor(name), values), name
    assert read_header(target).shapes == {name: shape for name, (_, shape) in DESCRIBED.items()}
    assert left_in(target.parent) == ["x.safetensors"]


def test_every_tensor_lies_aligned_to_its_type(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", DESCRIBED, TENSORS.__getitem__, {})
    header = read_header(tmp_path / "x.safetensors")
    assert all(header.tensors[name].start % values.itemsize == 0 for name, values in TENSORS.items())


def test_the_file_may_be_read_by_whom_the_umask_says(tmp_path: Path, mask: int) -> None:
    write_tensors(tmp_path / "x.safetensors", DESCRIBED, TENSORS.__getitem__, {})
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_failed_writing_leaves_what_was_there_and_nothing_else(tmp_path: Path, before: bytes | None) -> None:
    target = tmp_path / "x.safetensors"
    if before:
        target.write_bytes(before)

    def read(name: str) -> np.ndarray:
        if name == "scalar":
            raise Refused("the source broke")
        return TENSORS[name]

    with pytest.raises(Refused, match="the source broke"):
        write_tensors(target, DESCRIBED, read, {})
    assert left_in(tmp_path) == (["x.safetensors"] if before else [])
    assert not before or target.read_bytes() == before


def test_a_file_that_does_not_pass_its_check_never_takes_its_name(tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    target.write_bytes(b"what was there")

    def check(draft: Path) -> None:
        assert read_header(draft).tensors.keys() == DESCRIBED.keys()
        raise Refused("came back with another tensor")

    with pytest.raises(Refused, match="came back"):
        write_tensors(target, DESCRIBED, TENSORS.__getitem__, {}, check)
    assert left_in(tmp_path) == ["x.safetensors"] and target.read_bytes() == b"what was there"


@pytest.mark.parametrize("wrong", [np.zeros((3, 2), "f4"), np.zeros((2, 3), "f8")])
def test_values_of_another_shape_or_type_than_described_are_not_written(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a\.single"):
        write_tensors(tmp_path / "x.safetensors", {"a.single": ("F32", (2, 3))}, lambda name: wrong, {})
    assert left_in(tmp_path) == []


def test_a_killed_process_leaves_no_target(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, numpy as np\nfrom pathlib import Path\nfrom cmp.disk.writing import write_tensors\n"
        "def read(name):\n    if name == 'b': os.kill(os.getpid(), signal.SIGKILL)\n    return np.zeros(99, 'f4')\n"
        "write_tensors(Path(sys.argv[1]), {'a': ('F32', (99,)), 'b': ('F32', (99,))}, read, {})"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.safetensors")], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert all(name.startswith(".tmp-") for name in left_in(tmp_path))  # a scan passes over those


def test_a_full_disk_is_no_space_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match=r"x\.bin"), replacing(tmp_path / "x.bin") as draft:
        draft.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert left_in(tmp_path) == []


def test_a_place_that_cannot_be_a_folder_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for target in (tmp_path / "file" / "x.bin", tmp_path / ("n" * 300) / "x.bin"):
        with pytest.raises(BadInput, match="cannot write"), replacing(target):
            pass


def test_a_link_at_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"not ours")
    (tmp_path / "x.bin").symlink_to(tmp_path / "outside")
    with replacing(tmp_path / "x.bin") as draft:
        draft.write_bytes(b"new")
    assert (tmp_path / "outside").read_bytes() == b"not ours" and not (tmp_path / "x.bin").is_symlink()


def test_what_can_be_made_again_is_kept_whole_or_not_at_all_and_nobody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "ab" / "abc.f16"
    keep_if_possible(place, b"one")
    keep_if_possible(place, b"two")
    assert place.read_bytes() == b"two" and os.listdir(place.parent) == ["abc.f16"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as changed:
        changed.setattr(os, "replace", full)
        keep_if_possible(place, b"three")
    assert place.read_bytes() == b"two" and os.listdir(place.parent) == ["abc.f16"], "no draft is left"
    (tmp_path / "file").write_bytes(b"")
    keep_if_possible(tmp_path / "file" / "within", b"four")
    assert sorted(os.listdir(tmp_path)) == ["ab", "file"]
