"""A log is read once: what is new is read from where the reading stopped, and another start finds the columns in CMP_HOME."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from cmp.disk.logs import index as index_module
from cmp.disk.logs import records
from cmp.disk.logs.curves import read_curves
from cmp.disk.logs.index import LogIndex
from cmp.disk.logs.scalars import EventScalars
from cmp.disk.logs.tfevents import read_scalars
from tests.disk.test_tfevents import record, scalar, start, write

COUNT = 4000


@pytest.fixture(autouse=True)
def every_log_is_worth_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_WORTH", 0)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    events = [scalar(tag, step, step / 8) for step in range(COUNT) for tag in ("loss", "lr")]
    return write(tmp_path / "run", [*events[:40], start(5), *events[10:]])


@contextmanager
def bytes_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts what is asked of one file."""
    seen: list[int] = [0]
    real = records.opened

    class Counted:
        def __init__(self, file: BinaryIO) -> None:
            self.file = file

        def read(self, size: int = -1) -> bytes:
            data = self.file.read(size)
            seen[0] += len(data)
            return data

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    @contextmanager
    def counting(asked: Path) -> Iterator[tuple[Any, int]]:
        with real(asked) as (file, size):
            yield (Counted(file), size) if asked == path else (file, size)

    with monkeypatch.context() as patched:
        for module in ("index", "tfevents", "kinds", "lines"):
            patched.setattr(f"cmp.disk.logs.{module}.opened", counting)
        yield seen


def same(found: EventScalars, expected: EventScalars) -> bool:
    assert found.tags.keys() == expected.tags.keys()
    for tag, own in found.tags.items():
        for name in ("steps", "values", "wall_times", "offsets"):
            np.testing.assert_array_equal(getattr(own, name), getattr(expected.tags[tag], name))
    return (found.starts, found.start, found.end, found.notes) == (expected.starts, expected.start, expected.end, expected.notes)


def test_another_start_has_every_value_and_reads_nothing_of_the_log(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    first = LogIndex(home).read(log)[1]
    with bytes_read(log, monkeypatch) as read:
        again = LogIndex(home).read(log)[1]
        assert read == [0]
    assert same(first, read_scalars(log)) and same(again, first)


@pytest.mark.parametrize("anew", [False, True])
def test_of_a_log_that_grows_only_what_is_new_is_read(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anew: bool) -> None:
    home = tmp_path / "home"
    index = LogIndex(home)
    earlier = index.read(log)[1]
    kept = earlier.tags["loss"].values.copy()
    new = b"".join(record(scalar(tag, step, 7.0)) for step in range(COUNT, COUNT + 3) for tag in ("loss", "new"))
    for piece in (new[:-9], new[-9:]):  # a half record waits for the other half
        with open(log, "ab") as file:
            file.write(piece)
        with bytes_read(log, monkeypatch) as read:
            found = (LogIndex(home) if anew else index).read(log)[1]
            assert 0 < read[0] < 4096
        assert same(found, read_scalars(log))
    assert found.tags["new"].values.tolist() == [7.0] * 3
    np.testing.assert_array_equal(earlier.tags["loss"].values, kept)  # what was handed out before is as it was


def test_a_log_written_anew_under_its_name_is_read_anew(log: Path, tmp_path: Path) -> None:
    index = LogIndex(tmp_path / "home")
    index.read(log)
    content = b"".join(record(scalar("loss", step, -1.0)) for step in range(COUNT * 3))
    with open(log, "r+b") as file:  # the same inode, and longer than before
        file.write(content)
    for one in (index, LogIndex(tmp_path / "home")):
        assert same(one.read(log)[1], read_scalars(log)) and one.read(log)[1].tags["loss"].values[0] == -1.0


def test_a_log_that_was_cut_is_read_anew(log: Path, tmp_path: Path) -> None:
    index = LogIndex(tmp_path / "home")
    index.read(log)
    os.truncate(log, 5000)
    assert same(index.read(log)[1], read_scalars(log))


@pytest.mark.parametrize("place", [0.0, 0.01, 0.3, 0.9, 0.9999])
def test_a_damaged_index_is_never_believed(log: Path, tmp_path: Path, place: float) -> None:
    LogIndex(tmp_path / "home").read(log)
    (kept,) = (tmp_path / "home" / "logs").iterdir()
    content = bytearray(kept.read_bytes())
    content[int(place * len(content))] ^= 0x20
    kept.write_bytes(content)
    assert same(LogIndex(tmp_path / "home").read(log)[1], read_scalars(log))
    kept.write_bytes(content[: len(content) // 2])
    assert same(LogIndex(tmp_path / "home").read(log)[1], read_scalars(log))


def test_where_nothing_can_be_kept_the_log_is_read_all_the_same(log: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder would be")
    assert same(LogIndex(tmp_path / "home").read(log)[1], read_scalars(log))


def test_nothing_is_written_into_the_run(log: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (log, log.parent)}
    LogIndex(tmp_path / "home").read(log)
    assert os.listdir(log.parent) == [log.name] and {path: path.stat().st_mtime_ns for path in before} == before


def test_the_curves_out_of_the_index_are_those_out_of_the_file(log: Path, tmp_path: Path) -> None:
    LogIndex(tmp_path / "home").read(log)
    (ours, *_), notes = read_curves("run", [log], LogIndex(tmp_path / "home").read)
    (plain, *_), plain_notes = read_curves("run", [log])
    assert notes == plain_notes and ours.notes == plain.notes and ours.abandoned[0].steps.tolist() == plain.abandoned[0].steps.tolist()
    np.testing.assert_array_equal(ours.values, plain.values)


def test_few_points_are_kept_in_memory_and_all_are_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_MOST_POINTS", 10)
    files = [write(tmp_path / str(n), [scalar("loss", step, n) for step in range(8)]) for n in range(3)]
    index = LogIndex()
    for _ in range(2):
        assert [index.read(file)[1].tags["loss"].values.tolist() for file in files] == [[n] * 8 for n in range(3)]
