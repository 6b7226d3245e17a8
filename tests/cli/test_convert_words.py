"""What `convert` says: a line a file, each doubt in it, the proofs behind --json; and that it is a job as a grid is one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cmp.disk.ledger import Ledger
from cmp.disk.store import Store
from tests.in_process import Said, command

CORPUS = Path(__file__).parents[1] / "data" / "corpus"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two runs of the same training, one with a text encoder; no base model is at hand."""
    for name in ("acc_peft_bf16", "acc_peft_two_models"):
        shutil.copytree(CORPUS / name / "outputs" / "RUN", tmp_path / "outputs" / name)
    return tmp_path / "outputs"


def convert(outputs: Path, *asked: str) -> Said:
    return command(outputs.parent / "home", "--runs", str(outputs), "convert", "acc_peft_bf16", "acc_peft_two_models", *asked)


def test_each_file_is_told_in_one_line_with_form_size_and_doubts(outputs: Path) -> None:
    said = convert(outputs, "--to", "webui")
    assert said.code == 0 and said.out == "converted 2, skipped 0, failed 0, total 2\n", said.told
    told = [line for line in said.err.splitlines() if line.startswith("converted ")]
    assert len(told) == 2 and all("(webui, " in line and "trained tensors of it proven" in line for line in told), said.told
    assert all("were NOT compared with a base model" in line and "not attached to a model" in line for line in told), said.told
    assert len(said.err.splitlines()) <= 5 and "B/s" not in said.err, said.told


def test_a_plan_tells_the_scale_once_where_all_have_the_same(outputs: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(outputs / "acc_peft_bf16", outputs / name)
    runs = ("a", "acc_peft_bf16", "b")
    said = command(outputs.parent / "home", "--runs", str(outputs), "convert", *runs, "--to", "webui", "--dry-run")
    lines = [line for line in said.err.splitlines() if line.startswith("planned ")]
    assert said.code == 0 and len(lines) == 3, said.told
    assert ", scale 2 (" in lines[0] and not [line for line in lines[1:] if ", scale " in line], said.told


def test_the_proofs_stand_whole_in_json_and_nothing_else_on_standard_output(outputs: Path) -> None:
    said = convert(outputs, "--to", "lora", "--json")
    assert [len(one["checks"]) >= 3 for one in said.json["converted"]] == [True, True], said.told
    assert all(any(check.startswith("read by diffusers: all ") for check in one["checks"]) for one in said.json["converted"])


def test_a_conversion_is_a_job_that_counts_what_it_made_and_keeps_why_it_failed(outputs: Path) -> None:
    convert(outputs, "--to", "lora")
    (outputs / "acc_peft_bf16" / "converted" / "webui").parent.mkdir(parents=True, exist_ok=True)
    (outputs / "acc_peft_bf16" / "converted" / "webui").write_text("in the way")
    said = convert(outputs, "--to", "webui")
    assert said.code == 1, said.told
    first, second = Ledger(Store(outputs.parent / "home")).records()
    assert (first.kind, first.state, first.done, first.total, first.faults) == ("convert", "done", 2, 2, 0)
    assert (second.state, second.faults) == ("done", 1) and len(second.reasons) == 1 and "acc_peft_bf16" in second.reasons[0][0]
    told = command(outputs.parent / "home", "--runs", str(outputs), "jobs", second.id)
    assert "1 failed: " in told.out and second.reasons[0][0] in told.out, told.told
    convert(outputs, "--to", "lora")
    assert len(Ledger(Store(outputs.parent / "home")).records()) == 2, "where all is done already there is no job"


@pytest.mark.parametrize("name", ["lycoris_lokr", "lycoris_dora"])
def test_of_a_file_of_lycoris_it_is_said_where_it_loads_as_it_is(tmp_path: Path, name: str) -> None:
    said = command(tmp_path / "home", "--runs", str(CORPUS / name / "outputs"), "convert", "run1", "--to", "webui", "--dry-run")
    assert said.code == 5 and "sks_cat.safetensors, loads in A1111 and ComfyUI as it is" in said.err, said.told
