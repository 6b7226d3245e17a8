"""Captions are found in every form in which people keep them, and the same image counts once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmp.disk.datasets import MOST_IMAGES
from cmp.disk.labelled import read_labelled, without
from cmp.disk.store import Store
from cmp.errors import BadInput, NotFound, Unreadable


def images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def captions(folder: Path, home: Path) -> dict[str, str]:
    return {image.name: image.caption for image in read_labelled(folder, Store(home)).images}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metadata.jsonl", '{"file_name": "a.png", "text": " one "}\n\n{"file_name": "sub/b.jpg", "caption": "two"}'),
        ("metadata.jsonl", '\ufeff{"file_name": "a.png", "text": "one"}\n{"image": "b.jpg", "prompt": ["two", "other"]}'),
        ("captions.json", json.dumps({"a.png": "one", "b": "two"})),
        ("captions.json", json.dumps({"a.png": {"caption": "one"}, "sub/b.jpg": {"text": "two", "tags": []}})),
        ("captions.json", json.dumps([{"file_name": "a.png", "caption": "one"}, {"filename": "b.jpg", "text": "two"}, 7])),
    ],
)
def test_a_table_tells_each_image_its_caption(tmp_path: Path, file: str, text: str) -> None:
    folder = images(tmp_path / "data", "a.png", "sub/b.jpg", "c.webp")
    (folder / file).write_text(text, encoding="utf-8")
    assert captions(folder, tmp_path) == {"a.png": "one", "sub/b.jpg": "two", "c.webp": ""}


def test_a_text_beside_an_image_is_its_caption_where_no_table_has_one(tmp_path: Path) -> None:
    folder = images(tmp_path / "data", "a.png", "b.png", "c.png", ".hidden/d.png", "notes.txt")
    (folder / "a.txt").write_text("one\n")
    (folder / "b.caption").write_text("two")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "from the table"}')
    assert captions(folder, tmp_path) == {"a.png": "from the table", "b.png": "two", "c.png": ""}
    assert read_labelled(folder, Store(tmp_path)).told == (
        f"of the 3 images in {folder} 1 has no caption: the loss there is that without a prompt",
    )
    bare = images(tmp_path / "bare", "a.png", "b.png")
    assert "none has a caption" in read_labelled(bare, Store(tmp_path)).told[0]


def test_the_same_image_under_two_names_counts_once_and_is_told(tmp_path: Path) -> None:
    folder = images(tmp_path / "data", "a.png", "b.png")
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    found = read_labelled(folder, Store(tmp_path))
    assert [image.name for image in found.images] == ["a.png", "b.png"] and "1 image of" in found.told[0]


def test_images_that_are_among_others_are_left_out_by_what_they_hold(tmp_path: Path) -> None:
    held, trained = images(tmp_path / "held", "a.png", "b.png", "c.png"), tmp_path / "trained"
    trained.mkdir()
    (trained / "renamed.jpg").write_bytes((held / "b.png").read_bytes())
    store = Store(tmp_path)
    mine, theirs = read_labelled(held, store), read_labelled(trained, store)
    left = without(mine, theirs.images, "training images")
    assert [image.name for image in left.images] == ["a.png", "c.png"]
    assert "1 of 3 images" in left.told[0] and "b.png" in left.told[0] and "left out" in left.told[0]
    assert without(mine, (), "training images") is mine


@pytest.mark.parametrize(
    ("file", "content", "fault", "told"),
    [
        ("metadata.jsonl", b'{"file_name": "a.png"\n', Unreadable, "line 1"),
        ("captions.json", b"[" * 100_000, Unreadable, "captions.json is no JSON"),
        ("captions.json", b"\xff\xfe\x00", Unreadable, "UTF-8"),
        ("a.txt", b"\xff\xff", Unreadable, "a.txt"),
    ],
)
def test_captions_that_cannot_be_read_are_quoted(tmp_path: Path, file: str, content: bytes, fault: type[Exception], told: str) -> None:
    folder = images(tmp_path / "data", "a.png")
    (folder / file).write_bytes(content)
    with pytest.raises(fault, match=told):
        read_labelled(folder, Store(tmp_path))


def test_folders_without_images_or_with_too_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        read_labelled(tmp_path / "nowhere", Store(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no image"):
        read_labelled(tmp_path / "empty", Store(tmp_path))
    monkeypatch.setattr("cmp.disk.labelled.MOST_IMAGES", 2)
    with pytest.raises(BadInput, match="2 images or more"):
        read_labelled(images(tmp_path / "many", "a.png", "b.png"), Store(tmp_path))
    assert MOST_IMAGES > 1000
