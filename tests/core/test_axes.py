"""The axis syntax: every documented form, and no text that does anything but give values or be refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.axes import LONGEST, choose_checkpoints, parse_axis, parse_whole_axis
from cmp.core.runs import Checkpoint
from cmp.errors import BadInput


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("500", (500,)),
        ("500, 1000", (500, 1000)),
        (" 7 ,7, 3 ", (7, 3)),
        ("1-5", (1, 2, 3, 4, 5)),
        ("5-1", (5, 4, 3, 2, 1)),
        ("3-3", (3,)),
        ("1-5 (+2)", (1, 3, 5)),
        ("1-6(+2)", (1, 3, 5)),
        ("9-1 (-4)", (9, 5, 1)),
        ("1-10 [5]", (1, 3, 6, 8, 10)),
        ("0.0-1.0 [5]", (0, 0.25, 0.5, 0.75, 1)),
        ("1-9 [1]", (1,)),
        ("500, 1000, .., 3000", (500, 1000, 1500, 2000, 2500, 3000)),
        ("500, 1000, ..., 2000", (500, 1000, 1500, 2000)),
        ("500:3000:500", (500, 1000, 1500, 2000, 2500, 3000)),
        ("500:2800:500", (500, 1000, 1500, 2000, 2500)),
        ("-1:1:0.5", (-1, -0.5, 0, 0.5, 1)),
        ("0-0.3 (+0.1)", (0, 0.1, 0.2, 0.3)),
        ("-2--1", (-2, -1)),
        ("1-3, 10, 20-22", (1, 2, 3, 10, 20, 21, 22)),
    ],
)
def test_every_documented_form_means_what_it_says(text: str, values: tuple[float, ...]) -> None:
    assert parse_axis(text, "strength") == values


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ",", "1,", "a", "1-", "1--", "1-5 (2)", "1-5 (+0)", "5-1 (+1)", "1-5 [0]", "1-5 []", "..", "1, .., 5", "1, 2, ..",
        "1, 1, .., 5", "2, 1, .., 5", "1:5", "1:5:0", "5:1:1", "1:2:3:4", "٣", "1_000", "1e3", "0x10", "nan", "inf", "1.", ".5", "--1",
        "9" * 400, "1-" + "9" * 40 + " [3]", "1-5 [" + "9" * 5000 + "]",
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput) as fault:
        parse_axis(text, "seeds")
    assert "seeds" in fault.value.message


@pytest.mark.parametrize("text", ["1-999999999", "0:1:0.00001", "1-5 [999999999]", "1-9999, 20000-29999", "0, 1, .., 99999999"])
def test_a_slip_that_would_fill_the_memory_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"values"):
        parse_axis(text, "seeds")


def test_whole_values_stay_exact_up_to_the_largest_seed() -> None:
    largest = 2**63 - 1
    assert parse_whole_axis(f"{2**53 + 1}, {largest}", "seeds") == (2**53 + 1, largest)
    assert parse_whole_axis(f"{largest - 2}-{largest}", "seeds") == (largest - 2, largest - 1, largest)


def test_a_fraction_is_no_seed() -> None:
    with pytest.raises(BadInput, match=r"1\.5"):
        parse_whole_axis("1, 1.5", "seeds")


@given(st.text("0123456789-+.,:[]() x٣_e", max_size=20))
def test_any_text_gives_distinct_finite_values_or_bad_input(text: str) -> None:
    try:
        values = parse_axis(text, "strength")
    except BadInput:
        return
    assert 0 < len(values) <= LONGEST * 2 and len(set(values)) == len(values)
    assert all(abs(value) < 1e20 for value in values)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=8, unique=True))
def test_listed_whole_values_come_back_as_they_were(values: list[int]) -> None:
    assert parse_whole_axis(", ".join(map(str, values)), "seeds") == tuple(values)


@given(st.integers(0, 500), st.integers(1, 50), st.integers(1, 20))
def test_start_stop_step_includes_a_stop_that_is_reached(start: int, step: int, count: int) -> None:
    stop = start + step * (count - 1)
    assert parse_whole_axis(f"{start}:{stop}:{step}", "steps") == tuple(range(start, stop + 1, step))


# checkpoints


def _checkpoint(key: str, step: int | None = None, **more: object) -> Checkpoint:
    return replace(Checkpoint("run", key, Path("/r") / key, "unknown", "lora", step=step), **more)


STEPS = (
    _checkpoint("500", 500),
    _checkpoint("1000", 1000, flaw="it is incomplete"),
    _checkpoint("1500", 1500),
    _checkpoint("1500~checkpoint-01500", 1500),
    _checkpoint("2000", 2000, aliases=("run@final",)),
    _checkpoint("epoch-9", epoch=9),
)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("all", "500 1500 1500~checkpoint-01500 2000 epoch-9"),
        (" ALL ", "500 1500 1500~checkpoint-01500 2000 epoch-9"),
        ("last 2", "2000 epoch-9"),
        ("last 99", "500 1500 1500~checkpoint-01500 2000 epoch-9"),
        ("2000, 500", "500 2000"),
        ("500:2000:500", "500 1000 1500 2000"),
        ("final", "2000"),
        ("final, 2000", "2000"),
        ("epoch-9, 500", "500 epoch-9"),
        ("1500~checkpoint-01500", "1500~checkpoint-01500"),
        ("1000", "1000"),  # asked for by name it is heard why it cannot be used
    ],
)
def test_checkpoints_are_chosen_by_step_by_key_and_from_the_end(text: str, keys: str) -> None:
    assert " ".join(c.key for c in choose_checkpoints(text, STEPS)) == keys


@pytest.mark.parametrize("text", ["", "7", "last 0", "last " + "9" * 5000, "best-ish", "run@500", "1000.5", "500, final2"])
def test_a_checkpoint_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        choose_checkpoints(text, STEPS)


def test_the_refusal_names_the_steps_there_are() -> None:
    with pytest.raises(BadInput) as fault:
        choose_checkpoints("750", STEPS)
    assert "750" in fault.value.message and "1500" in fault.value.hint
