"""The Compare tab's form as a grid, and the settings of a picture as the form. No widget is known here."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from cmp.core.asking import Asked, combine_stacks, to_spec
from cmp.core.axes import parse_axis, quoted, split_stack
from cmp.core.grids import GridSpec, Prompt
from cmp.core.labels import number_text
from cmp.core.prompts import parse_prompt_line, parse_prompts
from cmp.core.rerolling import Row, common_seeds, seeds_by_prompt
from cmp.core.restored import Restored
from cmp.core.runs import Checkpoint, Run
from cmp.core.scale import parse_alpha
from cmp.disk.ready import Answers
from cmp.errors import BadInput, CmpError, NotFound
from cmp.ui.choices import BASE
from cmp.workbench import Workbench
from cmp.workbench.callers import caller
from cmp.workbench.easel import existing_vaes
from cmp.workbench.targets import find_stacked

_SEED = re.compile(r"\s+--d\s+[0-9]+(?=\s|$)", re.ASCII | re.IGNORECASE)
NEVER_DRAWN = 2**63 - 1  # stands for a seed that is yet to be drawn, where it is only counted what is new


class Filled(NamedTuple):
    """The values of `Form.asked`. Fields without a value come as None."""

    picked: list[str]
    prompts: str | None
    seeds: str | None = None
    locked: bool = False
    negative: str | None = None
    mode: str = "fast"
    preview: bool = False
    title: str | None = None
    steps: str | None = None
    guidance: str | None = None
    strengths: str | None = None
    scheduler: str | None = None
    size: str | None = None
    clip_skip: str | None = None
    search_replace: str | None = None
    vae: str | None = None
    stack: str | None = None
    stack_strengths: str | None = None
    base: str | None = None
    alpha: str | None = None
    kept: str | None = None  # seeds that were drawn while the lock was on

    @property
    def given(self) -> Answers:
        return Answers(parse_alpha(self.alpha), (self.base or "").strip() or None)


class Seeds:
    """Draws a seed for each -1: while the lock is on the same ones as before, and else new ones each time."""

    def __init__(self, filled: Filled) -> None:
        self._locked, self._before = filled.locked, filled.kept or ""
        self._left = _read_seeds(self._before) if filled.locked else []
        self._drawn: list[int] = []

    def draw(self) -> int:
        self._drawn.append(self._left.pop(0) if self._left else secrets.randbelow(2**32))
        return self._drawn[-1]

    def expect(self) -> int:
        """The same where nothing is drawn yet."""
        return self._left.pop(0) if self._left else NEVER_DRAWN

    @property
    def kept(self) -> str:
        """What the next grid is given."""
        return "" if not self._locked else json.dumps(self._drawn + self._left) if self._drawn else self._before


def _read_seeds(text: str) -> list[int]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [seed for seed in found if type(seed) is int] if isinstance(found, list) else []


def read_grid(bench: Workbench, filled: Filled, *, planned: bool = False, mode: str | None = None) -> tuple[GridSpec, list[Run], str]:
    """The grid that the form describes, the runs it takes from, and the seeds to keep; raises BadInput or NotFound that names the field."""
    if not filled.picked:
        raise BadInput("no checkpoint is chosen", "Tick at least one, or the base model.")
    prompts = parse_prompts(filled.prompts or "")
    if not prompts:
        raise BadInput("there is no prompt", "Write what to draw, one prompt per line.")
    checkpoints = tuple(bench.find(name, only_ids=True)[1] for name in filled.picked if name != BASE)
    columns = (*((None,) if BASE in filled.picked else ()), *sorted((c for c in checkpoints if c), key=lambda c: (c.run_id, c.sort_key)))
    worn = _stacked(bench, filled)
    asked = Asked(
        prompts=prompts, negatives=(filled.negative or "",),
        search_replace=tuple(line for line in (filled.search_replace or "").splitlines() if line.strip()),
        seeds=_typed(filled.seeds), strengths=_typed(filled.strengths), steps=_typed(filled.steps), guidance=_typed(filled.guidance),
        size=_typed(filled.size), scheduler=_typed(filled.scheduler), clip_skip=_typed(filled.clip_skip),
        vae=existing_vaes(_typed(filled.vae)),
    )  # fmt: skip
    seeds = Seeds(filled)
    stacks = combine_stacks([(checkpoint, values) for _, checkpoint, values in worn])
    spec = to_spec(
        asked, columns, stacks, draw=seeds.expect if planned else seeds.draw, usual=bench.usual_sampling(),
        title=(filled.title or "").strip(), mode=mode or filled.mode, preview=bool(filled.preview),
    )  # fmt: skip
    return spec, [*runs_of(bench, spec.checkpoints), *(run for run, _, _ in worn)], seeds.kept


def _typed(text: str | None) -> str | None:
    return text.strip() or None if text else None


def _stacked(bench: Workbench, filled: Filled) -> list[tuple[Run, Checkpoint, tuple[float, ...]]]:
    """The further LoRAs, one a line as ID or ID:STRENGTHS; those without strengths of their own take the field's."""
    usual = parse_axis(typed, "strengths of the LoRAs beside") if (typed := _typed(filled.stack_strengths)) else (1.0,)
    found = []
    for line in filter(None, map(str.strip, (filled.stack or "").splitlines())):
        run, checkpoint, strengths = find_stacked(bench, line)
        found.append((run, checkpoint, usual if split_stack(line)[0] == line else strengths))
    return found


