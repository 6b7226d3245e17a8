"""Pictures inside TensorBoard's event files: found without being read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from cmp.disk.logs import event_pictures
from cmp.disk.logs.event_pictures import EventPictures, read_pictures
from cmp.disk.samples import read_bytes

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2


def scalar(step: int, tag: str = "loss") -> Any:
    event = Event(wall_time=1e9 + step, step=step)
    event.summary.value.add(tag=tag, simple_value=0.5)
    return event


def picture(step: int, *contents: bytes, tag: str = "validation") -> Any:
    event = Event(wall_time=1e9 + step, step=step)
    for content in contents:
        image = event.summary.value.add(tag=tag).image
        image.height, image.width, image.colorspace, image.encoded_image_string = 64, 128, 3, content
    return event


def tensor(step: int, *texts: bytes) -> Any:
    """What TensorFlow 2 writes."""
    event = Event(wall_time=1e9 + step, step=step)
    value = event.summary.value.add(tag="tf2")
    value.metadata.plugin_data.plugin_name = "images"
    value.tensor.dtype = 7
    value.tensor.string_val.extend(texts)
    return event


def written(*events: Any) -> bytes:
    out = io.BytesIO()
    writer = RecordWriter(out)
    for event in events:
        writer.write(event.SerializeToString())
    return out.getvalue()


def log(folder: Path, *events: Any) -> Path:
    file = folder / "events.out.tfevents.1.vm"
    file.write_bytes(written(*events))
    return file


def test_pictures_are_found_with_the_step_logged_before_them_and_read_back_to_the_byte(tmp_path: Path) -> None:
    file = log(
        tmp_path,
        scalar(1),
        scalar(4),
        picture(0, PNG, PNG[:200]),
        scalar(5),
        picture(1, PNG),
        scalar(6, "a tag longer than a picture " * 9),
    )
    told = read_pictures(file)
    assert [(p.tag, p.step, p.reached, p.width, p.height) for p in told.pictures] == [
        ("validation", 0, 4, 128, 64), ("validation", 0, 4, 128, 64), ("validation", 1, 5, 128, 64),
    ]  # fmt: skip
    assert [read_bytes(file, p.within) for p in told.pictures] == [PNG, PNG[:200], PNG]
    assert (told.end, told.reached) == (file.stat().st_size, 6)


def test_the_newer_form_of_tensorflow_is_read_too(tmp_path: Path) -> None:
    file = log(tmp_path, tensor(3, b"128", b"64", PNG, b"no picture at all", PNG), tensor(4, b"wide", b"64", PNG), tensor(5, b"1"))
    told = read_pictures(file)
    assert [(p.tag, p.step, p.width, p.height, read_bytes(file, p.within)) for p in told.pictures] == [("tf2", 3, 128, 64, PNG)] * 2


def test_what_is_no_picture_is_none(tmp_path: Path) -> None:
    assert read_pictures(log(tmp_path, picture(1, b"GIF89a" + bytes(300)), picture(2, b""), scalar(3))).pictures == ()


def test_only_what_was_added_is_read_and_a_half_written_record_waits(tmp_path: Path) -> None:
    file = log(tmp_path, scalar(4), picture(0, PNG))
    first = read_pictures(file)
    more = written(scalar(8), picture(1, PNG))
    with file.open("ab") as out:
        out.write(more[:-20])
    half = read_pictures(file, first)
    assert half.pictures == first.pictures and half.reached == 8 and half.end < file.stat().st_size
    with file.open("ab") as out:
        out.write(more[-20:])
    whole = read_pictures(file, half)
    assert whole.pictures[:1] == first.pictures and (whole.pictures[1].step, whole.pictures[1].reached) == (1, 8)
    assert whole == read_pictures(file)


def test_another_file_of_the_same_name_is_read_anew(tmp_path: Path) -> None:
    first = read_pictures(log(tmp_path, picture(0, PNG), picture(1, PNG)))
    assert len(read_pictures(log(tmp_path, picture(2, PNG)), first).pictures) == 1


def steps_of(file: Path) -> list[tuple[int, int | None]]:
    return [(p.step, p.reached) for p in read_pictures(file).pictures]


def test_a_flipped_bit_anywhere_costs_one_picture_at_most_and_puts_none_at_a_wrong_step(tmp_path: Path) -> None:
    small = PNG[:100]
    events = [scalar(1), picture(0, small), scalar(2), scalar(3), picture(1, small), scalar(4), picture(2, small), scalar(5)]
    whole = written(*events)
    head = len(written(picture(0, small))) - len(small) - 4  # of a picture, whose own bytes are not looked at
    starts = [len(written(*events[:i])) for i in (1, 4, 6)]
    file = tmp_path / "events.out.tfevents.1.vm"
    for at in range(len(whole)):
        if any(start + 12 <= at < start + head for start in starts):
            continue  # what is told of the picture itself
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << (5 * at) % 8]) + whole[at + 1 :])
        told = steps_of(file)
        assert len(told) >= 2, at
        for step, reached in told:  # the step of a damaged number is not told: the one before it stands
            assert (step, reached) in {(0, 1), (0, None), (1, 3), (1, 2), (2, 4), (2, 3)}, at


def test_behind_damage_pictures_go_on_at_the_next_good_record(tmp_path: Path) -> None:
    file = tmp_path / "events.out.tfevents.1.vm"
    before, after = written(scalar(1), picture(0, PNG), scalar(2)), written(picture(1, PNG), scalar(3), picture(2, PNG))
    for garbage in (b"\xff" * 7, b"\0" * 333, bytes(range(256)) * 40):
        file.write_bytes(before + garbage + after)
        assert steps_of(file) == [(0, 1), (1, 2), (2, 3)]
    for cut in (written(scalar(9))[:-9], written(picture(9, PNG))[:-300]):
        file.write_bytes(before + cut + after)
        assert steps_of(file)[-1] == (2, 3), "a record that was cut costs the next one, and no more"


def test_damage_at_the_end_is_searched_once_and_what_is_written_behind_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "events.out.tfevents.1.vm"
    file.write_bytes(written(scalar(1), picture(0, PNG), scalar(2)) + b"\xff" * 5000)
    first = read_pictures(file)
    assert len(first.pictures) == 1 and first.barren == file.stat().st_size
    with monkeypatch.context() as patched:
        patched.setattr(event_pictures, "_checked", None)
        assert read_pictures(file, first) == first
    with file.open("ab") as out:
        out.write(written(picture(1, PNG)))
    more = read_pictures(file, first)
    assert [(p.step, p.reached) for p in more.pictures] == [(0, 1), (1, 2)] and more.end == file.stat().st_size


def test_any_bytes_for_a_file_give_only_pictures_that_lie_within_it(tmp_path: Path) -> None:
    file = tmp_path / "events.out.tfevents.1.vm"
    whole = written(scalar(1), picture(0, PNG), scalar(2), picture(1, PNG), scalar(3))
    for cut in range(0, len(whole), 11):
        for content in (whole[cut:], whole[:cut], whole[cut:] + whole[:cut]):
            file.write_bytes(content)
            for told in read_pictures(file).pictures:
                assert told.within.at + told.within.size <= len(content)


def test_more_pictures_than_the_limit_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_pictures, "MOST", 3)
    monkeypatch.setattr(event_pictures, "LARGEST", len(PNG) - 1)
    assert read_pictures(log(tmp_path, *(picture(i, PNG[:200]) for i in range(5)), picture(9, PNG))).pictures[-1].step == 2
    assert read_pictures(log(tmp_path, picture(9, PNG)), EventPictures()).pictures == ()


def test_no_picture_is_read_to_find_it(tmp_path: Path) -> None:
    """A hole of 32 MB is stepped over: what is asked of the file stays far below."""
    file = log(tmp_path, scalar(1), picture(0, PNG[:4] + bytes(32 << 20)), scalar(2), picture(1, PNG))
    asked = 0

    class Counting(event_pictures._OnDisk):
        def at(self, start: int, count: int) -> bytes:
            nonlocal asked
            asked += count
            return super().at(start, count)

    event_pictures._OnDisk, kept = Counting, event_pictures._OnDisk  # type: ignore[misc]
    try:
        assert [p.step for p in read_pictures(file).pictures] == [0, 1]
    finally:
        event_pictures._OnDisk = kept  # type: ignore[misc]
    assert asked < 4096
