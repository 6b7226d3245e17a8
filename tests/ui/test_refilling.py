"""What a drawn grid fills into the form: drawn again from it, it is the same grid."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.core.grids import GridSpec, Prompt, Sampling
from cmp.ui.filling import Filled, read_grid
from cmp.ui.refilling import fields_of
from tests.support import bench_of, origin_run

RUN = "lora_casual_shoes"


@pytest.mark.parametrize(
    "samplings",
    [
        (Sampling(7, 2.5, scheduler="DDIM"),),
        (Sampling(7, 2.0), Sampling(9, 2.0), Sampling(7, 4.0), Sampling(9, 4.0)),
        (Sampling(width=64, height=128, clip_skip=2),),
    ],
)
def test_the_form_says_the_grid_that_was_drawn(tmp_path: Path, samplings: tuple[Sampling, ...]) -> None:
    bench = bench_of(origin_run(tmp_path))
    checkpoint = bench.library().run(RUN).checkpoints[0]
    spec = GridSpec((checkpoint,), (Prompt("a", "bad || worse"),), (3,), (0.5, 1.0), samplings, title="T", mode="exact", preview=True)
    again, _, _ = read_grid(bench, Filled([checkpoint.id], "a", "3", **fields_of(spec)))
    assert again == spec


def test_what_the_form_cannot_say_is_left_as_it_is() -> None:
    fields = fields_of(GridSpec((None,), (Prompt("a", "x"), Prompt("b", "y")), samplings=(Sampling(), Sampling(width=64, height=64))))
    assert "size" not in fields and "negative" not in fields
