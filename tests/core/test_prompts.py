"""Prompt files of other tools, and the axes that multiply prompts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.grids import Own, Prompt
from cmp.core.prompts import MOST_PROMPTS, parse_prompt_line, parse_prompts, search_replace, with_negatives
from cmp.errors import BadInput

# lines


def test_each_line_is_a_prompt_and_comments_are_none() -> None:
    assert parse_prompts("\ufeffa shoe\r\n\n  # not this\n a [blue] shoe \n#\na shoe\n") == (Prompt("a shoe"), Prompt("a [blue] shoe"))


def test_kohyas_options_become_the_prompts_own_values() -> None:
    line = "a shoe, (red) --n blurry, bad -- really --w 512 --H 768 --d 9223372036854775807 --l 7.5 --s 30 --ss euler_a --name red shoe"
    own = Own(seed=2**63 - 1, steps=30, guidance=7.5, width=512, height=768, scheduler="Euler a")
    assert parse_prompt_line(line) == Prompt("a shoe, (red)", "blurry, bad -- really", "red shoe", own)


def test_a_line_without_options_is_the_prompt_as_it_stands() -> None:
    for line in ("a well--made shoe -- new", "[a] <b> {c}", "5-3 --", "a --> b"):
        assert parse_prompt_line(line) == Prompt(line)


@pytest.mark.parametrize(("line", "guidance"), [("a --g 3.5", 3.5), ("a --l 1.0 --g 3.5", 3.5), ("a --l 4", 4.0), ("a", None)])
def test_distilled_guidance_stands_for_guidance(line: str, guidance: float | None) -> None:
    assert parse_prompt_line(line).own.guidance == guidance


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a --w wide", "'wide'"), ("a --w", "''"), ("a --w 500", "500"), ("a --s 0", "0"), ("a --d -1", "-1"), ("a --d ٣", "٣"),
        ("a --cn x.png", "--cn"), ("a --ss dpm_2", "'dpm_2'"), ("a --l 7 --g 3", "--g"), ("a --l 1e3", "'1e3'"), ("a --l 900", "900"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_followed_is_refused_with_its_line(line: str, told: str) -> None:
    with pytest.raises(BadInput) as fault:
        parse_prompts(f"first\n\n{line}\n")
    assert "line 3" in fault.value.message and told in fault.value.message and fault.value.hint


def test_more_prompts_than_a_grid_can_hold_are_refused() -> None:
    with pytest.raises(BadInput, match="4097"):
        parse_prompts("\n".join(f"shoe {i}" for i in range(MOST_PROMPTS + 1)))


@given(st.text(max_size=80))
def test_any_text_gives_prompts_or_bad_input(text: str) -> None:
    try:
        prompts = parse_prompts(text)
    except BadInput:
        return
    assert all(isinstance(prompt, Prompt) for prompt in prompts)


# OneTrainer


def _sample(**values: object) -> dict[str, object]:
    usual = {"enabled": True, "prompt": "a shoe", "negative_prompt": "bad", "height": 768, "width": 512, "seed": 42, "random_seed": False}
    return {
        **usual,
        "diffusion_steps": 20,
        "cfg_scale": 7,
        "noise_scheduler": "DPMPP_KARRAS",
        "transformer_attention_mask": False,
        **values,
    }


def test_onetrainers_samples_keep_their_values_and_those_switched_off_are_left_out() -> None:
    samples = [_sample(), _sample(enabled=False), _sample(random_seed=True, text_encoder_1_layer_skip=1)]
    first, second = parse_prompts(json.dumps(samples, indent=4))
    own = Own(42, 20, 7.0, 512, 768, "DPM++ 2M Karras")
    assert first == Prompt("a shoe", "bad", own=own)
    assert (second.own.seed, second.own.clip_skip) == (None, 2)
    assert parse_prompts(json.dumps([{"prompt": "x"}])) == (Prompt("x"),)


@pytest.mark.parametrize(
    "sample",
    [
        _sample(noise_scheduler="DPMPP_SDE_KARRAS"), _sample(width="512"), _sample(seed=True), _sample(seed=-1), _sample(cfg_scale="x"),
        _sample(sample_inpainting=True), _sample(frames=25), _sample(prompt=["x"]), _sample(cfg_scale=10**400), 7, None, [],
    ],
)  # fmt: skip
def test_a_sample_that_would_come_out_otherwise_is_refused_by_its_number(sample: object) -> None:
    with pytest.raises(BadInput, match="sample 2"):
        parse_prompts(json.dumps([_sample(), sample]))


@pytest.mark.parametrize("text", ["[{", '[{"prompt": ', "[{" * 100_000, "[ {}] x"])
def test_a_broken_list_of_samples_is_no_list_of_prompts(text: str) -> None:
    with pytest.raises(BadInput, match="JSON"):
        parse_prompts(text)


# axes of prompts


def test_each_prompt_is_drawn_with_each_negative_but_keeps_its_own() -> None:
    prompts = (Prompt("a"), Prompt("b", "own"))
    assert with_negatives(prompts, ("", "bad")) == (Prompt("a"), Prompt("a", "bad"), Prompt("b", "own"))
    assert with_negatives(prompts, ()) == prompts


def test_search_and_replace_goes_through_prompt_and_negative() -> None:
    found = search_replace((Prompt("a red shoe, red", "red"),), 'red, "blue, light", ""')
    assert [(p.text, p.negative, p.name) for p in found] == [
        ("a red shoe, red", "red", "red"),
        ("a blue, light shoe, blue, light", "blue, light", "blue, light"),
        ("a  shoe, ", "", ""),
    ]
    assert [p.negative for p in search_replace((Prompt("a", "red"),), "red || blue")] == ["red", "blue"]
    assert [p.text for p in search_replace((Prompt("red"),), "SKIP: red, blue")] == ["blue"]


def test_search_and_replace_leaves_prompts_without_it_alone_and_tells_names_apart() -> None:
    found = search_replace((Prompt("red shoe", name="shoe"), Prompt("star"), Prompt("red hat")), "red, blue")
    assert [(p.text, p.name) for p in found] == [
        ("red shoe", "shoe · red"), ("blue shoe", "shoe · blue"), ("star", ""), ("red hat", ""), ("blue hat", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["Red, blue", '"", blue', "", "green"])
def test_what_search_and_replace_does_not_find_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="Prompt S/R"):
        search_replace((Prompt("a red shoe"),), text)
