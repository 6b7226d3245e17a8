"""The bundled demo: that it unpacks to what was packed, once, and that nothing of the user's is lost."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections import namedtuple
from pathlib import Path

import pytest
from safetensors import safe_open

from cmp.disk import demo as unpacking
from cmp.disk.demo import ARCHIVE, STAMP, Demo, open_demo
from cmp.errors import BadInput, NoSpace, NotFound, Unreadable

RAW = "lora_casual_shoes_3000steps_full"
STEPS = range(500, 3001, 500)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return open_demo(tmp_path_factory.mktemp("home"))


def names_in(path: Path) -> list[str]:
    with safe_open(path, "np") as file:
        return list(file.keys())


def pack_small(archive: Path, text: str) -> Path:
    source = archive.with_name("source")
    (source / "training" / "outputs").mkdir(parents=True, exist_ok=True)
    (source / "training" / "outputs" / "file.txt").write_text(text)
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(source / "training", "training")
    return archive


# what is in it


def test_every_unpacked_file_has_its_recorded_digest(demo: Demo) -> None:
    recorded = {}
    for line in ARCHIVE.with_name("SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        recorded[name] = digest
    files = [path for path in demo.folder.rglob("*") if path.is_file() and path.name != STAMP]
    assert {p.relative_to(demo.folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files} == recorded


@pytest.mark.parametrize("step", STEPS)
def test_a_raw_checkpoint_holds_the_942_tensors_of_a_wrapped_unet(demo: Demo, step: int) -> None:
    folder = demo.runs / RAW / "checkpoints" / f"checkpoint-{step}"
    names = names_in(folder / "model.safetensors")
    assert len(names) == 942
    assert all(name.startswith("base_model.model.") for name in names)
    assert sum(".lora_A.default." in name for name in names) == sum(".lora_B.default." in name for name in names) == 128
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"}


def test_the_frozen_tensors_of_a_raw_checkpoint_are_the_base_models(demo: Demo) -> None:
    base = demo.bases / "cmp-demo" / "tiny-shapes" / "unet" / "diffusion_pytorch_model.safetensors"
    raw = demo.runs / RAW / "checkpoints" / "checkpoint-3000" / "model.safetensors"
    with safe_open(base, "np") as plain, safe_open(raw, "np") as wrapped:
        frozen = [name for name in wrapped.keys() if ".lora_" not in name]  # noqa: SIM118 (no mapping)
        plain_name = {n: n.removeprefix("base_model.model.").replace(".base_layer.", ".") for n in frozen}
        assert sorted(plain_name.values()) == sorted(plain.keys())
        assert all((wrapped.get_tensor(n) == plain.get_tensor(p)).all() for n, p in plain_name.items())


def test_the_final_pipeline_has_an_adapter_where_its_unet_should_be(demo: Demo) -> None:
    names = {p.name for p in (demo.runs / RAW / "final_pipeline" / "unet").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert "diffusion_pytorch_model.safetensors" not in names


def test_logs_are_a_sibling_of_outputs_and_validation_has_four_images_of_four_prompts_a_step(demo: Demo) -> None:
    assert list((demo.folder / "training" / "logs").glob("*/events.out.tfevents.*"))
    assert list((demo.folder / "training" / "logs").glob("*/*/hparams.yml"))
    for step in STEPS:
        images = [p.name for p in (demo.runs / RAW / "validation").glob(f"epoch*_step{step:05d}_*.png")]
        assert len(images) == 16


def test_the_second_run_holds_lora_files_directly(demo: Demo) -> None:
    (second,) = [folder for folder in demo.runs.iterdir() if folder.name != RAW]
    for step in STEPS:
        names = names_in(second / f"checkpoint-{step}" / "pytorch_lora_weights.safetensors")
        assert len(names) == 256
        assert all(n.startswith("unet.") and ".lora_" in n for n in names)
    assert all(".lora.down." in n or ".lora.up." in n for n in names_in(second / "pytorch_lora_weights.safetensors"))


def test_the_first_and_the_last_checkpoint_are_worse_than_the_best_by_more_than_the_paired_interval(demo: Demo) -> None:
    rows = {row["step"]: row for row in json.loads((demo.data / "held_out_loss.json").read_text(encoding="utf-8"))[RAW]}
    best = min(rows, key=lambda step: rows[step]["loss"])
    assert 500 < best < 3000
    assert rows[500]["low"] > 0
    assert rows[3000]["low"] > 0


def test_no_member_names_a_user_or_a_group() -> None:
    with tarfile.open(ARCHIVE) as tar:
        assert {(m.uname, m.gname, m.uid, m.gid) for m in tar} == {("", "", 0, 0)}


# how it is opened


def test_a_second_opening_does_not_unpack_again(tmp_path: Path) -> None:
    archive = pack_small(tmp_path / "a.tar.xz", "one")
    first = open_demo(tmp_path / "home", archive)
    (first.runs / "file.txt").write_text("changed by the user")
    assert open_demo(tmp_path / "home", archive) == first
    assert (first.runs / "file.txt").read_text() == "changed by the user"


def test_opening_what_is_there_takes_under_five_milliseconds(demo: Demo) -> None:
    started = time.perf_counter()
    for _ in range(20):
        open_demo(demo.folder.parent)
    assert (time.perf_counter() - started) / 20 < 0.005


def test_the_same_archive_with_another_time_is_not_unpacked_again(tmp_path: Path) -> None:
    archive = pack_small(tmp_path / "a.tar.xz", "one")
    first = open_demo(tmp_path / "home", archive)
    (first.runs / "converted.txt").write_text("mine")
    os.utime(archive, (1, 1))
    assert (open_demo(tmp_path / "home", archive).runs / "converted.txt").exists()
    assert not list((tmp_path / "home").glob("demo-*"))


def test_a_newer_archive_takes_the_place_and_the_old_copy_stays_beside(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for text in ("one", "two", "three"):
        opened = open_demo(home, pack_small(tmp_path / "a.tar.xz", text))
        assert (opened.runs / "file.txt").read_text() == text
        (opened.runs / "converted.txt").write_text(f"converted from {text}")
    kept = sorted(p.read_text() for p in home.glob("demo-*/training/outputs/converted.txt"))
    assert kept == ["converted from one", "converted from two"]


def test_a_killed_unpacking_leaves_no_half_demo(tmp_path: Path) -> None:
    archive, home = pack_small(tmp_path / "a.tar.xz", "one"), tmp_path / "home"
    die = f"import os; from pathlib import Path; import cmp.disk.demo as d; d._write_stamp = lambda *_: os._exit(9); \
d.open_demo(Path({str(home)!r}), Path({str(archive)!r}))"
    assert subprocess.run([sys.executable, "-c", die], check=False).returncode == 9
    assert not (home / "demo").exists()
    assert (open_demo(home, archive).runs / "file.txt").read_text() == "one"
    assert {p.name for p in home.iterdir()} <= {"demo", ".demo.lock"}


def test_two_processes_at_once_unpack_it_once(tmp_path: Path) -> None:
    archive, home = pack_small(tmp_path / "a.tar.xz", "one"), tmp_path / "home"
    code = f"from pathlib import Path; import cmp.disk.demo as d; d.open_demo(Path({str(home)!r}), Path({str(archive)!r}))"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    assert {p.name for p in home.iterdir()} <= {"demo", ".demo.lock"}


def test_without_an_archive_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.tar\.xz"):
        open_demo(tmp_path / "home", tmp_path / "nowhere.tar.xz")
    assert not (tmp_path / "home").exists()


def test_a_full_disk_is_refused_before_anything_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 5_000_000))
    with pytest.raises(NoSpace, match=r"needs \d\d MB and .* has 5 MB free"):
        open_demo(tmp_path / "home")
    assert not (tmp_path / "home" / "demo").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "a pointer file"])
def test_a_damaged_archive_is_unreadable_and_leaves_nothing(tmp_path: Path, damage: str) -> None:
    archive = pack_small(tmp_path / "a.tar.xz", "one" * 1000)
    whole = archive.read_bytes()
    archive.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "a pointer file": b"version 1\noid\n"}[damage])
    with pytest.raises(Unreadable, match="damaged"):
        open_demo(tmp_path / "home", archive)
    assert {p.name for p in (tmp_path / "home").iterdir()} <= {".demo.lock"}


def test_a_home_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, not a folder")
    with pytest.raises(BadInput, match="cannot unpack"):
        open_demo(tmp_path / "home", pack_small(tmp_path / "a.tar.xz", "one"))


def test_a_member_that_would_leave_the_folder_is_not_written(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar.xz"
    (tmp_path / "bad.txt").write_text("bad")
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(tmp_path / "bad.txt", "../escaped.txt")
    with pytest.raises(Unreadable):
        open_demo(tmp_path / "home", archive)
    assert not list(tmp_path.rglob("escaped.txt"))


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_a_member_that_leads_out_of_the_folder_is_damage_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    archive, place = tmp_path / "demo.tar.xz", tmp_path / "fresh" / "here"
    place.mkdir(parents=True)
    with tarfile.open(archive, "w:xz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(Unreadable, match="does not belong"):
        unpacking._unpack(archive, place)
    assert not list(tmp_path.rglob("outside"))
