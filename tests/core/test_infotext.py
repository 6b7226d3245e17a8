"""The settings text: what we write, A1111's parser and ours read alike; what others wrote is restored or named, and nothing breaks us."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.a1111 import read_infotext
from cmp.core.grids import SCHEDULERS, Cell, GridSpec, Prompt, Sampling, Stacked, Tile
from cmp.core.infotext import parse_infotext, retold_infotext, script_pairs, to_infotext
from cmp.core.labels import AXES, varying
from cmp.core.restored import Restored, read_record
from cmp.core.runs import Checkpoint
from cmp.errors import CmpError, Unreadable

FIRST = Checkpoint("run", "500", Path("/r/500"), "accelerate-peft", "lora", step=500)
OTHER = Checkpoint("a, b", "final", Path("/o"), "peft-adapter", "lora")
CELL = Cell(FIRST, Prompt("a shoe", "blurry"), 7, 0.8, Sampling(20, 7.0, scheduler="DPM++ 2M Karras", clip_skip=2))

# a line's own text: what A1111 strips, and what it takes for another part, comes back otherwise
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).map(str.strip).filter(bool)
PROMPTS = st.lists(LINES, min_size=1, max_size=3).map("\n".join).filter(lambda t: not any(x.startswith("Negative") for x in t.split("\n")))


def _infotext(cell: Cell, size: tuple[int, int] = (512, 768), base: str = "tiny-sd", **more: str) -> str:
    return to_infotext(cell, size, base, "d" * 64, "0.1", **more)


# written


def test_a_picture_says_its_settings_in_a1111s_words() -> None:
    told = parse_infotext(_infotext(CELL))
    assert (told.prompt, told.negative) == ("a shoe", "blurry")
    expected = {"Steps": "20", "Sampler": "DPM++ 2M", "Schedule type": "Karras", "CFG scale": "7", "Seed": "7", "Size": "512x768"}
    assert {**told.pairs, **expected} == told.pairs
    assert (told.pairs["Model"], told.pairs["Clip skip"], told.pairs["Checkpoint"]) == ("tiny-sd", "2", "run@500")


@pytest.mark.parametrize(
    ("base", "model"),
    [("/srv/bases/sd_tiny", "sd_tiny"), ("/mnt/my disk/sd, v2: x", "sd, v2: x"), (r"C:\models\sd", "sd"), ("owner/sd", "owner/sd")],
)
def test_a_picture_names_its_base_without_the_folder_that_it_lies_in(base: str, model: str) -> None:
    assert parse_infotext(_infotext(CELL, base=base)).pairs["Model"] == model


def test_pairs_are_told_otherwise_one_by_one_and_prompts_by_their_own_name() -> None:
    text = 'a /b/ c\nNegative prompt: d, e: f\nSteps: 20, Model: "/a b/c, d", VAE: /x/y, Seed: 1, Note: "q, \\"r\\""'

    def tell(value: object) -> object:
        other = {"Model": "c, d", "VAE": "no"}
        return {name: other.get(name, told) for name, told in value.items()} if isinstance(value, dict) else value

    told = retold_infotext(text, tell)
    assert told == text.replace("/a b/c, d", "c, d").replace("/x/y", "no") and retold_infotext(text, lambda value: value) is text
    assert retold_infotext("at /a/b", lambda value: "gone" if isinstance(value, str) else value) == "gone", "without pairs it is a sentence"


@given(PROMPTS, st.lists(st.tuples(LINES, LINES), max_size=6))
def test_a_text_of_which_nothing_is_told_otherwise_stays_as_it_is(prompt: str, pairs: list[tuple[str, str]]) -> None:
    text = f"{prompt}\nSteps: 1, {', '.join(f'{name}: {value}' for name, value in pairs)}"
    assert retold_infotext(text, lambda value: value) == text


def test_no_sampler_is_named_where_a1111_would_take_it_for_another() -> None:
    base = replace(CELL, sampling=Sampling())
    assert "Sampler" not in _infotext(base) and "Sampler: DDIM, " in _infotext(base, scheduler="DDIM")
    plain = parse_infotext(_infotext(replace(CELL, sampling=Sampling(scheduler="DPM++ 2M")))).pairs
    assert plain["Schedule type"] == "Uniform", "A1111 takes DPM++ 2M without one for Karras"


@given(
    PROMPTS,
    st.one_of(st.just(""), PROMPTS),
    st.integers(0, 2**63 - 1),
    st.floats(-10, 10),
    st.builds(
        Sampling, st.integers(1, 1000), st.floats(0, 100), st.none(), st.none(), st.sampled_from(SCHEDULERS), st.integers(1, 12),
        st.one_of(st.none(), LINES.map(lambda text: f"/{text}")),
    ),
    LINES,
)  # fmt: skip
def test_what_is_written_is_read_back(prompt: str, negative: str, seed: int, strength: float, sampling: Sampling, base: str) -> None:
    cell = Cell(FIRST, Prompt(prompt, negative), seed, strength + 0.0, sampling, (Stacked(FIRST, 0.5), Stacked(OTHER, -1.0)))
    found = read_infotext(_infotext(cell, (64, 48), base))
    assert found.source == "cmp" and found.not_restored == ()
    assert (found.as_prompt(), found.seed, found.strength) == (cell.prompt, seed, strength)
    assert found.as_sampling() == replace(sampling, width=64, height=48)
    assert (found.checkpoint, found.model, found.loras) == ("run@500", base, (("run@500", 0.5), ("a, b@final", -1.0)))


def test_a_sheet_says_its_axes_as_a1111s_plot_does() -> None:
    spec = GridSpec((FIRST, OTHER), (Prompt("a"),), (1, 2), samplings=(Sampling(guidance=4), Sampling(guidance=7)), title="A, B")
    text = _infotext(spec.cells()[0]) + ", " + script_pairs(spec.cells(), spec.title)
    pairs = parse_infotext(text).pairs
    assert (pairs["Script"], pairs["Title"]) == ("X/Y/Z plot", "A, B")
    assert (pairs["X Type"], pairs["X Values"]) == ("Checkpoint name", 'run@500, "a, b@final"')
    assert (pairs["Y Type"], pairs["Y Values"], pairs["Fixed Y Values"]) == ("Seed", "1, 2", "1, 2")
    assert (pairs["Z Type"], pairs["Z Values"]) == ("CFG Scale", "4.0, 7.0")
    assert read_infotext(text).not_restored == ("the grid (Checkpoint name, Seed, CFG Scale): these are the settings of its first picture",)


def test_labels_are_a1111s_words() -> None:
    labels = {axis.label(CELL) for axis in AXES}
    assert {"CFG Scale: 7.0", "Steps: 20", "Sampler: DPM++ 2M Karras", "Clip skip: 2", "Seed: 7", "Strength: 0.8"} <= labels
    assert varying([CELL, replace(CELL, checkpoint=None)])[0].name == "Checkpoint name"


# A1111's

A1111 = """a photo of (sks:1.2) dog <lora:dog_v2:0.8> <lora:style:-0.5:1>, sharp
second line
Negative prompt: bad <hypernet:x:1>, worse
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 123, Size: 512x768, Model hash: abc, Model: v1-5-pruned, \
VAE: kl.safetensors, Clip skip: 2, Denoising strength: 0.7, Hires upscale: 2, Lora hashes: "dog_v2: 1, style: 2", Version: v1.10.1"""


def test_a1111s_settings_are_restored_and_what_is_not_is_named() -> None:
    found = read_infotext(A1111)
    assert found.prompt == "a photo of (sks:1.2) dog  , sharp\nsecond line" and found.negative == "bad , worse"
    assert found.as_sampling() == Sampling(20, 7.0, 512, 768, "DPM++ 2M Karras", 2)
    assert (found.seed, found.model, found.checkpoint) == (123, "v1-5-pruned", None)
    assert found.loras == (("dog_v2", 0.8), ("style", -0.5))
    told = "; ".join(found.not_restored)
    for lost in ("(sks:1.2)", "<hypernet:x:1>", "VAE: kl.safetensors", "Denoising strength: 0.7", "Hires upscale: 2"):
        assert lost in told
    assert "hash" not in told and "Version" not in told


@pytest.mark.parametrize(
    ("sampler", "scheduler", "lost"),
    [
        ("Sampler: DPM++ 2M Karras", "DPM++ 2M Karras", ""),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "DPM++ 2M Karras", ""),
        ("Sampler: DPM++ 2M, Schedule type: Uniform", "DPM++ 2M", ""),
        ("Sampler: Euler a, Schedule type: Automatic", "Euler a", ""),
        ("Sampler: PLMS", "PNDM", ""),
        ("Sampler: Euler, Schedule type: Exponential", "Euler", "'Exponential' of Euler"),
        ("Sampler: LMS Karras", None, "'LMS Karras'"),
        ("Sampler: DPM++ SDE Karras", None, "'DPM++ SDE Karras'"),
    ],
)
def test_samplers_are_taken_for_what_they_are(sampler: str, scheduler: str | None, lost: str) -> None:
    found = read_infotext(f"a\nSteps: 20, {sampler}, CFG scale: 7, Seed: 1")
    assert found.scheduler == scheduler and lost in "; ".join(found.not_restored) and bool(lost) == bool(found.not_restored)


@pytest.mark.parametrize(
    ("pair", "field"),
    [
        ("Steps: 5000", "steps"), ("CFG scale: 1e9", "guidance"), ("Seed: -1", "seed"), ("Seed: 99999999999999999999", "seed"),
        ("Size: 500x", "width"), ("Size: 501x512", "width"), ("Clip skip: 99", "clip_skip"), ("Strength: nan", "strength"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_drawn_is_named_and_the_others_stay(pair: str, field: str) -> None:
    found = read_infotext(f"a\n{pair}, Variation: 1, Model: m")
    assert getattr(found, field) is None and pair in found.not_restored and found.model == "m"


def test_a_last_line_with_two_pairs_is_part_of_the_prompt() -> None:
    found = read_infotext("a shoe\nsize: big, colour: red")
    assert found.prompt == "a shoe\nsize: big, colour: red" and found.not_restored


def test_forges_distilled_guidance_counts_with_flux() -> None:
    assert read_infotext("a\nSteps: 20, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 1").guidance == 3.5


def test_another_programs_json_is_not_taken_for_a_prompt() -> None:
    with pytest.raises(Unreadable, match="unknown program"):
        read_infotext('{"sui_image_params": {"prompt": "a"}}')


@pytest.mark.parametrize("prompt", ["[red] shoe", "{red|blue} shoe", "{", '"a", b: c'])
def test_a_prompt_may_begin_as_json_does(prompt: str) -> None:
    assert read_infotext(f"{prompt}\nSteps: 20, CFG scale: 7, Seed: 1").prompt == prompt


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = read_infotext(text)
    except CmpError:
        return
    assert isinstance(found.as_sampling(), Sampling) and isinstance(found.as_prompt(), Prompt)
    json.dumps(found.as_json())


@given(
    st.lists(st.tuples(st.sampled_from(["Steps", "Seed", "Size", "Sampler", "CFG scale", "LoRAs", "VAE", "Script"]), st.text(max_size=12)))
)
def test_any_values_are_restored_or_named(pairs: list[tuple[str, str]]) -> None:
    found = read_infotext("a\nModel: m, Model hash: h, Version: v, " + ", ".join(f"{name}: {value}" for name, value in pairs))
    assert isinstance(found.as_sampling(), Sampling)


@pytest.mark.parametrize(
    "line", ["a" * 300_000, "a " * 150_000, " " * 300_000 + "x", 'ab:"\\' * 60_000, 'ab: "x' * 50_000, "ab:" * 100_000]
)
def test_long_lines_are_gone_through_once(line: str) -> None:
    parse_infotext(f"a\n{line}")  # takes minutes where each letter begins a new search


# our own record


def _record(**changes: object) -> str:
    tile = Tile(replace(CELL, stack=(Stacked(OTHER, 0.5),)), "k", base={"id": "tiny-sd", "proof": "tensors"})
    return json.dumps(tile.as_json() | changes)


def test_our_own_record_restores_everything() -> None:
    found = read_record(_record())
    assert (found.as_prompt(), found.as_sampling(), found.seed, found.strength) == (CELL.prompt, CELL.sampling, 7, 0.8)
    assert (found.checkpoint, found.loras, found.model) == ("run@500", (("a, b@final", 0.5),), "tiny-sd")
    assert found.not_restored == () and found.source == "cmp"


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"seed": True}, "seed"), ({"seed": 2**70}, "seed"), ({"strength": "1"}, "strength"), ({"checkpoint": 7}, "checkpoint"),
        ({"sampling": {"steps": 0, "guidance": 4}}, "steps"), ({"sampling": {"eta": 0.5}}, "eta"), ({"stack": ["x"]}, "LoRA"),
        ({"stack": [{"checkpoint": "a", "strength": 1e9}]}, "LoRA"), ({"negative": 3}, "negative"), ({"prompt": "\ud800"}, "prompt"),
        ({"preview": True}, "preview"),
        ({"sampling": {"guidance": 10**400}}, "guidance"), ({"sampling": {"scheduler": ["DDIM"]}}, "scheduler"),
    ],
)  # fmt: skip
def test_a_changed_record_costs_only_what_was_changed(changes: dict[str, object], lost: str) -> None:
    found = read_record(_record(**changes))
    assert any(lost in told for told in found.not_restored) and found.model == "tiny-sd"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"prompt": 1, "sampling": {}}',
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"prompt":"a","sampling":{"a":' + "[" * 99 + "]" * 99 + "}}",
    ],
)
def test_what_is_no_record_of_ours_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_record(text)


def test_restored_settings_fill_in_only_what_they_say() -> None:
    assert Restored(source="A1111", steps=30).as_sampling(Sampling(guidance=4)) == Sampling(30, 4)
