"""A grid as it is asked for: what was said wins over a picture, a picture over what is usual, and every value is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.core.asking import Asked, combine_stacks, parse_size, to_samplings, to_spec
from cmp.core.grids import GridSpec, Prompt, Sampling
from cmp.core.restored import Restored
from cmp.core.runs import Checkpoint
from cmp.errors import BadInput

FIRST = Checkpoint("run", "500", Path("/r/500"), "x", "lora", step=500)
LIKE = Restored(77, 30, 4.0, 64, 128, "DDIM", 2, source="A1111", prompt="a star", negative="bad", strength=0.5)


def _spec(like: Restored | None = None, **asked: object) -> GridSpec:
    return to_spec(Asked(**asked), (FIRST,), draw=lambda: 5, like=like)  # type: ignore[arg-type]


def test_all_axes_multiply() -> None:
    spec = _spec(
        prompts=(Prompt("red shoe"),), negatives=("a, b || c",), search_replace=("red, blue", "shoe, hat"), seeds="1, -1",
        strengths="0, 1", steps="5-10 (+5)", guidance="4, 7", size="64x64, 64×128, base", scheduler="ddim || euler a",
        clip_skip="1-2", vae="Base, /v",
    )  # fmt: skip
    assert len(spec.prompts) == 8 and spec.prompts[0] == Prompt("red shoe", "a, b", "red · shoe")
    assert (spec.seeds, spec.strengths, len(spec.samplings)) == ((1, 5), (0, 1), 2 * 2 * 3 * 2 * 2 * 2)
    assert {(s.width, s.height) for s in spec.samplings} == {(64, 64), (64, 128), (None, None)}
    assert {s.vae for s in spec.samplings} == {None, "/v"} and {s.clip_skip for s in spec.samplings} == {1, 2}


def test_a_picture_fills_in_what_was_not_said() -> None:
    spec = _spec(LIKE)
    assert spec.prompts == (Prompt("a star", "bad"),) and spec.seeds == (77,) and spec.strengths == (0.5,)
    assert spec.samplings == (Sampling(30, 4.0, 64, 128, "DDIM", 2),)


def test_what_was_said_wins_over_the_picture() -> None:
    spec = _spec(
        LIKE, prompts=(Prompt("x"),), seeds="0", strengths="1", steps="12", guidance="7.5", size="base", scheduler="base", clip_skip="1"
    )
    assert spec.prompts == (Prompt("x", "bad"),) and spec.seeds == (0,) and spec.strengths == (1.0,)
    assert spec.samplings == (Sampling(),)
    assert _spec(LIKE, negatives=("",)).prompts == (Prompt("a star"),)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"steps": "1, x"}, "'x'"), ({"steps": "0"}, "steps is 0"), ({"guidance": "1, 200"}, "200"), ({"size": "64x65"}, "65"),
        ({"size": "64"}, "'64'"), ({"scheduler": "Oiler"}, "'Oiler'"), ({"clip_skip": "1, 13"}, "13"), ({"seeds": "-3"}, "-3"),
        ({"strengths": "11"}, "11"), ({"search_replace": ("q, r",)}, "'q'"), ({"negatives": ("a ||",)}, "empty"),
        ({"steps": "1-1000", "guidance": "0:100:0.1"}, "1001000"),
    ],
)  # fmt: skip
def test_a_value_that_is_wrong_is_quoted_before_anything_is_drawn(asked: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput) as fault:
        _spec(prompts=(Prompt("a"),), **asked)
    assert told in fault.value.message and fault.value.hint


def test_a_grid_needs_a_prompt_unless_a_picture_has_one() -> None:
    with pytest.raises(BadInput, match="no prompt"):
        _spec()


@pytest.mark.parametrize(("text", "size"), [("512x768", (512, 768)), (" 64 X 64 ", (64, 64)), ("Base", (None, None))])
def test_sizes_are_width_and_height(text: str, size: tuple[int | None, int | None]) -> None:
    assert parse_size(text) == size


def test_stacked_loras_combine_at_all_their_strengths() -> None:
    other = Checkpoint("other", "final", Path("/o"), "x", "lora")
    stacks = combine_stacks([(FIRST, (0.5, 1.0)), (other, (1.0, 2.0, 3.0))])
    assert len(stacks) == 6 and [one.strength for one in stacks[0]] == [0.5, 1.0] and combine_stacks([]) == ((),)
    with pytest.raises(BadInput, match="10000"):
        combine_stacks([(FIRST, tuple(range(100))), (other, tuple(range(100)))])


def test_no_sampling_is_drawn_twice() -> None:
    assert to_samplings(Asked(steps="12, 12", size="base")) == (Sampling(),)
