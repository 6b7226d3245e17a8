"""What compacting full-size SD 1.5 checkpoints frees and costs, its proof included, and what restoring one costs.

The checkpoints are those of bench/convert.py: six of them, or as many as the disk takes, in a temporary folder (TMPDIR says where). The
peers: hashing one file with hashlib, and copying it with cp and sync. `--small` tries the script on a tiny UNet, where names and starts
outweigh numbers, and `--quarter` on one of 0.9 GB; neither writes results. However it ends, SIGKILL included, the folder goes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import convert
import numpy as np
from report import Figure, child, interleaved, spread, write_each

ROUNDS = 3
MANY = 6  # dumps of a run
DUMPS = 3  # of a run without a base
SPARE = 4_000_000_000  # bytes of the disk that are left alone

# each in a process of its own: prints seconds, the peak of its memory, and bytes
COMPACT = """
import json, sys, time
from pathlib import Path
from cmp.core.storage import Item, Rules
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.storing import Asked, NotDone
import cmp.disk.compact_restoring, cmp.disk.trash_overview
home, runs, bases = sys.argv[1:]
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
bench = Workbench(Settings(Path(home), (Path(runs),), (Path(bases),)))
started = time.perf_counter()
plan = bench.plan_cleanup(bench.library().runs, Rules(min_age=0), Asked(compact=True))
done = [step for step in bench.clean_up(plan) if isinstance(step, (Item, NotDone))]
faults = [str(step.error) for step in done if isinstance(step, NotDone)]
assert done and not faults, faults
print(json.dumps({"seconds": time.perf_counter() - started, "memory": peak(), "freed": sum(item.bytes for item in done)}))
"""
RESTORE = """
import json, sys, time
from pathlib import Path
from cmp.settings import Settings
from cmp.workbench import Workbench
import cmp.disk.compact_restoring, cmp.disk.trash_overview
home, runs, bases, target = sys.argv[1:]
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
bench = Workbench(Settings(Path(home), (Path(runs),), (Path(bases),)))
bench.library()
started = time.perf_counter()
list(bench.restore(target))
print(json.dumps({"seconds": time.perf_counter() - started, "memory": peak()}))
"""


# Waits until the process that holds the other end of its input is gone, then removes the folder: with what a child still writes there.
WATCH = """
import os, shutil, sys, time
sys.stdin.read()
while os.path.lexists(sys.argv[1]):
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    time.sleep(0.2)
"""


@contextmanager
def passing_folder() -> Iterator[Path]:
    """A temporary folder that goes with this process, whatever ends it."""
    folder = tempfile.mkdtemp(prefix="bench-storage-")
    watch = subprocess.Popen([sys.executable, "-c", WATCH, folder], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield Path(folder)
    finally:
        assert watch.stdin is not None
        watch.stdin.close()
        watch.wait()


def main(small: bool, quarter: bool) -> None:
    if quarter:
        convert.UNET |= {"block_out_channels": [160, 320, 640, 640]}
    if small:
        convert.UNET |= {"block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 32}
        convert.VAE |= {"block_out_channels": [32, 32, 32, 32]}
        convert.TEXT |= {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    with passing_folder() as place:
        base, run = convert.make_base(place / "bases" / "sd15"), place / "outputs" / "style"
        dump = convert.make_dump(base, run)
        figures = chain(measure(place, base, dump), many(place, base, dump), without_base(place, dump))
        if not (small or quarter):
            write_each("Giving the disk back", figures)
            return
        for figure in figures:
            print(f"{figure.verdict}  {figure.what}: {figure.value:.3g} {figure.unit} (limit {figure.bound}; peer {figure.peer})")


def measure(place: Path, base: Path, dump: Path) -> Iterator[Figure]:
    size, digest = dump.stat().st_size, sha256(dump)
    frozen = frozen_bytes(dump)
    copy = place / "copy"
    said, restored, hashing, copying = [], [], [], []
    for turn in range(ROUNDS):
        home = place / f"home{turn}"  # nothing is remembered: the comparison with the base is part of it
        for file in (base / "unet" / "diffusion_pytorch_model.safetensors", dump):
            subprocess.run(["cat", file], stdout=subprocess.DEVNULL, check=True)  # into the page cache
        hashing += interleaved(1, lambda: sha256(dump))[0]
        said.append(child(COMPACT, home, place / "outputs", base.parent))
        restored.append(child(RESTORE, home, place / "outputs", base.parent, "style@500"))
        copying += interleaved(1, lambda: copied(dump, copy))[0]
        copy.unlink()
    assert sha256(dump) == digest, "it did not come back as it was"
    left = 100 * (frozen - said[-1]["freed"]) / frozen
    yield Figure("frozen bytes that stay, with the base at hand", left, 0.3, "%", f"{(size - said[-1]['freed']) / 1e6:.1f} MB are left")
    limit = 4 * statistics.median(hashing)
    seconds = statistics.median(one["seconds"] for one in said)
    yield Figure("compacting one checkpoint, proof included", seconds, round(limit, 2), "s", f"hashlib.sha256 {spread(hashing)}")
    limit = 2 * statistics.median(copying)
    seconds = statistics.median(one["seconds"] for one in restored)
    yield Figure("restoring it", seconds, round(limit, 2), "s", f"cp and sync {spread(copying)}")
    yield Figure("memory of the whole process", max(one["memory"] for one in (*said, *restored)) / 1e6, 500, "MB")


def many(place: Path, base: Path, dump: Path) -> Iterator[Figure]:
    """All dumps of a run at once, most of them not in the page cache."""
    size = dump.stat().st_size
    count = max(1, min(MANY, (shutil.disk_usage(place).free - SPARE) // size + 1))
    dumps = [dump, *(later(dump, step) for step in range(1, count))]
    frozen = count * frozen_bytes(dump)
    said = child(COMPACT, place / "many", place / "outputs", base.parent)
    left = 100 * (frozen - said["freed"]) / frozen
    told = f"{count * size / 1e9:.1f} GB became {(count * size - said['freed']) / 1e6:.0f} MB in {said['seconds']:.0f} s"
    yield Figure(f"frozen bytes that stay of {count} dumps", left, 0.3, "%", told)
    yield Figure(f"memory of the whole process for {count} dumps", said["memory"] / 1e6, 500, "MB")
    for other in dumps[1:]:
        shutil.rmtree(other.parent)
    child(RESTORE, place / "many", place / "outputs", base.parent, "style@500")


def later(dump: Path, step: int) -> Path:
    """The dump of a later step: the same frozen tensors and others that were trained."""
    other = dump.parent.with_name(f"checkpoint-{500 + step}") / dump.name
    other.parent.mkdir()
    shutil.copyfile(dump, other)
    with open(other, "r+b") as file:
        for start, end in spans(dump, trained=True):
            file.seek(start)
            values = np.frombuffer(file.read(end - start), "<f4") + np.float32(step)
            file.seek(start)
            file.write(values.tobytes())
    return other


def frozen_bytes(dump: Path) -> int:
    return sum(end - start for start, end in spans(dump, trained=False))


def spans(dump: Path, trained: bool) -> list[tuple[int, int]]:
    """Where the tensors lie that were trained, or those that were not."""
    with open(dump, "rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        first = file.tell()
    entries = (entry["data_offsets"] for name, entry in head.items() if name != "__metadata__" and ("lora_" in name) is trained)
    return [(first + start, first + end) for start, end in entries]


def without_base(place: Path, dump: Path) -> Iterator[Figure]:
    """Several dumps of one run and no base: the newest stays whole."""
    shutil.rmtree(place / "bases")
    for step in range(1, DUMPS):
        later(dump, step)
    frozen = DUMPS * frozen_bytes(dump)
    said = child(COMPACT, place / "other", place / "outputs", place / "bases")
    left = 100 * (frozen - said["freed"]) / frozen
    yield Figure(f"frozen bytes that stay of {DUMPS} dumps without a base", left, round(100 / DUMPS + 0.3, 2), "%")


def sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def copied(dump: Path, copy: Path) -> None:
    subprocess.run(["cp", dump, copy], check=True)
    subprocess.run(["sync", "-f", copy], check=True)


if __name__ == "__main__":
    main("--small" in sys.argv[1:], "--quarter" in sys.argv[1:])
