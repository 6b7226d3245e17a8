"""How the cells of a grid are handed out to workers."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cmp.core.grids import Cell, GridSpec, Prompt, Sampling
from cmp.core.runs import Checkpoint
from cmp.core.shares import TRIES, Shares


def cells(columns: int, seeds: int, holds: str = "lora", samplings: int = 1) -> tuple[Cell, ...]:
    checkpoints = tuple(Checkpoint("run", str(step), Path("run"), "diffusers", holds, step) for step in range(columns))
    return GridSpec(checkpoints, (Prompt("a"),), tuple(range(seeds)), samplings=tuple(Sampling(n + 1) for n in range(samplings))).cells()


def waiting(wanted: tuple[Cell, ...]) -> Shares:
    shares = Shares()
    shares.add(wanted)
    return shares


@given(st.integers(1, 6), st.integers(1, 20), st.integers(1, 9), st.integers(1, 2), st.sampled_from(("lora", "full")))
def test_every_cell_is_handed_out_once_and_in_order(columns: int, seeds: int, workers: int, samplings: int, holds: str) -> None:
    wanted = cells(columns, seeds, holds, samplings)
    shares, taken = waiting(wanted), []
    while shares:
        taken += shares.take(workers)
    assert tuple(taken) == wanted


@given(st.integers(1, 120), st.integers(2, 9))
def test_no_worker_takes_more_than_half_of_its_share(seeds: int, workers: int) -> None:
    shares = waiting(cells(1, seeds))
    while before := len(shares):
        assert len(shares.take(workers)) <= max(1, min(16, before / workers / 2))


def test_a_share_has_one_kind_of_picture_only() -> None:
    shares = waiting(sorted_by_steps := tuple(sorted(cells(1, 40, samplings=2), key=lambda cell: cell.sampling.steps)))
    while shares:
        assert len({cell.sampling for cell in shares.take(1)}) == 1
    assert len(sorted_by_steps) == 80


def test_all_cells_of_a_full_fine_tune_go_to_one_worker_where_there_are_enough_for_all() -> None:
    shares = waiting(tuple(sorted(cells(4, 5, "full"), key=lambda cell: str(cell.checkpoint))))
    assert [len(shares.take(4)) for _ in range(2)] == [5, 4]


def test_what_a_lost_worker_had_comes_next_each_cell_alone_until_it_has_cost_too_many() -> None:
    wanted = cells(1, 64)
    shares = waiting(wanted)
    lost = shares.take(2)
    assert len(lost) > 2 and shares.give_back(lost) == [] and len(shares) == 64
    for cell in lost:
        assert shares.take(2) == [cell]
    for _ in range(TRIES - 2):
        assert shares.give_back(lost[:1]) == [] and shares.take(2) == lost[:1]
    assert shares.give_back(lost[:1]) == lost[:1] and len(shares) == 64 - len(lost)
    assert len(shares.take(2)) > 2
