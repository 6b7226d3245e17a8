"""A run in a folder whose names must not get out, with pictures of its checkpoints that are there though nothing has drawn them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from cmp.core.grids import Cell, GridSpec, Prompt, Sampling, Tile
from cmp.core.infotext import to_infotext
from cmp.core.progress import run_through
from cmp.core.publishing import SharePlan, Wanted
from cmp.core.votes import Vote
from cmp.disk.votes import Votes
from cmp.pictures.files import save_png
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import Training, origin_run, write_log

RUN = "lora_casual_shoes"
HOSTILE = "--- a ${shoe} <img src=x onerror='window.pwned=1'> | `**bold**` [x](javascript:alert) </script>"
STEPS = (500, 1000)
SECRET = "janedoe-secret"


@dataclass(frozen=True)
class Given:
    made: Training
    bench: Workbench
    home: Path


def given_run(folder: Path, *, held_out: bool = True, side: int = 300) -> Given:
    """Two checkpoints with two prompts and two seeds each, a held-out loss by which step 500 is better, votes, samples of the trainer."""
    place = folder / SECRET
    made = origin_run(place, STEPS, final=False)
    if held_out:
        losses = [(step, 0.2 if step <= 500 else 0.9) for step in range(10, 1001, 10)]
        losses = [(step, loss + 0.01 * (step // 10 % 3)) for step, loss in losses]
        write_log(place / "logs" / f"train_{RUN}" / "held", losses, "val/loss", output_dir=f"../outputs/{RUN}", lora_rank=8, lora_alpha=16)
    bench = Workbench(Settings(place / "cmp-home", (made.outputs,), (made.bases,)))
    run, _ = bench.find(RUN)
    draw(bench, Path(made.base), side)
    assert len(run.checkpoints) == len(STEPS)
    return Given(made, bench, place)


def draw(bench: Workbench, base: Path, side: int) -> None:
    run, _ = bench.find(RUN)
    spec = GridSpec(run.checkpoints, (Prompt("a red shoe"), Prompt(HOSTILE)), (0, 1), samplings=(Sampling(steps=3),))
    for number, cell in enumerate(spec.cells()):
        assert cell.checkpoint
        weights = bench.ready(run, cell.checkpoint).digest(bench.store)
        _save(bench, cell, f"{number:064x}", weights, base, side)


def _save(bench: Workbench, cell: Cell, key: str, weights: str, base: Path, side: int) -> None:
    path = bench.store.cell_path(key)
    told: dict[str, Any] = Tile(cell, key, path, base={"id": str(base), "proof": "user"}).as_json() | {"weights": weights}
    colour = (20 + int(key, 16) * 29 % 200, 90, 140)
    save_png(Image.new("RGB", (side, side), colour), path, to_infotext(cell, (side, side), str(base), weights, "0"), told)


def vote(given: Given) -> None:
    run, _ = given.bench.find(RUN)
    cast = Vote(SECRET, "500", "1000", "left", "a red shoe", "", 0, "0", "1")
    Votes(given.bench.store).add(run.place, cast)


def plan_of(planning: Generator[Any, None, SharePlan]) -> SharePlan:
    return run_through(planning)


def written(given: Given, target: Path, name: str = RUN, **wanted: Any) -> SharePlan:
    """Plans and carries out; gives the plan."""
    with given.bench.shared(name, Wanted(target, **wanted)) as planning:
        plan = plan_of(planning)
        run_through(given.bench.share(plan))
    return plan
