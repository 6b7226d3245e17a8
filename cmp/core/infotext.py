"""The settings text that A1111 writes into pictures: written, so that every tool that reads it can read ours, and read.

The prompt; a line `Negative prompt: …`; one line of `name: value, …`, in which a value that holds , : " or a line's end is a JSON string
(modules/infotext_utils.py). A sheet says its axes there as A1111's X/Y/Z plot does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmp.core.grids import Cell
from cmp.core.labels import SEED, number_text, stack_text, values_of, varying
from cmp.core.samplers import to_a1111
from cmp.core.whereabouts import is_place, place_name

LONGEST_TEXT = 1_000_000  # characters of a settings text, as Pillow's own bound is
FEWEST_PAIRS = 3  # with fewer, the last line belongs to the prompt

# names of at most 60 characters and no spaces before them, so that no long line is gone through again from each of its letters
_PAIR = re.compile(r'(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_NEGATIVE = "Negative prompt:"


@dataclass(frozen=True, slots=True)
class Infotext:
    """A settings text taken apart; `pairs` are empty where its last line is none of pairs."""

    prompt: str
    negative: str
    pairs: Mapping[str, str]


def to_infotext(cell: Cell, size: tuple[int, int], base: str, digest: str | None, version: str, scheduler: str | None = None) -> str:
    """A1111's `parameters` of one picture.

    `scheduler` is the name, of ours, of what the base model's own is; without it nothing is said of it, which is better than a name that
    other tools take for another.
    """
    sampler, schedule = to_a1111(scheduler if scheduler and cell.sampling.scheduler == "base" else cell.sampling.scheduler)
    pairs: list[tuple[str, object]] = [
        ("Steps", cell.sampling.steps),
        ("Sampler", sampler),
        ("Schedule type", schedule),
        ("CFG scale", number_text(cell.sampling.guidance)),
        ("Seed", cell.seed),
        ("Size", f"{size[0]}x{size[1]}"),
        ("Model", place_name(base) if is_place(base) else base),  # as A1111 names it: people post pictures
        ("VAE", cell.sampling.vae),
        ("Clip skip", cell.sampling.clip_skip if cell.sampling.clip_skip > 1 else None),
    ]
    if cell.checkpoint:
        pairs += [("Checkpoint", cell.checkpoint.id), ("Strength", number_text(cell.strength)), ("Weights digest", (digest or "")[:16])]
    pairs += [("LoRAs", ", ".join(_csv(stack_text([one])) for one in cell.stack)), ("RNG", "CPU"), ("Version", f"cmp {version}")]
    lines = [cell.prompt.text, f"{_NEGATIVE} {cell.prompt.negative}"] if cell.prompt.negative else [cell.prompt.text]
    return "\n".join([*lines, write_pairs(pairs)])


def write_pairs(pairs: Iterable[tuple[str, object]]) -> str:
    """The line of pairs; those without a value are left out."""
    return ", ".join(f"{name}: {_quoted(str(value))}" for name, value in pairs if value not in (None, ""))


def _quoted(value: str) -> str:
    """A1111 quotes a value that would break the line of pairs, as a JSON string."""
    return json.dumps(value, ensure_ascii=False) if value != value.strip() or any(mark in value for mark in ',:"\r\n') else value


def script_pairs(cells: Sequence[Cell], title: str = "") -> str:
    """What A1111's X/Y/Z plot adds to the settings of a sheet: each axis on which the cells differ, with its values."""
    return plot_pairs([(axis.name, values_of(axis, cells)) for axis in varying(cells)], title)


def plot_pairs(axes: Iterable[tuple[str, Sequence[str]]], title: str = "", more: Iterable[tuple[str, object]] = ()) -> str:
    """The same of axes by their names; seeds are said as what they were fixed to, too. `more` comes behind them."""
    pairs: list[tuple[str, object]] = [("Script", "X/Y/Z plot"), ("Title", title)]
    for i, (name, told) in enumerate(axes):
        letter = "XYZ"[i] if i < 3 else f"Axis {i + 1}"
        values = ", ".join(_csv(value) for value in told)
        pairs += [(f"{letter} Type", name), (f"{letter} Values", values)]
        pairs += [(f"Fixed {letter} Values", values)] if name == SEED.name else []
    return write_pairs((*pairs, *more))


def _csv(value: str) -> str:
    """A value as axes are typed, see axes.split_axis."""
    plain = value and not value.upper().startswith("SKIP") and not any(mark in value for mark in ',"|\n')
    return value if plain else '"' + value.replace('"', '""') + '"'


def parse_infotext(text: str) -> Infotext:
    """A settings text taken apart, as A1111 does it: lines are stripped, and without pairs in its last line all of it is the prompt."""
    *lines, last = text.strip()[:LONGEST_TEXT].split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < FEWEST_PAIRS:
        lines, pairs = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    target = prompt
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            target, line = negative, line[len(_NEGATIVE) :].strip()
        if line or target:  # no empty lines at the beginning
            target.append(line)
    return Infotext("\n".join(prompt), "\n".join(negative), {name.strip(): _unquoted(value.strip()) for name, value in pairs})


def retold_infotext(text: str, tell: Callable[[Any], Any]) -> str:
    """The text with `tell` applied to its prompts, and to each pair as a field of that name; it stays as it is where nothing changes.

    `tell` takes a JSON value and gives one of the same form.
    """
    stripped = text.strip()[:LONGEST_TEXT]
    before, newline, last = stripped.rpartition("\n")
    pairs = list(_PAIR.finditer(last))
    if len(pairs) < FEWEST_PAIRS:
        return str(tell(text))
    out, at = [str(tell({"prompt": before})["prompt"]), newline], 0
    for pair in pairs:
        value = _unquoted(pair[2].strip())
        shown = str(tell({pair[1]: value})[pair[1]])
        out += [str(tell(last[at : pair.start()])), last[pair.start() : pair.start(2)], pair[2] if shown == value else _quoted(shown)]
        out.append(last[pair.end(2) : pair.end()])
        at = pair.end()
    made = "".join([*out, str(tell(last[at:]))])
    return text if made == stripped else made


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value[0] == value[-1] == '"'):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, str) else value
