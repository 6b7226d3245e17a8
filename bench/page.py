"""How soon the page shows the first picture after Draw was pressed, and a new one of a trainer, on the demo, in a headless Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report import ROOT, Figure, spread, write

ROUNDS = 7
RUNS = 1000  # in the long list
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SHOWN = (
    """before => [...document.querySelectorAll('#grid img')].some(i => i.complete && i.naturalWidth && !before.includes(i.currentSrc))"""
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-page-") as home, serving(Path(home)) as address:
        times = list(first_pictures(address))
        listed = {what: max(seconds) for what, seconds in long_list(address).items()}
        seen = list(new_pictures(Path(home)))
    drawn = Figure(f"from Draw to the first picture, median of {ROUNDS}", statistics.median(times), 1.0, "s", spread(times))
    told = f"median {statistics.median(seen):.1f} s"
    write(
        "The page on the warm demo",
        [
            drawn,
            Figure(f"a new picture of the trainer is shown, slowest of {ROUNDS}", max(seen), 5.0, "s", told),
            *(Figure(f"{RUNS:,} runs: {what}, slowest of {ROUNDS}", seconds, 0.5, "s") for what, seconds in listed.items()),
        ],
    )


@contextmanager
def serving(home: Path, runs: Path | None = None) -> Iterator[str]:
    """The address of a program that was just started, of the demo unless `runs` are given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cmp", *(["--runs", str(runs)] if runs else []), "serve", "--port", str(port)]
    server = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"CMP_HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def first_pictures(address: str) -> Iterator[float]:
    """Seconds of each round but the first, which loads the base."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        page.get_by_role("tab", name="Compare").click()
        page.locator("#compare-checkpoints input:checked").first.wait_for(timeout=60_000)
        for number in range(ROUNDS + 1):
            page.locator("#compare-seeds textarea, #compare-seeds input").first.fill(str(1000 + number))
            page.wait_for_timeout(1500)  # the plan that follows what is typed
            seconds = draw(page)
            if number:
                yield seconds
        browser.close()


_LONG = """([count, rounds]) => {
  const line = Array.from({ length: 60 }, (_, i) => [i / 59, ((i * 37) % 60) / 60]);
  const rows = Array.from({ length: count }, (_, i) => ({ key: `r${i}`, usable: true, flaw: null, find: `run ${i} kohya sd-${i % 9}`,
    cells: [{ text: `run ${i}`, sort: `run ${i}`, sub: "kohya · sd-1.5" }, { text: "none yet", sort: null, strip: [] },
    { text: `0.${i}`, sort: (i * 7919) % count, line, pending: false }, { text: "500–3000", sort: 3000 }, { text: "6", sort: 6 },
    { text: "8.5 MB", sort: i }, { text: "", sort: i, time: 1.7e9 + 1e4 * i }] }));
  const value = { columns: ["run", "pictures", "loss", "steps", "checkpoints", "size", "last written"], rows, ticked: ["r5"], many: false,
    note: "", find: "runs", remember: "bench", downs: [] };
  const root = document.body.appendChild(document.createElement("div"));
  const table = cmpTable(root, { onPick: () => {} });
  const [field, head] = [root.querySelector("input"), (name) => root.querySelector(`th[data-column="${name}"]`)];
  const type = (text) => { field.value = text; field.dispatchEvent(new Event("input")); };
  const timed = (act) => { const start = performance.now(); act(); root.offsetHeight; return (performance.now() - start) / 1000; };
  const each = (act) => Array.from({ length: rounds }, (_, i) => timed(() => act(i)));
  const shown = [timed(() => table.update(value))];
  const told = { "the list is shown": shown, "a run is chosen": each((i) => root.querySelector(`tr[data-key=r${i * 9 + 1}]`).click()),
    "it is sorted": each((i) => head(i % 2 ? "loss" : "size").click()), "it is filtered": each((i) => type(`kohya sd-${i}`)),
    "it is told anew": each((i) => table.update({ ...value, ticked: [`r${i}`] })) };
  root.remove();
  localStorage.removeItem("bench");
  return told;
}"""


def long_list(address: str) -> dict[str, list[float]]:
    """Seconds that each thing done with the list of many runs takes in the page, layout included."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        page.wait_for_selector("#runs-table tbody tr", timeout=60_000)
        found: dict[str, list[float]] = page.evaluate(_LONG, [RUNS, ROUNDS])
        browser.close()
    return found


def draw(page: Any) -> float:
    before = page.evaluate("[...document.querySelectorAll('#grid img')].map(i => i.currentSrc)")
    started = time.perf_counter()
    page.locator("#compare-draw").click()
    page.wait_for_function(SHOWN, arg=before, timeout=120_000)
    seconds = time.perf_counter() - started
    page.wait_for_function("document.querySelector('#compare-status textarea')?.value.startsWith('done')", timeout=120_000)
    return seconds


def new_pictures(home: Path) -> Iterator[float]:
    """Seconds from the moment that a trainer has written a picture, at any time between two looks, until the page shows it."""
    from playwright.sync_api import sync_playwright

    outputs = home / "outputs"
    shutil.copytree(home / "demo" / "training" / "outputs", outputs)
    first = min(outputs.glob("*/validation/*_prompt0_img0.png"))
    with serving(home / "again", outputs) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        page.wait_for_selector("#samples td img.is-loaded", timeout=60_000)
        for number in range(ROUNDS):
            page.wait_for_timeout(1000 + 700 * number)
            step = 3100 + 100 * number
            shutil.copyfile(first, first.with_name(f"epoch{number + 20:03d}_step{step:05d}_prompt0_img0.png"))
            started = time.perf_counter()
            page.wait_for_function(
                "step => [...document.querySelectorAll('#samples thead .cmp-label')].some((head) => head.textContent === `step ${step}`)",
                arg=step, timeout=60_000, polling=20,
            )  # fmt: skip
            yield time.perf_counter() - started
        browser.close()


if __name__ == "__main__":
    main()
