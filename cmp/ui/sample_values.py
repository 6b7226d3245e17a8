"""The trainers' own pictures as the matrix takes them: plain values made from samples. No widget is known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cmp.core.curves import LossCurve
from cmp.core.present import loss_text
from cmp.core.runs import Checkpoint, Run, validation_prompts
from cmp.core.samples import FINAL_VARIANT, Sample, value_at
from cmp.ui.values import Names

Shown = Sequence[tuple[Run, tuple[Sample, ...]]]
Losses = Mapping[str, LossCurve | None]  # by the run's id
MOST_ROWS = 6  # of prompts and pictures together; of more, one picture of each prompt is shown at a time
NONE = "The trainer left no pictures in this run. Tick checkpoints and press Compare to draw the same prompt with each of them."
NO_RUN = "Choose a run above to see the pictures that its trainer left."
URLS = {"thumb": "cmp/sample/{key}.256.webp", "full": "cmp/sample/{key}.png", "settings": ""}
STEP, RUN, PROMPT, PICTURE = "step", "run", "prompt", "picture"


def samples_value(shown: Shown, name_of: Names, key_of: Callable[[Sample], str | None], losses: Losses) -> dict[str, Any]:
    """The pictures of one or several runs: a column for each step, rows by run, prompt and picture. Nothing is drawn.

    `key_of` gives the name that a picture is served under, None for one that has gone.
    """
    several = len(shown) > 1
    told = [(run, sample, key, _places(run, sample)) for run, its in shown for sample in its if (key := key_of(sample))]
    steps = {place[STEP]: sample for _, sample, _, place in sorted(told, key=lambda item: _order(item[1]))}
    lines = sorted({(sample.prompt, place[PROMPT]) for _, sample, _, place in told}, key=lambda line: (line[0], str(line[1])))
    prompts = list(dict.fromkeys(prompt for _, prompt in lines))
    pictures = list(dict.fromkeys(place[PICTURE] for *_, place in sorted(told, key=lambda item: (item[1].variant, item[1].image))))
    axes = [
        *(
            [{"key": RUN, "label": "run", "values": [_head(run.id, name_of(run), run.id, run=run.id) for run, _ in shown]}]
            if several
            else []
        ),
        {"key": STEP, "label": "step", "values": [_step_head(key, sample, shown, losses) for key, sample in steps.items()]},
        {"key": PROMPT, "label": "prompt", "values": [_head(key, key) for key in prompts]},
        {"key": PICTURE, "label": "picture", "values": [_head(key, key) for key in pictures]},
    ]
    at = {axis["key"]: {head["key"]: i for i, head in enumerate(axis["values"])} for axis in axes}
    cells = [_cell(run, sample, key, place, at, losses if several else {}) for run, sample, key, place in told]
    one_at_a_time = len(prompts) * len(pictures) > MOST_ROWS
    title = ", ".join(name_of(run) for run, _ in shown)
    return {
        "title": f"{title}: drawn by the trainer" if cells else "",
        "note": "" if cells else NONE if shown else NO_RUN,
        "axes": axes,
        "place": {RUN: "Y", STEP: "x", PROMPT: "y", PICTURE: "" if one_at_a_time else "y"},
        "step_axis": STEP,
        "cells": cells,
        "urls": URLS,
        "common": [["drawn by", "the trainer, while training"]],
        "scores": [],
        "done": 0,
        "total": 0,
        "rerolls": False,
        "export": "",
    }


def _places(run: Run, sample: Sample) -> dict[str, str]:
    """What the picture's values on the axes are called; a prompt goes by its text, so that runs share a row where they share it."""
    texts = validation_prompts(run)
    text = sample.text or (texts[sample.prompt] if sample.prompt < len(texts) else "")
    final = sample.variant == FINAL_VARIANT
    step = f"{FINAL_VARIANT} {sample.step}" if final else str(sample.step) if sample.step is not None else f"epoch {sample.epoch}"
    picture = " · ".join(part for part in (f"picture {sample.image + 1}", "" if final else sample.variant) if part)
    return {RUN: run.id, STEP: step, PROMPT: text or f"prompt {sample.prompt + 1}", PICTURE: picture}


def _order(sample: Sample) -> tuple[bool, int, bool]:
    """By step; what only counts epochs comes behind all steps, and what was drawn at the end behind its step."""
    known = sample.step is not None
    return (not known, (sample.step if known else sample.epoch) or 0, sample.variant == FINAL_VARIANT)


def _head(key: str, label: str, sub: str = "", **more: Any) -> dict[str, Any]:
    return {"key": key, "label": label, "sub": sub, "details": [], **more}


def _step_head(key: str, sample: Sample, shown: Shown, losses: Losses) -> dict[str, Any]:
    """A column: the step, the loss there, and what became of its checkpoint."""
    step = sample.step
    if step is None:
        head = _head(key, key, "its step is not known", note="Nothing tells how many steps an epoch had.")
        return head | {"details": [["step", "not known: nothing tells how many steps an epoch had"]]}
    head = _head(key, f"{FINAL_VARIANT}, step {step}" if sample.variant == FINAL_VARIANT else f"step {step}", step=step)
    head["details"] = [["step from", sample.step_source or "the name of the file"]]
    if sample.epoch is not None:
        head["details"].append(["epoch", str(sample.epoch)])
    subs = []
    if len(shown) == 1:
        run = shown[0][0]
        if (loss := value_at(losses.get(run.id), step)) is not None:
            head["loss"] = loss
            head["details"].append(["loss", loss_text(loss)])
            subs.append(f"loss {loss_text(loss)}")
        if checkpoint := _checkpoint_at(run, step):
            subs += _add_checkpoint(head, checkpoint)
    head["sub"] = " · ".join(subs)
    return head


def _checkpoint_at(run: Run, step: int) -> Checkpoint | None:
    return next((c for c in run.checkpoints if c.step == step), None)


def _add_checkpoint(head: dict[str, Any], checkpoint: Checkpoint) -> list[str]:
    head["details"].append(["checkpoint", checkpoint.id])
    if made := ", ".join(form for form, _ in checkpoint.converted):
        head["converted"] = made
        head["details"].append(["converted to", made])
    if checkpoint.flaw:
        head["note"] = checkpoint.flaw
        head["details"].append(["flaw", checkpoint.flaw])
    return [*([made] if made else []), *(["has a flaw"] if checkpoint.flaw else [])]


def _cell(run: Run, sample: Sample, key: str, place: dict[str, str], at: dict[str, dict[str, int]], losses: Losses) -> dict[str, Any]:
    details = [["file", sample.path.name]]
    if sample.step_source:
        details.append(["step from", sample.step_source])
    if sample.step is not None and (loss := value_at(losses.get(run.id), sample.step)) is not None:
        details.append(["loss", loss_text(loss)])
    return {"at": [at[axis][place[axis]] for axis in at], "key": key, "state": "done", "details": details}
