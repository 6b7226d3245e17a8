"""A grid that was written down is the same grid again, and what is no grid is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cmp.core.grids import GridSpec, Prompt, Sampling, Stacked
from cmp.core.orders import checkpoint_reference, grid_from_json, grid_title, grid_to_json, pattern_from_json
from cmp.core.runs import Checkpoint
from cmp.core.work import JobRecord
from cmp.errors import BadInput

FIRST = Checkpoint("run", "500", Path("/r/500"), "accelerate-peft", "lora", step=500, file=Path("/r/500/model.safetensors"))
SECOND = Checkpoint("other", "final", Path("/o/caf\udce9"), "peft-adapter", "lora")
GRID = GridSpec(
    (None, FIRST, SECOND), (Prompt("a shoe"), Prompt("ü", "blurry", "short")), (1, 2**62), (0.5, 1.0),
    (Sampling(4, width=64, height=32), Sampling(vae="/v")), ((), (Stacked(SECOND, 0.25),)), "a title", "fast", True,
)  # fmt: skip


def find(told: object) -> Checkpoint:
    known = {json.dumps(checkpoint_reference(c)): c for c in (FIRST, SECOND)}
    return known[json.dumps(told)]


def test_a_grid_is_the_same_after_it_was_written_and_read() -> None:
    assert grid_from_json(json.loads(json.dumps(grid_to_json(GRID))), find) == GRID


def test_a_pattern_has_all_of_a_grid_but_its_checkpoints() -> None:
    assert pattern_from_json(grid_to_json(GRID), find) == replace(GRID, checkpoints=(None,))


def test_plain_prompts_are_enough_and_whole_numbers_are_numbers() -> None:
    read = pattern_from_json({"prompts": ["a"], "strengths": [1], "samplings": [{"guidance": 4}]}, find)
    assert read == GridSpec((None,), (Prompt("a"),), samplings=(Sampling(guidance=4.0),))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ([], "a JSON object is wanted"),
        ({}, "no 'prompts'"),
        ({"prompts": "a"}, "prompts is 'a'"),
        ({"prompts": [7]}, "prompts is 7"),
        ({"prompts": [{"text": "a", "weight": 1}]}, "has 'weight'"),
        ({"prompts": ["a"], "seed": [1]}, "has 'seed'"),
        ({"prompts": ["a"], "seeds": [True]}, "seeds is True"),
        ({"prompts": ["a"], "seeds": [1.5]}, "seeds is 1.5"),
        ({"prompts": ["a"], "seeds": [-1]}, "seed is -1"),
        ({"prompts": ["a"], "samplings": [{"steps": "4"}]}, "steps is '4'"),
        ({"prompts": ["a"], "samplings": [{"scheduler": "best"}]}, "scheduler is 'best'"),
        ({"prompts": ["a"], "mode": "quick"}, "'quick'"),
        ({"prompts": ["a"], "stacks": [["x"]]}, "stacks is 'x'"),
        ({"prompts": ["a"], "stacks": [[{"checkpoint": "x"}]]}, "checkpoint is 'x'"),
    ],
)
def test_what_is_no_grid_is_refused_and_quoted(told: object, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        pattern_from_json(json.loads(json.dumps(told)), find)
    assert says in refused.value.message


def test_the_time_that_is_left_counts_only_what_really_took_time() -> None:
    record = JobRecord("grid-1", "grid", "", 10, "running", done=6, reused=4, worked=8.0)
    assert record.remaining == 16.0  # two cells took 8 s, four are left
    assert replace(record, done=4).remaining is None, "all that is done was there already"
    assert replace(record, state="done").remaining is None and replace(record, total=0).remaining is None


@pytest.mark.parametrize(
    ("spec", "runs", "told"),
    [
        (GridSpec((FIRST,), (Prompt("a shoe"),)), ["run"], "1 cell of run, “a shoe”"),
        (GridSpec((FIRST,), (Prompt("a shoe"), Prompt("b")), (1, 2)), ["run", "run"], "4 cells of run, “a shoe” and 1 more"),
        (GridSpec((None,), (Prompt("x" * 99, name="red"),), title="T"), ["a", "b", "c", "d"], "T: 1 cell of a, b, c …, “red”"),
    ],
)
def test_a_grid_among_many_is_known_by_its_runs_and_its_first_prompt(spec: GridSpec, runs: list[str], told: str) -> None:
    assert grid_title(spec, runs) == told
