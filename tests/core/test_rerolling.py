"""A grid of which one row is drawn again with another seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.core.grids import GridSpec, Own, Prompt, Sampling
from cmp.core.orders import grid_from_json, grid_to_json
from cmp.core.rerolling import common_seeds, rows_of, seeds_by_prompt, with_new_seed
from cmp.core.runs import Checkpoint
from cmp.errors import NotFound

STEPS = tuple(Checkpoint("r", str(step), Path(f"/r/{step}"), "diffusers-lora", "lora", step) for step in (1, 2))
SIZES = (Sampling(8), Sampling(9, width=64, height=64))
SPEC = GridSpec((None, *STEPS), (Prompt("a", "n"), Prompt("b", own=Own(steps=5))), (1, 2), samplings=SIZES)


def pictures(spec: GridSpec) -> dict[tuple[object, ...], str]:
    """Each cell's key, by what stands beside and above it."""
    return {(c.checkpoint, c.prompt.text, c.seed, c.sampling): c.key("w", {}) for c in spec.cells()}


def test_a_row_gets_the_seed_and_no_other_picture_changes() -> None:
    row = rows_of(SPEC)[1]
    after = with_new_seed(SPEC, row.key, 77, beside=False)
    before, now = pictures(SPEC), pictures(after)
    gone, new = before.keys() - now.keys(), now.keys() - before.keys()
    assert {key[1:] for key in gone} == {(row.text, row.seed, row.sampling)} and {key[1:] for key in new} == {(row.text, 77, row.sampling)}
    assert len(gone) == len(new) == 3, "in every column"
    assert all(now[key] == picture for key, picture in before.items() if key in now)
    places = [row.key for row in rows_of(SPEC)]
    assert [row.key for row in rows_of(after)][2:] == places[2:] and rows_of(after)[1].seed == 77


def test_beside_a_row_another_stands_right_below_it() -> None:
    rows = rows_of(SPEC)
    after = rows_of(with_new_seed(SPEC, rows[2].key, 77, beside=True))
    assert [row.key for row in after if row.seed != 77] == [row.key for row in rows]
    assert after[3].seed == 77 and after[2].key == rows[2].key


def test_it_can_be_done_again_and_kept_as_an_order() -> None:
    once = with_new_seed(SPEC, rows_of(SPEC)[0].key, 70, beside=True)
    twice = with_new_seed(once, rows_of(once)[1].key, 71, beside=False)
    assert [row.seed for row in rows_of(twice)][:2] == [1, 71]
    found = grid_from_json(grid_to_json(twice), lambda told: next(c for c in STEPS if c.id == told["id"]))
    assert found == twice


def test_rows_of_several_vaes_go_together() -> None:
    spec = GridSpec(STEPS, (Prompt("a"),), (1,), samplings=(Sampling(), Sampling(vae="/v")))
    after = rows_of(with_new_seed(spec, rows_of(spec)[0].key, 5, beside=False))
    assert [(row.seed, row.sampling.vae) for row in after] == [(5, None), (5, "/v")]


def test_a_row_that_is_not_there_is_refused() -> None:
    with pytest.raises(NotFound, match="not in the grid"):
        with_new_seed(SPEC, "else", 1, beside=False)


def test_seeds_are_common_only_where_every_prompt_has_them() -> None:
    assert common_seeds(rows_of(SPEC)) == (1, 2)
    spec = GridSpec(STEPS, (Prompt("a"), Prompt("b")))
    uneven = rows_of(with_new_seed(spec, rows_of(spec)[0].key, 9, beside=True))
    assert common_seeds(uneven) is None and seeds_by_prompt(uneven) == {"a": [0, 9], "b": [0]}
