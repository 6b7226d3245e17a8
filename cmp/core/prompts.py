"""Prompt files: one prompt a line with kohya's options, or OneTrainer's list of samples; and the axes that multiply prompts.

A line is `the prompt --n what to keep away from --w 512 --h 768 --d 42 --l 7.5 --s 30 --ss euler_a --name red shoe`, as kohya's scripts
take it (library/train_util.py, line_to_prompt_dict); `--name`, a short name for labels, is ours, and they pass over it. Lines that
begin with # and empty ones mean nothing. What has no option is left to the grid's axes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cmp.core.axes import parse_text_axis, split_axis
from cmp.core.grids import Own, Prompt
from cmp.core.samplers import KOHYA, ONETRAINER
from cmp.errors import BadInput, json_place

LONGEST_FILE = 2_000_000  # characters
MOST_PROMPTS = 4096
_SAMPLES = re.compile(r"\s*\[\s*[{\]]")  # OneTrainer's list; a prompt may begin with [ too
_OPTION = re.compile(r"(?:^|\s)--([A-Za-z]+)(?=\s|$)")
_WHOLE = {"w": "width", "h": "height", "d": "seed", "s": "steps"}
_OPTIONS = "--n --w --h --d --l --g --s --ss --name"


def parse_prompts(text: str) -> tuple[Prompt, ...]:
    """The prompts of a file's text, in order, each with its own values; raises BadInput that says in which line, or in which sample."""
    if len(text) > LONGEST_FILE:
        raise BadInput(f"the prompts have {len(text)} characters", f"Use at most {LONGEST_FILE}.")
    text = text.removeprefix("\ufeff")
    if _SAMPLES.match(text):
        entries = [(f"sample {i}", sample) for i, sample in enumerate(_samples(text), 1)]
    else:
        lines = ((f"line {i}", line.strip()) for i, line in enumerate(text.split("\n"), 1))
        entries = [(where, line) for where, line in lines if line and not line.startswith("#")]
    if len(entries) > MOST_PROMPTS:
        raise BadInput(f"there are {len(entries)} prompts", f"Use at most {MOST_PROMPTS}.")
    found = (_told(where, entry) for where, entry in entries)
    return tuple(dict.fromkeys(prompt for prompt in found if prompt))


def _told(where: str, entry: Any) -> Prompt | None:
    try:
        return parse_prompt_line(entry) if isinstance(entry, str) else _sample(entry)
    except BadInput as fault:
        raise BadInput(f"{where} of the prompts: {fault.message}", fault.hint) from fault


def parse_prompt_line(line: str) -> Prompt:
    """One line with its options; raises BadInput for an option that is unknown or has no value it can take."""
    parts = _OPTION.split(line)
    told: dict[str, Any] = {}
    for option, value in zip(parts[1::2], map(str.strip, parts[2::2]), strict=True):
        name = option.lower()
        if name in _WHOLE:
            told[_WHOLE[name]] = _number(name, value, r"[0-9]{1,19}", int)
        elif name in ("l", "g"):
            told[name] = _number(name, value, r"[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}", float)
        elif name == "ss":
            told["scheduler"] = _scheduler(value.lower(), KOHYA)
        elif name in ("n", "name"):
            told[name] = value
        else:
            raise BadInput(f"the option --{option} is unknown", f"Known are {_OPTIONS}.")
    guidance = _guidance(told.pop("l", None), told.pop("g", None))
    return Prompt(parts[0].strip(), told.pop("n", ""), told.pop("name", ""), Own(guidance=guidance, **told))


def _number(name: str, value: str, pattern: str, kind: Any) -> Any:
    if not re.fullmatch(pattern, value, re.ASCII):
        raise BadInput(f"--{name} is {value!r}", "Write a number in digits.")
    return kind(value)


def _scheduler(value: str, known: Mapping[str, str]) -> str:
    if value not in known:
        raise BadInput(f"the sampler is {value!r}", f"These are drawn with: {', '.join(known)}.")
    return known[value]


def _guidance(scale: float | None, distilled: float | None) -> float | None:
    """Of --l and --g, the second of which models with distilled guidance take, such as Flux; there --l 1 means that none is added."""
    if scale is not None and distilled is not None and scale not in (1, distilled):
        raise BadInput(f"--l is {scale:g} and --g is {distilled:g}", "Give one guidance.")
    return scale if distilled is None else distilled


