"""Whether another program uses the graphics card, as NVIDIA's own tool tells it: it asks the driver and takes no memory there itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath

from cmp.core.present import size_text

MUCH = 2_000_000_000  # bytes in use that are no desktop's any more
_MIB = 1 << 20
_GPUS = ("--query-gpu=uuid,memory.used,memory.total", "--format=csv,noheader,nounits")
_PROGRAMS = ("--query-compute-apps=gpu_uuid,pid,used_memory,process_name", "--format=csv,noheader,nounits")

Ask = Callable[[tuple[str, ...]], str | None]


@dataclass(frozen=True, slots=True)
class Program:
    """A program that computes on a card; `bytes` None where the driver does not say."""

    pid: int
    name: str
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Card:
    """A graphics card by its uuid, with what is used of its memory. In a container the driver names no programs, or by other numbers."""

    uuid: str
    used: int
    total: int
    programs: tuple[Program, ...] = ()


def ask_nvidia(arguments: tuple[str, ...]) -> str | None:
    """What nvidia-smi prints, None where there is none or it does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        return subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def read_cards(ask: Ask = ask_nvidia) -> tuple[Card, ...]:
    """The cards of this machine; empty where nothing tells of them."""
    programs: dict[str, list[Program]] = {}
    for uuid, pid, used, name in _fields(ask(_PROGRAMS), 4):
        if pid.isdigit():
            programs.setdefault(uuid, []).append(Program(int(pid), PurePath(name).name, int(used) * _MIB if used.isdigit() else None))
    return tuple(
        Card(uuid, int(used) * _MIB, int(total) * _MIB, tuple(programs.get(uuid, ())))
        for uuid, used, total in _fields(ask(_GPUS), 3)
        if used.isdigit() and total.isdigit()
    )


def _fields(told: str | None, count: int) -> list[list[str]]:
    """The last field may have commas of its own."""
    lines = [line.split(", ", count - 1) for line in (told or "").splitlines()]
    return [[field.strip() for field in line] for line in lines if len(line) == count]


def who_holds(cards: Iterable[Card], uuid: str, own_pid: int, training: Iterable[str] = ()) -> str | None:
    """Why the card should be left alone for now, in words; None if it is free. To be asked while this process has nothing on it.

    `training` are the runs that are being trained: where nothing tells of the card, one of them may be on it.
    """
    card = next((card for card in cards if card.uuid.removeprefix("GPU-") == uuid.removeprefix("GPU-")), None)
    if card is None:
        return next((f"run {run} is being trained" for run in training), None)
    others = [program for program in card.programs if program.pid != own_pid]
    if others and (card.used >= MUCH or any((program.bytes or 0) >= MUCH for program in others)):
        most = max(others, key=lambda program: program.bytes or 0)
        return f"{most.name} (process {most.pid}) uses {size_text(most.bytes or card.used)} of the GPU"
    if card.used >= MUCH:
        return f"another program uses {size_text(card.used)} of the GPU's {size_text(card.total)}"
    return None
