"""Grids: limits, the order of drawing, and keys that change with all that changes the picture and with nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from cmp.core.grids import MOST_CELLS, Cell, Fault, GridSpec, Own, Prompt, Sampling, Tile
from cmp.core.infotext import to_infotext
from cmp.core.runs import Checkpoint
from cmp.errors import BadInput

FIRST = Checkpoint("run", "500", Path("/r/500"), "accelerate-peft", "lora", step=500)
SECOND = Checkpoint("other", "final", Path("/o/final"), "peft-adapter", "lora")
CELL = Cell(FIRST, Prompt("a shoe", "blurry"), 7, 1.0, Sampling())
AROUND = {"base": "b" * 64, "torch": "2.8", "device": "cpu", "dtype": "float32", "mode": "exact"}
KEY = CELL.key("w" * 64, AROUND)


# keys


def test_a_key_is_the_same_in_every_process_and_version_of_this_code() -> None:
    """Cells already drawn would be drawn again if this changed: change it knowingly."""
    assert KEY == "c32296a7f99fe39a1fed0b2b643360e3c4d3c34ebf03e469cd5b314a414c36b9"


def test_a_key_does_not_depend_on_what_the_checkpoint_is_called_or_where_it_lies() -> None:
    assert replace(CELL, checkpoint=SECOND).key("w" * 64, AROUND) == KEY


def test_a_key_does_not_depend_on_the_order_of_circumstances_or_on_how_numbers_are_written() -> None:
    assert CELL.key("w" * 64, dict(reversed(AROUND.items()))) == KEY
    assert replace(CELL, strength=1).key("w" * 64, AROUND) == KEY
    whole, fraction = replace(CELL, sampling=Sampling(guidance=7)), replace(CELL, sampling=Sampling(guidance=7.0))
    assert whole.key("w", AROUND) == fraction.key("w", AROUND)
    assert replace(CELL, strength=-0.0).key("w", AROUND) == replace(CELL, strength=0.0).key("w", AROUND)


@pytest.mark.parametrize(
    "cell",
    [
        replace(CELL, prompt=Prompt("a shoe.", "blurry")),
        replace(CELL, prompt=Prompt("a shoe", "")),
        replace(CELL, prompt=Prompt("a shoeblurry", "")),
        replace(CELL, prompt=Prompt("blurry", "a shoe")),
        replace(CELL, seed=8),
        replace(CELL, strength=0.5),
        replace(CELL, strength=-1.0),
        replace(CELL, checkpoint=None),
        replace(CELL, sampling=Sampling(steps=13)),
        replace(CELL, sampling=Sampling(guidance=7.51)),
        replace(CELL, sampling=Sampling(width=64)),
        replace(CELL, sampling=Sampling(height=64)),
        replace(CELL, sampling=Sampling(scheduler="DDIM")),
    ],
)
def test_a_key_changes_with_everything_that_changes_the_picture(cell: Cell) -> None:
    assert cell.key("w" * 64, AROUND) != KEY


@pytest.mark.parametrize("name", sorted(AROUND))
def test_a_key_changes_with_every_circumstance(name: str) -> None:
    assert CELL.key("w" * 64, AROUND | {name: "x"}) != KEY


def test_a_key_changes_with_the_weights_that_were_loaded() -> None:
    assert len({KEY, CELL.key("v" * 64, AROUND), CELL.key(None, AROUND)}) == 3


def test_the_base_models_picture_is_the_same_at_every_strength() -> None:
    base = replace(CELL, checkpoint=None)
    assert base.key(None, AROUND) == replace(base, strength=0.5).key(None, AROUND)


# order and limits


def grid(**more: object) -> GridSpec:
    values: dict[str, object] = {"checkpoints": (None, FIRST, SECOND), "prompts": (Prompt("a"), Prompt("b")), "seeds": (1, 2)}
    return GridSpec(**(values | more))  # type: ignore[arg-type]


def test_every_checkpoint_is_drawn_with_the_first_seed_before_any_with_the_second() -> None:
    seeds = [cell.seed for cell in grid().cells()]
    assert seeds == [1] * 6 + [2] * 6


def test_within_a_pass_a_checkpoint_is_put_on_once() -> None:
    order = [cell.checkpoint for cell in grid(strengths=(0.5, 1.0)).cells() if cell.seed == 1]
    assert order == [None] * 2 + [FIRST] * 4 + [SECOND] * 4


def test_the_size_is_the_number_of_cells_and_the_base_has_one_strength() -> None:
    for spec in (grid(), grid(strengths=(0.5, 1.0)), grid(checkpoints=(FIRST,)), grid(samplings=(Sampling(), Sampling(steps=5)))):
        assert spec.size == len(spec.cells()) == len(set(spec.cells()))


def test_a_prompt_with_values_of_its_own_is_drawn_with_them_and_once() -> None:
    own = Prompt("b", own=Own(seed=9, steps=30, width=64))
    spec = grid(prompts=(Prompt("a"), own), samplings=(Sampling(5), Sampling(6)))
    cells = spec.cells()
    assert spec.size == len(cells) == 3 * (2 * 2 + 1)
    assert {(c.seed, c.sampling) for c in cells if c.prompt == own} == {(9, Sampling(30, width=64))}
    assert {(c.seed, c.sampling.steps) for c in cells if c.prompt.text == "a"} == {(1, 5), (1, 6), (2, 5), (2, 6)}
    assert cells[0].key("w", {}) == replace(cells[0], prompt=Prompt("a", own=Own(seed=1))).key("w", {})


@pytest.mark.parametrize("values", [{"seed": -1}, {"seed": 2**63}, {"steps": 0}, {"width": 7}, {"scheduler": "x"}, {"guidance": -1}])
def test_a_prompts_own_value_that_cannot_be_drawn_is_refused_when_made(values: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(values))):
        Own(**values)


@pytest.mark.parametrize("axis", ["checkpoints", "prompts", "seeds", "strengths", "samplings"])
def test_an_empty_axis_is_refused_by_name(axis: str) -> None:
    with pytest.raises(BadInput, match=axis.removesuffix("s")):
        grid(**{axis: ()})


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(BadInput, match="seed"):
        grid(seeds=(0, seed))


@pytest.mark.parametrize("strength", [math.nan, math.inf, 10.5, -11])
def test_a_strength_without_meaning_is_refused(strength: float) -> None:
    with pytest.raises(BadInput, match="strength"):
        grid(strengths=(strength,))


def test_more_cells_than_anyone_meant_are_refused_with_their_number() -> None:
    assert grid(seeds=tuple(range(MOST_CELLS // 6))).size <= MOST_CELLS
    with pytest.raises(BadInput, match="4098"):
        grid(seeds=tuple(range(683)))


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0}, {"steps": 1001}, {"guidance": math.nan}, {"guidance": -0.1}, {"guidance": 101}, {"width": 0}, {"width": 65},
        {"height": 4104}, {"height": -8}, {"scheduler": "nonsense"},
    ],
)  # fmt: skip
def test_a_sampling_that_cannot_be_drawn_is_refused_when_made(values: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(values))):
        Sampling(**values)


def test_a_prompt_of_any_length_that_people_write_is_taken_and_a_book_is_not() -> None:
    assert Prompt("", "")
    for prompt in (("x" * 4001, ""), ("", "x" * 4001)):
        with pytest.raises(BadInput, match="4001"):
            Prompt(*prompt)


# what is told of a cell


def test_a_tile_tells_the_contracts_fields_and_none_for_the_bases_checkpoint() -> None:
    fields = "checkpoint step prompt negative seed strength sampling stack mode preview base path key reused seconds fault"
    told = Tile(CELL, KEY, Path("/c.png"), seconds=0.5, base={"id": "x", "proof": "tensors"}).as_json()
    assert set(told) == {*fields.split(), "drawn"}
    assert (told["checkpoint"], told["step"], told["path"]) == ("run@500", 500, "/c.png")
    base = Tile(replace(CELL, checkpoint=None), "", fault=Fault("no base", "Give one.", 3)).as_json()
    assert (base["checkpoint"], base["step"], base["strength"], base["path"]) == (None, None, None, None)
    assert base["fault"] == {"error": "no base", "hint": "Give one.", "code": 3}


def test_the_settings_text_has_a1111s_three_parts_and_quotes_what_would_break_them() -> None:
    text = to_infotext(CELL, (64, 48), 'tiny, "sd"', "d" * 64, "0.1")
    prompt, negative, pairs = text.split("\n")
    assert (prompt, negative) == ("a shoe", "Negative prompt: blurry")
    assert 'Model: "tiny, \\"sd\\""' in pairs and "Size: 64x48" in pairs and "Checkpoint: run@500" in pairs
    assert "Weights digest: dddddddddddddddd, " in pairs
    assert "Strength" not in to_infotext(replace(CELL, checkpoint=None), (8, 8), "b", None, "0")
