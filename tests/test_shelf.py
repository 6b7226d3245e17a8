"""What a workbench knows of runs beyond one scan."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.support import bench_of, convert, origin_run


def test_a_run_whose_checkpoints_grow_between_two_scans_is_being_trained(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    bench = bench_of(made)
    (run,) = bench.library().runs
    assert run.state(time.time()) == "idle"
    shutil.copytree(made.checkpoint(500), made.checkpoint(2000))
    (run,) = bench.library().runs
    assert run.state(time.time()) == "training"
    assert run.state(time.time() + 3600) == "idle"


def test_a_conversion_of_ours_is_no_training(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    bench = bench_of(made)
    bench.library()
    convert(made)
    (run,) = bench.library().runs
    assert run.state(time.time()) == "idle"


def test_weights_that_no_reader_takes_are_told_and_not_hidden(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    (made.outputs / "kohya").mkdir()
    (made.outputs / "kohya" / "cat.safetensors").write_bytes(b"not looked into")
    problems = bench_of(made).library().problems
    assert [(problem.path.name, "cat.safetensors" in problem.reason) for problem in problems] == [("kohya", True)]


def test_folders_added_on_the_page_do_not_reach_scripts(tmp_path: Path) -> None:
    made, other = origin_run(tmp_path / "a"), origin_run(tmp_path / "b", name="other")
    bench = bench_of(made)
    bench.add_folder(str(other.outputs))
    assert bench.roots == (made.outputs,)
    bench.serves = True
    assert bench.roots == (made.outputs, other.outputs)
