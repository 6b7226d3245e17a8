"""The reader of event files against TensorBoard's own, and against every kind of damage."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.util import tensor_util

from cmp.disk.logs.tfevents import EventScalars, read_name, read_scalars
from tests.disk.test_tfevents import NAME, VERSION, record, scalar, start, tensor

CORPUS = os.environ.get("CMP_CORPUS")
Points = list[tuple[int, float, float]]
Places = list[tuple[int, int]]

floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
steps = st.integers(-(2**40), 2**62) | st.integers(0, 300)
events = st.one_of(
    st.builds(scalar, st.sampled_from(["loss", "lr", "größe", "a" * 200]), steps, floats, st.floats(0, 4e9)),
    st.builds(lambda step, value: tensor(step, 1, float_val=[value]), steps, floats),
    st.builds(lambda step, value: tensor(step, 2, tensor_content=np.float64(value).tobytes()), steps, floats),
    st.builds(lambda step, value: tensor(step, 9, int64_val=[value]), steps, st.integers(-(2**40), 2**40)),
    st.builds(start, st.integers(0, 100)),
    st.builds(lambda text: Event(wall_time=1.0, file_version=text), st.text(max_size=20)),
)


def points(found: EventScalars) -> dict[str, Points]:
    return {tag: list(zip(of.steps.tolist(), of.values.tolist(), of.wall_times.tolist(), strict=True)) for tag, of in found.tags.items()}


def peer(path: Path) -> dict[str, Points]:
    """Every scalar as TensorBoard has it with nothing left out, in both of its styles."""
    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0}, purge_orphaned_data=False)
    accumulator.Reload()
    told = {tag: [(e.step, e.value, e.wall_time) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}
    for tag in accumulator.Tags()["tensors"]:
        arrays = [(e.step, tensor_util.make_ndarray(e.tensor_proto), e.wall_time) for e in accumulator.Tensors(tag)]
        if all(array.size == 1 and array.dtype.kind in "fi" for _, array, _ in arrays):
            told.setdefault(tag, []).extend((step, float(array.item()), time) for step, array, time in arrays)
    return told


def slowly(messages: list[Event]) -> dict[str, Points]:
    """The values message by message: what reading by the column must equal."""
    found: dict[str, Points] = {}
    for event in messages:
        for value in event.summary.value:
            simple = value.WhichOneof("value") == "simple_value"
            number = value.simple_value if simple else float(tensor_util.make_ndarray(value.tensor).item())
            found.setdefault(value.tag, []).append((event.step, number, event.wall_time))
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(events, max_size=40), st.integers(1, 4))
def test_reading_by_the_column_equals_reading_message_by_message(drawn: list[Event], times: int) -> None:
    messages = drawn * times
    with TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(VERSION + b"".join(map(record, messages)))
        found = read_scalars(path)
    assert _same(points(found), slowly(messages))
    assert len(found.starts) == sum(event.session_log.status == 1 for event in messages) and found.notes == ()


def _same(ours: dict[str, Points], theirs: dict[str, Points]) -> bool:
    assert ours.keys() == theirs.keys()
    for tag in ours:
        np.testing.assert_array_equal(np.array(ours[tag], dtype=np.float64), np.array(theirs[tag], dtype=np.float64))
        assert [step for step, *_ in ours[tag]] == [step for step, *_ in theirs[tag]]
    return True


@settings(max_examples=200, deadline=None)
@given(st.lists(events, min_size=1, max_size=30), st.data())
def test_cut_anywhere_every_whole_record_is_kept_and_nothing_else(messages: list[Event], data: st.DataObject) -> None:
    pieces = [record(message) for message in messages]
    whole = b"".join(pieces)
    cut = data.draw(st.integers(0, len(whole)))
    ends = np.cumsum([len(piece) for piece in pieces])
    kept = messages[: int(np.searchsorted(ends, cut, side="right"))]
    with TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(whole[:cut])
        found = read_scalars(path)
    assert _same(points(found), slowly(kept)) and found.notes == ()
    assert found.end == (int(ends[len(kept) - 1]) if kept else 0)


@settings(max_examples=300, deadline=None)
@given(st.lists(events, min_size=1, max_size=30), st.binary(min_size=1, max_size=40), st.data())
def test_garbage_anywhere_takes_nothing_before_it_and_what_is_lost_is_said(
    messages: list[Event], garbage: bytes, data: st.DataObject
) -> None:
    pieces = [record(message) for message in messages]
    whole = b"".join(pieces)
    at = data.draw(st.integers(0, len(whole) - 1))
    spoiled = whole[:at] + garbage + whole[at + len(garbage) :]
    ends = np.cumsum([len(piece) for piece in pieces])
    before = slowly(messages[: int(np.searchsorted(ends, at, side="right"))])
    with TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(spoiled)
        found = read_scalars(path)
    ours, all_of_them = points(found), slowly(messages)
    for tag, of in before.items():
        np.testing.assert_array_equal(np.array(ours[tag][: len(of)], np.float64), np.array(of, np.float64))
    if spoiled[: len(whole)] != whole:
        lost = sum(map(len, all_of_them.values())) - sum(map(len, ours.values()))
        cut_off = found.end < len(spoiled)
        assert found.notes or cut_off or not lost, "values are missing, and nothing says so"
        for tag, of in ours.items():  # and nothing is made up
            assert {repr(point) for point in of} <= {repr(point) for point in all_of_them[tag]}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(events, min_size=2, max_size=30),
    st.lists(st.tuples(st.integers(1, 28), st.integers(1, 9000)), min_size=1, max_size=4),
    st.randoms(),
)
def test_garbage_of_any_length_between_records_loses_only_itself_and_is_counted(
    messages: list[Event], places: Places, random: Random
) -> None:
    pieces = [record(message) for message in messages]
    inserted = {min(place, len(pieces) - 1): random.randbytes(length) for place, length in places}
    with TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(b"".join(inserted.get(i, b"") + piece for i, piece in enumerate(pieces)))
        found = read_scalars(path)
        size = path.stat().st_size
    assert _same(points(found), slowly(messages)) and found.end == size
    (note,) = found.notes
    count = sum(map(len, inserted.values()))
    assert note.startswith(f"{NAME}: {count:,} damaged byte") and " skipped at " in note


@settings(max_examples=200, deadline=None)
@given(st.lists(events, min_size=1, max_size=30), st.data())
def test_a_damaged_length_loses_its_record_alone(messages: list[Event], data: st.DataObject) -> None:
    pieces = [record(message) for message in messages]
    hit = data.draw(st.integers(0, len(pieces) - 1))
    at, bit = data.draw(st.integers(0, 11)), data.draw(st.integers(0, 7))
    spoiled = bytearray(pieces[hit])
    spoiled[at] ^= 1 << bit
    with TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(b"".join([*pieces[:hit], bytes(spoiled), *pieces[hit + 1 :]]))
        found = read_scalars(path)
    assert _same(points(found), slowly(messages[:hit] + messages[hit + 1 :]))
    assert len(found.notes) == 1, "what is lost is said"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_whatever_a_file_holds_reading_it_ends(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(content)
        assert read_scalars(path).end <= len(content)


def test_a_flipped_bit_in_a_long_record_with_numbers_is_noticed(tmp_path: Path) -> None:
    event = Event(wall_time=1.0, step=1)
    for number in range(2000):
        event.summary.value.add(tag=f"norm/{number:05}", simple_value=0.5)
    content = bytearray(record(event) + record(scalar("loss", 1, 0.5)))
    path = tmp_path / NAME
    path.write_bytes(content)
    assert len(read_scalars(path).tags) == 2001
    content[content.index(b"norm/01000") + 14] ^= 0x10
    path.write_bytes(content)
    found = read_scalars(path)
    assert set(found.tags) == {"loss"} and found.notes == (f"{NAME}: 1 damaged record left out, the first at byte 0",)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.builds(scalar, st.sampled_from(["loss", "lr"]), st.integers(0, 2**40), floats, st.floats(1, 4e9)), min_size=1))
def test_generated_logs_read_as_tensorboard_reads_them(messages: list[Event]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(VERSION + b"".join(map(record, messages)))
        assert _same(points(read_scalars(path)), peer(path))


@pytest.mark.skipif(not CORPUS, reason="CMP_CORPUS names no corpus")
def test_every_log_of_the_corpus_reads_as_tensorboard_reads_it() -> None:
    files = [path for path in sorted(Path(str(CORPUS)).rglob("*tfevents*")) if read_name(path)]
    assert len(files) > 20
    for path in files:
        ours, theirs = points(read_scalars(path)), peer(path)
        theirs = {tag: of for tag, of in theirs.items() if not tag.startswith("_hparams_/")}
        assert _same(ours, theirs), path
