"""The axis syntax: every documented form, and no text that does anything but give values or be refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.axes import LONGEST, parse_axis, parse_seeds, parse_text_axis, parse_whole_axis, split_stack
from cmp.core.choosing import choose_checkpoints
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
        ("1-10 [5]", (1, 3.25, 5.5, 7.75, 10)),
        ("0-1 [3]", (0, 0.5, 1)),
        ("0-1 [4]", (0, 0.33333, 0.66667, 1)),
        ("1-3 (+0.5)", (1, 1.5, 2, 2.5, 3)),
        ("10-5 (-3)", (10, 7)),
        ('"1", "2"', (1, 2)),
        ("1 || 2 || .. || 5", (1, 2, 3, 4, 5)),
        ("1-5, SKIP: 3", (1, 2, 4, 5)),
        ("1, skip:2, .., 5", (1, 3, 4, 5)),
        ("SKIP: 2-3, 1-4", (1, 4)),
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
        'SKIP: 1', '1, SKIP: 0-3', '"1', '"1, 2"', "1 | 2", "1 ||", "1-3 || 4, 5", "SKIP:",
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


def test_evenly_spaced_whole_values_are_rounded() -> None:
    assert parse_whole_axis("1-10 [5]", "steps") == (1, 3, 6, 8, 10)


def test_the_refusal_quotes_the_part_that_is_wrong() -> None:
    with pytest.raises(BadInput, match=r"cannot read '5-x'"):
        parse_axis("1, 2, 5-x, 7", "guidance")


def test_minus_one_is_a_seed_that_is_drawn_when_it_is_read_and_only_then() -> None:
    given = iter([77, 5, 6])
    assert parse_seeds("-1, 3, 5-6", lambda: next(given)) == (77, 3, 5, 6)
    assert parse_seeds("-1, -1", lambda: next(given)) == (5, 6)
    assert parse_seeds("1-2", lambda: pytest.fail("no random seed was asked for")) == (1, 2)


@pytest.mark.parametrize("text", ["-2", "-1-3", "-1:3:1", "3--1", "5, 3, .., -1"])
def test_a_range_below_zero_holds_no_random_seed(text: str) -> None:
    with pytest.raises(BadInput, match="contains -"):
        parse_seeds(text, lambda: 9)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("DDIM, Euler a", ("DDIM", "Euler a")),
        ("ddim,EULERA , dpm++2m  karras", ("DDIM", "Euler a", "DPM++ 2M Karras")),
        ("DDIM || Euler", ("DDIM", "Euler")),
        ("all, SKIP: euler a", ("DDIM", "Euler", "DPM++ 2M Karras")),
        ('"DDIM"', ("DDIM",)),
    ],
)
def test_names_ignore_case_and_spaces(text: str, values: tuple[str, ...]) -> None:
    assert parse_text_axis(text, "scheduler", ("DDIM", "Euler", "Euler a", "DPM++ 2M Karras")) == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('a, "b, c", d', ("a", "b, c", "d")),
        ("a, b || c", ("a, b", "c")),
        ('"", "he said ""no"""', ("", 'he said "no"')),
        ('a 5" screen, b', ('a 5" screen', "b")),
        ('"a || b", c', ("a || b", "c")),
        ('SKIP: "a, b", a, "a, b"', ("a",)),
        ('"a" b, c', ('"a" b', "c")),
    ],
)
def test_texts_keep_commas_in_quotes_and_between_bars(text: str, values: tuple[str, ...]) -> None:
    assert parse_text_axis(text, "prompts") == values


def test_where_commas_do_not_separate_a_negative_prompt_stays_whole() -> None:
    assert parse_text_axis("blurry, low quality || ugly", "negative", commas=False) == ("blurry, low quality", "ugly")
    assert parse_text_axis("blurry, low quality", "negative", commas=False) == ("blurry, low quality",)


@pytest.mark.parametrize("text", ["", "a,,b", "a,", '"a, b', 'a, "b', "SKIP: a", "x" * 100_001])
def test_a_text_axis_that_is_broken_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="scheduler"):
        parse_text_axis(text, "scheduler")


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadInput) as fault:
        parse_text_axis("DDIM, Oiler", "scheduler", ("DDIM", "Euler"))
    assert "'Oiler'" in fault.value.message and "DDIM, Euler" in fault.value.hint


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6, unique=True))
def test_quoted_texts_come_back_as_they_were(values: list[str]) -> None:
    text = ", ".join('"' + value.replace('"', '""') + '"' for value in values)
    assert parse_text_axis(text, "prompts") == tuple(values)


@given(st.text(max_size=60), st.booleans())
def test_any_text_gives_texts_or_bad_input(text: str, commas: bool) -> None:
    try:
        values = parse_text_axis(text, "prompts", commas=commas)
    except BadInput:
        return
    assert len(set(values)) == len(values) > 0


@pytest.mark.parametrize(
    ("text", "target", "strengths"),
    [
        ("run@500", "run@500", (1,)),
        ("run@500:0.5", "run@500", (0.5,)),
        ("root:run@500:0-1 [3]", "root:run@500", (0, 0.5, 1)),
        ("/x/y.safetensors:0:1:0.5", "/x/y.safetensors", (0, 0.5, 1)),
        ("root:run", "root:run", (1,)),
        (":1", ":1", (1,)),
    ],
)
def test_a_stacked_lora_and_its_strengths_are_told_apart(text: str, target: str, strengths: tuple[float, ...]) -> None:
    assert split_stack(text) == (target, strengths)


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
        ("FINAL", "2000"),
        ("Epoch-9 || 500", "500 epoch-9"),
        ("all, SKIP: 1500", "500 1500~checkpoint-01500 2000 epoch-9"),
        ("last 3, SKIP: last 1", "1500~checkpoint-01500 2000"),
        ("500, last 1", "500 epoch-9"),
        ("best", "1500"),
        ("best 2, final", "500 1500 2000"),
        ("1000", "1000"),  # asked for by name it is heard why it cannot be used
    ],
)
def test_checkpoints_are_chosen_by_step_by_key_and_from_the_end(text: str, keys: str) -> None:
    assert " ".join(c.key for c in choose_checkpoints(text, STEPS, _best)) == keys


def _best(count: int) -> list[Checkpoint]:
    return [STEPS[2], STEPS[0], STEPS[1]][:count]


@pytest.mark.parametrize(
    "text", ["", "7", "best", "best 0", "all, SKIP: all", "last 0", "last " + "9" * 5000, "best-ish", "run@500", "1000.5", "500, final2"]
)
def test_a_checkpoint_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        choose_checkpoints(text, STEPS)


def test_the_refusal_names_the_steps_there_are() -> None:
    with pytest.raises(BadInput) as fault:
        choose_checkpoints("750", STEPS)
    assert "750" in fault.value.message and "1500" in fault.value.hint


def test_what_is_no_seed_is_answered_with_examples_of_seeds() -> None:
    with pytest.raises(BadInput) as fault:
        parse_seeds("1-", lambda: 7)
    assert "'1-'" in fault.value.message and "7, 11" in fault.value.hint and "500" not in fault.value.hint
