"""Drawing where a card is lent for a call at a time, by the platform's own library. See `tests.lent_card` for what is not its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmp.core.grids import Cell, GridPlan, Prompt, Sampling
from cmp.workbench.zero import calls_of, seconds_for
from tests.lent_card import Platform, lending_cards, variables

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.model

DRAWING = """
import json, os, sys, time
from tests.lent_card import token, without_card
without_card()
from cmp.settings import Settings, prepare_libraries
prepare_libraries(os.environ)
from cmp.workbench import Workbench
from cmp.zero_gpu import lend_card
bench = lend_card(Workbench(Settings.from_env(os.environ)), os.environ)
from gradio import Request
from gradio.context import LocalContext
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
import cmp.engine.prepare as prepare
import cmp.workbench.zero as zero
here, read = os.getpid(), prepare.read_folded
def reading(*given):
    if os.getpid() != here and asked.get("dies"):
        os.kill(os.getpid(), 9)
    if os.getpid() != here:
        raise AssertionError("the forked process read the LoRA itself")
    reads.append(1)
    return read(*given)
reads, prepare.read_folded = [], reading
asked = json.loads(sys.argv[1])
run, _ = bench.find("lora_casual_shoes_3000steps_full")
told = []
for who, prompts in asked["grids"]:
    LocalContext.request.set(Request(headers={"x-ip-token": token(who)}))
    spec = GridSpec((None, *run.checkpoints[:2]), tuple(map(Prompt, prompts)), samplings=(Sampling(1, 3.0),))
    plan = bench.plan_grid(spec, [run])
    zero._MOST_SENT = asked.get("sent", zero._MOST_SENT)
    reads.clear()
    job = bench.start_grid(spec, [run])
    while not job.over:
        time.sleep(0.02)
    tiles = [item for item in job.items if isinstance(item, Tile)]
    shown = [[tile.key, tile.reused, tile.fault and tile.fault.error, bool(tile.path and tile.path.is_file())] for tile in tiles]
    told.append({"tiles": shown, "new": plan.new, "seconds": plan.seconds, "reads": len(reads), "error": job.error and job.error.told})
print("TOLD", json.dumps({"grids": told, "loaded": bench.loaded_models(), "pid": here}))
"""


@pytest.fixture
def platform() -> Iterator[Platform]:
    with lending_cards() as lent:
        yield lent


def drawn(platform: Platform, home: Path, *grids: tuple[str, tuple[str, ...]], device: str = "cpu", **asked: Any) -> dict[str, Any]:
    """What grids give that are drawn one after another in a process that has to ask for a card: each who asks, and its prompts."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("CMP_")}
    around |= {"PYTHONPATH": str(ROOT), "CMP_HOME": str(home), "CMP_DEVICE": device, "OMP_NUM_THREADS": "1", **variables(platform)}
    code = [sys.executable, "-c", DRAWING, json.dumps({"grids": grids, **asked})]
    ended = subprocess.run(code, env=around, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return dict(json.loads(ended.stdout.partition("TOLD ")[2]))


TWO = ("a red casual shoe", "a blue one")


def test_each_row_is_one_call_in_another_process_for_whoever_asked_and_what_is_drawn_asks_for_no_card(
    platform: Platform, tmp_path: Path
) -> None:
    told = drawn(platform, tmp_path / "home", ("ann", TWO), ("bob", TWO), ("eve", ("a third shoe",)))
    first, again, third = told["grids"]
    assert [fault for _, _, fault, _ in first["tiles"]] == [None] * 6 and all(there for *_, there in first["tiles"])
    assert len({key for key, *_ in first["tiles"]}) == 6
    assert [reused for _, reused, *_ in again["tiles"]] == [True] * 6
    assert {key for key, *_ in again["tiles"]} == {key for key, *_ in first["tiles"]}
    assert platform.names == ["ann", "ann", "eve"], "two rows, nothing for the second grid, and one row"
    forked = {int(call["pid"]) for call in platform.told("allow")}
    assert forked and told["pid"] not in forked, "it is drawn in a process that was forked"
    assert [call["fail"] for call in platform.told("release")] == ["false"] * 3
    assert told["loaded"] == [], "this process holds no model"
    # 4 s for each of three pictures where nothing is known yet; then half as long again as it took, and 20 s for the base
    assert platform.seconds[0] == 32 and third["new"] == 3
    assert platform.seconds[2] == round(1.5 * third["seconds"] + 20) != 32


def test_loras_are_read_here_and_sent_along(platform: Platform, tmp_path: Path) -> None:
    told = drawn(platform, tmp_path / "home", ("ann", ("a red casual shoe",)))
    (grid,) = told["grids"]
    assert [fault for _, _, fault, _ in grid["tiles"]] == [None] * 3 and grid["reads"] == 2


def test_what_is_too_large_to_be_sent_is_read_where_it_is_drawn(platform: Platform, tmp_path: Path) -> None:
    (grid,) = drawn(platform, tmp_path / "home", ("ann", TWO), sent=0)["grids"]
    assert grid["reads"] == 2, "once each, by which it is known how large they are"
    faults = [fault for _, _, fault, _ in grid["tiles"]]
    assert [fault is None for fault in faults] == [True, False, False] * 2
    assert all("the forked process read the LoRA itself" in fault for fault in faults if fault)


def test_the_device_that_the_library_plays_is_not_asked_for_what_it_does_not_have(platform: Platform, tmp_path: Path) -> None:
    """This process is told that there is a card, and must not touch it: it is not there outside of calls."""
    (grid,) = drawn(platform, tmp_path / "home", ("ann", ("a red casual shoe",)), device="auto")["grids"]
    assert grid["error"] is None and [fault for _, _, fault, _ in grid["tiles"]] == [None] * 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((429, b'{"left": 3, "wait": 3600}'), "You have exceeded your ZeroGPU quota (32s requested vs. 3s left). Try again in 1:00:00"),
        ((500, b""), "the platform failed with RuntimeError"),
        ((503, b""), "No GPU was available"),
    ],
)
def test_a_row_for_which_no_card_is_lent_says_so_in_its_cells(
    platform: Platform, tmp_path: Path, answer: tuple[int, bytes], why: str
) -> None:
    platform.refusing = answer
    (grid,) = drawn(platform, tmp_path / "home", ("ann", TWO))["grids"]
    assert grid["error"] is None and len(platform.seconds) == 2, "the second row is tried as well"
    assert len(grid["tiles"]) == 6 and all("no graphics card was lent: " in fault and why in fault for _, _, fault, _ in grid["tiles"])


