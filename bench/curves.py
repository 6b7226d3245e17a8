"""The chart of 10 runs × 100,000 points beside a gr.Plot of the same points, in a headless Chromium.

Cold is a program that was just started and a browser that knows nothing of it; the logs were read once before. Warm is the same page
loaded once more. Both are counted from the click on the tab of a page that has come up until the chart is painted; what all of it takes
from the address on, Gradio's own page included, is told beside it. A run in training has records appended while one looks.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from logs import NAME
from page import FLAGS, serving
from report import Figure, child, spread, write
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

RUNS, POINTS, ROUNDS, MOVES, PATIENCE, APPENDS = 10, 100_000, 3, 200, 40, 10
CHOSEN = f"localStorage.setItem('cmp.curves.runs', JSON.stringify(Array.from({{length: {RUNS}}}, (_, i) => `run${{i}}`)))"
PAINTED = "([chart, lines]) => document.querySelector(chart)?.querySelectorAll('.scatterlayer .trace path.js-line').length >= lines"
LAST = "step => document.querySelector('#curves .cmp-panel .cmp-chart')?._fullData?.some((trace) => trace.x?.at?.(-1) === step)"
FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# a move of the pointer and all that the page does at once for it, styles and layout included
HOVER = """async (moves) => {
    const over = document.querySelector("#curves .cmp-over"), box = over.getBoundingClientRect(), times = [];
    for (let i = 0; i < moves; i += 1) {
        await new Promise(requestAnimationFrame);
        const [x, y] = [box.left + box.width * (0.15 + 0.7 * i / moves), box.top + box.height * (0.3 + 0.05 * (i % 7))];
        const began = performance.now();
        over.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: x, clientY: y}));
        document.querySelector("#curves .cmp-tip").getBoundingClientRect();
        times.push(performance.now() - began);
    }
    return [times, document.querySelectorAll("#curves .cmp-tip-row").length]; }"""
INDEX = (
    "import json, sys; from pathlib import Path; from cmp.disk.logs.index import LogIndex; index = LogIndex(Path(sys.argv[1])); "
    "print(json.dumps(sum(index.read(file)[1].tags['loss'].steps.size for file in Path(sys.argv[2]).rglob('*tfevents*'))))"
)
PEER = """
import sys, gradio as gr, numpy as np, plotly.graph_objects as go
lines = np.load(sys.argv[1])
def draw():
    steps = np.arange(1, lines.shape[1] + 1)
    return go.Figure([go.Scatter(x=steps, y=line, mode="lines", name=f"run{i}") for i, line in enumerate(lines)])
with gr.Blocks() as page:
    button = gr.Button("draw", elem_id="draw")
    button.click(draw, None, gr.Plot(elem_id="peer"))
page.launch(server_port=int(sys.argv[2]), quiet=True)
"""


@dataclass(frozen=True, slots=True)
class Look:
    """Seconds from the address and from the tab's click to the painted chart, and the bytes that answers about curves took on the wire."""

    whole: float
    clicked: float
    sent: int


def main() -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="bench-curves-") as folder, sync_playwright() as playwright:
        values = make_runs(Path(folder) / "runs")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        write(f"The chart of {RUNS} runs × {POINTS:,} points", list(figures(browser, Path(folder), values)))
        browser.close()


