"""What more than one folder of tests needs."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import uploads

settings.register_profile("cmp", deadline=None)  # how long an example takes on a busy machine says nothing
settings.load_profile("cmp")

BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _skip_loudly(reason: str) -> None:
    """A suite without a browser must not look like one that passed."""
    warnings.warn(f"Browser tests are skipped: {reason}", stacklevel=2)
    pytest.skip(reason)


def _start(chromium: Any) -> Any:
    """The Chromium that playwright installed, or else the one of this system."""
    from playwright.sync_api import Error

    try:
        return chromium.launch(args=BROWSER_FLAGS)
    except Error as own:
        found = next((path for path in map(shutil.which, BROWSER_NAMES) if path), None)
        if not found:
            _skip_loudly(f"no browser: {own.message.splitlines()[0]}; and none of {', '.join(BROWSER_NAMES)} is on PATH")
        return chromium.launch(executable_path=found, args=BROWSER_FLAGS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, shared by all tests; each takes its own context from it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as missing:
        _skip_loudly(f"{missing}; install requirements-dev.txt")
    with sync_playwright() as playwright:
        running = _start(playwright.chromium)
        yield running
        running.close()


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CMP_HOME with the bundled demo unpacked, shared by all tests that do not change it in ways that others would notice."""
    from cmp.disk.demo import open_demo

    home = tmp_path_factory.mktemp("home")
    open_demo(home)
    return home


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A temporary folder that other users may enter, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    for path, folders, _ in os.walk(folder):
        for name in folders:  # before they are entered
            os.chmod(os.path.join(path, name), 0o755)
    shutil.rmtree(folder)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[uploads.Hub]:
    """What takes uploads in the Hub's place."""
    yield from uploads.serve(monkeypatch, tmp_path)
