from __future__ import annotations

import io
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.summary.writer.record_writer import RecordWriter

from cmp.disk.logs.curves import read_curves, read_latest, to_curves
from cmp.disk.logs.records import first_record
from cmp.disk.logs.tfevents import EventFileName, TagScalars, oldest_first, read_more, read_name, read_scalars, read_tail
from cmp.errors import Unreadable

DATA = Path(__file__).parent.parent / "data" / "logs"
NAME = "events.out.tfevents.1795430000.vm.7.0"


def record(message: Event | bytes) -> bytes:
    """One record as TensorBoard's own writer frames it."""
    out = io.BytesIO()
    RecordWriter(out).write(message if isinstance(message, bytes) else message.SerializeToString())
    return out.getvalue()


def scalar(tag: str, step: int, value: float, time: float | None = None) -> Event:
    event = Event(wall_time=1000.0 + step if time is None else time, step=step)
    event.summary.value.add(tag=tag, simple_value=value)
    return event


def tensor(step: int, dtype: int, plugin: str = "scalars", **fields: Any) -> Event:
    event = Event(wall_time=1.0, step=step)
    value = event.summary.value.add(tag="loss")
    value.metadata.plugin_data.plugin_name = plugin
    value.tensor.CopyFrom(TensorProto(dtype=dtype, **fields))
    return event


def start(step: int) -> Event:
    return Event(wall_time=1.0, step=step, session_log=SessionLog(status=SessionLog.START))


def picture(step: int, size: int) -> Event:
    event = Event(wall_time=1000.0 + step, step=step)
    event.summary.value.add(tag="validation").image.encoded_image_string = bytes(size)
    return event


VERSION = record(Event(wall_time=1.0, file_version="brain.Event:2"))


def write(folder: Path, events: Iterable[Event | bytes], name: str = NAME) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(VERSION + b"".join(map(record, events)))
    return path


def rows(scalars: TagScalars) -> list[tuple[int, float]]:
    return list(zip(scalars.steps.tolist(), scalars.values.tolist(), strict=True))


def f32(value: float) -> float:
    return float(np.float32(value))


def test_a_real_log_reads_as_the_trainer_wrote_it() -> None:
    found = read_scalars(DATA / "acc_peft_r8_a16" / "events.out.tfevents.1795433809.vm.6047.0")
    assert {tag: rows(scalars) for tag, scalars in found.tags.items()} == {
        "train_loss": [(1, 1.277059555053711), (2, 1.137768268585205), (3, 1.096153974533081), (4, 0.9418553113937378)],
        "lr": [(1, 0.04951963201165199), (2, 0.04809698835015297), (3, 0.045786742120981216), (4, 0.04267767071723938)],
    }
    assert found.notes == () and found.end == 440


def test_a_real_resume_is_one_curve_of_ten_steps() -> None:
    (curve,), notes = read_curves("run", (DATA / "t2i_lora_resume").iterdir())
    assert curve.tag == "train_loss" and curve.steps.tolist() == list(range(1, 11))
    assert curve.values[[0, 4, 9]].tolist() == [1.0517703294754028, 1.0806745290756226, 1.1079999208450317]
    assert curve.source.name.endswith("1795435200.vm.11934.0")
    assert [branch.steps.tolist() for branch in curve.abandoned] == [[5, 6]]
    assert notes == ()


def test_records_decoded_by_the_column_equal_those_decoded_one_by_one(tmp_path: Path) -> None:
    # Steps cross the lengths of their encoding, also the negative one of ten bytes; tags share lengths; values have odd bits.
    random = np.random.default_rng(0)
    events = []
    for step in [*range(-3, 300), *range(16380, 16390), 2**21, 2**35, 2**62]:
        for tag in ("loss", "lr_a", "lr_b", "größe"):
            events.append(scalar(tag, step, float(random.choice([0.0, -1.5, math.nan, math.inf, random.normal()]))))
    found = read_scalars(write(tmp_path, events))
    expected: dict[str, list[tuple[int, float, float]]] = {}
    for event in events:
        value = event.summary.value[0]
        expected.setdefault(value.tag, []).append((event.step, value.simple_value, event.wall_time))
    assert set(found.tags) == set(expected)
    for tag, scalars in found.tags.items():
        columns = np.array(expected[tag], dtype=object).T
        np.testing.assert_array_equal(scalars.steps, columns[0].astype(np.int64))
        np.testing.assert_array_equal(scalars.values, columns[1].astype(np.float64))
        np.testing.assert_array_equal(scalars.wall_times, columns[2].astype(np.float64))
        assert (np.diff(scalars.offsets) > 0).all()