def figures(browser: Any, folder: Path, values: Path) -> Iterator[Figure]:
    home, runs = folder / "home", folder / "runs"
    assert child(INDEX, home, runs) == RUNS * POINTS, "not every point was read"
    cold, warm, moves = [], [], list[float]()
    for _ in range(ROUNDS):
        with serving(home, runs) as address, opened(browser) as context:
            looks = [look(context, address, moves) for _ in range(3)]
            cold.append(looks[0])
            warm.append(looks[2])
    grown = growth(browser, folder / "growing")
    theirs, weight = peer(browser, values)
    told = f"gr.Plot {'over ' if theirs >= PATIENCE else ''}{theirs:.2f} s from the button to the chart"
    for what, looks, limit in (("cold", cold, 2.0), ("warm", warm, 0.7)):
        clicked, whole = [one.clicked for one in looks], [one.whole for one in looks]
        yield Figure(f"{what}: from the tab's click to the chart", statistics.median(clicked), limit, "s", told)
        yield Figure(f"{what}: from the address to the chart", statistics.median(whole), None, "s", spread(whole))
    yield Figure("data on the wire", max(one.sent for one in cold) / 1e3, 150, "kB", f"gr.Plot {weight / 1e3:,.0f} kB")
    yield Figure(f"from appended records to the chart, worst of {APPENDS}", max(grown), 2, "s", spread(grown))
    middle = f"median {statistics.median(moves):.1f} ms"
    yield Figure(f"a move of the pointer over {RUNS} curves, 95 % of {len(moves)}", sorted(moves)[len(moves) * 95 // 100], 25, "ms", middle)


def make_runs(folder: Path) -> Path:
    """Runs as a trainer logs them; where their values lie as one array for the peer."""
    trend = 0.1 + 0.1 * np.exp(-np.arange(POINTS) / 2e4)
    lines = np.array([trend + np.random.default_rng(number).gamma(2, 0.02, POINTS) for number in range(RUNS)])
    for number, line in enumerate(lines):
        append(folder / f"run{number}" / NAME, line.tolist(), 1, 1.7e9)
    place = folder.parent / "values.npy"
    np.save(place, lines)
    return place


def append(path: Path, values: list[float], first: int, began: float) -> None:
    """Writes values from step `first` on behind what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        writer = RecordWriter(file)
        for step, value in enumerate(values, first):
            event = Event(wall_time=began + step / 100, step=step)
            event.summary.value.add(tag="loss", simple_value=value)
            writer.write(event.SerializeToString())


def growth(browser: Any, folder: Path) -> list[float]:
    """Seconds from the moment at which records are appended to a run in training until the chart shows the last of them."""
    log, began, taken = folder / "runs" / "live" / NAME, time.time(), []
    append(log, [0.5] * 1000, 1, began - 30)
    with serving(folder / "home", folder / "runs") as address:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{address}/?tab=curves&run=live")
        page.wait_for_function(LAST, arg=1000, timeout=60_000)
        page.locator("#curves .cmp-card").first.wait_for(timeout=60_000)
        for last in range(1100, 1001 + 100 * APPENDS, 100):
            page.wait_for_timeout(1300 + last % 700)  # not in step with the page's own clock
            appended = time.perf_counter()
            append(log, [0.25] * 100, last - 99, began - 30)
            page.wait_for_function(LAST, arg=last, timeout=60_000, polling=20)
            taken.append(time.perf_counter() - appended)
        page.close()
    return taken


@contextmanager
def opened(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.add_init_script(CHOSEN)
    yield context
    context.close()


def look(context: Any, address: str, moves: list[float]) -> Look:
    """One look at the chart; `moves` gets the milliseconds of each move of the pointer over it."""
    page = context.new_page()
    sent = watched(context, page, "/curve/")
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.locator("#runs-table tbody tr").first.wait_for()
    page.evaluate(FRAME)
    clicked = time.perf_counter()
    page.get_by_role("tab", name="Curves").click()
    page.wait_for_function(PAINTED, arg=["#curves .cmp-panel .cmp-chart", RUNS], timeout=60_000, polling=20)
    page.evaluate(FRAME)
    ended = time.perf_counter()
    page.locator("#curves .cmp-card").first.wait_for(timeout=60_000)  # the words, which come last
    times, rows = page.evaluate(HOVER, MOVES)
    assert rows == RUNS, f"the pointer told {rows} runs"
    moves += map(float, times)
    page.close()
    return Look(ended - began, ended - clicked, sum(sent))


def watched(context: Any, page: Any, part: str, length: str = "encodedDataLength") -> list[int]:
    """The bytes on the wire of every answer whose address has `part` in it, as they come; Chromium counts those of event streams, which
    are not compressed, as `dataLength` alone.
    """
    sent: list[int] = []
    wanted: set[str] = set()
    client = context.new_cdp_session(page)
    client.send("Network.enable")
    client.on("Network.responseReceived", lambda told: wanted.add(told["requestId"]) if part in told["response"]["url"] else None)
    client.on("Network.dataReceived", lambda told: sent.append(int(told[length])) if told["requestId"] in wanted else None)
    return sent


def peer(browser: Any, values: Path) -> tuple[float, int]:
    """Seconds from the button to the painted chart, and the bytes that it took on the wire."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PEER, str(values), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    try:
        come(page, f"http://127.0.0.1:{port}")
        sent = watched(context, page, "gradio_api", "dataLength")
        page.wait_for_timeout(1000)
        began = time.perf_counter()
        page.locator("#draw").click()
        with suppress_timeout():
            page.wait_for_function(PAINTED, arg=["#peer", RUNS], timeout=PATIENCE * 1000, polling=20)
            page.evaluate(FRAME)
        return time.perf_counter() - began, sum(sent)
    finally:
        context.close()
        server.terminate()
        server.wait(20)


def come(page: Any, address: str) -> None:
    from playwright.sync_api import Error

    for _ in range(300):
        try:
            page.goto(address)
            break
        except Error:
            time.sleep(0.2)
    page.locator("#draw").wait_for(timeout=60_000)


@contextmanager
def suppress_timeout() -> Iterator[None]:
    from playwright.sync_api import TimeoutError as TimedOut

    try:
        yield
    except TimedOut:
        print(f"the peer was not done after {PATIENCE} s")


if __name__ == "__main__":
    main()
