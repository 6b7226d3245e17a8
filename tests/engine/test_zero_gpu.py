"""Drawing where a card is lent for a call at a time. The platform is not here: a stand-in of its module forks for each call as it does,
pickles what goes in and out, and keeps nothing of what the forked process changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.model

STAND_IN = """
import contextvars, json, os, pickle
request = contextvars.ContextVar("request", default=None)
def GPU(task, *, duration):
    def call(row):
        if os.environ.get("STAND_IN_FAILS"):
            import gradio
            raise gradio.Error("<b>You have exceeded</b> your quota")
        asked = {"seconds": duration(row), "request": request.get(), "cells": len(row.cells), "parent": os.getpid()}
        sent = pickle.dumps(row)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(pickle.dumps((os.getpid(), task(pickle.loads(sent)))))
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            pid, told = pickle.loads(pipe.read())
        os.waitpid(child, 0)
        with open(os.environ["STAND_IN_LOG"], "a") as log:
            log.write(json.dumps(asked | {"pid": pid}) + "\\n")
        return told
    open(os.environ["STAND_IN_LOG"], "a").close()
    return call
"""
DRAWING = """
import json, os, sys
from cmp.settings import Settings, prepare_libraries
prepare_libraries(os.environ)
from cmp.workbench import Workbench
from cmp.zero_gpu import lend_card
bench = lend_card(Workbench(Settings.from_env(os.environ)), os.environ)
import spaces
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
run, _ = bench.find("lora_casual_shoes_3000steps_full")
spec = GridSpec((None, *run.checkpoints[:2]), tuple(map(Prompt, ("a red casual shoe", "a blue one"))), samplings=(Sampling(1, 3.0),))
told = []
for who in ("ann", "bob"):
    spaces.request.set(who)
    job = bench.start_grid(spec, [run])
    while not job.over:
        import time; time.sleep(0.05)
    tiles = [item for item in job.items if isinstance(item, Tile)]
    told.append([[tile.key, tile.reused, tile.fault and tile.fault.error, tile.path and os.path.isfile(tile.path)] for tile in tiles])
print("TOLD", json.dumps({"tiles": told, "loaded": bench.loaded_models(), "pid": os.getpid(), "error": job.error and job.error.told}))
"""


def drawn(home: Path, tmp_path: Path, **more: str) -> tuple[dict[str, object], list[dict[str, object]]]:
    """What a grid drawn twice gives, and the calls in which a card was asked for."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "spaces.py").write_text(STAND_IN)
    log = tmp_path / "calls.jsonl"
    around = {name: value for name, value in os.environ.items() if not name.startswith("CMP_")}
    around |= {
        "PYTHONPATH": f"{tmp_path / 'modules'}{os.pathsep}{ROOT}",
        "CMP_HOME": str(home),
        "CMP_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    around |= {"STAND_IN_LOG": str(log), "SPACES_ZERO_GPU": "true", **more}
    ended = subprocess.run([sys.executable, "-c", DRAWING], env=around, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.partition("TOLD ")[2]), [
        json.loads(line) for line in log.read_text().splitlines()
    ] if log.exists() else []


def test_each_row_is_one_call_in_another_process_for_whoever_asked_and_what_is_drawn_asks_for_no_card(tmp_path: Path) -> None:
    told, calls = drawn(tmp_path / "home", tmp_path)
    first, again = told["tiles"]
    assert [fault for _, _, fault, _ in first] == [None] * 6 and all(there for *_, there in first) and len({key for key, *_ in first}) == 6
    assert [reused for _, reused, *_ in again] == [True] * 6 and {key for key, *_ in again} == {key for key, *_ in first}
    assert [call["cells"] for call in calls] == [3, 3], "two rows, and nothing for the second grid"
    assert {call["request"] for call in calls} == {"ann"}
    assert all(call["pid"] != told["pid"] == call["parent"] and 20 <= call["seconds"] <= 120 for call in calls)
    assert told["loaded"] == [], "this process holds no model"


def test_a_row_for_which_no_card_is_lent_says_so_in_its_cells(tmp_path: Path) -> None:
    told, calls = drawn(tmp_path / "home", tmp_path, STAND_IN_FAILS="1")
    assert calls == [] and told["error"] is None
    assert all("no graphics card was lent: You have exceeded your quota" in fault for _, _, fault, _ in told["tiles"][0])


def test_elsewhere_the_platforms_module_is_not_even_imported(tmp_path: Path) -> None:
    (tmp_path / "spaces.py").write_text("raise SystemExit('imported')")
    code = (
        "from pathlib import Path\nfrom cmp.settings import Settings\n"
        "from cmp.workbench import Workbench\nfrom cmp.zero_gpu import lend_card\n"
        f"assert lend_card(Workbench(Settings(Path({str(tmp_path)!r}))), {{}}).draw_row is None"
    )
    around = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    assert subprocess.run([sys.executable, "-c", code], env=around, timeout=60, check=False).returncode == 0
