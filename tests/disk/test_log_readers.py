"""Every kind of log: known by what it is, read to the last number, declined where it is something else, and continued as it grows."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cmp.core.curves import LossCurve
from cmp.disk.logs.curves import read_curves, read_latest
from cmp.disk.logs.kinds import CONSOLE, kind_of, read_log
from cmp.disk.logs.match import logs_of_run
from cmp.disk.logs.wandb_file import read_config
from cmp.errors import Unreadable
from tests.support import write_log

DATA = Path(__file__).resolve().parents[1] / "data" / "logs"
WANDB = DATA / "wandb" / "offline-run-20261126_213814-mgiotgh1" / "run-mgiotgh1.wandb"
TRACKIO = DATA / "trackio" / "proj.db"
DVCLIVE = DATA / "dvclive" / "plots" / "metrics" / "train" / "loss.tsv"
MLFLOW = DATA / "mlruns" / "1" / "a" / "metrics" / "train" / "loss"


def curves(*files: Path) -> dict[str, LossCurve]:
    return {curve.tag: curve for curve in read_curves("run", files)[0]}


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def bar(n: int, total: int = 100, behind: str = "", title: str = "Steps: ") -> str:
    """A bar as tqdm draws it: the beginning of the line comes first."""
    return f"\r{title}{100 * n // total:3d}%|█▏   | {n}/{total} [00:35<04:10,  3.50it/s{behind}]"


def told(curve: LossCurve) -> list[tuple[int, float]]:
    return list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))


# -- what the programs themselves wrote: 1/(step + 1) for 50 steps, of which three are not finite -------------------------


@pytest.mark.parametrize(
    ("path", "kind", "tag", "first", "timed"),
    [
        (WANDB, "wandb", "train_loss", 1, True),
        (TRACKIO, "trackio", "train_loss", 1, True),
        (MLFLOW, "MLflow", "train/loss", 1, True),
        (DVCLIVE, "table", "train/loss", 0, False),
    ],
)
def test_what_a_tracker_wrote_is_read_to_the_last_bit(path: Path, kind: str, tag: str, first: int, timed: bool) -> None:
    assert (known := kind_of(path)) is not None and known.name == kind
    curve = curves(path)[tag]
    expected = np.array([1 / (step + 1) for step in range(1, 51)])
    expected[9:12] = (math.nan, math.inf, -math.inf)
    assert curve.steps.tolist() == list(range(first, first + 50))
    np.testing.assert_array_equal(curve.values, expected)
    assert curve.wall_times is not None and bool(np.isfinite(curve.wall_times).all()) == timed
    assert [kind for _, kind in curve.non_finite] == ["nan", "inf", "-inf"]


def test_nested_values_of_wandb_and_what_it_counts_for_itself_are_told_apart() -> None:
    assert set(curves(WANDB)) == {"train_loss", "opt.lr"}
    assert read_config(WANDB)["output_dir"] == "outputs/shoes"


@pytest.mark.parametrize("path", [WANDB, DVCLIVE, MLFLOW])
def test_a_log_cut_anywhere_gives_what_was_whole_and_goes_on_from_there(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    copy = write(tmp_path / Path(*path.parts[-3:]), content)
    _, whole = read_log(copy)
    for cut in range(len(content) - 700, len(content), 7):
        copy.write_bytes(content[:cut])
        kind, earlier = read_log(copy)
        assert earlier.notes == () and earlier.end <= cut
        for tag, scalars in earlier.tags.items():
            assert scalars.values.tolist() == pytest.approx(whole.tags[tag].values[: scalars.steps.size].tolist(), nan_ok=True)
        copy.write_bytes(content)
        _, now = read_log(copy, kind, earlier)
        for tag, scalars in whole.tags.items():
            np.testing.assert_array_equal(now.tags[tag].values, scalars.values)
            np.testing.assert_array_equal(now.tags[tag].steps, scalars.steps)


def test_a_damaged_record_of_wandb_ends_the_reading_and_it_is_said(tmp_path: Path) -> None:
    content = bytearray(WANDB.read_bytes())
    content[len(content) // 2] ^= 0x40
    path = write(tmp_path / "run-x.wandb", bytes(content))
    found, notes = read_curves("run", [path])
    assert 0 < found[0].steps.size < 50 and found[0].values[0] == 0.5
    assert len(notes) == 1 and "damaged from byte" in notes[0]


def test_several_runs_in_one_trackio_project_are_not_made_one(tmp_path: Path) -> None:
    path = tmp_path / "proj.db"
    shutil.copy(TRACKIO, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES ('2', '', 'hats', 1, '{\"loss\": 2}')")
    found, notes = read_curves("run", [path])
    assert {curve.tag for curve in found} == {"shoes/train_loss", "shoes/lr", "hats/loss"}
    assert notes == ("proj.db holds 2 runs: hats, shoes",)


def test_another_programs_database_is_refused_in_words(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection, connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(Unreadable, match="no log of trackio: it has no tables metrics"):
        read_log(tmp_path / "x.db")


# -- saved console output --------------------------------------------------------------------------------------------------

CONSOLES: dict[str, tuple[str, str, list[tuple[int, float]]]] = {
    "diffusers": (
        "".join(bar(n, behind=f", lr=1e-5, step_loss={n / 10}") for n in range(1, 6)) + "\n", "step_loss",
        [(n, n / 10) for n in range(1, 6)],
    ),
    "kohya": (
        "\x1b[36mepoch 1/2\x1b[0m\n" + "".join(bar(n, behind=f", avr_loss={loss}", title="steps: ")
        for n, loss in ((1, 0.9), (2, 0.9), (2, 0.8), (3, 0.8), (3, 0.7))) + "\nepoch 2/2\n", "avr_loss", [(1, 0.9), (2, 0.8), (3, 0.7)],
    ),
    "onetrainer": (
        "".join(bar(n, 3, f", loss={n / 10 + epoch}, smooth loss=0.5", "step: ") + (
            f"\n{bar(epoch, 2, title='epoch: ')}\n" if n == 3 else "")
        for epoch in (1, 2) for n in (1, 2, 3)),
        "loss", [(n + 3 * epoch - 3, n / 10 + epoch) for epoch in (1, 2) for n in (1, 2, 3)],
    ),
    "simpletuner": (
        "".join(bar(n, behind=f", lr=8e-05, step_loss={n / 10}", title="Epoch 1/3, Steps: ") for n in (1, 2)) + "\n", "step_loss",
        [(1, 0.1), (2, 0.2)],
    ),
    "ai-toolkit": (
        "".join(bar(n, behind=f", lr: 1.0e-04 loss: {n / 10:.3e}", title="my_lora: ") for n in (1, 2)) + "\n", "loss", [(1, 0.1), (2, 0.2)],
    ),
    "transformers": (
        "".join(bar(n, 20, title="") + (f"\r      \r{{'loss': {n / 10}, 'grad_norm': 'nan', 'epoch': 0.5}}\n{bar(n, 20, title='')}"
        if n % 5 == 0
        else "") for n in range(1, 20)) + "\n", "loss", [(5, 0.5), (10, 1.0), (15, 1.5)],
    ),
    "title": ("".join(bar(n, title=f"Loss: {n / 10:.4f}: ") for n in (1, 2)) + "\n", "Loss", [(1, 0.1), (2, 0.2)]),
    "lines": (
        "".join(f"2026-01-01 INFO step {n}/100 | train loss: {n / 10} | lr 1e-4\n" for n in (1, 2)), "train_loss", [(1, 0.1), (2, 0.2)],
    ),
    "brackets": ("".join(f"[{n}/100] loss=nan\n" for n in (1, 2)), "loss", [(1, math.nan), (2, math.nan)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSOLES)
def test_the_losses_on_a_console_are_read_with_the_steps_of_its_bar(tmp_path: Path, name: str) -> None:
    text, tag, expected = CONSOLES[name]
    path = write(tmp_path / "train.log", "Loading pipeline components...: 100%|██| 7/7 [00:01<00:00, 5.1it/s]\n" + text)
    assert (kind := kind_of(path)) is not None and kind.name == "console"
    assert repr(told(curves(path)[tag])) == repr(expected)


@pytest.mark.parametrize("name", CONSOLES)
def test_a_console_read_in_pieces_gives_what_it_gives_at_once(tmp_path: Path, name: str) -> None:
    content = CONSOLES[name][0].encode()
    path = write(tmp_path / "train.log", content)
    kind, whole = read_log(path)
    for cut in range(0, len(content), 11):
        path.write_bytes(content[:cut])
        _, piece = read_log(path, kind)
        path.write_bytes(content)
        _, now = read_log(path, kind, piece)
        assert {tag: repr(of.values.tolist()) for tag, of in now.tags.items()} == {
            t: repr(of.values.tolist()) for t, of in whole.tags.items()
        }
        assert {tag: of.steps.tolist() for tag, of in now.tags.items()} == {tag: of.steps.tolist() for tag, of in whole.tags.items()}
        assert [start.step for start in now.starts] == [start.step for start in whole.starts]


def test_a_bar_that_is_still_drawn_waits_until_its_step_is_over(tmp_path: Path) -> None:
    drawn = bar(1, behind=", loss=0.5") + bar(2, behind=", loss=0.5")  # the second step's own loss comes when it is drawn again
    path = write(tmp_path / "train.log", drawn + "\r")
    kind, earlier = read_log(path, CONSOLE)
    assert earlier.tags["loss"].steps.tolist() == [1]
    path = write(tmp_path / "train.log", drawn + bar(2, behind=", loss=0.4") + "\n")
    assert told(curves(path)["loss"]) == [(1, 0.5), (2, 0.4)]
    assert read_log(path, kind, earlier)[1].tags["loss"].values.tolist() == [0.5, 0.4]


def test_a_training_started_again_in_the_same_console_file_leaves_its_branch_behind(tmp_path: Path) -> None:
    first = "".join(bar(n, behind=f", loss=1.{n}") for n in range(1, 7)) + "\n"
    again = "".join(bar(n, behind=f", loss=2.{n}") for n in range(4, 9)) + "\n"
    curve = curves(write(tmp_path / "train.log", first + again))["loss"]
    assert curve.steps.tolist() == list(range(1, 9)) and curve.values[3] == 2.4
    assert [branch.values.tolist() for branch in curve.abandoned] == [[1.4, 1.5, 1.6]]


@pytest.mark.parametrize(
    "text", ["", "\n", "nothing\n", "a lossless step 3 of many\n", "loss of 5 keys\n", bar(3) + "\n", "step 1: done\n"]
)
def test_text_without_a_loss_is_no_log(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "train.log", text)
    assert kind_of(path) is None
    with pytest.raises(Unreadable, match="no log that is known here"):
        read_log(path)


# -- tables ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("metrics.csv", "epoch,step,train_loss\n0,1,0.5\n0,2,\n1,3,nan\n", {"train_loss": "[(1, 0.5), (3, nan)]"}),
        ("x.csv", "step;loss\n1;0.5\n2;-inf\n", {"loss": "[(1, 0.5), (2, -inf)]"}),
        ("x.tsv", "step\tloss\n1\t0.5\n", {"loss": "[(1, 0.5)]"}),
        ("run-a-tag-train_loss.csv", "Wall time,Step,Value\n1.7e9,1,0.5\n", {"train_loss": "[(1, 0.5)]"}),
        ("ours.csv", "tag,step,value,smoothed\nloss,1,0.5,0.5\nlr,1,0.1,0.1\n", {"loss": "[(1, 0.5)]", "lr": "[(1, 0.1)]"}),
        ("x.jsonl", '{"step": 1, "train": {"loss": 0.5}, "ok": true}\n{"step": 2, "train": {"loss": NaN}}\n',
         {"train/loss": "[(1, 0.5), (2, nan)]"}),
        ("x.jsonl", '{"global_step": 10, "loss": 1e400, "name": "x"}\n', {"loss": "[(10, inf)]"}),
    ],
)  # fmt: skip
def test_a_table_with_a_step_is_read(tmp_path: Path, name: str, text: str, expected: dict[str, str]) -> None:
    found = curves(write(tmp_path / name, text))
    assert {tag: repr(told(curve)) for tag, curve in found.items() if tag != "epoch"} == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", '{"file_name": "1.png", "text": "a shoe"}\n'),
        ("captions.csv", "file,caption\n1.png,a step by step shoe\n"),
        ("numbers.csv", "1,2,3\n4,5,6\n"),
        ("x.csv", "step,step\n1,2\n"),
        ("x.jsonl", "{" * 100_000 + "\n"),
        ("x.jsonl", "[1, 2]\n"),
    ],
)
def test_a_list_of_something_else_is_no_log(tmp_path: Path, name: str, text: str) -> None:
    assert kind_of(write(tmp_path / name, text)) is None


def test_rows_that_cannot_be_read_are_counted_and_the_others_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "step,loss\n1,0.5\nx,1\n2,0.25\n1_0,3\n3,0.1,9\n")
    found, notes = read_curves("run", [path])
    assert told(found[0]) == [(1, 0.5), (2, 0.25)]
    assert notes == ("x.csv: 3 lines could not be read as a row and were left out",)


# -- transformers' history ---------------------------------------------------------------------------------------------------


def history(folder: Path, points: Iterable[tuple[int, float]], **more: object) -> Path:
    rows: list[dict[str, object]] = [{"step": step, "loss": loss, "epoch": 0.1} for step, loss in points]
    return write(folder / "trainer_state.json", json.dumps({"log_history": rows + ([more] if more else [])}))


def test_the_histories_of_all_checkpoints_are_one_curve_and_nothing_doubles(tmp_path: Path) -> None:
    files = [history(tmp_path / f"checkpoint-{n}", [(s, 1 / s) for s in range(1, n + 1)]) for n in (100, 20, 50)]
    files.append(history(tmp_path, [(s, 1 / s) for s in range(1, 101)], step=100, train_loss=0.05, train_runtime=9.0))
    found, notes = read_curves("run", files)
    assert [curve.tag for curve in found] == ["loss", "epoch"] and told(found[0]) == [(s, 1 / s) for s in range(1, 101)]
    assert notes == () and found[0].notes == () and found[0].abandoned == ()


def test_of_histories_that_part_the_newer_file_wins_from_where_they_part(tmp_path: Path) -> None:
    old = history(tmp_path / "checkpoint-9", [(s, 1.0) for s in range(1, 10)])
    new = history(tmp_path / "checkpoint-7", [(s, 1.0 if s < 5 else 2.0) for s in range(1, 8)])
    os.utime(old, (1000, 1000))
    curve = curves(new, old)["loss"]
    assert told(curve) == [(s, 1.0 if s < 5 else 2.0) for s in range(1, 8)]
    assert [branch.steps.tolist() for branch in curve.abandoned] == [[5, 6, 7, 8, 9]]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"log_history": 3}', "{" * 100_000])
def test_a_history_that_is_none_is_said_to_be_none(tmp_path: Path, content: str) -> None:
    with pytest.raises(Unreadable):
        read_log(write(tmp_path / "trainer_state.json", content))


# -- several logs of one run ---------------------------------------------------------------------------------------------------


def test_the_rounded_losses_of_a_console_do_not_take_the_place_of_logged_ones(tmp_path: Path) -> None:
    event_file = write_log(tmp_path / "tracker", [(1, 0.123456), (2, 0.234567)], "train_loss")
    console = write(tmp_path / "train.log", "".join(bar(n, behind=f", loss=0.{n}") for n in (1, 2)) + "\n")
    found, notes = read_curves("run", [event_file, console])
    assert [curve.tag for curve in found] == ["train_loss", "console/loss"] and notes == ()
    assert all(curve.abandoned == () for curve in found)
    latest = read_latest([event_file, console])
    assert latest is not None and latest.tag == "train_loss"


def test_a_tag_that_two_kinds_of_logs_tell_is_shown_once_and_it_is_said(tmp_path: Path) -> None:
    event_file = write_log(tmp_path / "tracker", [(1, 0.5), (2, 0.25)], "loss")
    table = write(tmp_path / "x.csv", "step,loss\n1,0.5\n2,0.25\n")
    found, notes = read_curves("run", [event_file, table])
    assert [told(curve) for curve in found] == [[(1, 0.5), (2, 0.25)]]
    assert len(notes) == 1 and "loss is told by x.csv too" in notes[0]


def test_the_last_loss_of_a_run_is_known_from_any_kind_of_log(tmp_path: Path) -> None:
    long = "".join(bar(n, 90_000, f", loss={n / 1000}") for n in range(1, 5000)) + "\n"
    console = write(tmp_path / "train.log", long)
    latest = read_latest([console])
    assert latest is not None and (latest.step, latest.loss, latest.wall_time) == (4999, 4.999, None)
    latest = read_latest([WANDB])
    assert latest is not None and latest.step == 50 and latest.wall_time is not None and latest.wall_time > 1.7e9


# -- whose logs they are -------------------------------------------------------------------------------------------------------


def into_run(run: Path) -> None:
    shutil.copytree(DATA / "wandb", run / "wandb")
    shutil.copytree(DATA / "mlruns", run / "mlruns")
    shutil.copytree(DATA / "dvclive", run / "dvclive")
    shutil.copytree(DATA / "trackio", run / "trackio")
    write(run / "train.log", bar(1, behind=", loss=0.5") + "\n")
    write(run / "prompts.txt", "a shoe\n")
    write(run / "metadata.jsonl", '{"file_name": "1.png"}\n')
    history(run / "checkpoint-5", [(1, 0.5)])


def test_logs_of_every_kind_in_a_run_are_its_own(tmp_path: Path) -> None:
    into_run(tmp_path / "shoes")
    files = {file.relative_to(tmp_path / "shoes").as_posix() for log in logs_of_run(tmp_path / "shoes") for file in log.event_files}
    assert files == {
        f"wandb/{WANDB.parent.name}/{WANDB.name}", "mlruns/1/a/metrics/train/loss", "mlruns/1/a/metrics/lr", "trackio/proj.db",
        "dvclive/plots/metrics/train/loss.tsv", "dvclive/plots/metrics/lr.tsv", "train.log", "checkpoint-5/trainer_state.json",
    }  # fmt: skip


@pytest.mark.parametrize("place", ["wandb", "mlruns"])
def test_logs_beside_are_found_by_the_output_folder_in_their_settings(tmp_path: Path, place: str) -> None:
    shutil.copytree(DATA / place, tmp_path / place)
    mine, other = tmp_path / "outputs" / "shoes", tmp_path / "outputs" / "hats"
    for run in (mine, other):
        (run / "checkpoint-5").mkdir(parents=True)
    (found,) = logs_of_run(mine)
    assert found.why == "its settings name the output folder outputs/shoes" and "train" in "".join(curves(*found.event_files))
    assert logs_of_run(other) == ()


def test_a_console_file_beside_a_run_is_its_own_if_it_bears_its_name(tmp_path: Path) -> None:
    for name in ("shoes", "shoes2"):
        (tmp_path / name).mkdir()
        write(tmp_path / f"{name}.log", bar(1, behind=", loss=0.5") + "\n")
    (found,) = logs_of_run(tmp_path / "shoes")
    assert [file.name for file in found.event_files] == ["shoes.log"] and found.why == "shoes.log bears the run's name"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("name", ["train.log", "x.csv", "x.jsonl", "proj.db", "checkpoint-5/trainer_state.json", "wandb/run-1/run-1.wandb"])
def test_a_fifo_that_bears_the_name_of_a_log_is_never_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / name)
    assert [file for log in logs_of_run(tmp_path) for file in log.event_files] == []


@pytest.mark.parametrize(
    "spoil", [lambda c: c[: len(c) // 3], lambda c: c[::-1], lambda c: b"\0" * 999, lambda c: c[:99] + b"\xff" * 99 + c[99:]]
)
@pytest.mark.parametrize("path", [WANDB, TRACKIO, DVCLIVE, MLFLOW])
def test_damage_of_any_kind_is_declined_or_said_and_never_a_crash(tmp_path: Path, path: Path, spoil: Callable[[bytes], bytes]) -> None:
    copy = write(tmp_path / Path(*path.parts[-3:]), spoil(path.read_bytes()))
    found, notes = read_curves("run", [copy])
    assert notes or all(curve.steps.size <= 50 for curve in found)
    read_latest([copy])


def test_a_tag_that_counts_epochs_does_not_make_starts_of_a_training(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 0.5} for step in range(1, 201)]
    for epoch in (1, 2, 3, 4):
        rows.insert(epoch * 41, {"step": epoch, "val_loss": 0.25})
    found = curves(write(tmp_path / "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert found["loss"].steps.tolist() == list(range(1, 201)) and found["loss"].abandoned == ()
    assert found["val_loss"].steps.tolist() == [1, 2, 3, 4]


def test_rows_in_no_order_are_sorted_and_none_is_dropped(tmp_path: Path) -> None:
    steps = [(37 * n) % 101 for n in range(1, 101)]
    curve = curves(write(tmp_path / "x.csv", "step,loss\n" + "".join(f"{step},{step / 2}\n" for step in steps)))["loss"]
    assert told(curve) == [(step, step / 2) for step in range(1, 101)]


def test_a_table_that_a_second_start_went_on_writing_is_one_curve(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "step,loss\n" + "".join(f"{step},1\n" for step in range(1, 31)))
    kind, earlier = read_log(path)
    with open(path, "a") as file:
        file.write("".join(f"{step},2\n" for step in range(21, 41)))
    for found in (read_log(path)[1], read_log(path, kind, earlier)[1]):
        assert [start.step for start in found.starts] == [21]
    curve = curves(path)["loss"]
    assert told(curve) == [(step, 1.0 if step < 21 else 2.0) for step in range(1, 41)] and curve.abandoned[0].steps.size == 10
