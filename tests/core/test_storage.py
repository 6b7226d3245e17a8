"""What stays and what goes, by rules alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cmp.core.runs import Checkpoint, Run, Setting
from cmp.core.storage import CleanupPlan, Item, Rules, Unit, choose, forecast, parse_age, parse_rules, parse_size
from cmp.errors import BadInput

GB = 10**9


def units(*steps: int, size: int = GB, guards: dict[int, str] | None = None) -> tuple[Unit, ...]:
    return tuple(Unit(Path(f"c-{s}"), (f"r@{s}",), s, size, ((guards or {})[s],) if s in (guards or {}) else ()) for s in steps)


def staying(rules: Rules, *steps: int, best: tuple[str, ...] = (), **more: object) -> list[int | None]:
    return [choice.unit.step for choice in choose(units(*steps, **more), rules, best) if choice.stays]  # type: ignore[arg-type]


STEPS = (500, 1000, 1500, 2000, 2500)


@pytest.mark.parametrize(
    "keep, count, size, kept",
    [
        ("last", None, None, [2500]),
        ("last:2", None, None, [2000, 2500]),
        ("every:1000", None, None, [1000, 2000]),
        ("last,every:1000", None, None, [1000, 2000, 2500]),
        ("last,every:500", 3, None, [1500, 2000, 2500]),
        ("last:9", 2, None, [500, 1000, 1500, 2000, 2500]),  # what was named is not given up for a limit
        (None, 2, None, [2000, 2500]),
        (None, None, "3.5GB", [1500, 2000, 2500]),
        (None, 4, "2 GB", [2000, 2500]),
        (None, 9, "90GB", [500, 1000, 1500, 2000, 2500]),
        ("starred", None, None, []),
    ],
)
def test_rules_keep_what_they_name_and_limits_take_the_oldest(
    keep: str | None, count: int | None, size: str | None, kept: list[int]
) -> None:
    assert staying(parse_rules(keep, count, size), *STEPS) == kept


def test_what_is_guarded_stays_whatever_the_rules_are_and_counts_for_the_limits() -> None:
    guarded = {500: "starred", 1000: "young"}
    assert staying(parse_rules("last"), *STEPS, guards=guarded) == [500, 1000, 2500]
    assert staying(parse_rules(None, 3), *STEPS, guards=guarded) == [500, 1000, 2500]
    assert staying(parse_rules(None, 1), *STEPS, guards=guarded) == [500, 1000]
    whys = {choice.unit.step: choice.why for choice in choose(units(*STEPS, guards=guarded), parse_rules("last"))}
    assert whys[500] == "starred" and whys[2500] == "the last" and "no rule" in whys[1500]


def test_the_window_of_a_verdict_stays_whole() -> None:
    assert staying(parse_rules("best"), *STEPS, best=("r@1000", "r@1500")) == [1000, 1500]


def test_the_final_is_not_the_last_step() -> None:
    found = (*units(500, 1000), Unit(Path("final"), ("r@final",), None, GB, ("what the training ended with",), True))
    assert [choice.unit.ids[0] for choice in choose(found, parse_rules("last")) if choice.stays] == ["r@1000", "r@final"]


@pytest.mark.parametrize("keep", ["", " , ", "newest", "every", "every:0", "last:x", "last:٣", "best:2", "every:-5"])
def test_a_rule_that_is_none_is_quoted(keep: str) -> None:
    with pytest.raises(BadInput):
        parse_rules(keep)


@pytest.mark.parametrize("text, size", [("2GB", 2 * GB), ("1.5 g", 1_500_000_000), ("7", 7), ("3kb", 3000), ("2 TB", 2 * 10**12)])
def test_sizes_are_read_in_thousands(text: str, size: int) -> None:
    assert parse_size(text, "--max-size") == size


@pytest.mark.parametrize("text", ["", "-1GB", "much", "1 GiB", "1e3", "٣GB"])
def test_a_size_that_is_none_is_quoted(text: str) -> None:
    with pytest.raises(BadInput, match="--max-size"):
        parse_size(text, "--max-size")


def test_ages_are_seconds_and_none_may_be_asked_for() -> None:
    assert (parse_age("0", "x"), parse_age("90s", "x"), parse_age("2 h", "x"), parse_age("1.5d", "x")) == (0, 90, 7200, 129600)
    with pytest.raises(BadInput, match="'1 week'"):
        parse_age("1 week", "--min-age")


def run_of(*steps: int, size: int = GB, **settings: object) -> Run:
    made = tuple(Checkpoint("r", str(s), Path(f"c-{s}"), "full", "full", step=s, bytes=size) for s in steps)
    return Run("r", Path("r"), Path("."), "x", settings={k: Setting(v, "") for k, v in settings.items()}, checkpoints=made)


def test_what_a_training_will_still_need_is_counted_from_its_settings() -> None:
    coming = forecast(run_of(500, 1000, max_train_steps=3000, checkpointing_steps=500), 3 * GB)
    assert coming and (coming.count, coming.needed, coming.fits) == (4, 4 * GB, False)
    assert forecast(run_of(500, 1000, max_train_steps=3000), 9 * GB) == forecast(
        run_of(500, 1000, max_train_steps=3000, checkpointing_steps=500), 9 * GB
    )
    done = forecast(run_of(500, 1000, max_train_steps=1000, checkpointing_steps=500), 0)
    assert done and (done.count, done.fits) == (0, True)


@pytest.mark.parametrize("settings", [{}, {"max_train_steps": "many"}, {"checkpointing_steps": 500}, {"max_train_steps": True}])
def test_what_is_not_recorded_is_not_foretold(settings: dict[str, object]) -> None:
    assert forecast(run_of(500, 1000, **settings), 0) is None
    assert forecast(run_of(max_train_steps=3000, checkpointing_steps=500), 0) is None


def test_what_goes_to_the_trash_is_free_only_when_that_is_emptied() -> None:
    items = (
        Item(Path("a"), "trash", "", 5),
        Item(Path("b"), "compact", "", 7),
        Item(Path("c"), "delete", "", 2),
        Item(Path("d"), "keep", "", 9),
    )
    plan = CleanupPlan(items, 100, 3)
    assert (plan.after, plan.trash_bytes, len(plan.changes)) == (91, 6, 3)


def test_a_training_that_deletes_its_older_checkpoints_needs_room_for_those_it_keeps() -> None:
    settings = {"max_train_steps": 5000, "checkpointing_steps": 500}
    coming = forecast(run_of(500, 1000, checkpoints_total_limit=4, **settings), 3 * GB)
    assert coming and (coming.count, coming.needed, coming.fits) == (8, 2 * GB, True)
    full = forecast(run_of(500, 1000, checkpoints_total_limit=2, **settings), 0)
    assert full and (full.needed, full.fits) == (0, True)


def test_two_plans_are_the_same_only_if_each_thing_is_as_it_was() -> None:
    one = Item(Path("a"), "trash", "old", 5, mark="1:5:0")
    plan = CleanupPlan((one, Item(Path("b"), "keep", "", 1)), 10, 0)
    assert plan.shown == CleanupPlan((replace(one, why="for other reasons"), Item(Path("b"), "keep", "young", 2)), 9, 1).shown
    for other in (replace(one, mark="1:6:0"), replace(one, action="delete"), replace(one, path=Path("c"))):
        assert plan.shown != CleanupPlan((other,), 10, 0).shown
