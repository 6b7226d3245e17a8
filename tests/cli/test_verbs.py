"""The verbs are loaded one by one: each is there under its name, and none brings the others along."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_group
from typer.testing import CliRunner

from cmp.cli import VERBS, app
from cmp.disk.ledger import Ledger
from cmp.disk.store import Store
from cmp.errors import BadInput, NoSpace, Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.journeys.conftest import run_command
from tests.support import base_pipeline, base_tensors, origin_run, spoil, write_log


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_module_that_the_table_names(verb: str) -> None:
    assert verb in get_group(import_module(f"cmp.cli.{VERBS[verb]}").app).commands


def test_the_help_names_every_verb_and_none_that_is_not_in_the_table() -> None:
    said = CliRunner().invoke(app, ["--help"])
    assert said.exit_code == 0
    commands = said.output.partition("Commands:")[2]
    assert [line.split()[0] for line in commands.splitlines() if line[:3].strip()] == list(VERBS)


def test_a_misspelt_verb_is_told_with_the_one_that_may_be_meant() -> None:
    said = CliRunner().invoke(app, ["convrt"])
    assert said.exit_code == 2 and "Did you mean 'convert'" in said.output


def test_an_alpha_that_the_files_tell_is_shown_with_and_not_remembered(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    place = {"CMP_HOME": str(tmp_path / "home"), "CMP_RUNS": str(made.outputs), "CMP_BASES": str(made.bases)}
    said = CliRunner().invoke(app, ["show", "lora_casual_shoes@500", "--alpha", "4"], env=place)
    assert said.exit_code == 0 and "alpha 4 is not remembered" in said.stderr and "0.5 = alpha 4 / rank 8" in said.stdout
    assert "2 = alpha 16 / rank 8" in CliRunner().invoke(app, ["show", "lora_casual_shoes@500"], env=place).stdout


def test_a_form_that_there_is_not_is_said_once_before_anything_is_looked_up(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    place = {"CMP_HOME": str(tmp_path / "home"), "CMP_RUNS": str(made.outputs), "CMP_BASES": str(made.bases)}
    said = CliRunner().invoke(app, ["convert", "lora_casual_shoes", "--to", "foo"], env=place)
    assert isinstance(said.exception, BadInput) and "'foo'" in said.exception.message


@pytest.mark.parametrize("planned", [("--dry-run",), ()])
def test_a_planned_conversion_that_does_not_fit_exits_as_the_conversion_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planned: tuple[str, ...]
) -> None:
    made = origin_run(tmp_path)
    place = {"CMP_HOME": str(tmp_path / "home"), "CMP_RUNS": str(made.outputs), "CMP_BASES": str(made.bases)}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "total used free")(1, 1, 1000))
    said = CliRunner().invoke(app, ["convert", "lora_casual_shoes", "--to", "lora", *planned], env=place)
    assert isinstance(said.exception, NoSpace) and not (made.run / "converted").exists()


@pytest.mark.parametrize("planned", [("--dry-run",), ()])
def test_a_planned_conversion_of_which_all_is_impossible_exits_as_the_conversion_would(tmp_path: Path, planned: tuple[str, ...]) -> None:
    made = origin_run(tmp_path, final=False)
    for step in (500, 1000):
        spoil(made, lambda tensors: tensors.pop(next(name for name in tensors if "lora_A" in name)), step=step)
    place = {"CMP_HOME": str(tmp_path / "home"), "CMP_RUNS": str(made.outputs), "CMP_BASES": str(made.bases)}
    run = CliRunner().invoke(app, ["convert", "lora_casual_shoes", "--to", "lora", *planned], env=place)
    one = CliRunner().invoke(app, ["convert", "lora_casual_shoes@500", "--to", "lora", *planned], env=place)
    assert run.exit_code == 1 and isinstance(one.exception, Refused)


@pytest.mark.parametrize("planned", [("--dry-run",), ()])
def test_a_planned_conversion_of_weights_of_another_base_exits_as_the_conversion_would(tmp_path: Path, planned: tuple[str, ...]) -> None:
    made = origin_run(tmp_path)
    base_pipeline(made.bases, {name: values + 1 for name, values in base_tensors().items()})
    place = {"CMP_HOME": str(tmp_path / "home"), "CMP_RUNS": str(made.outputs), "CMP_BASES": str(made.bases)}
    one = CliRunner().invoke(app, ["convert", "lora_casual_shoes@500", "--to", "lora", *planned], env=place)
    all_of_it = CliRunner().invoke(app, ["convert", "lora_casual_shoes", "--to", "lora", "--json", *planned], env=place)
    assert isinstance(one.exception, Refused) and all_of_it.exit_code == 1 and not json.loads(all_of_it.stdout).get("planned")


@pytest.mark.parametrize("asked", ["cancel", "pause"])
def test_a_job_that_is_over_says_so_when_it_is_to_be_stopped(tmp_path: Path, asked: str) -> None:
    place = {"CMP_HOME": str(tmp_path / "home")}
    (record,) = (Ledger(Store(tmp_path / "home")).add("grid", "1 cell", 1, None),)
    bench = Workbench(Settings(tmp_path / "home"))
    first = CliRunner().invoke(app, ["jobs", record.id, "--cancel"], env=place)  # its process is gone: it is cancelled at once
    again = CliRunner().invoke(app, ["jobs", record.id, f"--{asked}", "--json"], env=place)
    assert first.exit_code == again.exit_code == 0 and "is over" not in first.stderr
    assert f"{record.id} is over already (cancelled): there is nothing to {asked}" in again.stderr
    assert json.loads(again.stdout)["state"] == bench.jobs.record(record.id).state == "cancelled"


@pytest.mark.parametrize(("best", "steps"), [(("--best",), ["1000"]), (("--best", "2"), ["500", "1000"])])
@pytest.mark.parametrize("last", [True, False])
def test_best_without_a_number_is_the_one_best(tmp_path: Path, best: tuple[str, ...], steps: list[str], last: bool) -> None:
    made = origin_run(tmp_path, (500, 1000, 1500), final=False, logs=False)
    losses = [(500, 0.3), (1000, 0.1), (1500, 0.5)]
    write_log(tmp_path / "logs" / "train_lora_casual_shoes", losses, tag="loss/validation", lora_rank=8, lora_alpha=16)
    place = {"CMP_HOME": str(tmp_path / "home"), "CMP_RUNS": str(made.outputs), "CMP_BASES": str(made.bases)}
    order = ["lora_casual_shoes", "--to", "lora", "--dry-run", "--json"]
    said = CliRunner().invoke(app, ["convert", *([*order, *best] if last else [*best, *order])], env=place)
    assert sorted((plan["checkpoint"].rpartition("@")[2] for plan in json.loads(said.stdout)["planned"]), key=int) == steps


@pytest.mark.parametrize("arguments", [("convert", "x", "--json"), ("grid", "--json", "--nothing"), ("lst", "--json")])
def test_a_command_line_that_is_none_is_told_as_json_too(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    said = run_command(tmp_path, *arguments)
    assert said.code == 2 and said.json["code"] == 2 and said.json["error"] and said.json["hint"] and "Usage" in said.err


OPTIONS = {
    "list": "", "show": "", "doctor": "", "jobs": "--cancel", "star": "--note --off", "watch": "--grid --measure",
    "measure": "--held-out --training --metric --draws --checkpoints --dry-run --clip --encoder --preference --reference --subject",
    "curves": "--tag --smooth --logs --csv --png --svg",
    "convert": "--to --output --base --alpha --dtype --new --force --best --every --strength --verify --dry-run",
    "grid": "--prompt --prompts --negative --checkpoints --seeds --strengths --steps --guidance --size --scheduler --stack --base-column"
    " --like --output --sheet --dry-run --exact --fast --preview --ray",
}  # fmt: skip


@pytest.mark.parametrize("verb", OPTIONS)
def test_every_option_that_scripts_may_rely_on_is_there(verb: str) -> None:
    said = CliRunner().invoke(app, [verb, "--help"]).output.split()
    assert {"--json", *OPTIONS[verb].split()} <= {word.rstrip(",") for word in said}


def test_the_options_of_the_server_are_there() -> None:
    assert {"--host", "--port", "--token", "--read-only"} <= set(CliRunner().invoke(app, ["serve", "--help"]).output.split())
