"""What the page's tables and lists are fed with."""

from __future__ import annotations

from pathlib import Path

from cmp.core.runs import Library, Run
from cmp.ui.values import run_choices, runs_table, short_names

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
