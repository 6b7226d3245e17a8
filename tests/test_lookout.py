"""What a page sees while a large folder is being read."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cmp.core.stages import UNREAD
from cmp.disk.ready import open_checkpoint
from cmp.disk.scan import scan
from cmp.errors import Unreadable
from cmp.settings import Settings
from cmp.workbench import Workbench, lookout
from tests.support import Training, bench_of, diffusers_run


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    monkeypatch.setattr(lookout, "_MOMENT", 0.0)  # as if everything took long
    return diffusers_run(tmp_path / "training")


def serving(made: Training) -> Workbench:
    bench = bench_of(made)
    bench.serves = True
    return bench


def read_through(bench: Workbench) -> None:
    for thread in threading.enumerate():
        if thread.name == "headers":
            thread.join(30)


def layouts(bench: Workbench) -> set[str]:
    return {c.layout for run in bench.library().runs for c in run.checkpoints}


def test_a_page_is_answered_at_once_and_later_knows_all(made: Training) -> None:
    bench = serving(made)
    with bench._lookout._lock:  # nothing is read in the background meanwhile
        assert layouts(bench) == {UNREAD}
    read_through(bench)
    plain = bench_of(made).library()
    assert bench.library() == plain and UNREAD not in layouts(bench)
    assert any(c.aliases for run in plain.runs for c in run.checkpoints), "the final is the last step once more"


def test_whoever_names_a_checkpoint_gets_it_read(made: Training) -> None:
    bench = serving(made)
    with bench._lookout._lock:
        (run,) = bench.library().runs
        _, found = bench.find(run.checkpoints[0].id)
    assert found and found.layout == "diffusers-lora" and found.file
    read_through(bench)


def test_what_was_not_read_yet_is_not_used(made: Training) -> None:
    bench = serving(made)
    with bench._lookout._lock:
        unread = bench.library().runs[0].checkpoints[0]
    with pytest.raises(Unreadable, match="not read yet"):
        open_checkpoint(unread)
    read_through(bench)


def test_scripts_wait_for_everything(made: Training) -> None:
    bench = bench_of(made)
    library = bench.library()
    assert UNREAD not in layouts(bench) and [run.id for run in library.runs] == [run.id for run in scan([made.outputs]).runs]
    assert not bench._lookout.busy


def test_a_growing_run_is_seen_growing_also_when_all_else_stays(made: Training) -> None:
    bench = serving(made)
    bench.library()
    read_through(bench)
    library = bench.library()
    assert bench.library() is library
    (made.run / "checkpoint-2" / "optimizer.bin").write_bytes(b"-" * 100)
    assert bench.library().runs[0].grew_at and not library.runs[0].grew_at


def test_a_folder_is_not_said_to_hold_no_run_before_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "_MOMENT", 0.0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no run")
    bench = Workbench(Settings(tmp_path / "home", (tmp_path,)))
    bench.serves = True
    with bench._lookout._lock:
        early = bench.library()
        assert early.unread > 0 and early.problems == ()
    read_through(bench)
    late = bench.library()
    assert late.unread == 0 and [problem.reason for problem in late.problems] == ["no training run lies below this folder"]