def test_many_tags_and_several_values_in_one_event_are_all_read(tmp_path: Path) -> None:
    events = []
    for step in range(8):
        both = scalar("loss", step, step)
        both.summary.value.add(tag="lr", simple_value=0.5)
        events += [both, *(scalar(f"norm/{layer:03d}", step, layer) for layer in range(60))]
    found = read_scalars(write(tmp_path, events))
    assert len(found.tags) == 62
    assert all(scalars.steps.tolist() == list(range(8)) for scalars in found.tags.values())


def test_the_file_is_read_block_by_block_without_losing_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [scalar("loss", step, step) for step in range(500)])
    whole = read_scalars(path)
    monkeypatch.setattr("cmp.disk.logs.records._BLOCK", 101)
    assert rows(read_scalars(path).tags["loss"]) == rows(whole.tags["loss"]) == [(step, step) for step in range(500)]


def test_pictures_between_the_scalars_are_stepped_over(tmp_path: Path) -> None:
    events = []
    for step in range(2):
        events += [scalar("loss", step, step), picture(step, 100), picture(step, 300_000), picture(step, 3_000_000)]
    found = read_scalars(write(tmp_path, events))
    assert set(found.tags) == {"loss"} and found.tags["loss"].steps.size == 2 and found.notes == ()


@pytest.mark.parametrize(
    ("dtype", "fields"),
    [
        (1, {"float_val": [0.25]}),
        (1, {"tensor_content": struct.pack("<f", 0.25)}),
        (2, {"double_val": [0.25]}),
        (2, {"tensor_content": struct.pack("<d", 0.25)}),
    ],
)
def test_scalars_written_as_tensors_are_read(tmp_path: Path, dtype: int, fields: dict[str, Any]) -> None:
    found = read_scalars(write(tmp_path, [tensor(step, dtype, **fields) for step in range(6)]))
    assert rows(found.tags["loss"]) == [(step, 0.25) for step in range(6)]


@pytest.mark.parametrize(
    "event",
    [
        tensor(1, 1, float_val=[1.0, 2.0]),
        tensor(1, 2, tensor_content=bytes(12)),
        tensor(1, 7, "text", string_val=[b"text"]),
        tensor(1, 1, "pr_curves", float_val=[1.0]),
    ],
)
def test_tensors_that_are_no_scalar_are_left_out(tmp_path: Path, event: Event) -> None:
    found = read_scalars(write(tmp_path, [event]))
    assert found.tags == {} and found.notes == ()


def test_a_half_written_last_record_is_left_and_read_when_it_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path, [scalar("loss", step, step) for step in range(1, 51)])
    content = path.read_bytes()
    last = len(record(scalar("loss", 50, 50)))
    for missing in range(1, last + 1):
        path.write_bytes(content[:-missing])
        found = read_scalars(path)
        assert found.tags["loss"].steps.size == 49 and found.notes == () and found.end == len(content) - last
    path.write_bytes(content + record(scalar("loss", 51, 51)) + record(scalar("lr", 51, 0.5)))
    more = read_more(found)
    assert more.tags["loss"].steps.tolist() == list(range(1, 52)) and rows(more.tags["lr"]) == [(51, 0.5)]
    assert rows(read_scalars(path, found.end).tags["loss"]) == [(50, 50), (51, 51)]


def test_a_file_that_was_replaced_by_a_shorter_one_is_read_anew(tmp_path: Path) -> None:
    found = read_scalars(write(tmp_path, [scalar("loss", step, step) for step in range(50)]))
    write(tmp_path, [scalar("loss", 7, 7)])
    assert rows(read_more(found).tags["loss"]) == [(7, 7)]


