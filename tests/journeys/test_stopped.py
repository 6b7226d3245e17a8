"""A server that is asked to stop ends the picture in hand, loses nothing, and says how it ended; asked twice it ends at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cmp.disk.demo import open_demo

from .conftest import ROOT, environment, run_command
from .test_interrupted import GRID, begun, inodes, jobs, tiles_of, until

pytestmark = pytest.mark.model


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_demo(tmp_path / "home")
    return tmp_path / "home"


@contextmanager
def serving(home: Path, *options: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of a server and its address, once it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cmp", "serve", "--port", "0", "--log-format", "json", *options], cwd=ROOT,
        env=environment(home) | {"PYTHONUNBUFFERED": "1"} | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = next(line.split()[1] for line in process.stdout if line.startswith("Open http"))
        until(lambda: answers(url))
        yield process, url
    finally:
        process.kill()
        process.wait(30)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def answers(url: str) -> bool:
    try:
        health(url)
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def health(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url.partition('?')[0]}health", timeout=60) as answer:
        return dict(json.load(answer))


def events(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What a server that has ended told."""
    assert process.stderr is not None
    return [json.loads(line) for line in process.stderr if line.startswith("{")]


@pytest.fixture
def begun_grid(home: Path) -> int:
    """A grid of more cells than can be drawn meanwhile, whose process was killed; a server goes on with it. How many were drawn."""
    process = begun(home, *GRID, "--seeds", "1-400")
    next(tiles_of(process))
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert process.stderr is not None
    process.stderr.close()
    return len(inodes(home))


def test_a_server_that_is_stopped_ends_the_cell_in_hand_and_the_next_one_goes_on(home: Path, begun_grid: int) -> None:
    with serving(home) as (process, url):
        until(lambda: jobs(home)[0]["done"] > begun_grid)
        assert health(url)["queue"] == {"waiting": 0, "running": 1}
        process.terminate()
        assert process.wait(60) == 0
        told = events(process)
    (job,) = jobs(home)
    assert job["state"] == "interrupted" and job["ended"] is None and begun_grid < job["done"] < job["total"]
    drawn = inodes(home)
    assert len(drawn) >= job["done"] and not list((home / "cells").glob("*/.*")), "a half-written picture was left"
    names = [event["event"] for event in told]
    assert names.index("job begins") < names.index("server stops") < names.index("job ends") < names.index("server stopped")
    assert told[names.index("server stopped")]["cut_off"] is False and "red casual shoe" not in json.dumps(told)
    with serving(home) as (process, _):
        until(lambda: jobs(home)[0]["done"] > job["done"])
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    after = inodes(home)
    assert len(after) > len(drawn) and {name: after[name] for name in drawn} == drawn, "a cell was drawn twice"


STUCK = """
import os, signal, sys, threading, time
from pathlib import Path
from cmp.ending import Ending
from cmp.journal import open_journal
from cmp.settings import Settings
from cmp.workbench import Workbench
bench = Workbench(Settings(Path(sys.argv[1])))
open_journal("json", None, ())
def work():
    yield 1
    threading.Event().wait(600)  # deep in a library, which nothing reaches
job = bench.jobs.start("grid", "stuck", 2, work, order={"grid": {}})
while not job.items:
    time.sleep(0.01)
class Page:
    is_running = True
    def close(self, **_):
        raise AssertionError("it waits for what is stuck")
with Ending(bench, within=0.3) as ending:
    os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(ending.wait(Page()))
"""


def test_what_does_not_come_to_its_end_is_cut_off_said_so_and_can_be_gone_on_with(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUCK, str(tmp_path / "home")]
    ended = subprocess.run(command, cwd=ROOT, env=environment(tmp_path / "home"), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    told = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    stopped = next(event for event in told if event["event"] == "server stopped")
    assert stopped["cut_off"] is True and stopped["jobs_left"] == 1
    assert jobs(tmp_path / "home")[0]["state"] == "interrupted"


def test_a_second_signal_ends_it_at_once_and_nothing_is_lost_by_it(home: Path, begun_grid: int) -> None:
    with serving(home) as (process, _):
        until(lambda: jobs(home)[0]["state"] == "running")
        process.send_signal(signal.SIGSTOP)  # so that both arrive before it does anything
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 130
        assert "server stopped" not in [event["event"] for event in events(process)]
    assert jobs(home)[0]["state"] == "interrupted"
    assert run_command(home, "list", "--json").code == 0