def test_a_process_that_is_ended_costs_its_row_alone(platform: Platform, tmp_path: Path) -> None:
    (grid,) = drawn(platform, tmp_path / "home", ("ann", TWO), sent=0, dies=True)["grids"]
    assert (
        grid["error"] is None
        and [fault for _, _, fault, _ in grid["tiles"]] == ["drawing this row failed where the card is: GPU task aborted"] * 6
    )
    assert [call["fail"] for call in platform.told("release")] == ["true"] * 2


def cells(count: int) -> list[Cell]:
    return [Cell(None, Prompt("a shoe"), seed, 1.0, Sampling(1, 3.0)) for seed in range(count)]


def test_a_card_is_asked_for_as_long_as_the_plan_says() -> None:
    assert seconds_for(GridPlan(10, 10, 0, seconds=40.0)) == 80
    assert seconds_for(GridPlan(10, 5, 5, seconds=None)) == 40, "4 s a picture where nothing is known"
    assert seconds_for(GridPlan(1, 1, 0, seconds=0.0)) == 20 and seconds_for(GridPlan(99, 99, 0, seconds=5000.0)) == 120


def test_a_row_that_takes_longer_than_a_card_is_lent_is_drawn_in_several_calls() -> None:
    row = cells(10)

    def parts(plan: GridPlan, drawn: int = 0) -> list[list[int]]:
        return [[cell.seed for cell in part] for part in calls_of(row, plan, lambda cell: cell.seed < drawn)]

    assert parts(GridPlan(10, 10, 0, seconds=60.0)) == parts(GridPlan(10, 0, 10, seconds=0.0)) == [list(range(10))]
    assert parts(GridPlan(10, 10, 0, seconds=300.0)) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]], "45 s a picture, with what is added"
    assert parts(GridPlan(10, 10, 0, seconds=9000.0)) == [[number] for number in range(10)]
    assert parts(GridPlan(10, 4, 6, seconds=120.0), drawn=6) == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]], "what was drawn takes no time"


def test_elsewhere_the_platforms_library_is_not_even_imported(tmp_path: Path) -> None:
    (tmp_path / "spaces.py").write_text("raise SystemExit('imported')")
    code = (
        "from pathlib import Path\nfrom cmp.settings import Settings\n"
        "from cmp.workbench import Workbench\nfrom cmp.zero_gpu import lend_card\n"
        f"assert lend_card(Workbench(Settings(Path({str(tmp_path)!r}))), {{}}).lending is None"
    )
    around = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    assert subprocess.run([sys.executable, "-c", code], env=around, timeout=60, check=False).returncode == 0
