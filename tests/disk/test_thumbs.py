"""Thumbnails that are kept."""

from __future__ import annotations

import os
from pathlib import Path

from cmp.disk.thumbs import WORTH_KEEPING, kept_thumbnail, sweep_thumbnails

DIGEST = "ab" * 32
LARGE = b"x" * WORTH_KEEPING


def test_a_thumbnail_is_made_once_and_a_tiny_one_is_not_kept(tmp_path: Path) -> None:
    made: list[bytes] = []

    def make(content: bytes) -> bytes:
        made.append(content)
        return content

    assert [kept_thumbnail(tmp_path, DIGEST, 256, lambda: make(LARGE)) for _ in range(3)] == [LARGE] * 3 and len(made) == 1
    assert [kept_thumbnail(tmp_path, "cd" * 32, 256, lambda: make(b"small")) for _ in range(2)] == [b"small"] * 2 and len(made) == 3
    assert kept_thumbnail(tmp_path, DIGEST, 512, lambda: make(b"other" * 1000)) == b"other" * 1000
    assert [file.name for file in (tmp_path / "thumbs" / "cd").glob("*")] == []


def test_where_nothing_can_be_kept_it_is_given_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "thumbs").write_text("a file where the folder should be")
    assert kept_thumbnail(tmp_path, DIGEST, 256, lambda: LARGE) == LARGE


def test_those_of_pictures_that_are_gone_and_the_old_ones_go(tmp_path: Path) -> None:
    for name in (DIGEST, "cd" * 32, "ef" * 32):
        kept_thumbnail(tmp_path, name, 256, lambda: LARGE)
    os.utime(tmp_path / "thumbs" / "cd" / f"{'cd' * 32}.256.webp", (0, 0))
    sweep_thumbnails(tmp_path, [DIGEST])
    assert [file.name[:2] for file in tmp_path.glob("thumbs/??/*")] == ["ef"]
