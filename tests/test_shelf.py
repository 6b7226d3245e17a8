"""What a workbench knows of runs beyond one scan."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from cmp.core.progress import run_through
from cmp.errors import BadInput, NotFound
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import as_nobody, bench_of, convert, origin_run


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


def test_what_was_drawn_last_is_remembered_for_its_run_alone(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    origin_run(tmp_path, name="other", logs=False, base=False)
    first, second = bench_of(made).library().runs
    bench_of(made).remember_prompts(first, ["a cat", "a dog"])
    assert (bench_of(made).last_prompts(first), bench_of(made).last_prompts(second)) == (("a cat", "a dog"), ())
    (tmp_path / "file").write_bytes(b"")
    nowhere = Workbench(Settings(tmp_path / "file" / "home", (made.outputs,)))
    nowhere.remember_prompts(first, ["a cat"])
    assert nowhere.last_prompts(first) == ()


def test_folders_added_on_the_page_do_not_reach_scripts(tmp_path: Path) -> None:
    made, other = origin_run(tmp_path / "a"), origin_run(tmp_path / "b", name="other")
    bench = bench_of(made)
    bench.add_folder(str(other.outputs))
    assert bench.roots == (made.outputs,)
    bench.serves = True
    assert bench.roots == (made.outputs, other.outputs)


def test_folders_of_base_models_that_were_added_on_the_page_do_not_reach_scripts_and_can_be_taken_back(tmp_path: Path) -> None:
    made = origin_run(tmp_path / "a")
    bench = Workbench(Settings(tmp_path / "home", (made.outputs,)))
    with pytest.raises(BadInput, match="no folder was given"):
        bench.add_base_folder(" ")
    bench.add_base_folder(str(made.bases))
    assert bench.bases == ()
    bench.serves = True
    assert bench.bases == (made.bases,)
    bench.remove_base_folder(f"{made.bases} ")
    assert bench.bases == ()
    with pytest.raises(NotFound, match="not among the added"):
        bench.remove_base_folder(str(made.bases))


@pytest.fixture
def locked_away(open_path: Path) -> Path:
    """A folder in which anybody may keep state, and whose runs nobody but their owner may change."""
    (open_path / "home").mkdir()
    (open_path / "home").chmod(0o777)
    return open_path


def test_forms_of_a_run_that_cannot_be_written_are_listed_and_not_made_again(locked_away: Path) -> None:
    made = origin_run(locked_away, (500,), final=False)
    made.run.chmod(0o555)

    def told() -> object:
        output = convert(made).output
        bench = bench_of(made)
        by_id = dict(bench.library().runs[0].checkpoints[0].converted)
        by_path = dict(bench.find(str(made.checkpoint(500)))[1].converted)  # type: ignore[union-attr]
        return [str(output), str(by_id["lora"]), by_id == by_path, bench.plan_conversion("lora_casual_shoes@500", "lora").done]

    output, listed, same, done = as_nobody(told)
    assert output == listed and output.startswith(str(locked_away / "home")) and same and "already converted" in done


def test_runs_of_one_name_that_cannot_be_written_do_not_show_each_others_forms(locked_away: Path) -> None:
    first = origin_run(locked_away / "a", (500,), final=False)
    second = origin_run(locked_away / "b", (500,), final=False)

    def told() -> object:
        bench = Workbench(Settings(locked_away / "home", (first.outputs,), (first.bases,)))
        run_through(bench.convert(bench.plan_conversion("lora_casual_shoes@500", "lora")))
        bench = Workbench(Settings(locked_away / "home", (first.outputs, second.outputs), (first.bases,)))
        return [len(run.checkpoints[0].converted) for run in bench.library().runs]

    assert as_nobody(told) == [1, 0]
