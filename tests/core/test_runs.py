"""Ids, keys, names: what things are called, and that no two things are called the same."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.runs import (
    Checkpoint,
    Library,
    Run,
    Setting,
    escape_id,
    folder_name,
    origin_name,
    origin_title,
    parse_number,
    plain_text,
    read_stage,
    rename_run,
    run_id,
    validation_prompts,
    with_unique_ids,
    with_unique_keys,
)
from cmp.core.samples import Sample
from cmp.errors import BadInput, NotFound


def checkpoint(key: str, folder: str | None = None, step: int | None = None, run: str = "run", **more: object) -> Checkpoint:
    return replace(Checkpoint(run, key, Path("/r") / (folder or key), "unknown", "unknown", step=step), **more)


def run(name: str, root: str = "/roots/a", *checkpoints: Checkpoint) -> Run:
    return Run(name, Path(root) / name, Path(root), "accelerate", checkpoints=checkpoints)


# ids


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("lora_shoes 3000-steps (ü).v2", "lora_shoes 3000-steps (ü).v2"),
        ("a%b", "a%25b"),
        ("a@b", "a%40b"),
        ("C:x", "C%3Ax"),
        ("~x", "%7Ex"),
        ("line\nbreak\x1b[31m\x7f", "line%0Abreak%1B[31m%7F"),
        ("\x9b31m", "%C2%9B31m"),  # a terminal takes it as the beginning of a command, like ESC [
        (os.fsdecode(b"caf\xe9\xff"), "caf%E9%FF"),
    ],
)
def test_what_ids_give_a_meaning_to_is_escaped_and_nothing_else(name: str, escaped: str) -> None:
    assert escape_id(name) == escaped


@given(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12))
def test_different_folder_names_have_different_ids_that_can_be_printed_and_parsed(one: bytes, other: bytes) -> None:
    first, second = escape_id(os.fsdecode(one)), escape_id(os.fsdecode(other))
    assert (first == second) == (one == other)
    assert first.encode() and not set(first) & set("@:~")


def test_an_id_is_the_path_below_the_root_and_the_folders_own_name_for_the_root_itself() -> None:
    root = Path("/data/outputs")
    assert run_id(root / "a@x" / "b", root) == "a%40x/b"
    assert run_id(root, root) == "outputs"


def test_ids_equal_under_several_roots_all_get_their_roots_name_and_others_keep_theirs() -> None:
    runs = [run("shoes", "/x/outputs"), run("shoes", "/y/outputs"), run("shoes", "/z/older"), run("hats", "/y/outputs")]
    assert [r.id for r in with_unique_ids(runs)] == ["outputs:shoes", "outputs~2:shoes", "older:shoes", "hats"]


def test_a_root_whose_name_looks_like_a_repeated_one_does_not_take_its_label() -> None:
    runs = [run("s", "/x/out"), run("s", "/y/out~2"), run("s", "/z/out")]
    assert [r.id for r in with_unique_ids(runs)] == ["out:s", "out%7E2:s", "out~2:s"]


def test_renaming_a_run_renames_its_checkpoints_and_their_aliases() -> None:
    before = run("shoes", "/roots/a", checkpoint("500", run="shoes", aliases=("shoes@final",)))
    after = rename_run(before, "a:shoes")
    assert after.checkpoints[0].id == "a:shoes@500" and after.checkpoints[0].aliases == ("a:shoes@final",)
    assert after.checkpoint("final") is after.checkpoints[0]


# keys


def test_a_second_checkpoint_of_the_same_step_keeps_its_folder_in_its_key() -> None:
    found = with_unique_keys([checkpoint("7", "checkpoint-007", 7), checkpoint("7", "checkpoint-7", 7), checkpoint("9", step=9)])
    assert [c.key for c in found] == ["7", "7~checkpoint-7", "9"]


def test_steps_ascend_as_numbers_then_epochs_then_the_rest() -> None:
    mixed = [checkpoint("final"), checkpoint("1000", step=1000), checkpoint("epoch-2", epoch=2), checkpoint("500", step=500)]
    assert [c.key for c in with_unique_keys(mixed)] == ["500", "1000", "epoch-2", "final"]


@pytest.mark.parametrize(
    ("folder", "key", "step"),
    [("checkpoint-500", "500", 500), ("checkpoint-007", "7", 7), ("checkpoint-0", "0", 0), ("checkpoint_3", "save-3", None)],
)
def test_the_stage_is_read_from_the_folders_name(folder: str, key: str, step: int | None) -> None:
    stage = read_stage(folder)
    assert stage is not None and (stage.key, stage.step) == (key, step)


@pytest.mark.parametrize(
    "folder",
    [
        "checkpoint-٣", "checkpoint-３", "checkpoint-1_000", "checkpoint--5", "checkpoint-+5", "checkpoint- 5", "checkpoint-5\n",
        "checkpoint-", "checkpoint-500-tmp", "checkpoint-1.5", "Checkpoint-5", "xcheckpoint-5", "checkpoint_pipelines",
        "checkpoint-" + "9" * 200,
    ],
)  # fmt: skip
def test_only_ascii_digits_make_a_step(folder: str) -> None:
    assert read_stage(folder) is None


@given(st.text(max_size=30))
def test_no_folder_name_makes_the_reading_of_stages_fail(name: str) -> None:
    stage = read_stage("checkpoint-" + name)
    assert stage is None or name.isascii()


# finding


def test_a_library_finds_runs_and_checkpoints_by_id_and_by_alias() -> None:
    step = checkpoint("500", step=500, run="a/b", aliases=("a/b@final",))
    library = Library((run("a/b", "/roots/a", step), run("hats")))
    assert library.find("hats") == (library.runs[1], None)
    assert library.find("a/b@500") == library.find("a/b@final") == (library.runs[0], step)


@pytest.mark.parametrize("target", ["", "a", "a/b@7", "a/b@", "@500", "a/b@500@500", "hats@final"])
def test_what_is_not_there_is_not_found_and_what_is_there_is_named(target: str) -> None:
    library = Library((run("a/b", "/roots/a", checkpoint("500", run="a/b")), run("hats")))
    with pytest.raises(NotFound) as fault:
        library.find(target)
    assert any(name in fault.value.hint for name in ("500", "hats", "none"))


# what people read


@pytest.mark.parametrize("folder", ["sks_cat", "my-LoRA__v2", "casual_shoes_lr_5e-4", "ünder_été", "___", " two  words "])
def test_a_run_is_called_what_its_folder_is_called(folder: str) -> None:
    assert folder_name(folder) == folder_name(f"sub/{folder}") == folder


def test_the_origins_api_keeps_its_own_way_of_writing_names() -> None:
    assert origin_title("lora_casual_shoes_3000steps_full") == "Lora Casual Shoes 3000Steps Full"
    assert origin_title("sub/casual_shoes_lr_5e-4") == "Casual Shoes Lr 5E 4"


def test_the_origins_names_are_run_and_folder_or_final() -> None:
    assert origin_name(checkpoint("500", step=500)) == "run/checkpoint-500"
    assert origin_name(checkpoint("final")) == "run/final"
    assert origin_name(checkpoint("500~checkpoint-0500", step=500)) == "run/500~checkpoint-0500"


def test_a_path_with_bytes_that_are_no_text_can_be_encoded() -> None:
    assert plain_text(os.fsdecode(b"/r/caf\xe9")) == "/r/caf%E9"
    assert plain_text("half \ud83d").encode()


def test_a_run_is_in_training_within_ten_minutes_of_its_last_log() -> None:
    logged = replace(run("r"), last_logged=1000.0)
    assert [logged.state(now) for now in (999.0, 1000.0, 1599.0, 1600.0)] == ["training", "training", "training", "idle"]
    assert logged.state(400.0) == "idle", "a clock that is a little ahead is one, a date in the far future is none"
    assert run("r").state(0.0) == "idle"


@pytest.mark.parametrize("value", [("a shoe", "a hat"), "a shoe | a hat"])
def test_validation_prompts_come_from_a_list_or_from_bars(value: object) -> None:
    told = replace(run("r"), settings={"validation_prompts": Setting(value, "hparams.yml")}, samples=(Sample(Path("/p"), 1),))
    assert validation_prompts(told) == ("a shoe", "a hat")
    assert validation_prompts(run("r")) == ()


@pytest.mark.parametrize("text", ["", "-1", "1.5", "٣", "1_000", " 1", "1" * 19, "0x10"])
def test_a_number_is_ascii_digits_or_bad_input(text: str) -> None:
    assert parse_number("1500", "steps") == 1500
    with pytest.raises(BadInput):
        parse_number(text, "steps")
