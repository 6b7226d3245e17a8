"""What every bench script shares: timing commands in turn, judging figures, and writing them with CPU, load and commit."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the scripts are run as files
RESULTS = ROOT / "bench" / "RESULTS.md"
DEVICE = os.environ.setdefault("CMP_BENCH_DEVICE", "cpu")  # what grid.py and measure.py draw with; cuda writes sections of its own
ON_CARD = DEVICE != "cpu"


@dataclass(frozen=True, slots=True)
class Figure:
    """One claim: `value` is to be at most `limit`, both in `unit`; `peer` says what the peer took in the same run.

    Without a limit it claims nothing and only tells.
    """

    what: str
    value: float
    limit: float | None
    unit: str
    peer: str = "–"

    @property
    def verdict(self) -> str:
        return "–" if self.limit is None else "PASS" if self.value <= self.limit else "MISS"

    @property
    def bound(self) -> str:
        return "–" if self.limit is None else f"{self.limit:.3g} {self.unit}"


def on_card(title: str) -> str:
    """A section's title with the card's name, where a card draws."""
    if not ON_CARD:
        return title
    import torch

    return f"{title}, on {torch.cuda.get_device_name(DEVICE)}"


def interleaved(rounds: int, *jobs: Callable[[], object]) -> list[list[float]]:
    """Seconds that each job took in every round; the jobs take turns, so that a busy minute hits them alike."""
    taken: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds):
        for times, job in zip(taken, jobs, strict=True):
            started = time.perf_counter()
            job()
            times.append(time.perf_counter() - started)
    return taken


def child(script: str, *arguments: object) -> dict[str, Any]:
    """What a script tells as JSON in its last line, run in a process of its own whose threads wait as the product's do."""
    places = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": places, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)], env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def spread(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.3f} s ({min(times):.3f}–{max(times):.3f})"


def write_each(title: str, figures: Iterable[Figure]) -> None:
    """The same for figures that come one by one: each is printed and kept as soon as it is known."""
    known: list[Figure] = []
    for figure in figures:
        known.append(figure)
        _say(figure)
        _keep(title, known)


def write(title: str, figures: Sequence[Figure]) -> None:
    """Prints the figures and replaces this script's section in RESULTS.md."""
    for figure in figures:
        _say(figure)
    _keep(title, figures)


def _say(figure: Figure) -> None:
    told = f"{figure.value:.3g} {figure.unit} (limit {figure.bound}; peer {figure.peer})"
    print(f"{figure.verdict}  {figure.what}: {told}", flush=True)


def _keep(title: str, figures: Sequence[Figure]) -> None:
    lines = [
        f"## {title}",
        "",
        f"{_cpu()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.python_version()}, commit {_commit()}",
        "",
    ]
    lines += ["| figure | ours | limit | peer | |", "|---|---|---|---|---|"]
    lines += [f"| {f.what} | {f.value:.3g} {f.unit} | {f.bound} | {f.peer} | {f.verdict} |" for f in figures]
    kept = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Measured\n"
    sections = kept.split("\n## ")
    others = [section for section in sections[1:] if not section.startswith(f"{title}\n")]
    text = "\n## ".join([sections[0].rstrip() + "\n", *(section.rstrip() + "\n" for section in others)])
    RESULTS.write_text(text + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
