"""A grid that is drawn, in words and as the matrix is fed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmp.core.grid_axes import row_at
from cmp.core.grids import Cell, Fault, GridPlan, GridSpec, Prompt, Sampling, Tile
from cmp.core.matrices import grid_matrix
from cmp.core.progress import Progress
from cmp.core.rerolling import row_of
from cmp.jobs import Job
from cmp.ui.grid_jobs import Earlier, controls_of, grid_status, grid_value, plan_text, spec_of, stamp_of
from tests.support import bench_of, origin_run

RUN = "lora_casual_shoes"


def prepared(tmp_path: Path) -> tuple:
    bench = bench_of(origin_run(tmp_path))
    found = bench.library().run(RUN).checkpoints
    spec = GridSpec((None, *found[:2]), (Prompt("a"), Prompt("b")), (1,), mode="fast", preview=True)
    return bench, spec, Job("grid-1", "t", "grid", spec.size, spec, state="running")


def tile(cell: Cell, **more: object) -> Tile:
    return Tile(cell, f"key of {cell.prompt.text}", Path(__file__), **{"seconds": 2.0, **more})


def test_a_preview_is_marked_and_counts_only_once_it_is_replaced(tmp_path: Path) -> None:
    bench, spec, job = prepared(tmp_path)
    first, second = spec.cells()[:2]
    job.items += [tile(first, preview=True), tile(second, preview=True)]
    job.progress = Progress(2, 12, "denoising 5/6")
    value = grid_value(bench, job)
    assert value["done"] == 0 and [cell.get("mark") for cell in value["cells"]] == ["preview"] * 2 + [None] * 4
    assert grid_status(bench, job)[0] == "0 of 6 · preview of step 500: denoising 5/6"
    job.items.append(tile(first))
    value = grid_value(bench, job)
    assert value["done"] == 1 and [cell.get("mark") for cell in value["cells"] if cell["state"] == "done"] == [None, "preview"]


def labels(value: dict[str, Any], key: str) -> list[str]:
    return [one["label"] for axis in value["axes"] if axis["key"] == key for one in axis["values"]]


def test_what_another_run_drew_at_the_same_step_is_not_shown(tmp_path: Path) -> None:
    bench, spec, job = prepared(tmp_path)
    strange = [replace(cell, checkpoint=cell.checkpoint and replace(cell.checkpoint, run_id="other")) for cell in spec.cells()]
    value = grid_value(bench, job, [tile(cell) for cell in strange])
    assert [cell["at"][0] for cell in value["cells"] if cell["state"] == "done"] == [0, 0]  # the base model's alone


def test_a_row_is_found_by_what_the_matrix_tells_of_it(tmp_path: Path) -> None:
    _, spec, _ = prepared(tmp_path)
    name = lambda c: (c.key if c else "base model", "")  # noqa: E731
    value = grid_matrix(spec, [], name, working=False)
    cell = value["cells"][-1]
    at = {axis["key"]: None if i is None else axis["values"][i]["key"] for axis, i in zip(value["axes"], cell["at"], strict=True)}
    assert row_at(spec.cells(), name, at) == row_of(spec.cells()[-1]) and row_at(spec.cells(), name, at | {"seed": "99"}) is None


def test_progress_tells_what_is_left_and_the_end_how_it_went(tmp_path: Path) -> None:
    bench, spec, job = prepared(tmp_path)
    cells = spec.cells()
    job.items += [tile(cells[0], reused=True, seconds=None), tile(cells[1]), tile(cells[2])]
    job.progress = Progress(3, 6, "denoising 5/12")
    assert grid_status(bench, job)[0] == "3 of 6 · 6 s left · preview of step 500: denoising 5/12"
    job.items += [tile(cells[3]), tile(cells[4]), Tile(cells[5], "", fault=Fault("no alpha", "Give it: --alpha X."))]
    job.state = "done"
    text, ask = grid_status(bench, job)
    assert text.startswith("done: 5 of 6 cells drawn, 1 of them earlier\n1 could not be drawn: no alpha") and ask


def test_buttons_are_of_use_only_where_they_mean_something(tmp_path: Path) -> None:
    _, _, job = prepared(tmp_path)
    assert controls_of(None) == ("Pause", False, False) and controls_of(job) == ("Pause", True, True)
    job.pausing = True
    assert controls_of(job) == ("Pause", False, True)
    job.pausing, job.state = False, "paused"
    assert controls_of(job) == ("Resume", True, True)
    job.cancelled.set()
    assert controls_of(job) == ("Pause", False, False)


def test_what_an_earlier_grid_showed_stays_in_sight_until_this_one_is_over(tmp_path: Path) -> None:
    bench, spec, before = prepared(tmp_path)
    before.items += [tile(cell) for cell in spec.cells()]
    before.state = "done"
    new = Job("grid-2", "t", "grid", 6, spec, state="running")
    earlier = Earlier()
    earlier.put(new, before)
    value = grid_value(bench, new, earlier.of(new))
    assert {cell["state"] for cell in value["cells"]} == {"done"} and value["done"] == 0
    new.items.append(Tile(spec.cells()[0], "", fault=Fault("gone")))
    assert [c["state"] for c in grid_value(bench, new, earlier.of(new))["cells"]].count("fault") == 1
    new.state = "cancelled"
    states = [cell["state"] for cell in grid_value(bench, new, earlier.of(new))["cells"]]
    assert earlier.of(new) == () and states == ["fault"] + ["waiting"] * 5


def test_a_picture_that_was_deleted_to_make_room_is_told_as_such(tmp_path: Path) -> None:
    bench, spec, job = prepared(tmp_path)
    job.items += [tile(cell) for cell in spec.cells()[:5]] + [replace(tile(spec.cells()[5]), path=tmp_path / "gone.png")]
    job.state = "done"
    told = [cell.get("fault") for cell in grid_value(bench, job)["cells"]]
    assert told[:5] == [None] * 5 and "deleted to make room" in told[5]


def test_a_plan_tells_counts_time_size_and_what_stands_against_which_checkpoint(tmp_path: Path) -> None:
    bench, spec, _ = prepared(tmp_path)
    assert plan_text(bench, spec, None).startswith("6 cells · ")
    assert plan_text(bench, spec, GridPlan(6, 4, 2, (), 40.0, 2_000_000)) == "6 cells: 4 new, 2 drawn earlier · about 40 s · 2.0 MB"
    assert plan_text(bench, spec, GridPlan(6, 6, 0, ())) == "6 cells: 6 new · time not known yet"
    faults = tuple((cell, Fault("the file is damaged", "Copy it again.")) for cell in spec.cells() if cell.checkpoint)
    told = plan_text(bench, spec, GridPlan(6, 2, 0, faults))
    assert told.splitlines()[1:] == ["step 500, step 1000: the file is damaged. Copy it again."] and "4 cannot be drawn" in told


def test_a_watched_run_shows_the_columns_that_it_has_drawn(tmp_path: Path) -> None:
    bench, spec, _ = prepared(tmp_path)
    job = Job("watch-1", "watch r", "watch", 0, GridSpec((None,), spec.prompts, (1,)), state="running")
    assert spec_of(job) is None and "no picture yet" in grid_value(bench, job)["note"]
    before = stamp_of(job)
    job.items += [tile(cell) for cell in spec.cells() if cell.checkpoint]
    assert labels(grid_value(bench, job), "checkpoint") == ["step 500", "step 1000"] and stamp_of(job) != before


def test_labels_name_what_varies_as_a1111_does(tmp_path: Path) -> None:
    _, spec, _ = prepared(tmp_path)
    samplings = (Sampling(20, 7.0, scheduler="DDIM"), Sampling(20, 8.5, scheduler="Euler"))
    several = GridSpec(spec.checkpoints, (Prompt("a", name="short"),), (1,), (0.5, 1.0), samplings)
    value = grid_matrix(several, [], lambda c: (c.key if c else "base model", ""), working=False)
    assert labels(value, "prompt") == ["short"] and labels(value, "seed") == ["seed 1"]
    assert labels(value, "CFG Scale") == ["CFG Scale: 7.0", "CFG Scale: 8.5"]
    assert labels(value, "Sampler") == [
        "Sampler: DDIM",
        "Sampler: Euler",
    ]
    assert labels(value, "Strength") == ["Strength: 0.5", "Strength: 1"]
    strength = [axis["key"] for axis in value["axes"]].index("Strength")
    assert [cell["at"][strength] for cell in value["cells"]][:3] == [None, None, 0]  # the base model has none


def test_a_grid_behind_others_tells_its_place_in_the_queue(tmp_path: Path) -> None:
    bench, _, _ = prepared(tmp_path)
    go_on = threading.Event()

    def work() -> Iterator[Progress]:
        go_on.wait(60)
        yield Progress(0, 1, "denoising 1/2")

    jobs = [bench.jobs.start("grid", "t", 1, work) for _ in range(3)]
    try:
        assert [grid_status(bench, job)[0].partition(" ·")[0] for job in jobs[1:]] == [
            "waiting: number 1 in the queue",
            "waiting: number 2 in the queue",
        ]
    finally:
        for job in jobs:
            bench.jobs.cancel(job.id)
        go_on.set()


def test_of_several_runs_the_base_column_says_whose_base_it_is(tmp_path: Path) -> None:
    """A Flux picture beside the steps of an SD run would be taken for what they began from."""
    bench, spec, job = prepared(tmp_path)
    strange = replace(spec.checkpoints[1], run_id="other")
    job.subject = replace(spec, checkpoints=(None, spec.checkpoints[2], strange))
    job.items += [
        tile(cell, base={"id": "flux-tiny", "proof": "user", "source": "recorded"})
        for cell in job.subject.cells()
        if cell.checkpoint is None
    ]
    value = grid_value(bench, job)
    run, checkpoints = value["axes"][:2]
    assert run["key"] == "run" and [cell["at"][0] for cell in value["cells"] if cell["state"] == "done"] == [None, None]
    assert {one["label"]: one["sub"] for one in checkpoints["values"]}["base model"] == "flux-tiny"
    of_one = grid_value(bench, Job("grid-2", "t", "grid", spec.size, spec, state="running", items=list(job.items)))
    (alone, *_) = of_one["axes"][0]["values"]
    assert (alone["label"], alone["sub"]) == ("base model", "")
