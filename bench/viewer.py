"""The matrix of pictures beside gr.Gallery and one composed image, in a headless Chromium: 96 cells of 512 px, then 1,000."""

from __future__ import annotations

import hashlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report import Figure, write

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SIDE, ROWS = 512, 8
SEEN = """() => { const seen = [...document.querySelectorAll("IMGS")].filter((img) => { const box = img.getBoundingClientRect();
    return box.width && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth; });
    return seen.length >= MOST && seen.every((img) => img.complete && img.naturalWidth); }"""
THERE = """() => { const all = [...document.querySelectorAll("IMGS")];
    return all.length >= MOST && all.some((img) => img.complete && img.naturalWidth); }"""
FRAMES = """async () => { const times = []; let last = performance.now(); const end = last + 2500;
    while (last < end) { await new Promise(requestAnimationFrame); const now = performance.now(); times.push(now - last); last = now; }
    return times.slice(5); }"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-viewer-") as home, pages(Path(home)) as (address, peers):
        write("The matrix viewer", list(figures(address, peers)))


def figures(address: str, peers: str) -> Iterator[Figure]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        looks = {kind: visits(browser, at, kind) for kind, at in (("matrix", address), ("gallery", peers), ("composed", peers))}
        first, again = looks["matrix"]
        told = ", ".join(
            f"{kind} {a.seconds:.2f} s, {a.bytes / 1e6:.2f} MB, again {b.bytes / 1e3:.0f} kB" for kind, (a, b) in looks.items()
        )
        yield Figure("96 cells: all thumbnails in view", first.seconds, 1.0, "s", told)
        yield Figure("96 cells: sent", first.bytes / 1e6, 1.5, "MB", f"gallery {looks['gallery'][0].bytes / 1e6:.2f} MB")
        yield Figure("96 cells: sent at the second visit", again.bytes / 1e3, 20, "kB", f"gallery {looks['gallery'][1].bytes / 1e3:.0f} kB")
        large, frames = thousand(browser, address)
        yield Figure("1,000 cells: first paint", large, 1.5, "s")
        for what, times in frames.items():
            yield Figure(
                f"1,000 cells: a frame while {what}, median",
                statistics.median(times),
                20,
                "ms",
                f"95 % {sorted(times)[len(times) * 95 // 100]:.0f} ms",
            )
        yield Figure("6 tabs of one browser: those that do not answer", 6 - tabs_alive(browser, address), 0, "tabs")
        yield Figure("requests to another host", len(first.elsewhere), 0, "requests")
        browser.close()


class Visit:
    def __init__(self, seconds: float, sent: int, elsewhere: list[str]) -> None:
        self.seconds, self.bytes, self.elsewhere = seconds, sent, elsewhere


def visits(browser: Any, address: str, kind: str) -> tuple[Visit, Visit]:
    """The first and the second visit with one cache. The pictures were made small once before, as they are once for all."""
    warm = browser.new_context(viewport={"width": 1400, "height": 900})
    visit(warm, address, kind)
    warm.close()
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    found = visit(context, address, kind), visit(context, address, kind)
    context.close()
    return found


def visit(context: Any, address: str, kind: str) -> Visit:
    """From pressing the button until every picture in sight is there; what pictures and data took on the wire, not Gradio's own files."""
    page = context.new_page()
    sent: dict[str, int] = {}
    kinds: dict[str, str] = {}
    elsewhere: list[str] = []
    client = context.new_cdp_session(page)
    client.send("Network.enable")
    client.on("Network.responseReceived", lambda told: kinds.__setitem__(told["requestId"], told["response"]["url"]))
    client.on("Network.loadingFinished", lambda told: sent.__setitem__(told["requestId"], int(told["encodedDataLength"])))
    page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else elsewhere.append(request.url))
    page.goto(address)
    page.locator(f"#show-{kind}").wait_for()
    page.wait_for_timeout(1500)
    sent.clear()
    started = time.perf_counter()
    page.locator(f"#show-{kind}").click()
    images, most = {"matrix": ("#matrix td img", 40), "gallery": ("#gallery img", 12), "composed": ("#composed img", 1)}[kind]
    seen = SEEN if kind == "matrix" else THERE  # the others lie below it
    page.wait_for_function(seen.replace("IMGS", images).replace("MOST", str(most)), timeout=20_000, polling=20)
    seconds = time.perf_counter() - started
    page.wait_for_timeout(1500)
    page.close()
    # a static file of Gradio's page is no picture and no data
    return Visit(seconds, sum(size for which, size in sent.items() if "/assets/" not in kinds.get(which, "")), elsewhere)