def test_one_damaged_value_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    path = write(tmp_path, [scalar("loss", step, step) for step in range(1, 11)])
    content = bytearray(path.read_bytes())
    size = len(record(scalar("loss", 1, 1)))
    at = len(VERSION) + 4 * size
    content[at + size - 6] ^= 0x10
    path.write_bytes(content)
    found = read_scalars(path)
    assert found.tags["loss"].steps.tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert found.notes == (f"{NAME}: 1 damaged record left out, the first at byte {at}",)


def test_a_right_checksum_around_what_is_no_event_is_damage_too(tmp_path: Path) -> None:
    found = read_scalars(write(tmp_path, [scalar("loss", 1, 1), b"\xff\xff\xff no event"]))
    assert found.tags["loss"].steps.tolist() == [1] and "1 damaged record" in found.notes[0]


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**62, 2**64 - 1])
def test_behind_a_length_that_cannot_be_trusted_reading_goes_on_at_the_next_good_record(tmp_path: Path, length: int) -> None:
    path = write(tmp_path, [scalar("loss", step, step) for step in range(1, 6)])
    content = bytearray(path.read_bytes())
    size = len(record(scalar("loss", 1, 1)))
    at = len(content) - 2 * size
    content[at : at + 8] = struct.pack("<Q", length)
    path.write_bytes(content)
    found = read_scalars(path)
    assert found.tags["loss"].steps.tolist() == [1, 2, 3, 5] and found.end == len(content)
    assert found.notes == (f"{NAME}: {size} damaged bytes skipped at byte {at}",)


def test_damage_at_the_end_is_said_and_what_is_written_behind_it_is_read_later(tmp_path: Path) -> None:
    path = write(tmp_path, [scalar("loss", step, step) for step in range(1, 4)])
    sound = path.read_bytes()
    path.write_bytes(sound + b"?" * 100)
    found = read_scalars(path)
    assert found.end == len(sound) and found.notes == (f"{NAME}: damaged from byte {len(sound)} on; what follows cannot be read",)
    behind = record(scalar("loss", 9, 9))
    path.write_bytes(sound + b"?" * 100 + behind[:-3])  # still being written
    half = read_more(found)
    assert half.tags["loss"].steps.tolist() == [1, 2, 3] and half.notes == (f"{NAME}: 100 damaged bytes skipped at byte {len(sound)}",)
    path.write_bytes(sound + b"?" * 100 + behind)
    assert read_more(half).tags["loss"].steps.tolist() == read_more(found).tags["loss"].steps.tolist() == [1, 2, 3, 9]
    assert read_more(half).notes == read_more(found).notes == half.notes


def test_a_record_inside_of_damage_is_found_however_far_behind_it_lies(tmp_path: Path) -> None:
    path = write(tmp_path, [scalar("loss", 1, 1)])
    first = path.read_bytes()
    junk = np.random.default_rng(0).integers(0, 256, 5 << 20, np.uint8).tobytes()
    path.write_bytes(first + junk + bytes(1 << 20) + record(scalar("loss", 2, 2)) + b"!" + record(scalar("loss", 3, 3)))
    found = read_scalars(path)
    assert found.tags["loss"].steps.tolist() == [1, 2, 3]
    assert found.notes == (f"{NAME}: {(6 << 20) + 1:,} damaged bytes skipped at 2 places, the first at byte {len(first)}",)


@pytest.mark.parametrize("content", [b"", VERSION, VERSION[:5]])
def test_a_log_without_scalars_is_empty_and_no_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / NAME
    path.write_bytes(content)
    found = read_scalars(path)
    assert found.tags == {} and found.notes == ()
    assert read_curves("run", [path]) == ((), ())
    assert read_latest([path]) is None


