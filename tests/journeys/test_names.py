"""Whatever a folder is called, its id leads back to it: in the scan, on the command line, in REST and in what the page is fed with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cmp.core.runs import Checkpoint, Run
from cmp.rest.models import list_models
from cmp.rest.origin import find_model
from cmp.ui.values import checkpoints_table, run_choices, runs_table
from tests.in_process import command
from tests.support import Training, adapter_tensors, bench_of, origin_run, save

NAMES = {
    "spaces": " two  words ",
    "emoji": "👟🏽 shoe",
    "right to left": "\u202eevil\u202c-שלום\u200f",
    "quotes": 'it\'s "quoted" `so`',
    "shell": "${HOME} $(id) & ; | > x",
    "html": "<img src=x onerror=alert(1)>&amp;",
    "percent": "100%25 %41",
    "at": "me@500@final",
    "colon": "c:d::",
    "tilde": "~root~2",
    "newline": "line\nbreak\ttab\r",
    "escape": "\x1b[31mred\x07",
    "not UTF-8": os.fsdecode(b"caf\xe9\xff"),
    "255 bytes": "n" * 255,
    "255 bytes of emoji": "👟" * 63 + "abc",
    "option": "--json",
    "dots": "v1..2.",
    "backslash": "a\\b\\..\\c",
    "composed": "\u00e9",
    "decomposed": "e\u0301",
    "as a step": "checkpoint-٣",
    "as a file": "x.safetensors",
    "query": "a?b=c#d",
    "brackets": "[a] {b} *",
}
each_name = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


@pytest.fixture
def made(tmp_path: Path, name: str) -> Training:
    try:
        return origin_run(tmp_path, (500, 1000), name=name, logs=len(os.fsencode(name)) < 200)  # they are named after it with more
    except OSError as fault:
        pytest.skip(f"this file system takes no such name: {fault}")


@each_name
def test_the_command_line_finds_a_run_and_its_checkpoints_by_the_ids_it_lists(made: Training) -> None:
    folders = ("--runs", str(made.outputs), "--bases", str(made.bases))
    home = made.outputs.parent / "home"
    listed = command(home, *folders, "list", "--json")
    assert listed.code == 0, listed.told
    (run,) = listed.json["runs"]
    assert run["id"].encode() and not any(ord(character) < 32 for character in run["id"])
    shown = command(home, *folders, "show", "--json", "--", run["id"])
    assert shown.code == 0 and shown.json["folder"] == run["folder"]
    for row in run["checkpoints"]:
        for named in (row["id"], *row["aliases"]):
            shown = command(home, *folders, "show", "--json", "--", named)
            assert shown.code == 0 and shown.json["path"] == row["path"], shown.told
    human = command(home, *folders, "list")
    assert human.code == 0 and all(line.isprintable() for line in human.out.splitlines())


@each_name
def test_a_checkpoint_is_converted_by_its_id_and_then_listed_as_converted(made: Training) -> None:
    folders = ("--runs", str(made.outputs), "--bases", str(made.bases))
    home = made.outputs.parent / "home"
    (run,) = command(home, *folders, "list", "--json").json["runs"]
    wanted = run["checkpoints"][0]
    said = command(home, *folders, "convert", "--to", "lora", "--json", "--", wanted["id"])
    assert said.code == 0, said.told
    (row,) = [row for row in command(home, *folders, "list", "--json").json["runs"][0]["checkpoints"] if row["id"] == wanted["id"]]
    assert row["converted"]["lora"] == said.json["converted"][0]["output"]
    again = command(home, *folders, "convert", "--to", "lora", "--json", "--", wanted["id"])
    assert again.code == 0 and again.json["converted"] == [] and len(again.json["skipped"]) == 1, again.told


@each_name
def test_a_path_with_that_name_is_found_too(made: Training) -> None:
    home = made.outputs.parent / "home"
    shown = command(home, "--bases", str(made.bases), "show", "--json", "--", str(made.checkpoint(500)))
    assert shown.code == 0 and shown.json["step"] == 500, shown.told


@each_name
def test_rest_lists_names_that_lead_back_to_the_checkpoint(made: Training) -> None:
    bench = bench_of(made)
    models = _sent(list_models(bench.library(fresh=False), bench.store.all("name")))
    assert len({model["name"] for model in models}) == len(models) == 4  # the base, two steps, the final
    for model in models[1:]:
        for told in (model["name"], model["id"]):
            _, checkpoint = find_model(bench, told)
            assert checkpoint and checkpoint.id == model["id"] and checkpoint.step == model["step"]


@each_name
def test_the_page_is_fed_with_keys_that_lead_back(made: Training) -> None:
    bench = bench_of(made)
    library = bench.library()
    (key,) = [row["key"] for row in _sent(runs_table(library, bench.name_of, None))["rows"]]
    (choice,) = _sent(run_choices(library, bench.name_of))
    assert library.run(key).folder == made.run and choice[1] == key
    rows = _sent(checkpoints_table(library.run(key), bench.name_of, [], lambda sample: ""))["rows"]
    found = [_checkpoint(bench.find(row["key"], only_ids=True)).path for row in rows]
    assert found == [made.checkpoint(500), made.checkpoint(1000)]


def _sent(value: object) -> Any:
    """As it arrives at the other end: FastAPI and gradio send UTF-8, which has no halves of surrogate pairs."""
    return json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8"))


def _checkpoint(found: tuple[Run, Checkpoint | None]) -> Checkpoint:
    assert found[1] is not None
    return found[1]


def test_all_names_in_one_folder_have_ids_of_their_own(tmp_path: Path) -> None:
    kept = []
    for name in NAMES.values():
        try:
            kept.append(origin_run(tmp_path, (500,), name=name, logs=False, final=False))
        except OSError:
            continue
    runs = bench_of(kept[0]).library().runs
    assert {run.folder for run in runs} == {made.run for made in kept} and len({run.id for run in runs}) == len(runs)


@each_name
def test_a_series_of_files_with_that_name_is_found_by_its_ids(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "outputs" / "run"
    name = os.fsdecode(os.fsencode(name)[:200])  # room for the ending
    for step, ending in ((500, "-step00000500"), (1000, "")):
        _save_series_file(folder / f"{name}{ending}.safetensors", step)
    home = tmp_path / "home"
    (run,) = command(home, "--runs", str(tmp_path / "outputs"), "list", "--json").json["runs"]
    assert len(run["checkpoints"]) == 2 and run["checkpoints"][0]["step"] == 500
    for row in run["checkpoints"]:
        shown = command(home, "--runs", str(tmp_path / "outputs"), "show", "--json", "--", row["id"])
        assert shown.code == 0 and shown.json["path"] == row["path"], shown.told


def _save_series_file(file: Path, step: int) -> None:
    """A LoRA under the names of kohya's scripts."""
    halves = {".lora_A.weight": ".lora_down.weight", ".lora_B.weight": ".lora_up.weight"}
    tensors = {}
    for stored, values in adapter_tensors(step).items():
        ending = next(half for half in halves if stored.endswith(half))
        tensors["lora_unet_" + stored.removesuffix(ending).replace(".", "_") + halves[ending]] = values
    alphas = {stored.rsplit(".lora_", 1)[0] + ".alpha": values[:1, 0] * 0 + 4 for stored, values in tensors.items()}
    try:
        save(file, tensors | {stored: values.reshape(()) for stored, values in alphas.items()}, {"ss_network_module": "networks.lora"})
    except OSError as fault:
        pytest.skip(f"this file system takes no such name: {fault}")
