"""ai-toolkit's loss database: read while it is written, never disturbed, and refused in words where it is no such thing."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cmp.core.curves import loss_tag
from cmp.disk.logs import sqlite_file
from cmp.disk.logs.curves import read_curves, read_latest
from cmp.disk.logs.loss_db import NAME, read_loss_db
from cmp.errors import Unreadable
from tests.support import at_most

REAL = Path(__file__).resolve().parents[1] / "data" / "runs" / "aitoolkit_flux" / "outputs" / "my_flux_lora" / NAME
TABLES = """
    CREATE TABLE steps (step INTEGER PRIMARY KEY, wall_time REAL NOT NULL);
    CREATE TABLE metrics (step INTEGER NOT NULL, key TEXT NOT NULL, value_real REAL, value_text TEXT, PRIMARY KEY (step, key));
"""


@contextmanager
def training(folder: Path, mode: str = "WAL") -> Iterator[sqlite3.Connection]:
    """A database that a training holds open, as the trainer does."""
    with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.executescript(TABLES)
        yield connection


def log(connection: sqlite3.Connection, step: int, value: object, key: str = "loss/loss") -> None:
    connection.execute("INSERT OR IGNORE INTO steps VALUES (?, ?)", (step, 1000.0 + step))
    connection.execute("INSERT INTO metrics VALUES (?, ?, ?, NULL)", (step, key, value))


def test_what_the_trainer_wrote_is_read_with_its_times() -> None:
    tags = read_loss_db(REAL).tags
    assert set(tags) == {"loss/loss", "learning_rate"} and loss_tag(tags) == "loss/loss"
    assert tags["loss/loss"].steps.tolist() == [1, 2, 3, 4]
    assert tags["loss/loss"].values[0] == pytest.approx(1.5446, abs=1e-4) and tags["loss/loss"].wall_times[0] > 1.7e9


def test_the_curves_and_the_last_loss_of_a_job_come_from_its_database() -> None:
    curves, notes = read_curves("job", [REAL])
    assert ([curve.tag for curve in curves], notes) == (["loss/loss", "learning_rate"], ())
    latest = read_latest([REAL])
    assert latest is not None and (latest.step, latest.tag) == (4, "loss/loss") and latest.loss == pytest.approx(1.3169, abs=1e-4)


def test_a_running_training_is_read_up_to_its_last_write_and_nothing_beside_it_changes(tmp_path: Path) -> None:
    with training(tmp_path) as connection:
        for step in range(300):
            log(connection, step, step / 2)
        before = {entry.name: entry.stat().st_size for entry in os.scandir(tmp_path)}
        assert f"{NAME}-wal" in before
        assert read_loss_db(tmp_path / NAME).tags["loss/loss"].values.tolist() == [step / 2 for step in range(300)]
        assert {entry.name: entry.stat().st_size for entry in os.scandir(tmp_path)} == before
        log(connection, 300, 7.0)  # the training is not locked out
        assert read_loss_db(tmp_path / NAME).tags["loss/loss"].values[-1] == 7.0
        latest = read_latest([tmp_path / NAME])
        assert latest is not None and latest.loss == 7.0


def test_reading_a_training_that_has_ended_leaves_no_file_beside_it(tmp_path: Path) -> None:
    with training(tmp_path) as connection:
        log(connection, 1, 0.5)
    assert read_loss_db(tmp_path / NAME).tags["loss/loss"].values.tolist() == [0.5]
    assert os.listdir(tmp_path) == [NAME]


def test_only_the_last_steps_are_read_where_only_they_are_wanted(tmp_path: Path) -> None:
    with training(tmp_path, "DELETE") as connection:
        for step in range(50):
            log(connection, step, 1.0)
        assert read_loss_db(tmp_path / NAME, last=3).tags["loss/loss"].steps.tolist() == [47, 48, 49]


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    with training(tmp_path) as connection:
        for step, value in enumerate((1.0, "text", None, b"\xff", 2, 9e999)):
            log(connection, step, value)
        connection.execute("INSERT INTO metrics VALUES (7, 'loss/loss', 3.0, NULL)")  # a step without its time
        scalars = read_loss_db(tmp_path / NAME).tags["loss/loss"]
    assert scalars.steps.tolist() == [0, 4, 5, 7] and scalars.values.tolist() == [1.0, 2.0, float("inf"), 3.0]


@pytest.mark.parametrize(
    ("sql", "content"),
    [
        ("", b""),
        ("", b"SQLite format 3\0" + b"\xff" * 4096),
        ("", b"not a database at all" * 50),
        ("CREATE TABLE other (x)", None),
        ("CREATE TABLE steps (x); CREATE TABLE metrics (y)", None),
        ("CREATE TABLE steps (step); CREATE VIEW metrics AS SELECT 1 AS step, 'k' AS key, 1.0 AS value_real", None),
    ],
)
def test_what_is_no_such_database_is_refused_in_words(tmp_path: Path, sql: str, content: bytes | None) -> None:
    path = tmp_path / NAME
    if content is None:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(sql)
    else:
        path.write_bytes(content)
    with pytest.raises(Unreadable, match="no log of ai-toolkit"):
        read_loss_db(path)
    assert read_latest([path]) is None and read_curves("job", [path])[1]


def test_a_damaged_database_is_refused_in_words(tmp_path: Path) -> None:
    whole = REAL.read_bytes()
    for start in range(0, len(whole), 4096):
        (tmp_path / NAME).write_bytes(whole[:start] + b"\xa5" * 4096 + whole[start + 4096 :])
        try:
            read_loss_db(tmp_path / NAME)
        except Unreadable as fault:
            assert fault.hint


def test_a_query_that_would_never_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_MOST_WORK", 2)
    with training(tmp_path) as connection:
        for step in range(5000):
            log(connection, step, 1.0)
        with at_most(10), pytest.raises(Unreadable):
            read_loss_db(tmp_path / NAME)


@pytest.mark.parametrize("name", ["?mode=rwc", "a b#c", "%41", "größe"])
def test_a_folders_name_is_no_part_of_the_question(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    shutil.copy(REAL, tmp_path / name / NAME)
    assert read_loss_db(tmp_path / name / NAME).tags


def test_what_cannot_be_opened_is_refused_before_it_can_block(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        read_loss_db(tmp_path / NAME)
    os.mkfifo(tmp_path / NAME)
    with at_most(5), pytest.raises(Unreadable):
        read_loss_db(tmp_path / NAME)


def test_a_log_beside_it_that_is_a_link_or_a_fifo_is_not_read(tmp_path: Path) -> None:
    shutil.copy(REAL, tmp_path / NAME)
    (tmp_path / "outside").write_bytes(b"\x37\x7f\x06\x82" + b"\0" * 60)
    (tmp_path / f"{NAME}-wal").symlink_to(tmp_path / "outside")
    assert len(read_loss_db(tmp_path / NAME).tags) == 2
    (tmp_path / f"{NAME}-wal").unlink()
    os.mkfifo(tmp_path / f"{NAME}-wal")
    with at_most(5):
        assert len(read_loss_db(tmp_path / NAME).tags) == 2
