"""What the system's own files say of a machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cmp.disk import machine
from cmp.disk.machine import GraphicsCard, Version


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("name", "used"), [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")]
)
def test_a_containers_limit_counts_and_not_the_machine_below_it(tmp_path: Path, name: str, used: str) -> None:
    write(tmp_path / name, "100000000\n")
    write(tmp_path / used, "90000000\n")
    proc = tmp_path / "proc"
    write(proc / "meminfo", "MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\n")
    assert machine.memory_total(tmp_path) == 100_000_000 and machine.memory_available(proc, tmp_path) == 10_000_000


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    write(tmp_path / "memory.max", "max\n")
    write(tmp_path / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")
    total = machine.memory_total(tmp_path)
    assert total is None or 10**8 < total < 10**15
    assert machine.memory_available(tmp_path / "none", tmp_path) is None
    used = machine.memory_used()
    assert used is not None and 10**6 < used < 10**12


def test_cards_are_known_by_the_drivers_tool_or_its_files(tmp_path: Path) -> None:
    told = "NVIDIA H100 80GB HBM3, 81559\nOdd, Name, [N/A]\n"
    assert machine.graphics_cards(lambda _: told, tmp_path) == (
        GraphicsCard("NVIDIA H100 80GB HBM3", 81559 << 20),
        GraphicsCard("Odd, Name"),
    )
    write(tmp_path / "driver" / "nvidia" / "gpus" / "0000:01:00.0" / "information", "Model: \t NVIDIA GeForce RTX 4090\nIRQ: 1\n")
    assert machine.graphics_cards(lambda _: None, tmp_path) == (GraphicsCard("NVIDIA GeForce RTX 4090"),)
    assert machine.graphics_cards(lambda _: None, tmp_path / "none") == ()


def test_torchs_build_is_read_and_torch_is_not_imported() -> None:
    code = "import sys; from cmp.disk.machine import torch_build; print(torch_build(), 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert told[0] in ("cpu", "cuda", "rocm") and told[-1] == "False"


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", "cuda 12.8"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.4.1'\n", "rocm 6.4.1"),
        ("cuda: Optional[str] = None\nhip = None\n", "cpu"),
    ],
)
def test_what_torch_was_built_for(text: str, build: str) -> None:
    assert machine._built_for(text) == build


def test_the_device_that_is_expected() -> None:
    card = (GraphicsCard("x"),)
    assert machine.likely_device("auto", card, "cuda 12.8", "Linux x86_64") == "cuda"
    assert machine.likely_device("auto", card, "cpu", "Linux x86_64") == "cpu"
    assert machine.likely_device("auto", (), None, "Darwin arm64") == "mps"
    assert machine.likely_device("cuda:1", (), None) == "cuda"


@pytest.mark.parametrize(
    ("wanted", "installed", "fits"),
    [
        (">=2.8,<2.14", "2.13.0+cpu", True),
        (">=2.8,<2.14", "2.14.0", False),
        (">=2.8,<2.14", "2.7.1", False),
        (">=0.42,<0.43", "0.42.0.dev0", True),
        (">=11,<13", "12", True),
        ("==1.0", "1.0.0", True),
        (">=1", None, False),
    ],
)
def test_versions_are_held_against_their_ranges(wanted: str, installed: str | None, fits: bool) -> None:
    assert Version("x", wanted, installed).fits is fits


def test_requirements_are_read_with_what_is_installed(tmp_path: Path) -> None:
    file = write(tmp_path / "requirements.txt", "# a word\nnumpy>=2.0,<3\nno-such-package-here>=1  # why\n\n-r other.txt\n")
    numpy, other = machine.versions_beside(file)
    assert numpy.name == "numpy" and numpy.installed and (other.name, other.installed, other.fits) == ("no-such-package-here", None, False)
    assert machine.versions_beside(tmp_path / "none.txt") == ()


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/a rw",
        "2 1 0:9 / /home rw,nosuid shared:1 - nfs4 server:/home rw",
        "3 2 8:2 / /home/my\\040disk rw - xfs /dev/b rw",
    ]
    write(tmp_path / "self" / "mountinfo", "\n".join(lines))
    kinds = [machine.file_system(Path(place), tmp_path) for place in ("/var/lib", "/home/me/.cmp", "/home/my disk/x", "/homework")]
    assert kinds == ["ext4", "nfs4", "xfs", "ext4"]
    assert [machine.is_of_another_machine(kind) for kind in kinds] == [False, True, False, False]
