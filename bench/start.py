"""How long a person waits for `python -m cmp list`; the peer is a process that imports diffusers, as scripts of this field begin."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from report import ROOT, Figure, interleaved, spread, write

RUNS = 50


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"CMP_HOME": home}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # people do not compile our modules anew at every start
        ours = [sys.executable, "-m", "cmp", "list", "--json"]
        peer = [sys.executable, "-c", "import diffusers; diffusers.StableDiffusionPipeline"]

        def run(command: list[str]) -> None:
            subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        for command in (ours, peer):  # unpacks the demo, fills the page cache
            run(command)
        many = [*ours[:3], "--runs", str(copy_runs(Path(home) / "demo" / "training" / "outputs", Path(home) / "many")), *ours[3:]]
        mine, theirs, many_runs = interleaved(7, lambda: run(ours), lambda: run(peer), lambda: run(many))
    figures = [
        Figure("`list` on the demo, median of 7", statistics.median(mine), 0.3, "s", spread(theirs)),
        Figure(f"`list` on {RUNS} runs of the demo's size, median of 7", statistics.median(many_runs), 1.5, "s"),
    ]
    write("Start of the command line", figures)


def copy_runs(source: Path, target: Path) -> Path:
    """The demo's runs again and again; their weights are links to the same files, which a scan does not see."""
    runs = sorted(folder for folder in source.iterdir() if folder.is_dir())
    for number in range(RUNS):
        folder = runs[number % len(runs)]
        shutil.copytree(folder, target / f"{folder.name}_{number}", copy_function=os.link)
    return target


if __name__ == "__main__":
    main()
