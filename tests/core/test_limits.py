"""What strangers may ask for: sizes, and how often."""

from __future__ import annotations

import pytest

from cmp.core.grids import GridSpec, Prompt, Sampling
from cmp.core.limits import Limits, Rates
from cmp.core.prompts import parse_prompts, search_replace
from cmp.errors import BadInput


def spec(seeds: int = 1, prompt: str = "x", **sampling: int) -> GridSpec:
    return GridSpec((None,), (Prompt(prompt),), tuple(range(seeds)), samplings=(Sampling(**{"steps": 10} | sampling),))  # type: ignore[arg-type]


def test_a_small_grid_is_within_the_limits() -> None:
    Limits().check(spec(24, width=768, height=768))


@pytest.mark.parametrize(
    ("grid", "told"),
    [(spec(25), "25 cells"), (spec(steps=31), "31 denoising steps"), (spec(width=1024, height=1024), "1048576 pixels"),
     (spec(height=1024), "pixels"), (spec(prompt="x" * 1001), "1001 characters")],
)  # fmt: skip
def test_what_is_larger_is_refused_and_says_by_what(grid: GridSpec, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Limits().check(grid)


@pytest.mark.parametrize(
    ("line", "told"), [("x --s 500", "500 denoising steps"), ("x --w 2048 --h 2048", "4194304 pixels"), ("x --h 1024", "pixels")]
)
def test_what_a_prompt_says_for_itself_is_within_the_limits_too(line: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Limits().check(GridSpec((None,), parse_prompts(f"y\n{line}")))
    Limits().check(GridSpec((None,), parse_prompts("x --s 30 --w 768 --h 768"), samplings=(Sampling(steps=31),)))


def test_a_prompt_is_as_long_as_it_is_after_search_and_replace() -> None:
    with pytest.raises(BadInput, match="1099 characters"):
        Limits().check(GridSpec((None,), search_replace((Prompt("a" + "x" * 999),), "a, " + "b" * 100)))


def test_a_client_has_its_turns_and_then_one_in_so_many_seconds() -> None:
    rates = Rates(3, 10.0)
    assert [rates.take("a", 0.0) for _ in range(3)] == [0.0] * 3
    assert rates.take("a", 0.0) == pytest.approx(10) and rates.take("a", 4.0) == pytest.approx(6)
    assert rates.take("b", 4.0) == 0.0, "others have turns of their own"
    assert rates.take("a", 10.0) == 0.0 and rates.take("a", 10.0) > 0
    assert [rates.take("a", 1000.0) for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(10)], "no more than at first are saved up"


def test_ten_thousand_clients_fill_no_memory_and_do_not_free_the_one_that_asks_all_the_time() -> None:
    rates = Rates(1, 1e6)
    assert rates.take("greedy", 0.0) == 0.0
    for number in range(30_000):
        rates.take(f"client {number}", 1.0)
        if number % 1000 == 0:
            assert rates.take("greedy", 1.0) > 0
    assert len(rates._left) <= 10_000


def test_looking_how_long_to_wait_takes_no_turn() -> None:
    rates = Rates(1, 10.0)
    assert rates.wait("a", 0.0) == rates.wait("a", 0.0) == 0.0 and rates.take("a", 0.0) == 0.0
    assert rates.wait("a", 4.0) == rates.take("a", 4.0) == 6.0 and rates.wait("b", 4.0) == 0.0 and rates.wait("a", 10.0) == 0.0
