"""The contract with scripts: verbs, fields and exit codes, through the real command."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import diffusers_run

from .conftest import FULL, ROOT, Said, environment, run_command


def test_list_gives_both_runs_with_every_field_of_the_contract(cmp: Callable[..., Said]) -> None:
    said = cmp("list", "--json")
    assert said.code == 0
    runs = {run["id"]: run for run in said.json["runs"]}
    assert FULL in runs and len(runs) == 2 and said.json["problems"] == []
    run = runs[FULL]
    wanted = {"id", "folder", "trainer", "base_model", "settings", "bytes", "state", "checkpoints", "last_loss", "logs", "images"}
    assert wanted <= set(run)
    assert (run["trainer"], run["base_model"], run["images"], run["state"]) == ("accelerate", "cmp-demo/tiny-shapes", 96, "idle")
    assert run["settings"]["lora_rank"] == 8 and run["settings"]["lora_alpha"] == 16 and run["last_loss"] > 0
    assert [c["step"] for c in run["checkpoints"]] == [500, 1000, 1500, 2000, 2500, 3000]
    first = run["checkpoints"][0]
    assert {"id", "step", "epoch", "path", "layout", "holds", "bytes", "written_at", "flaw", "aliases", "converted"} <= set(first)
    assert first["id"] == f"{FULL}@500" and first["layout"] == "accelerate-peft" and first["holds"] == "lora" and first["flaw"] is None
    assert f"{FULL}@final" in run["checkpoints"][-1]["aliases"]
    other = next(run for name, run in runs.items() if name != FULL)
    assert other["trainer"] == "diffusers" and {c["layout"] for c in other["checkpoints"]} == {"diffusers-lora"}


def test_show_says_the_scale_and_where_it_was_found(cmp: Callable[..., Said]) -> None:
    told = cmp("show", f"{FULL}@1500", "--json").json
    counts = {"total": 942, "pairs": 128, "adapted": 256, "frozen": 686, "whole": 0, "embeddings": 0}
    assert told["tensors"] == counts | {"left_out": [], "types": {"F32": 942}}
    assert told["scale"]["value"] == 2 and told["scale"]["alpha"] == 16 and told["scale"]["rank"] == 8
    assert "adapter_config.json" in told["scale"]["source"] and "hparams.yml" in told["scale"]["source"]
    assert told["base"]["proof"] == "tensors" and set(told["forms"].values()) == {"can be made"}


def test_curves_have_a_point_per_logged_step_and_the_checkpoints(cmp: Callable[..., Said], tmp_path: Path) -> None:
    said = cmp("curves", FULL, "--json", "--csv", str(tmp_path / "c.csv"), "--png", str(tmp_path / "c.png"))
    curves = {curve["tag"]: curve for curve in said.json["curves"]}
    assert {"loss", "lr", "epoch"} <= set(curves) and said.json["checkpoints"] == [500, 1000, 1500, 2000, 2500, 3000]
    loss = curves["loss"]
    assert loss["steps"][-1] == 3000 and len(loss["values"]) == len(loss["steps"]) == len(loss["wall_times"])
    assert (tmp_path / "c.csv").read_text().startswith("tag,step,value,smoothed\n")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_convert_then_convert_again_skips_and_force_redoes(cmp: Callable[..., Said], tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    order = ("convert", f"{FULL}@500", "--to", "lora", "--output", str(target), "--json")
    first = cmp(*order)
    (made,) = first.json["converted"]
    assert first.code == 0 and made["output"] == str(target) and made["scale"]["value"] == 2
    assert made["tensors"]["read"] == 942 and made["tensors"]["applied"] == 256 and len(made["tensors"]["left_out"]) == 686
    second = cmp(*order)
    assert second.code == 0 and second.json["converted"] == [] and second.json["skipped"][0]["output"] == str(target)
    third = cmp(*order, "--force")
    assert len(third.json["converted"]) == 1 and list(tmp_path.rglob(".cmp-trash/*x.safetensors")), "what was there must be kept"


def test_a_dry_run_writes_nothing(cmp: Callable[..., Said], tmp_path: Path) -> None:
    said = cmp("convert", FULL, "--to", "webui", "--output", str(tmp_path / "out"), "--dry-run", "--json")
    assert said.code == 0 and len(said.json["planned"]) == 6 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("show", "no_such_run"), 3),
        (("doctor", "/no/such/folder"), 3),
        (("show", f"{FULL}@750"), 3),
        (("show", "/no/such/path"), 3),
        (("convert", f"{FULL}@500", "--to", "gguf"), 2),
        (("convert", f"{FULL}@500", "--to", "lora", "--alpha", "much"), 2),
        (("convert", f"{FULL}@500", "--to", "pipeline", "--base", "no/such_base"), 3),
        (("grid", FULL), 2),
        (("grid", FULL, "--prompt", "x", "--seeds", "one"), 2),
        (("grid", FULL, "--prompt", "x", "--size", "65x64"), 2),
        (("grid", FULL, "--prompt", "x", "--checkpoints", "750"), 2),
        (("curves", FULL, "--tag", "nothing"), 3),
        (("curves", FULL, "--smooth", "1"), 2),
    ],
)
def test_an_error_of_input_has_its_code_and_says_what_to_do(cmp: Callable[..., Said], arguments: tuple[str, ...], code: int) -> None:
    said = cmp(*arguments, "--json")
    assert said.code == code and said.json["code"] == code and said.json["error"] and said.json["hint"]


def test_a_folder_that_is_missing_or_empty_is_told_and_takes_nothing_down(demo_home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = run_command(demo_home, "--runs", str(tmp_path / "empty"), "--runs", str(tmp_path / "gone"), "list", "--json")
    reasons = {problem["path"]: problem["reason"] for problem in said.json["problems"]}
    assert said.code == 3 and said.json["runs"] == []
    assert "no training run" in reasons[str(tmp_path / "empty")] and "does not exist" in reasons[str(tmp_path / "gone")]


def test_a_checkpoint_that_is_still_being_written_is_listed_with_its_flaw(demo_home: Path, tmp_path: Path) -> None:
    source = demo_home / "demo" / "training" / "outputs" / FULL
    shutil.copytree(source, tmp_path / "outputs" / "r", ignore=shutil.ignore_patterns("validation", "final_pipeline", "optimizer.bin"))
    growing = tmp_path / "outputs" / "r" / "checkpoints" / "checkpoint-3000" / "model.safetensors"
    growing.write_bytes(growing.read_bytes()[:3_000_000])
    listed = run_command(demo_home, "--runs", str(tmp_path / "outputs"), "list", "--json").json["runs"][0]["checkpoints"]
    flaws = {c["step"]: c["flaw"] for c in listed if c["step"]}
    assert "incomplete" in flaws[3000] and flaws[2500] is None
    said = run_command(demo_home, "--runs", str(tmp_path / "outputs"), "convert", "r", "--to", "lora", "--json")
    assert said.code == 1 and len(said.json["failed"]) == 1 and len(said.json["converted"]) == 6  # five steps and the final
    assert said.json["failed"][0]["code"] == 4 and said.json["failed"][0]["checkpoint"] == "r@3000"


@pytest.mark.model
def test_a_grid_is_drawn_into_a_sheet_and_drawn_again_from_the_store(cmp: Callable[..., Said], tmp_path: Path) -> None:
    order = ("grid", FULL, "--prompt", "a blue casual shoe", "--checkpoints", "500, 3000", "--base-column", "--steps", "2", "--json")
    first = cmp(*order, "--sheet", str(tmp_path / "sheet.png"), "--output", str(tmp_path / "cells"))
    tiles = first.json["tiles"]
    assert first.code == 0 and [t["step"] for t in tiles] == [None, 500, 3000] and not any(t["fault"] for t in tiles)
    assert all(t["base"]["proof"] == "tensors" for t in tiles) and len({t["key"] for t in tiles}) == 3
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG") and len(list((tmp_path / "cells").iterdir())) == 3
    second = cmp(*order)
    assert all(t["reused"] for t in second.json["tiles"]) and [t["key"] for t in second.json["tiles"]] == [t["key"] for t in tiles]


def run_script(home: Path, cwd: Path, name: str, *arguments: str, **variables: str) -> Said:
    command = [sys.executable, str(ROOT / "scripts" / name), *arguments]
    done = subprocess.run(command, env=environment(home) | variables, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


def test_the_origins_scripts_keep_their_arguments_and_summary(demo_home: Path, tmp_path: Path) -> None:
    source = demo_home / "demo" / "training" / "outputs" / FULL
    run = tmp_path / "outputs" / FULL
    shutil.copytree(demo_home / "demo" / "training" / "logs", tmp_path / "logs")
    shutil.copytree(source, run, ignore=shutil.ignore_patterns("checkpoint-[23]*", "validation", "checkpoint_pipelines"))

    def script(name: str, *arguments: str) -> Said:
        return run_script(demo_home, tmp_path, name, *arguments)

    first = script("convert_all_checkpoints.py", str(run))
    assert first.code == 0, first.err
    assert first.out.startswith("Found 4 checkpoints") and "Summary: converted 4, skipped 0, failed 0, total 4" in first.out
    assert (run / "checkpoint_pipelines" / "checkpoint-500" / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    again = script("convert_all_checkpoints.py", str(run))
    assert "already converted, use --force" in again.out and "skipped 4" in again.out
    one = tmp_path / "one"
    asked = ("--checkpoint", str(run / "checkpoints" / "checkpoint-1000"), "--output", str(one), "--base_model", "cmp-demo/tiny-shapes")
    single = script("convert_checkpoint_to_pipeline.py", *asked, "--test_prompt", "a red casual shoe")
    assert single.code == 0 and (one / "checkpoint_metadata.json").is_file(), single.err
    assert single.out.endswith(f"Drew {one / 'test.png'}\n") and (one / "test.png").read_bytes().startswith(b"\x89PNG")
    again = script("convert_checkpoint_to_pipeline.py", *asked)  # with the picture in it
    assert again.out.endswith("already converted, use --force to redo\n")


def test_the_origins_scripts_take_ids_and_end_with_the_contracts_exit_codes(tmp_path: Path) -> None:
    made = diffusers_run(tmp_path)
    home = tmp_path / "home"

    def script(name: str, *arguments: str) -> Said:
        return run_script(home, tmp_path, name, "--base_model", str(tmp_path / "no base"), *arguments, CMP_RUNS=str(made.outputs))

    by_id, by_path = (script("convert_all_checkpoints.py", name) for name in ("sd-lora", "outputs/sd-lora"))
    assert by_id.out == by_path.out and by_id.out.startswith("Found 2 checkpoints") and "2: failed: " in by_id.out
    assert (by_id.code, script("convert_all_checkpoints.py", "sd-lora@2").code) == (1, 3)
    for missing in ("no_such_run", "./no_such_run"):
        said = script("convert_all_checkpoints.py", missing)
        assert said.code == 3 and missing.removeprefix("./") in said.err and said.out == ""
    one = script("convert_checkpoint_to_pipeline.py", "--checkpoint", "sd-lora@2", "--output", str(tmp_path / "one"))
    assert one.code == 3 and "no base" in one.err


def test_a_taken_port_is_told(demo_home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        said = run_command(demo_home, "serve", "--port", str(other.getsockname()[1]))
    assert said.code == 2 and "--port" in said.err


def test_doctor_tells_the_machine_and_why_a_folder_is_not_listed(cmp: Callable[..., Said], tmp_path: Path) -> None:
    told = cmp("doctor", "--json").json
    assert told["packages"]["torch"] and any("cpu" in device for device in told["device"]) and told["bases"]
    (tmp_path / "holiday").mkdir()
    assert any("checkpoint-N" in line for line in cmp("doctor", str(tmp_path / "holiday"), "--json").json["why"])
