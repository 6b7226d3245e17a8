"""Stars that are put on from the grid."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.errors import BadInput, NotFound
from cmp.ui.starring import star
from tests.support import bench_of, origin_run

RUN = "lora_casual_shoes"


def test_a_star_goes_to_the_checkpoint_of_the_cell_in_grids_of_one_run_and_of_several(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    run = bench.library().run(RUN)
    star(bench, {"at": {"checkpoint": f"{RUN}@500", "seed": "1"}, "on": True, "note": "hands"})
    star(bench, {"at": {"run": RUN, "checkpoint": "1000"}, "on": True})
    assert bench.starred(run) == {f"{RUN}@500": "hands", f"{RUN}@1000": ""}
    assert bench.heads([f"{RUN}@500"])[f"{RUN}@500"]["note"] == "hands"
    star(bench, {"at": {"checkpoint": f"{RUN}@500"}, "on": False})
    assert list(bench.starred(run)) == [f"{RUN}@1000"]


def test_what_is_no_checkpoint_takes_no_star(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    for at in ({}, {"checkpoint": "base model"}):
        with pytest.raises(BadInput):
            star(bench, {"at": at, "on": True})
    with pytest.raises(NotFound):
        star(bench, {"at": {"checkpoint": "/etc/passwd"}, "on": True})
