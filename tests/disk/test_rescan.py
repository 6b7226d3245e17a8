"""Scanning again: nothing that changed is missed, and what has not changed is not read again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cmp.core.runs import Library
from cmp.core.stages import UNREAD
from cmp.disk import folders
from cmp.disk.scan import Scanner, scan
from tests.support import Training, adapter_tensors, diffusers_run, origin_run, save, write_log

KOHYA = {"ss_network_module": "networks.lora", "ss_network_dim": "8"}


@pytest.fixture(params=["young", "old"])
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    """A folder of runs, whose listings are too young to be trusted or are trusted at once."""
    monkeypatch.setattr(folders, "_YOUNG", -(10**18) if request.param == "old" else 10**18)
    made = origin_run(tmp_path)
    diffusers_run(tmp_path)
    for name in ("cat-000001", "cat", "dog"):
        save(made.outputs / "loras" / f"{name}.safetensors", lora(), KOHYA)
    return made


def lora() -> dict:
    return {f"unet.{name}": values for name, values in adapter_tensors(1).items()}


def weights(made: Training) -> Path:
    return made.checkpoint(500) / "model.safetensors"


def cut(made: Training) -> None:
    os.truncate(weights(made), weights(made).stat().st_size // 2)


def rewrite(made: Training) -> None:
    """In place, with the old size and time."""
    before = weights(made).stat()
    with open(weights(made), "r+b") as file:
        file.write(b"\xff" * 16)
    os.utime(weights(made), ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_with_another(made: Training) -> None:
    os.replace(save(made.run / "new", lora()), weights(made))


def add_step(made: Training) -> None:
    shutil.copytree(made.checkpoint(500), made.checkpoint(2000))


def remove_step(made: Training) -> None:
    shutil.rmtree(made.checkpoint(500))


def remove_run(made: Training) -> None:
    shutil.rmtree(made.run)


def rename_run(made: Training) -> None:
    made.run.rename(made.run.with_name("another"))


def log_beside(made: Training) -> None:
    write_log(made.outputs.parent / "logs" / "again", [(1, 0.5), (2, 0.25)], output_dir=f"../outputs/{made.run.name}")


def log_within(made: Training) -> None:
    write_log(made.run / "logs" / "tracker", [(1, 0.5), (2, 0.125)])


def add_loose_file(made: Training) -> None:
    save(made.outputs / "loras" / "bird.safetensors", lora(), KOHYA)


def change_metadata(made: Training) -> None:
    save(made.outputs / "loras" / "dog.safetensors", lora(), KOHYA | {"ss_steps": "77"})


def picture(made: Training) -> None:
    (made.run / "validation").mkdir(exist_ok=True)
    (made.run / "validation" / "step500_prompt0_img0.png").write_bytes(b"png")


def grow_deep_within(made: Training) -> None:
    (made.checkpoint(500) / "some" / "where").mkdir(parents=True)
    (made.checkpoint(500) / "some" / "where" / "optimizer.bin").write_bytes(b"-" * 1000)


CHANGES: tuple[Callable[[Training], None], ...] = (
    cut, rewrite, replace_with_another, add_step, remove_step, remove_run, rename_run, log_beside, log_within, add_loose_file,
    change_metadata, picture, grow_deep_within,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_is_seen_by_the_next_scan(made: Training, change: Callable[[Training], None]) -> None:
    scanner, roots = Scanner(), [made.outputs]
    before = scanner.scan(roots)
    assert before == scan(roots)
    change(made)
    after = scanner.scan(roots)
    assert after == scan(roots) != before
    assert scanner.scan(roots) is after


def test_a_log_that_grows_in_place_is_seen(made: Training) -> None:
    log_within(made)
    scanner = Scanner()
    (file,) = (made.run / "logs" / "tracker").glob("*tfevents*")
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])  # the last value is not written yet
    first = scanner.scan([made.outputs])
    with open(file, "ab") as growing:
        growing.write(whole[-20:])
    assert scanner.scan([made.outputs]) == scan([made.outputs]) != first


def test_a_change_in_one_run_leaves_the_others_as_they_were_read(made: Training) -> None:
    scanner = Scanner()
    before = {run.id: run for run in scanner.scan([made.outputs]).runs}
    add_step(made)
    after = {run.id: run for run in scanner.scan([made.outputs]).runs}
    assert [name for name in before if before[name] is not after[name]] == ["lora_casual_shoes"]


def test_a_root_that_appears_later_and_one_that_goes_are_seen(made: Training) -> None:
    scanner, later = Scanner(), made.outputs / "later"
    assert [problem.path for problem in scanner.scan([later]).problems] == [later]
    shutil.copytree(made.run, later / "run")
    assert [run.id for run in scanner.scan([later]).runs] == ["run"]
    shutil.rmtree(later)
    assert scanner.scan([later]) == scan([later]) and not scanner.scan([later]).runs


def test_other_roots_are_another_library(made: Training) -> None:
    scanner = Scanner()
    for roots in ([made.outputs], [made.outputs / "loras"], [made.outputs, made.outputs / "loras"], [made.outputs]):
        assert scanner.scan(roots) == scan(roots)


# names and sizes first


def sizes(library: Library) -> dict[str, list[tuple[str, int]]]:
    return {run.id: [(c.key, c.bytes) for c in run.checkpoints] for run in library.runs}


def test_names_and_sizes_are_told_before_any_header_is_read(made: Training) -> None:
    weights(made).chmod(0)
    scanner = Scanner()
    first = scanner.scan([made.outputs], headers=False)
    assert {c.layout for run in first.runs for c in run.checkpoints} == {UNREAD}
    told = scan([made.outputs])
    assert sizes(first)["lora_casual_shoes"][0] == sizes(told)["lora_casual_shoes"][0]
    assert sizes(first).keys() == sizes(told).keys()


def test_reading_on_ends_with_what_a_whole_scan_tells(made: Training) -> None:
    scanner = Scanner()
    scanner.scan([made.outputs], headers=False)
    assert scanner.read_on(made.run)
    partly = {run.id: run for run in scanner.scan([made.outputs], headers=False).runs}
    assert UNREAD not in {c.layout for c in partly["lora_casual_shoes"].checkpoints}
    assert {c.layout for c in partly["sd-lora"].checkpoints} == {UNREAD}
    while scanner.read_on():
        pass
    assert scanner.scan([made.outputs], headers=False) == scan([made.outputs]) and not scanner.unread


def test_a_run_that_was_read_is_not_told_by_its_names_again(made: Training) -> None:
    scanner = Scanner()
    scanner.scan([made.outputs])
    add_step(made)
    assert scanner.scan([made.outputs], headers=False) == scan([made.outputs])
