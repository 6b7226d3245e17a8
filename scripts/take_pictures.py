"""Takes the README's picture of each tab, of the bundled demo in a headless browser: `python scripts/take_pictures.py`."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
RUN = "lora_casual_shoes_3000steps_full"
SIZE = {"width": 1440, "height": 900}
PROMPTS = "a red casual shoe\na blue casual shoe\na green star"


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        around, command = os.environ | {"CMP_HOME": home}, [sys.executable, "-m", "cmp"]
        subprocess.run([*command, "list"], cwd=ROOT, env=around, check=True, stdout=subprocess.DEVNULL)  # unpacks the demo
        held_out = Path(home) / "demo" / "data" / "held_out"
        subprocess.run([*command, "measure", RUN, "--held-out", str(held_out)], cwd=ROOT, env=around, check=True)
        server = subprocess.Popen([*command, "serve", "--port", "0"], cwd=ROOT, env=around, stdout=subprocess.PIPE, text=True)
        try:
            take(address_of(server))
        finally:
            server.terminate()
            server.wait(30)


def address_of(server: subprocess.Popen[str]) -> str:
    """Where the server is to be found, once it answers."""
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"Open (http\S+)", line):
            for _ in range(300):
                try:
                    urllib.request.urlopen(found[1], timeout=5).close()
                    return found[1]
                except OSError:
                    time.sleep(0.1)
    raise SystemExit("the server did not start; run `python -m cmp serve` to see why")


def take(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport=SIZE, device_scale_factor=1.5)
        page.set_default_timeout(300_000)
        page.goto(url)
        page.wait_for_selector("#samples td[data-state=done] img")
        keep(page, "runs")
        page.get_by_role("tab", name="Curves").click()
        page.wait_for_selector("#curves .scatterlayer .trace")
        page.locator("#curves input[type=checkbox]:not(:checked)").first.click()
        keep(page, "curves")
        page.get_by_role("tab", name="Pick").click()
        page.wait_for_selector("#pick svg")
        keep(page, "pick")
        page.get_by_role("tab", name="Compare").click()
        page.locator("#compare-prompts textarea").fill(PROMPTS)
        page.click("#compare-draw")
        page.wait_for_function("document.querySelector('#compare-status textarea')?.value.includes('done:')")
        page.wait_for_selector("#grid td[data-state=done] img")
        keep(page, "compare")
        page.get_by_role("tab", name="Storage").click()
        page.wait_for_selector("#storage-overview .cmp-disk")
        page.click("#storage-preview")
        page.locator("#storage-plan").locator(".cmp-group, .cmp-kept").first.wait_for()
        page.set_viewport_size({"width": 1440, "height": 1330})
        page.evaluate("scrollTo(0, 0)")
        keep(page, "storage")
        browser.close()


def keep(page: Any, name: str) -> None:
    page.wait_for_timeout(1500)  # for pictures that come in, and movements that end
    page.mouse.move(5, 5)
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(ROOT / "assets" / f"{name}.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
