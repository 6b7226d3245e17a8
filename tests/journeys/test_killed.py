"""A conversion that is killed, raced, starved or deceived leaves the old state or the new one, and says so; never something between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from cmp.core.progress import run_through
from cmp.disk.converted import is_ours
from cmp.errors import CmpError
from tests.in_process import Said, command
from tests.support import MODULES, Training, adapter_tensors, at_most, base_tensors, bench_of, origin_run, save, wrapped_tensors

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

CHANGES = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.symlink", "os.truncate"}
LONGEST = 60  # seconds for one conversion of the tiny run
MOST_POINTS = 400  # a conversion of the tiny run changes the disk in far fewer steps
TARGET = "lora_casual_shoes@500"
FORMS = ("lora", "webui", "pipeline")
each_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def made(tmp_path: Path) -> Training:
    import torch  # noqa: F401  (once here, and not again in every child)

    return origin_run(tmp_path)


def convert(made: Training, form: str, output: Path, *more: str) -> Said:
    folders = ("--runs", str(made.outputs), "--bases", str(made.bases))
    return command(made.outputs.parent / "home", *folders, "convert", TARGET, "--to", form, "--output", str(output), *more, "--json")


def in_child(act: Callable[[], int]) -> Callable[[], int]:
    """Begins `act` in a process of its own; the answer waits for it, and gives its exit code or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            import torch

            torch.set_num_threads(1)  # a pool of threads does not come along
            code = act()
        finally:
            os._exit(code)

    def end() -> int:
        try:
            with at_most(LONGEST):
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise

    return end


def before_each_change(hook: Callable[[str, str], None]) -> None:
    """Calls `hook` with kind and path before this process changes the disk, for as long as it lives."""

    def listen(event: str, told: tuple[object, ...]) -> None:
        writing = event == "open" and isinstance(told[2], int) and told[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in CHANGES or writing:
            hook(event, str(told[0]))

    sys.addaudithook(listen)


def convert_until(made: Training, form: str, output: Path, point: int, *more: str) -> bool:
    """Converts in a process that is killed before its change number `point`; False if it came to its end."""

    def act() -> int:
        left = [point]

        def count(event: str, path: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        before_each_change(count)
        return convert(made, form, output, *more).code

    ended = in_child(act)()
    assert ended in (0, -signal.SIGKILL), ended
    return ended != 0


def is_whole(form: str, output: Path) -> bool:
    """Whether it carries our proof, and the library reads from it what the checkpoint holds."""
    if not is_ours(output):
        return False
    adapter = adapter_tensors(500)
    if form == "pipeline":
        found = read_all(output / "unet" / "diffusion_pytorch_model.safetensors")
        merged = base_tensors()
        for module in MODULES:
            merged[f"{module}.weight"] += 2 * adapter[f"{module}.lora_B.weight"] @ adapter[f"{module}.lora_A.weight"]  # alpha 16 of rank 8
        same = found.keys() == merged.keys() and all(np.allclose(found[name], merged[name], atol=1e-5) for name in merged)
        return same and (output / "model_index.json").is_file()
    ups = [values for name, values in read_all(output).items() if name.endswith(("lora_B.weight", "lora_up.weight"))]
    wanted = [2 * values for name, values in adapter.items() if "lora_B" in name]
    return len(ups) == len(wanted) and all(any(np.array_equal(up, values) for up in ups) for values in wanted)


def read_all(file: Path) -> dict[str, np.ndarray]:
    with safe_open(file, "np") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def drafts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".tmp-*") if "checkpoints" not in path.parts]


def let_grow_old(paths: list[Path]) -> None:
    """As if they had been left behind days ago."""
    for path in paths:
        for each in (path, *path.rglob("*")):
            os.utime(each, (time.time() - 3 * 86400,) * 2, follow_symlinks=False)


@each_form
def test_a_conversion_killed_at_any_point_leaves_nothing_or_the_whole(made: Training, tmp_path: Path, form: str) -> None:
    place = tmp_path / "made"
    output = place / ("p" if form == "pipeline" else "x.safetensors")
    for point in range(MOST_POINTS):
        killed = convert_until(made, form, output, point)
        assert is_whole(form, output) if os.path.lexists(output) else killed, f"killed before change {point}"
        let_grow_old(drafts(tmp_path))
        again = convert(made, form, output)
        assert again.code == 0 and is_whole(form, output), f"after a kill before change {point}: {again.told}"
        assert drafts(tmp_path) == [], f"left behind for ever after a kill before change {point}"
        shutil.rmtree(place)
        if not killed:
            assert point > 5
            return
    raise AssertionError("it never came to its end")


