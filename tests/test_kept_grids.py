"""Grids that were drawn before, as they are listed to be shown again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cmp.core.grids import Cell, GridSpec, Prompt, Tile
from cmp.core.orders import grid_to_json, run_reference
from cmp.jobs import Job
from cmp.ui.earlier_grids import earlier_choices
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for
from cmp.workbench.kept_grids import kept_grids
from tests.support import bench_of, origin_run

RUN = "lora_casual_shoes"


def drawn(bench: Workbench, spec: GridSpec, *, reused: bool = False, all_of_it: bool = True) -> Job:
    """A grid's job that is over, without a model: its tiles are said to be there."""
    run = bench.library().run(RUN)

    def work() -> Iterator[Tile]:
        cells: tuple[Cell, ...] = spec.cells() if all_of_it else spec.cells()[:1]
        yield from (Tile(cell, "k", Path(__file__), reused) for cell in cells)

    order = {"grid": grid_to_json(spec), "runs": [run_reference(run)], "ray": None, "alpha": None, "base": None}
    for _ in bench.jobs.follow("grid", "t", spec.size, work, spec, order):
        pass
    return bench.jobs.all()[-1]


def test_the_newest_come_first_each_once_and_only_what_can_be_shown(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    spec = GridSpec((None, *bench.library().run(RUN).checkpoints[:1]), (Prompt("a shoe"),), (1,), title="One")
    first, other = drawn(bench, spec), drawn(bench, replace(spec, title="", prompts=(Prompt("a hat"), Prompt("b"))))
    again = drawn(bench, spec, reused=True)
    assert [(one.id, one.title, one.cells) for one in kept_grids(bench)] == [(other.id, "“a hat” and 1 more", 4), (again.id, "One", 2)]
    assert kept_grids(bench)[1].made == first.made, "it was only looked at again"
    partly = drawn(bench, replace(spec, title="In part"), all_of_it=False)
    elsewhere = Workbench(bench.settings)
    assert partly.id in [one.id for one in kept_grids(bench)]
    assert [one.title for one in kept_grids(elsewhere)] == ["“a hat” and 1 more", "One"], "all its pictures would have to be there"


def test_visitors_are_told_of_the_runs_that_are_shown_and_of_no_folder(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    drawn(bench, GridSpec(bench.library().run(RUN).checkpoints[:1], (Prompt("a shoe"),), (1,), title="One"))
    ((label, _),) = earlier_choices(bench)
    assert label.startswith(f"One · {RUN} · 1 cell · today ")
    stranger = Workbench(replace(bench.settings, runs=(tmp_path / "elsewhere",)))
    assert len(earlier_choices(stranger)) == 1
    with acting_for(Caller(owner=False, address="x")):
        assert len(earlier_choices(bench)) == 1 and earlier_choices(stranger) == []
