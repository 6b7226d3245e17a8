"""Scanning what is damaged, odd or closed: it is told, and takes nothing else down."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cmp.core.present import library_json
from cmp.core.runs import Run
from cmp.disk.alias import merge_same_weights
from cmp.disk.scan import scan
from cmp.disk.store import Store
from tests.support import (
    adapter_tensors,
    as_nobody,
    at_most,
    diffusers_run,
    origin_run,
    save,
    wrapped_tensors,
)


def only_run(root: Path) -> Run:
    (run,) = scan([root]).runs
    return run


def keys(run: Run) -> list[str]:
    return [c.key for c in run.checkpoints]


@pytest.mark.parametrize(
    ("spoil", "flaw"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:3000]), "incomplete"),
        (lambda file: file.write_bytes(b""), "empty"),
        (lambda file: file.rename(file.with_name(".tmpXa81Kq")), "incomplete"),
        (lambda file: file.unlink(), "no weights file"),
        (lambda file: (file.unlink(), file.mkdir()), "is a folder"),
        (lambda file: (file.unlink(), file.symlink_to("/etc/passwd")), "link"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "not a regular file"),
        (lambda file: file.rename(file.with_name("pytorch_model.bin")), "no weights file"),
        (lambda file: (file.unlink(), file.with_name("pytorch_model_fsdp_0").mkdir()), "FSDP"),
        (lambda file: save(file, {"something.else.weight": wrapped_tensors(1)["base_model.model.conv_in.bias"]}), "nothing that is known"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_says_why_and_leaves_the_rest(tmp_path: Path, spoil: Callable[[Path], object], flaw: str) -> None:
    made = origin_run(tmp_path)
    spoil(made.checkpoint(500) / "model.safetensors")
    with at_most(5):
        library = scan([made.outputs])
    (run,) = library.runs
    assert keys(run) == ["500", "1000", "final"] and not library.problems
    assert flaw in str(run.checkpoints[0].flaw) and run.checkpoints[0].step == 500
    assert [c.flaw for c in run.checkpoints[1:]] == [None, None]


@pytest.mark.parametrize("name", ["checkpoint-٣", "checkpoint-x", "checkpoint-3-tmp", "checkpoints-old", ".checkpoint-5"])
def test_a_folder_whose_name_is_no_step_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    made = origin_run(tmp_path)
    made.checkpoint(500).rename(made.run / "checkpoints" / name)
    assert keys(only_run(made.outputs)) == ["1000", "final"]


def test_a_folder_that_breaks_diffusers_resume_is_warned_of_only_where_it_does(tmp_path: Path) -> None:
    beside = diffusers_run(tmp_path)
    (beside.run / "checkpoint_pipelines").mkdir()
    (warning,) = only_run(beside.outputs).warnings
    assert warning.startswith("checkpoint_pipelines: ") and "resume" in warning
    apart = origin_run(tmp_path / "origin")
    (apart.run / "checkpoint_pipelines" / "checkpoint-500").mkdir(parents=True)
    assert only_run(apart.outputs).warnings == ()


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = origin_run(tmp_path / "outside", logs=False)
    made = origin_run(tmp_path / "inside", (500,), final=False, logs=False)
    (made.outputs / "linked-run").symlink_to(outside.run)
    (made.run / "checkpoints" / "checkpoint-900").symlink_to(outside.checkpoint(500))
    (made.run / "lora_weights").symlink_to(outside.run / "lora_weights")
    (made.outputs / "loop").symlink_to(made.outputs)
    assert keys(only_run(made.outputs)) == ["500"]


def test_a_loose_weights_file_does_not_hide_the_runs_beside_it(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    save(made.outputs / "pytorch_lora_weights.safetensors", {f"unet.{n}": v for n, v in adapter_tensors(1).items()})
    assert [(r.id, keys(r)) for r in scan([made.outputs]).runs] == [
        ("outputs", ["final"]),
        ("lora_casual_shoes", ["500", "1000", "final"]),
    ]


def test_names_that_are_no_text_can_be_scanned_told_and_remembered(tmp_path: Path) -> None:
    made = origin_run(tmp_path, name=os.fsdecode(b"caf\xe9@1"), logs=False)
    (made.checkpoint(500) / "model.safetensors").write_bytes(b"")
    library = scan([made.outputs])
    run = merge_same_weights(library.runs[0], Store(tmp_path / "home"))
    assert (run.id, keys(run)) == ("caf%E9%401", ["500", "1000"])
    assert json.dumps(library_json(library, 0.0), ensure_ascii=False).encode()


def test_very_deep_folders_are_passed_over(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    deep = tmp_path / "outputs" / "/".join("d" * 60)
    deep.mkdir(parents=True)
    save(deep / "checkpoint-5" / "model.safetensors", wrapped_tensors(5))
    assert [r.id for r in scan([made.outputs]).runs] == ["lora_casual_shoes"]


# permissions


@pytest.mark.parametrize(
    ("closed", "expected"),
    [
        ("outputs/closed", {"runs": {"open": ["500", "1000", "final"]}, "problems": ["closed"]}),
        ("outputs/closed/checkpoints/checkpoint-500", {"runs": {"closed": ["500", "1000", "final"], "open": ["500", "1000", "final"]}}),
        ("outputs/closed/checkpoints", {"runs": {"closed": ["final"], "open": ["500", "1000", "final"]}}),
        ("outputs/closed/lora_weights", {"runs": {"closed": ["500", "1000", "final"], "open": ["500", "1000", "final"]}}),
        ("outputs/closed/unet", {"runs": {"closed": ["500", "1000", "final"], "open": ["500", "1000", "final"]}}),
        ("outputs/closed/logs", {"runs": {"closed": ["500", "1000", "final"], "open": ["500", "1000", "final"]}}),
    ],
)
def test_a_folder_without_permission_leaves_the_rest(open_path: Path, closed: str, expected: dict) -> None:
    for name in ("closed", "open"):
        origin_run(open_path, name=name, logs=False)
    (open_path / closed).mkdir(exist_ok=True)
    (open_path / closed).chmod(0)

    def told() -> object:
        library = scan([open_path / "outputs"])
        return {"runs": {r.id: keys(r) for r in library.runs}, "problems": [p.path.name for p in library.problems]}

    assert as_nobody(told) == {"problems": [], **expected}


def test_checkpoints_without_permission_are_told_and_not_silently_missing(open_path: Path) -> None:
    for name, final in (("alone", False), ("with-final", True)):
        made = origin_run(open_path, (500,), name=name, logs=False, final=final)
        (made.run / "checkpoints").chmod(0)

    def told() -> object:
        library = scan([open_path / "outputs"])
        return [[p.reason for p in library.problems], [w for r in library.runs for w in r.warnings]]

    problems, warnings = as_nobody(told)
    assert "checkpoints: Permission denied" in problems[0] and "checkpoints: Permission denied" in warnings[0]


def test_a_weights_file_of_another_user_is_a_flaw(open_path: Path) -> None:
    made = origin_run(open_path, logs=False)
    (made.checkpoint(500) / "model.safetensors").chmod(0o600 if os.geteuid() == 0 else 0)
    flaw, other = as_nobody(lambda: [c.flaw for c in only_run(made.outputs).checkpoints[:2]])
    assert "Permission denied" in flaw and other is None