@each_form
def test_what_was_there_is_never_lost_when_making_it_anew_is_killed(made: Training, tmp_path: Path, form: str) -> None:
    place = tmp_path / "made"
    output = place / ("p" if form == "pipeline" else "x.safetensors")
    for point in range(MOST_POINTS):
        assert convert(made, form, output).code == 0
        inode = output.stat().st_ino
        killed = convert_until(made, form, output, point, "--force")
        assert not os.path.lexists(output) or is_whole(form, output), f"killed before change {point}"
        kept = [path for path in (output, *place.glob(".cmp-trash/*")) if os.path.lexists(path) and path.stat().st_ino == inode]
        assert kept and is_whole(form, kept[0]), f"killed before change {point}: the old one is gone"
        assert convert(made, form, output).code == 0 and is_whole(form, output)
        shutil.rmtree(place)
        if not killed:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("form", ["lora", "webui"])
def test_a_file_is_there_at_every_moment_while_it_is_made_anew(made: Training, tmp_path: Path, form: str) -> None:
    output = tmp_path / "made" / "x.safetensors"
    assert convert(made, form, output).code == 0
    for point in range(MOST_POINTS):
        killed = convert_until(made, form, output, point, "--force")
        assert os.path.lexists(output), f"killed before change {point}: neither the old file nor the new one has its name"
        if not killed:
            return


@each_form
def test_two_processes_that_make_the_same_thing_at_once_give_one_good_result(made: Training, tmp_path: Path, form: str) -> None:
    place = tmp_path / "made"
    output = place / ("p" if form == "pipeline" else "x.safetensors")
    for _ in range(4):
        reading, writing = os.pipe()

        def act(start: int = reading) -> int:
            os.read(start, 1)  # both begin when the parent says so
            said = convert(made, form, output)
            return 70 if said.crashed or "Traceback" in said.err else said.code

        ends = [in_child(act), in_child(act)]
        os.write(writing, b"!!")
        codes = sorted(end() for end in ends)
        os.close(reading), os.close(writing)
        assert codes[0] == 0 and codes[1] in (0, 5, 75), codes  # the other made it, is making it, or made it meanwhile
        assert is_whole(form, output) and drafts(tmp_path) == []
        assert convert(made, form, output).json["skipped"], "the result is not known as made"
        shutil.rmtree(place)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a file system of its own with mount's options; skips, and says so, where that is not permitted."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            warnings.warn(f"no small disk could be mounted, so that full disks are not tested: {done.stderr.strip()}", stacklevel=2)
            pytest.skip("no small disk could be mounted")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@each_form
