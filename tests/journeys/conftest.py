"""The real program in a process of its own: as a command, and as a server that the tests talk to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from .watched import Watched

ROOT = Path(__file__).resolve().parents[2]
FULL = "lora_casual_shoes_3000steps_full"


@dataclass(frozen=True, slots=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CMP_")}
    # SSR is what a Space sets: with it a Node process would stand in front and answer our routes with a page
    kept["GRADIO_SSR_MODE"] = "true"
    return kept | {"CMP_HOME": str(home), "CMP_DEVICE": "cpu", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}


def run_command(home: Path, *arguments: str, cwd: Path = ROOT) -> Said:
    done = subprocess.run(
        [sys.executable, "-m", "cmp", *arguments], cwd=cwd, env=environment(home), capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cmp(demo_home: Path) -> Callable[..., Said]:
    """Runs `python -m cmp …` over the demo."""
    return lambda *arguments: run_command(demo_home, *arguments)


@dataclass(frozen=True, slots=True)
class Server:
    """A running dashboard."""

    url: str
    home: Path
    log: list[str]
    pid: int = 0

    def get(self, path: str, **headers: str) -> tuple[int, Any, str]:
        """Status, body (JSON where it is) and content type."""
        return self._ask(urllib.request.Request(self.url + path, headers=headers))

    def post(self, path: str, value: object, **headers: str) -> tuple[int, Any, str]:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self._ask(urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"} | headers, method="POST"))

    def _ask(self, request: urllib.request.Request) -> tuple[int, Any, str]:
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                status, body, kind = answer.status, answer.read(), answer.headers.get("content-type", "")
        except urllib.error.HTTPError as fault:
            status, body, kind = fault.code, fault.read(), fault.headers.get("content-type", "")
        return status, json.loads(body) if kind.startswith("application/json") else body, kind


def start_server(home: Path, *arguments: str, program: Sequence[str] = ("-m", "cmp"), **variables: str) -> Iterator[Server]:
    """Starts the dashboard on a free port and ends it afterwards."""
    process = subprocess.Popen(
        [sys.executable, *program, *arguments], cwd=ROOT,
        env=environment(home) | {"PYTHONUNBUFFERED": "1"} | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    log: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line)
            if "Open http" in line:
                ready.set()
        ready.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        assert ready.wait(120), "the server did not start"
        found = re.search(r"Open (http://[^\s?]+)", "".join(log))
        assert found, "".join(log)
        server = Server(found[1].rstrip("/"), home, log, process.pid)
        wait_until_healthy(server)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def wait_until_healthy(server: Server) -> None:
    for _ in range(200):
        try:
            if server.get("/health")[0] in (200, 401):
                return
        except (urllib.error.URLError, ConnectionError):
            threading.Event().wait(0.1)  # the port is announced before gradio listens on it
    raise AssertionError("the server does not answer:\n" + "".join(server.log))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The dashboard over the demo, in a home of its own."""
    yield from start_server(tmp_path_factory.mktemp("served"), "serve", "--port", "0")


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)
    watched = Watched(context.new_page(), server)
    yield watched
    context.close()
    assert watched.complaints == []
    assert watched.asked <= {urlsplit(server.url).netloc, ""}, "a request left the machine"