def runs_of(bench: Workbench, checkpoints: tuple[Checkpoint | None, ...]) -> list[Run]:
    """The runs of a grid's checkpoints. The base model alone is that of the first run there is."""
    library = bench.library(fresh=False)
    names = dict.fromkeys(c.run_id for c in checkpoints if c)
    if names:
        return [library.run(name) for name in names]
    if not library.runs:
        raise NotFound("there is no run, so no base model is known", "Add a folder in the Runs tab.")
    return [library.runs[0]]


# -- the form as a picture's settings say ----------------------------------------------------------------------------------


def fields_like(bench: Workbench, found: Restored) -> tuple[dict[str, Any], list[str]]:
    """The fields of Filled that a picture's settings fill, and in words what could not be restored. `runs` is the run to choose."""
    lost = list(found.not_restored)
    fields: dict[str, Any] = dict.fromkeys(("search_replace", "vae", "stack", "size"), "")
    fields |= {"prompts": " ".join(found.prompt.split("\n")), "negative": _one_negative(found.negative)}
    lost += ["line breaks in the prompt, which are spaces now"] if "\n" in found.prompt else []
    numbers = {"seeds": found.seed, "steps": found.steps, "clip_skip": found.clip_skip}
    fields |= {name: str(value) for name, value in numbers.items() if value is not None}
    shares = {"guidance": found.guidance, "strengths": found.strength}
    fields |= {name: number_text(value) for name, value in shares.items() if value is not None}
    fields |= {"scheduler": found.scheduler} if found.scheduler else {}
    fields |= {"size": f"{found.width}x{found.height}"} if found.width and found.height else {}
    if found.vae and caller().owner and os.path.exists(found.vae):
        fields["vae"] = quoted(found.vae)
    elif found.vae:
        lost.append(f"the VAE {found.vae!r}, which is not here")
    _find_worn(bench, found, fields, lost)
    return fields, lost


def _one_negative(text: str) -> str:
    text = " ".join(text.split("\n"))
    return quoted(text) if "||" in text or text.startswith('"') else text


def _find_worn(bench: Workbench, found: Restored, fields: dict[str, Any], lost: list[str]) -> None:
    """The checkpoint and the LoRAs beside it, where they are found."""
    ours = found.source == "cmp"
    if found.checkpoint and ours:
        try:
            run, _ = bench.find(found.checkpoint, only_ids=True)
            fields |= {"runs": [run.id], "picked": [found.checkpoint]}
        except CmpError:
            lost.append(f"the checkpoint {found.checkpoint!r}, which is not here")
    elif ours:
        fields["picked"] = [BASE]
    elif found.model:
        lost.append(f"the model {found.model!r}: the ticked checkpoints are drawn with")
    lines = []
    for name, strength in found.loras:
        try:
            if not ours:
                raise NotFound(name, "")
            bench.find(name, only_ids=True)
            lines.append(f"{name}:{number_text(strength)}")
        except CmpError:
            lost.append(f"the LoRA {name!r} at {number_text(strength)}")
    fields["stack"] = "\n".join(lines)


def fields_locked(filled: Filled, rows: tuple[Row, ...]) -> dict[str, str]:
    """Where the lock is on, the fields that keep the seeds of these rows: the seeds that all prompts share, or `--d` behind each prompt."""
    if not filled.locked:
        return {}
    if shared := common_seeds(rows):
        return {"seeds": ", ".join(map(str, shared))}
    return {"prompts": _with_seeds(filled.prompts or "", seeds_by_prompt(rows))}


def _with_seeds(text: str, seeds: Mapping[str, list[int]]) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        try:
            own = seeds.get(parse_prompt_line(line).text, [])
        except BadInput:
            own = []
        lines += [f"{_SEED.sub('', line)} --d {seed}" for seed in own] if own else [line]
    return "\n".join(dict.fromkeys(lines))


def line_of(prompt: Prompt) -> str:
    """The prompt as a line of the form, without what fields of their own say."""
    text = " ".join(prompt.text.split("\n"))
    return f"{text} --name {prompt.name}" if prompt.name else text


def pattern_of(bench: Workbench, filled: Filled) -> tuple[GridSpec, str]:
    """What the form says without its checkpoints, to be drawn with others; and the seeds to keep."""
    spec, _, kept = read_grid(bench, filled._replace(picked=[BASE]))
    return replace(spec, checkpoints=(None,)), kept