# -- OneTrainer ------------------------------------------------------------------------------------------------------------


def _samples(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise BadInput(f"the prompts begin like OneTrainer's samples and are no JSON{json_place(fault)}", "Save them again.") from fault
    assert isinstance(found, list)
    return found


def _sample(entry: Any) -> Prompt | None:
    """One of OneTrainer's samples (util/config/SampleConfig.py), None if it is switched off. A random seed is left to the grid."""
    if not isinstance(entry, dict):
        raise BadInput(f"it is {str(entry)[:80]!r}", "OneTrainer's samples are objects with a prompt.")
    if not _field(entry, "enabled", bool, True):
        return None
    if _field(entry, "sample_inpainting", bool, False):
        raise BadInput("it is painted into another picture", "Only pictures from text alone are drawn here; switch it off.")
    if _field(entry, "frames", int, 1) > 1:
        raise BadInput("it is a film", "Only pictures are drawn here; switch it off.")
    scheduler = _field(entry, "noise_scheduler", str, None)
    skip = _field(entry, "text_encoder_1_layer_skip", int, 0)
    own = Own(
        seed=None if _field(entry, "random_seed", bool, False) else _field(entry, "seed", int, None),
        steps=_field(entry, "diffusion_steps", int, None),
        guidance=_field(entry, "cfg_scale", float, None),
        width=_field(entry, "width", int, None),
        height=_field(entry, "height", int, None),
        scheduler=None if scheduler is None else _scheduler(scheduler.upper(), ONETRAINER),
        clip_skip=skip + 1 if skip else None,
    )
    return Prompt(_field(entry, "prompt", str, ""), _field(entry, "negative_prompt", str, ""), own=own)


def _field(entry: Mapping[str, Any], name: str, kind: type, usual: Any) -> Any:
    value = entry.get(name, usual)
    if value is None or value is usual:
        return usual
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadInput(f"{name} is {str(value)[:80]!r}", f"It must be {'text' if kind is str else f'of the type {kind.__name__}'}.")
    return value


# -- axes that multiply prompts --------------------------------------------------------------------------------------------


def with_negatives(prompts: Iterable[Prompt], negatives: Sequence[str]) -> tuple[Prompt, ...]:
    """Each prompt with each negative prompt; one that brings its own keeps it."""
    return tuple(
        dict.fromkeys(
            prompt if prompt.negative else replace(prompt, negative=negative) for prompt in prompts for negative in negatives or ("",)
        )
    )


def search_replace(prompts: Sequence[Prompt], text: str) -> tuple[Prompt, ...]:
    """A1111's Prompt S/R: each prompt as it is, then with the first of the values replaced by each of the others.

    The first is searched in prompt and negative prompt, case and all, and must be in one of them at least; a prompt without it is drawn
    once, as it is. The value joins the short name, and is one where a single text is multiplied. Raises BadInput.
    """
    values = parse_text_axis(text, "Prompt S/R")
    searched = split_axis(text, "Prompt S/R")[0].text  # also where SKIP: leaves it out of what is drawn
    if not searched:
        raise BadInput(f"Prompt S/R {text!r} searches for nothing", "Write what to search for first, then what replaces it.")
    if not any(searched in prompt.text or searched in prompt.negative for prompt in prompts):
        raise BadInput(f"Prompt S/R did not find {searched!r} in any prompt or negative prompt", "Its first value must be in one of them.")
    several = len({prompt.text for prompt in prompts if not prompt.name}) > 1
    out = []
    for prompt in prompts:
        inside = searched in prompt.text or searched in prompt.negative
        out += [_replaced(prompt, searched, value, several) for value in values] if inside else [prompt]
    return tuple(dict.fromkeys(out))


def _replaced(prompt: Prompt, searched: str, value: str, several: bool) -> Prompt:
    name = f"{prompt.name} · {value}" if prompt.name else "" if several else value
    text, negative = (told.replace(searched, value) for told in (prompt.text, prompt.negative))
    return replace(prompt, text=text, negative=negative, name=name)
