"""Runs on the Hub: what is fetched of them, what is not and told so, and what an odd server cannot do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cmp.core.progress import run_through
from cmp.disk.checkpoint import open_weights
from cmp.disk.hub_files import Hub, HubPlace, read_place
from cmp.disk.hub_mirrors import Mirror, known_mirror, mirror_folder, read_note
from cmp.disk.hub_runs import mirroring
from cmp.disk.ready import Answers, digest_of, ready_checkpoint
from cmp.disk.scan import scan
from cmp.disk.store import Store
from cmp.errors import BadInput, Locked, NotFound, Refused, Unreadable
from cmp.settings import OURS, Settings
from cmp.workbench import Workbench
from tests.hub import COMMIT, LATER, FakeHub, serving
from tests.support import base_tensors, origin_run, save, wrapped_tensors

PLACE = read_place("hf://ann/runs")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    made = origin_run(tmp_path / "repo", steps=(500,))
    large = wrapped_tensors(500) | {"base_model.model.conv_in.weight": np.ones((2000, 2000), np.float32)}  # 16 MB that nobody needs
    save(made.checkpoint(500) / "model.safetensors", large, {"format": "pt"})
    with serving(tmp_path / "repo") as served:
        yield served


@pytest.fixture
def at_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every workbench of this process asks that hub."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)


def mirror_of(hub: FakeHub, home: Path, address: str = "hf://ann/runs") -> Mirror:
    return run_through(mirroring(read_place(address), home, Hub(hub.endpoint)))


def test_of_a_dump_only_the_lora_is_fetched_and_it_is_that_of_the_dump_to_the_bit(hub: FakeHub, tmp_path: Path) -> None:
    mirror = mirror_of(hub, tmp_path / "home")
    inside = "outputs/lora_casual_shoes/checkpoints/checkpoint-500/model.safetensors"
    here, there = load_file(mirror.root / inside), load_file(hub.folder / inside)
    assert {name for name in there if "lora_" in name} == set(here) and len(here) == 12
    assert all(here[name].tobytes() == there[name].tobytes() for name in here)
    assert hub.bytes_read("checkpoint-500/model.safetensors") < 1_000_000 < (hub.folder / inside).stat().st_size
    store = Store(tmp_path / "state")
    assert digest_of(open_weights(mirror.root / inside), store) == digest_of(open_weights(hub.folder / inside), store)
    told = {problem.path.relative_to(mirror.root).as_posix(): problem.reason for problem in mirror.problems}
    assert "frozen tensors stay on the Hub" in told[inside]


@pytest.mark.parametrize("config", [True, False])
def test_the_lora_of_a_dump_is_used_only_where_a_config_says_that_nothing_else_was_trained(
    hub: FakeHub, tmp_path: Path, config: bool
) -> None:
    if not config:
        (hub.folder / "outputs/lora_casual_shoes/lora_weights/adapter_config.json").unlink()
    run = next(run for run in scan([mirror_of(hub, tmp_path / "home").root]).runs if run.checkpoints)
    store, asked = Store(tmp_path / "state"), run.checkpoint("500")
    if config:
        assert ready_checkpoint(run, asked, (), store, need_base=False).scale
    else:
        with pytest.raises(Refused, match="says that nothing else was trained"):
            ready_checkpoint(run, asked, (), store, Answers(alpha=16), need_base=False)


def test_the_mirror_is_listed_like_any_folder_with_its_logs_and_alpha(hub: FakeHub, tmp_path: Path) -> None:
    mirror = mirror_of(hub, tmp_path / "home")
    assert mirror.commit == COMMIT and mirror.root.name == "runs"
    run = next(run for run in scan([mirror.root]).runs if run.checkpoints)
    assert run.id == "outputs/lora_casual_shoes"
    assert [c.key for c in run.checkpoints] == ["500", "final"] and all(c.holds == "lora" and c.flaw is None for c in run.checkpoints)
    assert run.logs and run.settings["lora_alpha"].value == 16


def test_nothing_is_fetched_of_optimizers_base_models_and_full_weights(hub: FakeHub, tmp_path: Path) -> None:
    save(hub.folder / "outputs" / "full" / "checkpoint-5" / "unet" / "diffusion_pytorch_model.safetensors", base_tensors())
    mirror = mirror_of(hub, tmp_path / "home")
    held = {path.name for path in mirror.root.rglob("*") if path.is_file()}
    assert not held & {"optimizer.bin", "scheduler.bin", "random_states_0.pkl", "diffusion_pytorch_model.safetensors", "model_index.json"}
    asked = [path for path, _, _ in hub.asked()]
    assert not [path for path in asked if path.endswith((".bin", ".pkl"))]
    assert any("hold no LoRA" in problem.reason and "full" in str(problem.path) for problem in mirror.problems)


def test_what_was_fetched_is_not_fetched_again_and_shown_where_the_hub_is_out_of_reach(hub: FakeHub, tmp_path: Path) -> None:
    mirror_of(hub, tmp_path / "home")
    before = len(hub.asked())
    again = mirror_of(hub, tmp_path / "home")
    assert not [path for path, _, _ in hub.asked()[before:] if "resolve" in path]
    cut_off = run_through(mirroring(PLACE, tmp_path / "home", Hub("http://127.0.0.1:9")))
    assert cut_off.root == again.root and "as it was fetched before" in cut_off.problems[-1].reason
    with pytest.raises(Unreadable):
        run_through(mirroring(PLACE, tmp_path / "elsewhere", Hub("http://127.0.0.1:9")))


def grown(hub: FakeHub) -> Path:
    """The repository one commit later: a checkpoint and more of the log have come, one checkpoint's LoRA has gone."""
    made = origin_run(hub.folder.parent / "later-repo", steps=(500, 1000))
    run = hub.folder / "outputs" / "lora_casual_shoes"
    shutil.copytree(made.checkpoint(1000), run / "checkpoints" / "checkpoint-1000")
    shutil.rmtree(run / "lora_weights")
    (run / "more.csv").write_text("step,loss\n1,0.5\n")
    (hub.folder.parent / "later").touch()
    return run