def thousand(browser: Any, address: str) -> tuple[float, dict[str, list[float]]]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.goto(address)
    page.locator("#show-thousand").wait_for()
    page.wait_for_timeout(1500)
    started = time.perf_counter()
    page.locator("#show-thousand").click()
    page.wait_for_function(SEEN.replace("IMGS", "#matrix td img").replace("MOST", "30"), timeout=60_000, polling=20)
    seconds = time.perf_counter() - started
    page.locator("#matrix td").nth(30).hover()
    frames: dict[str, list[float]] = {}
    page.keyboard.down("Control")
    for what in ("zooming", "moving"):
        page.evaluate(f"window.counted = ({FRAMES})()")
        box = page.locator("#matrix td").nth(30).bounding_box()
        x, y = box["x"] + 40, box["y"] + 40
        if what == "moving":
            page.keyboard.up("Control")
            page.mouse.move(x, y)
            page.mouse.down()
        for i in range(60):
            if what == "zooming":
                page.mouse.wheel(0, -30 if i < 40 else 10)
            else:
                page.mouse.move(x - (i % 30), y - (i % 20))
            page.wait_for_timeout(25)
        page.mouse.up()
        frames[what] = list(page.evaluate("counted"))
    context.close()
    return seconds, frames


def tabs_alive(browser: Any, address: str) -> int:
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    pages = [context.new_page() for _ in range(6)]
    for page in pages:
        page.goto(address)
        page.locator("#show-matrix").wait_for(timeout=30_000)
    alive = 0
    for page in pages:
        page.locator("#show-matrix").click()
        page.wait_for_function("document.querySelectorAll('#matrix td img').length > 40", timeout=30_000)
        alive += 1
    context.close()
    return alive


@contextmanager
def pages(home: Path) -> Iterator[tuple[str, str]]:
    """The addresses of the viewer, in a Gradio page with the product's own routes and guard, and of the two others."""
    from cmp.server import launch_options, prepare_environment
    from cmp.settings import Settings
    from cmp.workbench import Workbench

    (home / "runs").mkdir()
    bench = Workbench(Settings(home, (home / "runs",)))
    import os

    prepare_environment(bench, os.environ)
    import gradio as gr

    from cmp import viewer

    files = [paint(bench.store.cell_path(key_of(i)), i) for i in range(1000)]
    composed = compose(files[:96], home / "composed.webp")
    matrix_of = {name: value(columns) for name, columns in (("matrix", 12), ("thousand", 125))}
    with gr.Blocks(analytics_enabled=False) as page:
        shows = {kind: gr.Button(kind, elem_id=f"show-{kind}") for kind in ("matrix", "thousand")}
        matrix = gr.HTML(
            html_template=viewer.MATRIX_TEMPLATE, js_on_load=viewer.matrix_on_load(), apply_default_css=False, elem_id="matrix"
        )
        for kind, show in shows.items():
            show.click(lambda told=matrix_of[kind]: told, None, matrix, queue=False)
    with gr.Blocks(analytics_enabled=False) as peers:  # without our guard, which gives out no file by its path
        shows = {kind: gr.Button(kind, elem_id=f"show-{kind}") for kind in ("gallery", "composed")}
        gallery = gr.Gallery(columns=12, height=800, elem_id="gallery")
        image = gr.Image(elem_id="composed")
        shows["gallery"].click(lambda: [str(file) for file in files[:96]], None, gallery, queue=False)
        shows["composed"].click(lambda: str(composed), None, image, queue=False)
    page.queue(default_concurrency_limit=8)
    addresses = [
        page.launch(prevent_thread_lock=True, **launch_options(bench, "127.0.0.1"))[1],
        peers.launch(server_name="127.0.0.1", allowed_paths=[str(home)], ssr_mode=False, prevent_thread_lock=True, quiet=True)[1],
    ]
    try:
        yield addresses[0].rstrip("/"), addresses[1].rstrip("/")
    finally:
        page.close()
        peers.close()


def key_of(i: int) -> str:
    return hashlib.sha256(str(i).encode()).hexdigest()


def paint(target: Path, i: int) -> Path:
    """A picture that packs about as well as a photograph: soft shapes with some grain."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(i)
    soft = Image.fromarray(noise.integers(0, 256, (9, 9, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    fine = Image.fromarray(noise.integers(0, 256, (96, 96, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.blend(soft, fine, 0.12).save(target, compress_level=1)
    return target


def compose(files: list[Path], target: Path) -> Path:
    from PIL import Image

    sheet = Image.new("RGB", (12 * 256, ROWS * 256))
    for i, file in enumerate(files):
        with Image.open(file) as image:
            sheet.paste(image.resize((256, 256)), (i % 12 * 256, i // 12 * 256))
    sheet.save(target, quality=80)
    return target


def value(columns: int) -> dict[str, Any]:
    """A matrix's value as the page makes it."""
    from cmp.core.grids import GridSpec, Prompt, Tile
    from cmp.core.matrices import grid_matrix
    from cmp.core.runs import Checkpoint

    steps = tuple(Checkpoint("run", str(step), Path("/r"), "x", "lora", step=step) for step in range(500, 500 * (columns + 1), 500))
    spec = GridSpec(steps, tuple(Prompt(f"a photo of sks shoe, number {i}, on a beach at dawn") for i in range(ROWS)))
    tiles = [Tile(cell, key_of(i), Path("/x"), seconds=1.234) for i, cell in enumerate(spec.cells())]
    return grid_matrix(spec, tiles, lambda c: (f"step {c.key}", "") if c else ("base model", ""))


if __name__ == "__main__":
    main()
