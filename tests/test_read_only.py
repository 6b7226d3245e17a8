"""A read-only server: nothing that it is asked for converts or changes anything, and it draws within limits, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cmp.core.grids import GridSpec, Prompt, Sampling
from cmp.core.measured import MeasureSpec
from cmp.core.progress import run_through
from cmp.core.storage import Rules
from cmp.disk.ready import Answers
from cmp.errors import BadInput, Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for
from cmp.workbench.storing import Asked
from tests.journeys.conftest import FULL, Server, start_server
from tests.support import Training, origin_run

RUN = "lora_casual_shoes"
GRID = GridSpec((None,), (Prompt("a"),))
CHANGES: dict[str, Callable[[Workbench, Training], object]] = {
    "star": lambda bench, _: bench.star(f"{RUN}@500"),
    "name": lambda bench, _: bench.rename(RUN, "x"),
    "answer": lambda bench, _: bench.answer(bench.find(RUN)[0], Answers(alpha=1.0)),
    "folder": lambda bench, made: bench.add_folder(str(made.run)),
    "no folder": lambda bench, made: bench.remove_folder(str(made.run)),
    "watch": lambda bench, _: bench.start_watch(RUN, GRID),
    "measuring": lambda bench, _: list(bench.measure(bench.find(RUN)[0], MeasureSpec(held_out=Path()))),
    "measuring later": lambda bench, _: bench.start_measure(bench.find(RUN)[0], MeasureSpec(held_out=Path())),
    "conversions": lambda bench, _: bench.start_conversions([bench.plan_conversion(f"{RUN}@500", "lora")]),
    "conversion": lambda bench, _: run_through(bench.convert(bench.plan_conversion(f"{RUN}@500", "lora"))),
    "vote": lambda bench, _: bench.cast_vote(bench.find(RUN)[0], "ann", "a", "b", "left"),
    "vote taken back": lambda bench, _: bench.take_back_vote(bench.find(RUN)[0], "ann"),
    "storage": lambda bench, _: list(bench.clean_up(bench.plan_cleanup(bench.library().runs, Rules()))),
    "storage as a job": lambda bench, _: bench.start_cleanup(run_through(bench.previewing(bench.library().runs, Rules(), Asked()))),
    "restore": lambda bench, _: list(bench.restore(RUN)),
    "restore as a job": lambda bench, _: bench.start_restore(RUN),
    "cells": lambda bench, _: bench.prune(bench.plan_prune(most_bytes=0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_would_change_anything_is_refused_and_leaves_nothing(tmp_path: Path, change: str) -> None:
    made = origin_run(tmp_path)
    bench = Workbench(Settings(tmp_path / "home", (made.outputs,), (made.bases,), read_only=True))
    before = sorted(made.run.rglob("*"))
    with pytest.raises(Refused, match="read-only"):
        CHANGES[change](bench, made)
    assert sorted(made.run.rglob("*")) == before and not bench.jobs.records() and not bench.added_folders()
    assert not bench.marks(bench.library().runs) and bench.answers(bench.find(RUN)[0]) == Answers()


DRAWS: dict[str, Callable[[Workbench, GridSpec], object]] = {
    "a grid later": lambda bench, spec: bench.start_grid(spec, [bench.find(RUN)[0]]),
    "a grid at once": lambda bench, spec: list(bench.follow_grid(spec, [bench.find(RUN)[0]])),
    "pictures": lambda bench, spec: list(bench.draw_grid(spec, [bench.find(RUN)[0]])),
}
ASKS = {"whoever comes": Caller(owner=False, address="192.0.2.1"), "who uses this computer": Caller(address="127.0.0.1")}


@pytest.mark.parametrize("who", ASKS)
@pytest.mark.parametrize("draw", DRAWS)
def test_nothing_is_drawn_where_drawing_is_off_and_nothing_large_where_it_is_limited(tmp_path: Path, draw: str, who: str) -> None:
    made = origin_run(tmp_path)
    settings = Settings(tmp_path / "home", (made.outputs,), (made.bases,), read_only=True, open_reading=True)
    off, limited = Workbench(replace(settings, drawing=False)), Workbench(settings)
    with acting_for(ASKS[who]):
        with pytest.raises(Refused, match="draws nothing"):
            DRAWS[draw](off, GRID)
        for spec, told in ((replace(GRID, seeds=tuple(range(25))), "25 cells"), (replace(GRID, samplings=(Sampling(31),)), "31 denoising")):
            with pytest.raises(BadInput, match=told):
                DRAWS[draw](limited, spec)
        limited.require_drawing(GRID)
    assert not off.jobs.records() and not limited.jobs.records()


def test_where_a_token_says_who_the_owner_is_only_the_owner_draws(tmp_path: Path) -> None:
    bench = Workbench(Settings(tmp_path / "home", read_only=True, open_reading=True, token="secret"))
    with acting_for(ASKS["whoever comes"]), pytest.raises(Refused, match="only the owner"):
        bench.require_drawing(GRID)
    with acting_for(ASKS["who uses this computer"]):
        bench.require_drawing(GRID)


def test_prompts_are_not_remembered_and_runs_are_shown(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    bench = Workbench(Settings(tmp_path / "home", (made.outputs,), (made.bases,), read_only=True))
    run = bench.find(RUN)[0]
    bench.remember_prompts(run, ["a shoe"])
    assert bench.last_prompts(run) == () and bench.curves(run).curves and bench.show(f"{RUN}@500")["forms"]


@pytest.fixture
def server(demo_home: Path) -> Iterator[Server]:
    yield from start_server(demo_home, "serve", "--port", "0", "--no-drawing")


def test_a_server_without_drawing_lists_and_does_not_draw(server: Server) -> None:
    status, models, _ = server.get("/api/models")
    assert status == 200 and models["models"]
    status, told, _ = server.post("/api/generate", {"model_name": f"{FULL}/checkpoint-500", "prompt": "x", "num_inference_steps": 1})
    assert status == 409 and "read-only" in told["detail"]["error"]