def test_what_has_come_and_gone_since_is_fetched_and_taken_away_and_what_stayed_is_not_read_again(hub: FakeHub, tmp_path: Path) -> None:
    first = mirror_of(hub, tmp_path / "home")
    held = first.root / "outputs" / "lora_casual_shoes"
    own = held / "converted" / "lora" / "mine.safetensors"
    save(own, {"a": np.ones(1, np.float32)})
    grown(hub)
    before = len(hub.asked())
    later = mirror_of(hub, tmp_path / "home")
    assert later.root == first.root and (first.commit, later.commit) == (COMMIT, LATER), "stars and answers go by the folder"
    read = {path for path, asked, _ in hub.asked()[before:] if path.startswith("/bytes/")}
    assert any("checkpoint-1000" in path for path in read) and any("more.csv" in path for path in read)
    assert not any("checkpoint-500" in path for path in read), "not even its header"
    assert (held / "checkpoints/checkpoint-1000/model.safetensors").is_file() and own.is_file()
    assert not (held / "lora_weights").exists()
    assert {"checkpoint-500", "checkpoint-1000"} <= {p.path.parent.name for p in later.problems}


def test_a_lora_that_became_a_whole_model_is_shown_no_more(hub: FakeHub, tmp_path: Path) -> None:
    inside = "outputs/lora_casual_shoes/lora_weights/adapter_model.safetensors"
    assert (mirror_of(hub, tmp_path / "home").root / inside).is_file()
    save(hub.folder / inside, base_tensors())
    (hub.folder.parent / "later").touch()
    later = mirror_of(hub, tmp_path / "home")
    assert not (later.root / inside).exists() and any("hold no LoRA" in p.reason and p.path == later.root / inside for p in later.problems)