def test_any_other_file_is_said_to_be_damaged_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"this is a text file that bears the wrong name\n" * 9)
    assert read_scalars(path).notes == (f"{NAME}: damaged from byte 0 on; what follows cannot be read",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    path = tmp_path / NAME
    os.mkfifo(path)
    with pytest.raises(Unreadable, match="not a regular file"):
        read_scalars(path)
    assert read_latest([path]) is None
    assert "not a regular file" in read_curves("run", [path])[1][0]


def test_a_folder_and_a_missing_file_are_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(Unreadable):
            read_scalars(path)


def test_an_unreadable_file_does_not_hide_the_others(tmp_path: Path) -> None:
    good = write(tmp_path, [scalar("loss", 1, 1)])
    (curve,), notes = read_curves("run", [good, tmp_path / "events.out.tfevents.1795430001.vm.8.0"])
    assert curve.steps.tolist() == [1] and len(notes) == 1


def test_files_are_ordered_by_the_time_in_their_names_and_not_by_the_alphabet(tmp_path: Path) -> None:
    old = write(tmp_path, [scalar("loss", step, 1) for step in range(1, 5)], "events.out.tfevents.999.vm.7.0")
    new = write(tmp_path, [scalar("loss", step, 2) for step in range(3, 5)], "events.out.tfevents.1000.vm.7.0")
    assert oldest_first([new, old]) == (old, new)
    (curve,), _ = read_curves("run", [new, old])
    assert curve.values.tolist() == [1, 1, 2, 2]


def test_files_begun_in_the_same_second_are_ordered_by_what_they_hold(tmp_path: Path) -> None:
    first = write(tmp_path, [scalar("loss", step, 1, time=50) for step in (1, 2)], "events.out.tfevents.1000.vm.9.0")
    second = write(tmp_path, [scalar("loss", 2, 2, time=60)], "events.out.tfevents.1000.vm.10.0")
    (curve,), _ = read_curves("run", [second, first])
    assert curve.values.tolist() == [1, 2]


def test_a_session_start_voids_what_came_before_it_in_the_same_file(tmp_path: Path) -> None:
    events = [*(scalar("loss", step, 1) for step in range(1, 9)), start(5), scalar("loss", 6, 2)]
    found = read_scalars(write(tmp_path, events))
    assert [begin.step for begin in found.starts] == [5]
    (curve,) = to_curves("run", [found])
    assert curve.steps.tolist() == [1, 2, 3, 4, 6] and curve.values[-1] == 2


def test_a_session_start_voids_what_older_files_hold(tmp_path: Path) -> None:
    write(tmp_path, [scalar("loss", step, 1) for step in range(1, 9)])
    write(tmp_path, [start(5)], "events.out.tfevents.1795430099.vm.8.0")
    (curve,), _ = read_curves("run", tmp_path.iterdir())
    assert curve.steps.tolist() == [1, 2, 3, 4]


def test_a_rarely_logged_tag_of_an_abandoned_branch_goes_with_the_loss(tmp_path: Path) -> None:
    write(tmp_path, [*(scalar("loss", s, 1) for s in range(1, 19)), *(scalar("eval", s, 1) for s in (5, 10, 15))])
    write(tmp_path, [scalar("loss", s, 2) for s in range(11, 13)], "events.out.tfevents.1795430099.vm.8.0")
    curves = {curve.tag: curve for curve in read_curves("run", tmp_path.iterdir())[0]}
    assert curves["eval"].steps.tolist() == [5, 10]


def test_a_tag_counted_in_epochs_is_kept_through_a_resume(tmp_path: Path) -> None:
    def tags(steps: range, epochs: range) -> list[Event]:
        return [*(scalar("loss/current", s, s) for s in steps), *(scalar("loss/epoch_average", e, e) for e in epochs)]

    write(tmp_path, tags(range(1, 31), range(1, 4)))
    write(tmp_path, tags(range(21, 51), range(3, 6)), "events.out.tfevents.1795430099.vm.8.0")
    curves, _ = read_curves("run", tmp_path.iterdir())
    assert [curve.tag for curve in curves] == ["loss/current", "loss/epoch_average"]
    assert curves[0].steps.tolist() == list(range(1, 51)) and curves[1].steps.tolist() == [1, 2, 3, 4, 5]


def test_the_end_of_a_long_file_is_read_without_its_beginning(tmp_path: Path) -> None:
    path = write(tmp_path, [scalar(tag, step, step) for step in range(1, 3000) for tag in ("loss", "lr")])
    tail = read_tail(path, 4000)
    assert tail.start > path.stat().st_size - 4000 and tail.end == path.stat().st_size and tail.notes == ()
    steps = tail.tags["loss"].steps
    assert steps[-1] == 2999 and (np.diff(steps) == 1).all() and steps.size > 30


def test_a_piece_out_of_the_middle_begins_at_its_first_whole_record(tmp_path: Path) -> None:
    content = write(tmp_path, [scalar("loss", step, step) for step in range(1, 30)]).read_bytes()
    size = len(record(scalar("loss", 1, 1)))
    for cut in range(len(VERSION) + 1, len(VERSION) + size + 1):
        assert first_record(content[cut:]) == len(VERSION) + size - cut
    assert first_record(b"") is None and first_record(bytes(1000)) is None


@pytest.mark.parametrize("rare", [False, True])
def test_the_latest_loss_is_found_behind_pictures_and_other_tags(tmp_path: Path, rare: bool) -> None:
    events: list[Event] = [scalar("loss", step, step / 10) for step in range(1, 200)]
    events += [picture(200, 200_000) for _ in range(8)] if rare else []
    events += [scalar("lr", step, 1) for step in range(200, 203)]
    latest = read_latest([write(tmp_path, events)])
    assert latest is not None
    assert (latest.tag, latest.step, latest.loss, latest.wall_time) == ("loss", 199, f32(19.9), 1202.0)


def test_the_latest_loss_comes_from_an_older_file_if_the_newest_has_none_yet(tmp_path: Path) -> None:
    write(tmp_path, [scalar("loss", 5, 0.5)])
    write(tmp_path, [scalar("lr", 6, 1, time=5000)], "events.out.tfevents.1795430099.vm.8.0")
    latest = read_latest(tmp_path.iterdir())
    assert latest is not None and (latest.loss, latest.step, latest.wall_time) == (0.5, 5, 5000)


def test_the_latest_values_tell_of_a_training_without_a_loss(tmp_path: Path) -> None:
    latest = read_latest([write(tmp_path, [scalar("lr", 6, 1, time=5000)])])
    assert latest is not None and latest.loss is None and latest.wall_time == 5000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (NAME, EventFileName(1795430000, "vm", 7)),
        ("events.out.tfevents.1795430000.node1.cluster.local.123.0", EventFileName(1795430000, "node1.cluster.local", 123)),
        ("events.out.tfevents.1795430000.host.123.0.v2", EventFileName(1795430000, "host", 123)),
        ("events.out.tfevents.1795430000.host", EventFileName(1795430000, "host")),
        ("my.tfevents", EventFileName(0)),
        ("events.out.tfevents.1795430000.host.profile-empty", None),
        ("loss.csv", None),
    ],
)
def test_the_name_of_an_event_file_tells_time_host_and_process(name: str, expected: EventFileName | None) -> None:
    assert read_name(Path(name)) == expected


def test_what_pytorch_writes_is_read_with_both_its_styles_and_its_purge(tmp_path: Path) -> None:
    SummaryWriter = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    for begin, style in ((1, False), (4, True)):
        with SummaryWriter(tmp_path, purge_step=begin if begin > 1 else None, filename_suffix=f".{begin}") as writer:
            for step in range(begin, begin + 6):
                writer.add_scalar("loss", step + begin / 10, step, new_style=style)
    logs = [read_scalars(path) for path in tmp_path.iterdir()]
    assert sorted(begin.step for log in logs for begin in log.starts) == [4]
    (curve,) = to_curves("run", logs)
    assert dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) == {
        **{step: f32(step + 0.1) for step in (1, 2, 3)},
        **{step: f32(step + 0.4) for step in range(4, 10)},
    }


def test_reading_logs_loads_nothing_heavy() -> None:
    code = (
        "import sys, cmp.disk.logs.match, cmp.disk.logs.curves;"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'tensorflow', 'pandas', 'matplotlib', 'gradio'}))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout == "[]\n"
