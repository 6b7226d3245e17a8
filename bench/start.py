"""How long a person waits for `python -m cmp list`; the peer is a process that imports diffusers, as scripts of this field begin."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

from report import ROOT, Figure, interleaved, spread, write


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"CMP_HOME": home}
        ours = [sys.executable, "-m", "cmp", "list", "--json"]
        peer = [sys.executable, "-c", "import diffusers; diffusers.StableDiffusionPipeline"]

        def run(command: list[str]) -> None:
            subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        for command in (ours, peer):  # unpacks the demo, fills the page cache
            run(command)
        mine, theirs = interleaved(7, lambda: run(ours), lambda: run(peer))
    write("Start of the command line", [Figure("`list` on the demo, median of 7", statistics.median(mine), 0.5, "s", spread(theirs))])


if __name__ == "__main__":
    main()
