"""Which pictures are scored: the same prompts and seeds for all, drawn in one way, and what is missing to that."""

from __future__ import annotations

import shlex
from pathlib import Path

from cmp.core.score_items import CELLS, Item, Picture, Shown, Way, choose_pictures, drawing_hint

WAY, SMALL = Way("12 steps", 12.0, "--steps 12"), Way("6 steps", 6.0)


def item(prompt: str = "a shoe", seed: int = 0, negative: str = "") -> Item:
    return Item(prompt, f"seed {seed}", negative)


def drawn(*items: Item, of: str = "x") -> dict[Item, Picture]:
    return {one: Picture(Path(f"{of}-{one.name}.png")) for one in items}


def chosen(found: dict[Way, dict[str, dict[Item, Picture]]], ids: list[str], bases: dict[Way, dict[Item, Picture]] | None = None) -> Shown:
    shown = choose_pictures(CELLS, found, ids, bases or {})
    assert shown is not None
    return shown


def test_only_items_that_every_checkpoint_has_are_scored_and_the_rest_is_told() -> None:
    found = {WAY: {"r@1": drawn(item(), item(seed=1), item(seed=2)), "r@2": drawn(item(seed=1), item())}}
    shown = chosen(found, ["r@1", "r@2", "r@3"])
    assert shown.items == (item(), item(seed=1)) and shown.lacking == (("r@2", 1),) and shown.without == ("r@3",)
    assert all(len(own) == 2 for own in shown.pictures.values())
    assert any("step 3" in text for text in shown.told) and any("1 picture of other checkpoints" in text for text in shown.told)


def test_each_picture_stands_at_its_items_place() -> None:
    found = {
        WAY: {"r@1": drawn(item(seed=10), item(seed=9), item("a hat"), of="1"), "r@2": drawn(item(seed=9), item("a hat"), item(seed=10))}
    }
    shown = chosen(found, ["r@1", "r@2"])
    assert [one.name for one in shown.items] == ["a hat · seed 0", "a shoe · seed 9", "a shoe · seed 10"]
    assert [picture.path.name for picture in shown.pictures["r@1"]] == [f"1-{one.name}.png" for one in shown.items]


def test_a_negative_prompt_makes_another_picture() -> None:
    shown = chosen({WAY: {"r@1": drawn(item(), item(negative="blur"))}}, ["r@1"])
    assert len(shown.items) == 2 and len({one.name for one in shown.items}) == 2 and len({one.group for one in shown.items}) == 2


def test_pictures_of_more_checkpoints_go_before_more_pictures_and_a_preview_comes_last() -> None:
    few = {"r@1": drawn(item()), "r@2": drawn(item())}
    many = {"r@1": drawn(item(), item(seed=1), item(seed=2))}
    assert chosen({WAY: few, SMALL: many}, ["r@1", "r@2"]).way == WAY
    assert chosen({SMALL: few, WAY: dict(few)}, ["r@1", "r@2"]).way == WAY
    assert any("12 steps" in text for text in chosen({SMALL: few, WAY: dict(few)}, ["r@1", "r@2"]).told)
    assert chosen({SMALL: few, WAY: {"r@9": drawn(item())}}, ["r@1", "r@2"]).ways == 1, "other checkpoints' pictures are no other way"


def test_nothing_is_chosen_where_no_picture_is_shared() -> None:
    assert choose_pictures(CELLS, {WAY: {"r@1": drawn(item()), "r@2": drawn(item(seed=1))}}, ["r@1", "r@2"], {}) is None
    assert choose_pictures(CELLS, {WAY: {"r@1": drawn(item())}}, ["r@2"], {}) is None
    assert choose_pictures(CELLS, {}, ["r@1"], {}) is None


def test_the_base_model_is_there_only_with_all_items() -> None:
    found = {WAY: {"r@1": drawn(item(), item("a hat"))}}
    assert chosen(found, ["r@1"], {WAY: drawn(item(), item("a hat"), item("a cat"))}).base is not None
    shown = chosen(found, ["r@1"], {WAY: drawn(item("a hat"))})
    assert shown.base is None and shown.only([0]).base is not None and shown.only([1]).base is None
    assert shown.only([0]).items == (item("a hat"),) and len(shown.only([0]).pictures["r@1"]) == 1


def test_what_is_missing_is_told_as_the_command_that_draws_it() -> None:
    shown = chosen({WAY: {"r@1": drawn(item("it's a shoe", 3), item("a hat", 4, "blur"))}}, ["r@1", "r@2"])
    told = drawing_hint("my run", shown, ["my run@2"], base=True)
    words = shlex.split(told.split("`")[1])
    assert words[:6] == ["python", "-m", "cmp", "grid", "my run", "--checkpoints"] and words[6] == "2"
    assert "it's a shoe" in words and "a hat --n blur" in words and words[words.index("--seeds") + 1] == "4,3"
    assert words[-3:] == ["--steps", "12", "--base-column"]


def test_pictures_without_a_prompt_are_told_apart_by_what_the_trainer_counted() -> None:
    bare = [Item(None, f"prompt {prompt}, picture {image}") for prompt in (0, 1) for image in (0, 1)]
    assert [one.group for one in bare] == ["prompt 0\0", "prompt 0\0", "prompt 1\0", "prompt 1\0"]
    assert bare[0].name == "prompt 0, picture 0"
