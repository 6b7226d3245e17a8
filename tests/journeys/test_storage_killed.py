"""Making room that is killed, raced or starved leaves the old side or the new one of every item, and the next call ends what was begun."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cmp.disk.checkpoint import open_weights
from cmp.disk.tensors import read_tensors
from cmp.disk.trash import FOLDER
from tests.storing import RUN, cmp, contents, frozen_run, grow_old
from tests.support import Training, bench_of, save

from .test_killed import before_each_change, in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
MOST_POINTS = 400
STEPS = (500, 1000)


@pytest.fixture
def made(tmp_path: Path) -> Training:
    import torch  # noqa: F401  (once here, and not again in every child)

    return frozen_run(tmp_path, STEPS)


def until(made: Training, point: int, *arguments: str) -> bool:
    """The command in a process that is killed before its change number `point`; False if it came to its end."""

    def act() -> int:
        left = [point]

        def count(event: str, path: str) -> None:
            if "/home/" in path:  # what is remembered is not the user's
                return
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        before_each_change(count)
        return cmp(made, *arguments).code

    ended = in_child(act)()
    assert ended in (0, -signal.SIGKILL), ended
    return ended != 0


def tensors_of(made: Training, step: int) -> dict[str, bytes]:
    checkpoint = bench_of(made).library().run(RUN).checkpoint(str(step))
    assert checkpoint.flaw is None, checkpoint.flaw
    header = open_weights(*checkpoint.files).header
    return {name: values.tobytes() for name, values in read_tensors(header, header.tensors)}


def drafts(made: Training) -> list[Path]:
    return [*made.run.rglob(".tmp-*"), *made.run.rglob(".begun-*"), *made.run.rglob(".gone-*")]


def fresh(made: Training, kept: Path) -> None:
    shutil.rmtree(made.run)
    shutil.copytree(kept, made.run)


def every_point(made: Training, tmp_path: Path, *arguments: str, least: int = 5) -> Iterator[int]:
    """The command is killed at each of its points in turn, each time on the same run; it has more than `least` of them."""
    kept = Path(shutil.copytree(made.run, tmp_path / "kept"))
    for point in range(MOST_POINTS):
        fresh(made, kept)
        killed = until(made, point, *arguments)
        yield point
        if not killed:
            assert point > least
            return
    raise AssertionError("it never came to its end")


def test_a_compaction_killed_at_any_point_leaves_every_tensor_readable_and_is_ended_by_the_next_call(
    made: Training, tmp_path: Path
) -> None:
    before = contents(made.run)
    wanted = {step: tensors_of(made, step) for step in STEPS}
    for point in every_point(made, tmp_path, "storage", "--compact", "--yes"):
        assert {step: tensors_of(made, step) for step in STEPS} == wanted, f"killed before change {point}"
        assert cmp(made, "storage", "--yes").code == 0
        assert drafts(made) == [], f"left behind after a kill before change {point}"
        for step in STEPS:
            raw, left = made.checkpoint(step) / "model.safetensors", made.checkpoint(step) / "model.compact.safetensors"
            assert raw.exists() != left.exists() == left.with_name("model.compact.json").exists(), f"killed before change {point}"
        assert cmp(made, "storage", "--compact", "--yes").code == 0
        assert {step: tensors_of(made, step) for step in STEPS} == wanted and not list(made.run.rglob("model.safetensors"))
        assert cmp(made, "restore", RUN).code == 0
        assert contents(made.run) == before, f"after a kill before change {point}"


def test_restoring_killed_at_any_point_leaves_one_of_the_two_and_is_ended_by_the_next_call(made: Training, tmp_path: Path) -> None:
    before = contents(made.run)
    wanted = tensors_of(made, 500)
    assert cmp(made, "storage", "--compact", "--yes").code == 0
    for point in every_point(made, tmp_path, "restore", f"{RUN}@500"):
        assert tensors_of(made, 500) == wanted, f"killed before change {point}"
        assert cmp(made, "storage", "--yes").code == 0 and drafts(made) == []
        if not (made.checkpoint(500) / "model.safetensors").exists():
            assert cmp(made, "restore", f"{RUN}@500").code == 0
        assert cmp(made, "restore", f"{RUN}@1000").code == 0
        assert contents(made.run) == before, f"after a kill before change {point}"


def test_removal_killed_at_any_point_leaves_it_at_one_of_the_two_places(made: Training, tmp_path: Path) -> None:
    before = contents(made.run)
    for point in every_point(made, tmp_path, "storage", "--keep", "last", "--yes"):
        assert cmp(made, "storage", "--yes").code == 0 and drafts(made) == []
        (run,) = cmp(made, "storage").json["runs"]
        for each in run["trash"]:
            assert cmp(made, "restore", each["trash_id"]).code == 0
        assert contents(made.run) == before, f"killed before change {point}"
        assert [path.name for path in (made.run / FOLDER).iterdir()] == [".lock"] if (made.run / FOLDER).exists() else point < 2


def test_emptying_killed_at_any_point_never_leaves_half_a_thing_that_could_be_restored(made: Training, tmp_path: Path) -> None:
    before = contents(made.run)
    assert cmp(made, "storage", "--keep", "last", "--yes").code == 0
    for point in every_point(made, tmp_path, "storage", "--empty-trash", "--yes"):
        (run,) = cmp(made, "storage").json["runs"]
        whole = [cmp(made, "restore", each["trash_id"]).code for each in run["trash"]]
        assert contents(made.run) == before if whole else not made.checkpoint(500).exists(), f"killed before change {point}"
        assert cmp(made, "storage", "--yes").code == 0 and drafts(made) == []


def test_bringing_back_killed_at_any_point_leaves_it_at_one_of_the_two_places(made: Training, tmp_path: Path) -> None:
    before = contents(made.run)
    (went,) = (item for item in cmp(made, "storage", "--keep", "last", "--yes").json["items"] if item["trash_id"])
    for point in every_point(made, tmp_path, "restore", went["trash_id"], least=2):
        assert cmp(made, "storage", "--yes").code == 0 and drafts(made) == []
        if not made.checkpoint(500).exists():
            assert cmp(made, "restore", went["trash_id"]).code == 0
        assert contents(made.run) == before, f"killed before change {point}"
        assert cmp(made, "storage").json["runs"][0]["trash"] == []


def test_sharing_killed_at_any_point_leaves_every_file_with_its_bytes(made: Training, tmp_path: Path) -> None:
    save(made.base / "vae" / "diffusion_pytorch_model.safetensors", {"a": np.zeros(1 << 18, "f4")})
    shutil.copytree(made.base, made.run / "final_pipeline")
    grow_old(tmp_path)
    before = contents(made.run)
    for point in every_point(made, tmp_path, "storage", "--share", "hardlink", "--yes"):
        left = {name: digest for name, digest in contents(made.run).items() if "/.tmp-" not in name}
        assert left == before, f"killed before change {point}"
        assert cmp(made, "storage", "--yes").code == 0 and drafts(made) == [], f"left behind after a kill before change {point}"
        assert contents(made.run) == before


@pytest.mark.parametrize("other", [("restore", RUN), ("storage", "--compact", "--yes")], ids=["restore", "compact"])
def test_restoring_beside_another_process_leaves_each_dump_on_one_of_its_sides(made: Training, other: tuple[str, ...]) -> None:
    before = contents(made.run)
    wanted = {step: tensors_of(made, step) for step in STEPS}
    for _ in range(3):
        assert cmp(made, "storage", "--compact", "--yes").code == 0
        codes = at_once(made, ("restore", RUN), other)
        assert all(code in (0, 1, 2, 3, 4, 5, 75) for code in codes) and 0 in codes, codes
        assert drafts(made) == [] and {step: tensors_of(made, step) for step in STEPS} == wanted
        assert cmp(made, "restore", RUN).code in (0, 2)  # 2: nothing is compacted any more
        assert contents(made.run) == before


def at_once(made: Training, *commands: tuple[str, ...]) -> list[int]:
    """The exit codes of commands that begin at the same time, ascending."""
    reading, writing = os.pipe()

    def begin(arguments: tuple[str, ...]) -> Callable[[], int]:
        def act() -> int:
            os.read(reading, 1)  # all begin when the parent says so
            said = cmp(made, *arguments)
            return 70 if said.crashed else said.code

        return in_child(act)

    ends = [begin(arguments) for arguments in commands]
    os.write(writing, b"!" * len(commands))
    codes = sorted(end() for end in ends)
    os.close(reading), os.close(writing)
    return codes


@pytest.mark.parametrize("arguments", [("restore", RUN), ("storage", "--compact", "--yes")], ids=["restore", "compact"])
def test_a_write_that_the_system_cuts_short_leaves_what_was_there(made: Training, arguments: tuple[str, ...]) -> None:
    """As a full disk does, where none can be mounted."""
    import resource

    before = contents(made.run)
    if arguments[0] == "restore":
        assert cmp(made, "storage", "--compact", "--yes").code == 0
    state = contents(made.run)
    most = 60_000 if arguments[0] == "restore" else 4_000

    def act() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        said = cmp(made, *arguments)
        return 99 if said.crashed or "cannot write" not in said.told or "model" not in said.told else said.code

    code = in_child(act)()
    assert code not in (0, 99) and contents(made.run) == state and drafts(made) == [], code
    assert cmp(made, *arguments).code == 0
    assert arguments[0] == "restore" or cmp(made, "restore", RUN).code == 0
    assert contents(made.run) == before


@pytest.mark.parametrize("arguments", [("--compact",), ("--keep", "last"), ("--drop", "optimizer")])
def test_two_processes_at_once_do_each_thing_once(made: Training, arguments: tuple[str, ...]) -> None:
    before = contents(made.run)
    for _ in range(3):
        codes = at_once(made, *[("storage", *arguments, "--yes")] * 2)
        assert codes[0] == 0 and codes[1] in (0, 1, 3, 4, 5, 75), codes  # the other is at it, or has done it since the plan was made
        (run,) = cmp(made, "storage").json["runs"]
        for each in run["trash"]:
            assert cmp(made, "restore", each["trash_id"]).code == 0
        if arguments == ("--compact",):
            assert cmp(made, "restore", RUN).code == 0
        assert contents(made.run) == before and drafts(made) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own; skips, and says so, where that is not permitted."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            warnings.warn(f"no small disk could be mounted, so that full disks are not tested: {done.stderr.strip()}", stacklevel=2)
            pytest.skip("no small disk could be mounted")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> None:
    with open("/dev/zero", "rb") as zeros, open(disk / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(zeros.read(1 << 12))
        except OSError:
            pass


@pytest.mark.parametrize("arguments", [("restore", RUN), ("storage", "--compact", "--yes")], ids=["restore", "compact"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_disk_that_fills_up_on_the_way_leaves_what_was_there(
    tmp_path: Path, nth: int, arguments: tuple[str, ...], small_disk: Callable[[str], Path]
) -> None:
    import torch  # noqa: F401

    disk = small_disk("40m")
    there = frozen_run(tmp_path, (500,))
    shutil.copytree(there.outputs, disk / "outputs")
    made = Training(disk / "outputs" / RUN, disk / "outputs", there.bases)
    before = contents(made.run)
    if arguments[0] == "restore":
        assert cmp(made, "storage", "--compact", "--yes").code == 0
    state = contents(made.run)

    def act() -> int:
        seen = [0]

        def listen(event: str, path: str) -> None:
            seen[0] += event == "open" and path.startswith(str(made.run)) and (".tmp-" in path or ".begun-" in path)
            if seen[0] == nth:
                seen[0] += 1
                fill(disk)

        before_each_change(listen)
        said = cmp(made, *arguments)
        return 99 if said.crashed else said.code if seen[0] > nth else 98

    code = in_child(act)()
    if code == 98:
        pytest.skip(f"it opens fewer than {nth} files there")
    assert code == 6 and contents(made.run) == state, code
    (disk / "filler").unlink()
    assert cmp(made, *arguments).code == 0 and drafts(made) == []
    if arguments[0] != "restore":
        assert cmp(made, "restore", RUN).code == 0
    assert contents(made.run) == before
