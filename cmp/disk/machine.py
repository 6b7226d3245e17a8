"""What this machine has and what is installed on it, as the system's own files tell it. Nothing heavy is imported, torch least of all."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cmp.disk.occupied import Ask, ask_nvidia

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_MIB = 1 << 20
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # version 2 and 1
_USED = ("memory.current", "memory/memory.usage_in_bytes")
_UNLIMITED = 1 << 60
# SQLite's write-ahead log needs memory that all its processes share, which no file system of other machines has
_OF_OTHERS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "davfs",
     "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.glusterfs", "fuse.gcsfuse", "fuse.blobfuse", "fuse.juicefs", "fuse.davfs")
)  # fmt: skip
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*((?:[<>=!~]=?\s*[0-9][^,;\s]*\s*,?\s*)+)")
_BOUND = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9][0-9.]*)")


@dataclass(frozen=True, slots=True)
class GraphicsCard:
    """An NVIDIA card that the driver knows; `bytes` None where it does not say."""

    name: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """A package as requirements.txt wants it and as it is installed; None where it is not."""

    name: str
    wanted: str
    installed: str | None

    @property
    def fits(self) -> bool:
        return self.installed is not None and all(_holds(self.installed, *bound) for bound in _BOUND.findall(self.wanted))


# -- memory ----------------------------------------------------------------------------------------------------------------


def memory_total(groups: Path = GROUPS) -> int | None:
    """Bytes of memory that this process may use: the machine's, or less where a container has a limit. None where nothing tells."""
    found = [n for n in (_physical(), *(_number(groups / name) for name in _LIMITS)) if n is not None and n < _UNLIMITED]
    return min(found, default=None)


def memory_available(proc: Path = PROC, groups: Path = GROUPS) -> int | None:
    """Bytes that could be had now without swapping; None where nothing tells."""
    told = re.search(r"MemAvailable:\s+(\d+) kB", _text(proc / "meminfo"))
    found = [int(told[1]) * 1024] if told else []
    for limit_name, used_name in zip(_LIMITS, _USED, strict=True):
        limit, used = _number(groups / limit_name), _number(groups / used_name)
        if limit is not None and used is not None and limit < _UNLIMITED:
            found.append(max(limit - used, 0))
    return min(found, default=None)


def memory_used(proc: Path = PROC) -> int | None:
    """Bytes of memory that this process has now; where only that is told, the most that it ever had."""
    told = _text(proc / "self" / "statm").split()
    if len(told) > 1:
        return int(told[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


# -- what computes ---------------------------------------------------------------------------------------------------------


def graphics_cards(ask: Ask = ask_nvidia, proc: Path = PROC) -> tuple[GraphicsCard, ...]:
    """The NVIDIA cards, by the driver's tool or, where that is missing, as in many containers, by the driver's own files."""
    told = ask(("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")) or ""
    lines = [line.rsplit(", ", 1) for line in told.splitlines() if line.strip()]
    if lines:
        return tuple(GraphicsCard(line[0], int(line[1]) * _MIB if len(line) == 2 and line[1].strip().isdigit() else None) for line in lines)
    models = (re.search(r"Model:\s*(.+)", _text(file)) for file in sorted(proc.glob("driver/nvidia/gpus/*/information")))
    return tuple(GraphicsCard(found[1].strip() if found else "NVIDIA card") for found in models)


def torch_build() -> str | None:
    """What the installed torch was built for: "cuda 12.8", "rocm 6.4" or "cpu". None where there is no torch. It is not imported."""
    with suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec("torch")
        places = spec.submodule_search_locations if spec else None
        return _built_for(_text(Path(next(iter(places))) / "version.py")) if places else None
    return None


def _built_for(text: str) -> str:
    for name, called in (("cuda", "cuda"), ("hip", "rocm")):
        if found := re.search(rf"^{name}\b[^=\n]*=\s*['\"]([0-9.]+)", text, re.MULTILINE):
            return f"{called} {found[1]}"
    return "cpu"


def likely_device(wanted: str, cards: Iterable[GraphicsCard], build: str | None, system: str = "") -> str:
    """The kind of device that will be drawn with, as far as that is known before torch is loaded."""
    if wanted != "auto":
        return wanted.partition(":")[0]
    if any(True for _ in cards) and (build or "").startswith("cuda"):
        return "cuda"
    return "mps" if (system or f"{platform.system()} {platform.machine()}") == "Darwin arm64" else "cpu"


# -- what is installed -----------------------------------------------------------------------------------------------------


def versions_beside(requirements: Path) -> tuple[Version, ...]:
    """Every package that a requirements file names with a range, with the version that is installed; empty without the file."""
    found = []
    for line in _text(requirements).splitlines():
        if told := _REQUIREMENT.match(line.partition("#")[0].strip()):
            found.append(Version(told[1], told[2].strip(), _installed(told[1])))
    return tuple(found)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _holds(version: str, sign: str, bound: str) -> bool:
    """Whether a version lies within a bound, by its numbers alone: what stands behind them is a build or a preview."""
    own, other = (_numbers(text) for text in (version, bound))
    size = max(len(own), len(other))
    own, other = ((*numbers, *(0,) * (size - len(numbers))) for numbers in (own, other))
    return {">=": own >= other, "<=": own <= other, "==": own == other, "!=": own != other, "<": own < other, ">": own > other}[sign]


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


# -- disks -----------------------------------------------------------------------------------------------------------------


def file_system(path: Path, proc: Path = PROC) -> str:
    """The kind of file system that a path lies on, as the kernel calls it; "" where nothing tells."""
    real, best = os.path.realpath(path), ("", "")
    for line in _text(proc / "self" / "mountinfo").splitlines():
        before, _, behind = line.partition(" - ")
        fields = before.split()
        if len(fields) > 4 and behind:
            mount = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
            inside = real == mount or real.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best[0]):
                best = (mount, behind.split()[0])
    return best[1]


def is_of_another_machine(kind: str) -> bool:
    """Whether a file system lies on another machine."""
    return kind in _OF_OTHERS


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return path if path.exists() or path == path.parent else existing(path.parent)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None
