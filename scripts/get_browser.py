"""Gets a Chromium for the browser tests: one that is there, else playwright's own, else the system's package.

Ends well even when none can be had: the tests that need one then say so and are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")


def playwrights_own() -> bool:
    """Whether playwright has a browser of its own that exists."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return os.path.exists(playwright.chromium.executable_path)


def run(*command: str) -> bool:
    try:
        return subprocess.run(command, check=False, timeout=600).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def from_system() -> bool:
    if not shutil.which("apt-get"):
        return False
    rights = () if os.geteuid() == 0 else ("sudo", "-n")
    return run(*rights, "apt-get", "update", "-qq") and run(*rights, "apt-get", "install", "-y", "-qq", "chromium")


def main() -> None:
    if any(map(shutil.which, NAMES)) or playwrights_own():
        return
    if run(sys.executable, "-m", "playwright", "install", "chromium") and playwrights_own():
        return
    if not from_system():
        print("No Chromium could be had: the browser tests will be skipped. Install one and run `make test` again.", file=sys.stderr)


if __name__ == "__main__":
    main()
