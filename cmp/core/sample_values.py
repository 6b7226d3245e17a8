"""The trainers' own pictures as the matrix takes them: plain values made from samples. No widget is known here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cmp.core.marks import NONE as UNMARKED
from cmp.core.marks import Marks
from cmp.core.runs import Checkpoint, Run, validation_prompts
from cmp.core.samples import FINAL_VARIANT, Sample

Names = Callable[[Run | Checkpoint], str]
Shown = Sequence[tuple[Run, tuple[Sample, ...]]]
Losses = Mapping[str, Mapping[int, float]]  # by the run's id and the step
MOST_ROWS = 6  # of prompts and pictures together; of more, one picture of each prompt is shown at a time
NONE = "The trainer left no pictures in this run. Tick checkpoints and press Compare: the same prompt is drawn with each of them."
NO_RUN = "Choose a run above to see the pictures that its trainer left."
URLS = {"thumb": "cmp/sample/{key}.256.webp", "full": "cmp/sample/{key}.png", "settings": ""}
STEP, RUN, PROMPT, PICTURE = "step", "run", "prompt", "picture"
LABELS = {RUN: "Run", STEP: "Step", PROMPT: "Prompt", PICTURE: "Picture"}
Heads = dict[str, dict[str, Any]]  # by their keys


def samples_value(shown: Shown, name_of: Names, key_of: Callable[[Sample], str | None]) -> dict[str, Any]:
    """The pictures of one or several runs: a column for each step, rows by run, prompt and picture. Nothing is drawn.

    `key_of` gives the name that a picture is served under, None for one that has gone.
    """
    told = [(run, sample, key) for run, its in shown for sample in _at_their_steps(its) if (key := key_of(sample))]
    heads = _heads(shown, [(run, sample) for run, sample, _ in told], name_of)
    places = {axis: {key: i for i, key in enumerate(its)} for axis, its in heads.items()}
    cells = [_cell(run, sample, key, places) for run, sample, key in told]
    ordinary = {sample.image for _, sample, _ in told if sample.variant != FINAL_VARIANT}
    one_at_a_time = len(ordinary) == 1 or len(heads[PROMPT]) * len(heads[PICTURE]) > MOST_ROWS
    title = ", ".join(name_of(run) for run, _ in shown)
    return {
        "title": f"{title}: drawn by the trainer" if cells else "",
        "note": "" if cells else NONE if shown else NO_RUN,
        "axes": [{"key": axis, "label": LABELS[axis], "values": list(its.values())} for axis, its in heads.items()] if cells else [],
        "place": {RUN: "Y", STEP: "x", PROMPT: "y", PICTURE: "" if one_at_a_time else "y"},
        "step_axis": STEP,
        "run": shown[0][0].id if len(shown) == 1 else None,
        "cells": cells,
        "urls": URLS,
        "marks": [],
        "common": [["drawn by", "the trainer, while training"]],
        "done": 0,
        "total": 0,
        "rerolls": [],
    }


def _at_their_steps(its: Sequence[Sample]) -> list[Sample]:
    """What was drawn at the end is a picture of its step like any other; a variant is left only where that has the same picture already."""
    others = {sample.place for sample in its}

    def placed(sample: Sample) -> Sample:
        if sample.variant != FINAL_VARIANT:
            return sample
        plain = replace(sample, variant="", step_source=f"{sample.step_source or 'its name'}; drawn at the end")
        return sample if plain.place in others else plain

    return [placed(sample) for sample in its]


def step_marks(value: Mapping[str, Any], shown: Shown, losses: Losses, marks: Marks) -> list[dict[str, Any]]:
    """What is known of each column, for each run that has pictures: the loss there, what became of the checkpoint, and its star."""
    axes = {axis["key"]: axis["values"] for axis in value["axes"]}
    runs = [head["key"] for head in axes.get(RUN, ())]
    return [
        {"at": ({RUN: runs.index(run.id)} if run.id in runs else {}) | {STEP: i}} | known
        for run, its in shown
        if its
        for i, head in enumerate(axes.get(STEP, ()))
        if head["step"] is not None and (known := _known_at(run, head["step"], losses.get(run.id, {}), marks))
    ]


def _known_at(run: Run, step: int, loss: Mapping[int, float], marks: Marks) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if step in loss:
        known["loss"] = loss[step]
    if checkpoint := next((c for c in run.checkpoints if c.step == step), None):
        known |= {"id": checkpoint.id, "details": [["checkpoint", checkpoint.id]]}
        if checkpoint.converted:
            known["converted"] = ", ".join(form for form, _ in checkpoint.converted)
        if checkpoint.flaw:
            known["flaw"] = checkpoint.flaw
        known |= marks.get(checkpoint.id, UNMARKED).told
    return known


def _heads(shown: Shown, told: Sequence[tuple[Run, Sample]], name_of: Names) -> dict[str, Heads]:
    """The values of each axis, by their keys, in their order; the runs only where there are several."""
    runs = {run.id: _head(name_of(run), [["run", run.id]]) for run, _ in shown} if len(shown) > 1 else {}
    steps: Heads = {}
    for sample in sorted((sample for _, sample in told), key=_order):
        steps.setdefault(step_key(sample), _step_head(sample))
    by_number = sorted(((sample.prompt, prompt_text(run, sample)) for run, sample in told), key=lambda line: line[0])
    prompts = {key_text(text): _head(text, [["prompt", text]]) for _, text in by_number}
    pictures = {picture_text(s): _head(picture_text(s), []) for _, s in sorted(told, key=lambda item: (item[1].variant, item[1].image))}
    named = {RUN: runs, STEP: steps, PROMPT: prompts, PICTURE: pictures}
    return {axis: {key: {"key": key} | head for key, head in its.items()} for axis, its in named.items() if its or axis != RUN}


def _head(label: str, details: list[list[str]], sub: str = "") -> dict[str, Any]:
    return {"label": label, "sub": sub, "details": details}


def _step_head(sample: Sample) -> dict[str, Any]:
    step, epoch = sample.step, [["epoch", str(sample.epoch)]] if sample.epoch is not None else []
    if step is None:
        return _head(f"epoch {sample.epoch}", [["step", "not known: nothing tells how many steps an epoch had"]], "step not known") | {
            "step": None
        }
    return _head(f"step {step}", [["step", str(step)], *epoch]) | {"step": step}


def _order(sample: Sample) -> tuple[bool, int]:
    """By step; what only counts epochs comes behind all steps."""
    known = sample.step is not None
    return (not known, (sample.step if known else sample.epoch) or 0)


def step_key(sample: Sample) -> str:
    """What a picture's column is called in a link."""
    return f"e{sample.epoch}" if sample.step is None else str(sample.step)


def prompt_text(run: Run, sample: Sample) -> str:
    """The prompt of a picture, or its number where the trainer left no text. Runs share a row where they share the text."""
    texts = validation_prompts(run)
    return sample.text or (texts[sample.prompt] if sample.prompt < len(texts) else "") or f"prompt {sample.prompt + 1}"


def picture_text(sample: Sample) -> str:
    variant = "drawn at the end" if sample.variant == FINAL_VARIANT else sample.variant
    return " · ".join(part for part in (f"picture {sample.image + 1}", variant) if part)


def key_text(text: str) -> str:
    """A short key for a long text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]


def _cell(run: Run, sample: Sample, key: str, places: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    named = {RUN: run.id, STEP: step_key(sample), PROMPT: key_text(prompt_text(run, sample)), PICTURE: picture_text(sample)}
    details = [["file", sample.path.name]]
    if sample.step is not None and sample.step_source:
        details.append(["step told by", sample.step_source])
    return {"at": [its[named[axis]] for axis, its in places.items()], "key": key, "state": "done", "details": details}