def test_what_was_left_midway_is_gone_on_with_and_the_whole_mirror_before_it_stays_shown(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    mirror_of(hub, home)
    run, read = grown(hub), Hub.read
    above = mirror_folder(PLACE, home)

    def fails(self: Hub, place: HubPlace, commit: str, path: str, start: int, end: int) -> bytes:
        if path.endswith("more.csv"):
            raise Unreadable("the Hub answers 500", "Try again later.")
        return read(self, place, commit, path, start, end)

    with monkeypatch.context() as failing:
        failing.setattr(Hub, "read", fails)
        shown = mirror_of(hub, home)
    assert shown.commit == COMMIT and "as it was fetched before" in shown.problems[-1].reason and not read_note(above).has(COMMIT)
    before = len(hub.asked())
    assert mirror_of(hub, home).commit == LATER
    read_later = [path for path, _, _ in hub.asked()[before:] if path.startswith("/bytes/")]
    assert len(read_later) == 1 and read_later[0].endswith("more.csv") and run.is_dir()


def test_while_another_process_fetches_the_mirror_of_before_is_shown(hub: FakeHub, tmp_path: Path) -> None:
    from filelock import FileLock

    above = mirror_folder(PLACE, tmp_path / "home")
    above.mkdir(parents=True)
    with FileLock(above / ".lock"), pytest.raises(Locked):
        mirror_of(hub, tmp_path / "home")
    mirror_of(hub, tmp_path / "home")
    (hub.folder.parent / "later").touch()
    with FileLock(above / ".lock"):
        assert "being fetched by another process" in mirror_of(hub, tmp_path / "home").problems[-1].reason


def test_a_server_follows_the_hub_and_a_star_stays(hub: FakeHub, tmp_path: Path, at_hub: None) -> None:
    bench = Workbench(Settings(tmp_path / "home", hub=("hf://ann/runs",)))
    run = next(run for run in bench.library().runs if run.checkpoints)
    bench.star(f"{run.id}@500")
    grown(hub)
    bench.follow_hub(every=0.05)
    for _ in range(600):
        keys = [c.key for c in bench.library().run("outputs/lora_casual_shoes").checkpoints]
        if keys == ["500", "1000"]:
            break
        bench.ends.wait(0.05)
    bench.ends.set()
    assert keys == ["500", "1000"] and list(bench.marks(bench.library().runs))


def test_a_mirror_is_shown_with_a_note_where_the_hub_shows_the_place_no_more(hub: FakeHub, tmp_path: Path) -> None:
    there = mirror_of(hub, tmp_path / "home")
    expired = run_through(mirroring(PLACE, tmp_path / "home", Hub(f"{hub.endpoint}/elsewhere")))
    assert expired.root == there.root and "the Hub shows nothing at hf://ann/runs (404)" in expired.problems[-1].reason


def test_where_the_user_is_offline_the_hub_is_not_asked_and_the_mirror_is_shown(hub: FakeHub, tmp_path: Path, at_hub: None) -> None:
    home = tmp_path / "home"
    offline = Settings(home, hub=("hf://ann/runs",), offline=True)
    with pytest.raises(Refused, match="HF_HUB_OFFLINE is set"):
        Workbench(offline).library()
    assert hub.asked() == []
    Workbench(Settings(home, hub=("hf://ann/runs",))).library()
    before = len(hub.asked())
    shown = Workbench(offline).library()
    assert before and len(hub.asked()) == before and [run.id for run in shown.runs if run.checkpoints] == ["outputs/lora_casual_shoes"]
    assert any("shown as it was fetched before: HF_HUB_OFFLINE" in problem.reason for problem in shown.problems)


@pytest.mark.parametrize("beside", ["a folder", "another place"])
def test_a_place_that_is_not_to_be_had_is_a_problem_beside_others_and_an_error_alone(
    tmp_path: Path, hub: FakeHub, at_hub: None, beside: str
) -> None:
    folder, other = ((origin_run(tmp_path / "near").outputs,), ()) if beside == "a folder" else ((), ("hf://ann/runs",))
    library = Workbench(Settings(tmp_path / "home", folder, hub=("hf://ann/missing", *other))).library()
    assert any(run.checkpoints for run in library.runs)
    assert any("hf://ann/missing is not shown: the Hub shows nothing" in problem.reason for problem in library.problems)
    with pytest.raises(NotFound, match="hf://ann/missing"):
        Workbench(Settings(tmp_path / "alone", hub=("hf://ann/missing",))).library()


def test_a_server_that_gives_whole_files_for_parts_is_refused_and_leaves_no_mirror(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "without-ranges").touch()
    with pytest.raises(Unreadable, match="does not give a part"):
        mirror_of(hub, tmp_path / "home")
    (tmp_path / "without-ranges").unlink()
    assert not known_mirror(mirror_folder(PLACE, tmp_path / "home"), PLACE)
    mirror_of(hub, tmp_path / "home")


def test_names_that_lead_out_of_the_mirror_are_never_written(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "evil").touch()
    mirror_of(hub, tmp_path / "home")
    assert not list(tmp_path.rglob("evil.csv"))


def test_bytes_that_are_not_those_the_hub_tells_are_refused(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = hub.folder / "outputs/lora_casual_shoes/lora_weights/adapter_model.safetensors"
    asked = Hub.files

    def look_and_then_change(self: Hub, place: object, commit: str) -> object:
        found = asked(self, PLACE, commit)
        raw = bytearray(file.read_bytes())
        raw[-1] ^= 1
        file.write_bytes(raw)
        return found

    monkeypatch.setattr(Hub, "files", look_and_then_change)
    with pytest.raises(Unreadable, match="other bytes"):
        mirror_of(hub, tmp_path / "home")


def test_the_token_is_shown_to_the_hub_and_not_to_where_the_bytes_lie(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", raising=False)
    mirror_of(hub, tmp_path / "home")
    shown = {path.startswith("/bytes/"): token for path, _, token in hub.asked()}
    assert shown == {False: "Bearer hf_secret", True: None}


def test_a_bucket_is_read_like_a_repository(hub: FakeHub, tmp_path: Path) -> None:
    mirror = mirror_of(hub, tmp_path / "home", "hf://buckets/ann/runs")
    assert [run.id for run in scan([mirror.root]).runs if run.checkpoints] == ["outputs/lora_casual_shoes"]


def test_what_the_hub_does_not_show_and_what_is_no_address_is_said() -> None:
    for address in ("hf://ann", "hf://ann/runs/../x", "hf://../runs", "hf://a b/c", "hf://ann/.."):
        with pytest.raises(BadInput):
            read_place(address)
    found = read_place("hf://datasets/ann/runs@v1/some/folder")
    assert (found.kind, found.repo, found.revision, found.folder) == ("datasets", "ann/runs", "v1", "some/folder")


def test_a_private_or_missing_repository_is_named(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="hf://ann/other"):
        mirror_of(hub, tmp_path / "home", "hf://ann/other")


def test_the_command_line_lists_a_repository_and_says_what_is_not_here(hub: FakeHub, tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    around = os.environ | {"HF_ENDPOINT": hub.endpoint, "CMP_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": OURS}
    command = [sys.executable, "-m", "cmp", "--runs", "hf://ann/runs", "list", "--json"]
    ended = subprocess.run(command, env=around, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert [run["id"] for run in told["runs"] if run["checkpoints"]] == ["outputs/lora_casual_shoes"]
    assert any("stay on the Hub" in problem["reason"] for problem in told["problems"]) and "fetching hf://ann/runs/" in ended.stderr
