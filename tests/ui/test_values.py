"""What the page's tables and lists are fed with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cmp.core.runs import Checkpoint, Library, Run
from cmp.ui.values import RUN_COLUMNS, Glance, run_choices, runs_table, short_names

LIBRARY = Library(tuple(Run(name, Path(f"/{name}"), Path("/"), "t") for name in ("a/run", "b/run", "cat")))


def test_runs_of_one_name_are_told_apart_wherever_they_are_listed() -> None:
    names = ["run (a/run)", "run (b/run)", "cat"]
    assert run_choices(LIBRARY, lambda run: run.id.rpartition("/")[2]) == list(zip(names, ("a/run", "b/run", "cat"), strict=True))
    assert [row["cells"][0]["text"] for row in runs_table(LIBRARY, lambda run: run.id.rpartition("/")[2], None)["rows"]] == names


def test_where_room_is_short_runs_of_one_name_have_the_shortest_end_of_their_ids() -> None:
    ids = ("kohya/outputs/run1", "peft/outputs/run1", "peft/other/run1", "cat")
    library = Library(tuple(Run(name, Path(f"/{name}"), Path("/"), "t") for name in ids))
    assert short_names(library, lambda run: run.id.rpartition("/")[2]) == {
        "kohya/outputs/run1": "kohya/outputs/run1",
        "peft/outputs/run1": "peft/outputs/run1",
        "peft/other/run1": "other/run1",
        "cat": "cat",
    }
    assert list(short_names(LIBRARY, lambda run: "named").values()) == ["named (a/run)", "named (b/run)", "named (cat)"]


def test_a_run_is_found_by_its_name_its_id_its_trainer_and_its_base_model() -> None:
    library = Library((replace(LIBRARY.runs[0], trainer="kohya", base_model="/models/sd15"),))
    (row,) = runs_table(library, lambda run: "Red shoes", None)["rows"]
    assert all(word in row["find"] for word in ("Red shoes", "a/run", "kohya", "/models/sd15"))


def test_the_loss_of_a_run_is_the_smoothed_one_and_nothing_until_the_log_was_read() -> None:
    run = replace(LIBRARY.runs[0], last_loss=0.5)
    at = RUN_COLUMNS.index("loss")

    def loss(glance: Glance) -> object:
        return runs_table(Library((run,)), lambda run: run.id, None, {run.id: glance})["rows"][0]["cells"][at]["text"]

    assert [loss(Glance(line=(), loss=0.03211)), loss(Glance()), loss(Glance(line=()))] == ["0.0321", "", "0.5"]


def test_a_run_was_written_when_its_newest_checkpoint_was() -> None:
    steps = [Checkpoint("a/run", key, Path(f"/a/run/{key}"), "full", "full", written_at=at) for key, at in (("1", 30.0), ("2", 20.0))]
    cell = runs_table(Library((replace(LIBRARY.runs[0], checkpoints=tuple(steps)), LIBRARY.runs[1])), lambda run: run.id, None)["rows"]
    assert [row["cells"][-1]["time"] for row in cell] == [30.0, None]