def test_a_disk_too_small_is_told_before_anything_is_written(made: Training, form: str, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m")
    (disk / "filler").write_bytes(b"\0" * (1_000_000))
    said = convert(made, form, disk / "new" / ("p" if form == "pipeline" else "x.safetensors"))
    assert said.code == 6 and said.json["code"] == 6 and "free" in said.json["error"], said.told
    assert [path.name for path in disk.iterdir()] == ["filler"]


@each_form
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_disk_that_fills_up_on_the_way_is_no_space_and_leaves_nothing(
    made: Training, form: str, nth: int, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=16m")
    output = disk / ("p" if form == "pipeline" else "x.safetensors")

    def act() -> int:
        seen = [0]

        def fill(event: str, path: str) -> None:
            seen[0] += event == "open" and path.startswith(str(disk)) and ".tmp-" in path
            if seen[0] == nth:
                seen[0] += 1
                with open("/dev/zero", "rb") as zeros, open(disk / "filler", "wb", buffering=0) as filler:
                    try:
                        while True:
                            filler.write(zeros.read(1 << 16))
                    except OSError:
                        pass

        before_each_change(fill)
        said = convert(made, form, output)
        return said.code if seen[0] > nth and not said.crashed else 98

    code = in_child(act)()
    if code == 98:
        pytest.skip(f"it opens fewer than {nth} files there")
    assert code == 6 and [path.name for path in disk.iterdir()] == ["filler"]
    (disk / "filler").unlink()
    assert convert(made, form, output).code == 0 and is_whole(form, output)


@each_form
def test_a_disk_without_room_for_another_file_is_no_space_and_leaves_nothing(
    made: Training, form: str, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=16m,nr_inodes=2")
    (disk / "filler").write_bytes(b"")
    said = convert(made, form, disk / ("p" if form == "pipeline" else "x.safetensors"))
    assert said.code == 6, said.told
    assert [path.name for path in disk.iterdir()] == ["filler"]


def replaced(made: Training, *, slyly: bool = False) -> None:
    """Another checkpoint takes the place of the one that is being converted, slyly with its old times."""
    file = made.checkpoint(500) / "model.safetensors"
    before = file.stat()
    other = save(made.run / "other.safetensors", wrapped_tensors(1000), {"format": "pt"})
    os.replace(other, file)
    if slyly:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@each_form
@pytest.mark.parametrize("slyly", [False, True])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_checkpoint_replaced_while_it_is_converted_is_noticed(made: Training, tmp_path: Path, form: str, slyly: bool, after: int) -> None:
    output = tmp_path / "made" / ("p" if form == "pipeline" else "x.safetensors")
    bench = bench_of(made)
    work = bench.convert(bench.plan_conversion(TARGET, form, output=output))
    for _ in range(after):  # steps of its progress
        next(work)
    replaced(made, slyly=slyly)
    try:
        run_through(work)
    except CmpError as fault:
        assert fault.exit_code in (4, 5) and not output.exists() and drafts(tmp_path) == []
        assert "changed" in f"{fault.message} {fault.hint}" or "replaced" in f"{fault.message} {fault.hint}", fault.message
        return
    # what was read before it was replaced is what was planned
    assert is_whole(form, output) and _digest_told(form, output) == _digest_of_500(made, tmp_path, form)


def _digest_told(form: str, output: Path) -> object:
    from cmp.disk.converted import read_record

    return read_record(output)["digest"]


def _digest_of_500(made: Training, tmp_path: Path, form: str) -> object:
    """The digest that a conversion of the checkpoint as it was tells."""
    fresh = origin_run(tmp_path / "fresh")
    output = tmp_path / "fresh" / "made" / ("p" if form == "pipeline" else "x.safetensors")
    assert convert(fresh, form, output).code == 0
    return _digest_told(form, output)


def test_a_base_replaced_while_it_is_merged_is_noticed(made: Training, tmp_path: Path) -> None:
    output = tmp_path / "made" / "p"
    bench = bench_of(made)
    work = bench.convert(bench.plan_conversion(TARGET, "pipeline", output=output))
    for _ in range(3):
        next(work)
    file = made.base / "unet" / "diffusion_pytorch_model.safetensors"
    os.replace(save(tmp_path / "other.safetensors", {name: values + np.float32(1) for name, values in base_tensors().items()}), file)
    try:
        run_through(work)
    except CmpError:
        assert not output.exists() and drafts(tmp_path) == []
        return
    assert is_whole("pipeline", output)  # merged into the base that it was compared with


def test_a_killed_process_of_its_own_leaves_nothing_or_the_whole(made: Training, tmp_path: Path) -> None:
    """From outside, at moments that the clock chooses: what was counted above may not be all that happens."""
    output = tmp_path / "made" / "x.safetensors"
    folders = ("--runs", str(made.outputs), "--bases", str(made.bases))
    order = [sys.executable, "-m", "cmp", *folders, "convert", TARGET, "--to", "lora", "--output", str(output), "--json"]
    environ = os.environ | {"CMP_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    whole = subprocess.run(order, env=environ, capture_output=True, check=True)
    takes = time.monotonic() - started
    assert json.loads(whole.stdout)["converted"] and is_whole("lora", output)
    for share in (0.5, 0.7, 0.8, 0.85, 0.9, 0.95):
        output.unlink(missing_ok=True)
        process = subprocess.Popen(order, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(takes * share)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert not output.exists() or is_whole("lora", output)
