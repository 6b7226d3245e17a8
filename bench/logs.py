"""How fast loss curves are read; the peers are TensorBoard's EventAccumulator with nothing left out, and tbparse where it is installed.

tbparse is no requirement of this project: put it into a folder of its own (`pip install --no-deps --target DIR tbparse`) and name that
folder in TBPARSE.
"""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from report import Figure, child, interleaved, spread, write
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from cmp.disk.logs.curves import read_curves
from cmp.disk.logs.index import LogIndex

SCALARS, TAGS, TAIL, ROUNDS, STARTS = 1_000_000, ("loss", "lr"), 1000, 9, 3
NAME = "events.out.tfevents.1795430000.vm.7.0"
_BEGIN = "import json, resource, sys, time; from pathlib import Path; path = Path(sys.argv[1]); "
_END = "print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, total, count]))"
OURS = (
    _BEGIN + "from cmp.disk.logs.curves import read_curves; from cmp.disk.logs.index import LogIndex; "
    "began = time.perf_counter(); curves, notes = read_curves('run', [path], LogIndex(Path(sys.argv[2])).read); "
    "taken = time.perf_counter() - began; assert not notes; "
    "total = sum(float(c.values.sum()) for c in curves); count = sum(c.steps.size for c in curves); " + _END
)
ACCUMULATOR = (
    _BEGIN + "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator; "
    "began = time.perf_counter(); e = EventAccumulator(str(path), size_guidance={'scalars': 0, 'tensors': 0}); e.Reload(); "
    "found = {tag: [s.value for s in e.Scalars(tag)] for tag in e.Tags()['scalars']}; taken = time.perf_counter() - began; "
    "import numpy; total = sum(float(numpy.array(v).sum()) for v in found.values()); count = sum(map(len, found.values())); " + _END
)
TBPARSE = (
    _BEGIN + "sys.path.append(sys.argv[2]); from tbparse import SummaryReader; "
    "began = time.perf_counter(); found = SummaryReader(str(path)).scalars; taken = time.perf_counter() - began; "
    "total = float(found['value'].sum()); count = len(found); " + _END
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "run" / NAME
        make_log(log)
        homes = [Path(folder) / f"home{number}" for number in range(STARTS)]
        ours: list[list[float]] = []
        theirs: list[list[float]] = []
        for home in homes:  # in turn, each in a process of its own
            ours.append(list(child(OURS, log, home)))
            theirs.append(list(child(ACCUMULATOR, log)))
        assert all(told[2:] == theirs[0][2:] and told[3] == SCALARS for told in (*ours, *theirs)), "the peers read other values"
        again = [float(child(OURS, log, home)[0]) for home in homes for _ in range(2)]
        third = tbparse(log)
        tails = tail_times(log, homes[0])
    mine, peer = [told[0] for told in ours], [told[0] for told in theirs]
    what = f"{SCALARS:,} scalars"
    memory, peer_memory = (max(told[1] for told in side) for side in (ours, theirs))
    figures = [
        Figure(f"{what}, checksums included ÷ EventAccumulator", statistics.median(mine) / statistics.median(peer), 0.2, "×", spread(peer)),
        Figure(f"{what}: memory of the whole process", memory, 150, "MB", f"{peer_memory:.0f} MB"),
        Figure(f"{what}: second open, in a new process", statistics.median(again), 0.2, "s"),
        Figure(f"{TAIL:,} new records behind them: until the curves are there", 1000 * statistics.median(tails), 10, "ms"),
    ]
    if third:
        figures.insert(1, Figure(f"{what} ÷ tbparse", statistics.median(mine) / third, None, "×", f"{third:.3g} s"))
    write("Reading loss curves", figures)
    print(f"first {spread(mine)}, again {spread(again)}, tail {spread(tails)}")


def tbparse(log: Path) -> float | None:
    """Seconds that tbparse takes, None where it is not installed."""
    place = os.environ.get("TBPARSE", "")
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({place!r}); import tbparse"], capture_output=True, check=False
    )
    if found.returncode:
        print("SKIP  tbparse is not here: install it into a folder of its own and name that in TBPARSE")
        return None
    taken, _, _, count = child(TBPARSE, log, place)
    assert count == SCALARS, "tbparse read another number of values"
    return float(taken)


def tail_times(log: Path, home: Path) -> list[float]:
    """Seconds from the moment new records are written until curves hold them, in a program that has the log open."""
    index = LogIndex(home)
    read_curves("run", [log], index.read)
    step = SCALARS // len(TAGS)
    appended = iter([records(range(at, at + TAIL // len(TAGS))) for at in range(step, step + ROUNDS * TAIL, TAIL // len(TAGS))])

    def grow() -> None:
        with open(log, "ab") as file:
            file.write(next(appended))

    def look() -> None:
        curves, _ = read_curves("run", [log], index.read)
        sizes.append(sum(curve.steps.size for curve in curves))

    sizes: list[int] = []
    taken = timed_after(ROUNDS, grow, look)
    assert sizes == [SCALARS + TAIL * (number + 1) for number in range(ROUNDS)], sizes
    return taken


def timed_after(rounds: int, before: Callable[[], None], job: Callable[[], None]) -> list[float]:
    times = []
    for _ in range(rounds):
        before()
        times += interleaved(1, job)[0]
    return times


def make_log(path: Path) -> None:
    path.parent.mkdir(parents=True)
    began = time.perf_counter()
    with open(path, "wb") as file:
        RecordWriter(file).write(Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())
        for first in range(0, SCALARS // len(TAGS), 50_000):
            file.write(records(range(first, min(first + 50_000, SCALARS // len(TAGS)))))
    print(f"{path.stat().st_size / 1e6:.0f} MB written in {time.perf_counter() - began:.1f} s")


def records(steps: range) -> bytes:
    out = io.BytesIO()
    writer = RecordWriter(out)
    for step in steps:
        for tag in TAGS:
            event = Event(wall_time=1.7e9 + step / 8, step=step)
            event.summary.value.add(tag=tag, simple_value=1 / (step + 1))
            writer.write(event.SerializeToString())
    return out.getvalue()


if __name__ == "__main__":
    main()
