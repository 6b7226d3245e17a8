"""The reader of JSON tables: a table whatever wrote it, and everything else is Unreadable in an instant, with the file's name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cmp.disk.json_table import LARGEST, read_json_table
from cmp.errors import Unreadable
from tests.support import at_most


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n  "], ids=["plain", "marked", "indented"])
def test_a_table_is_read_with_and_without_the_mark_of_windows_editors(tmp_path: Path, start: bytes) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(start + '{"name": "ü", "r": 8}'.encode())
    assert read_json_table(file) == {"name": "ü", "r": 8}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b'{"a": ', "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b'{"a":' * 200_000, "not JSON"),
        (b"[1, 2]", "no table"),
        (b"null", "no table"),
        (b'"{}"', "no table"),
        (b'{"a": "' + b"x" * LARGEST + b'"}', "far too large"),
    ],
    ids=lambda value: value[:12].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_what_is_no_table_is_unreadable_and_says_why(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with at_most(20), pytest.raises(Unreadable, match=why) as fault:
        read_json_table(file)
    assert str(file) in fault.value.message and len(fault.value.message) < 1000


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "folder.json").mkdir()
    for name in ("fifo.json", "folder.json", "missing.json"):
        with at_most(5), pytest.raises(Unreadable, match=name):
            read_json_table(tmp_path / name)


def test_a_link_is_followed_only_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text('{"a": 1}')
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    assert read_json_table(tmp_path / "link.json") == {"a": 1}
    with pytest.raises(Unreadable, match="is a link"):
        read_json_table(tmp_path / "link.json", links=False)


def test_a_smaller_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_json_table(tmp_path / "a.json", most=8) == {"a": 1}
    with pytest.raises(Unreadable, match="more than 7 bytes"):
        read_json_table(tmp_path / "a.json", most=7)
