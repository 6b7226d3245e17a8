"""What the matrix is fed with of the trainer's pictures: a plain value. No widget is known here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cmp.core.grid_axes import STEP
from cmp.core.runs import Run, Sample, validation_prompts
from cmp.ui.values import Names


def samples_matrix(run: Run, name_of: Names, url: Callable[[Sample, bool], str]) -> dict[str, Any]:
    """The trainer's own pictures as a grid: a column per step, a row per prompt and picture. Nothing is drawn."""
    steps = sorted({s.step for s in run.samples})
    lines = sorted({(s.prompt, s.image) for s in run.samples})
    texts = dict(enumerate(validation_prompts(run)))
    prompts, pictures = sorted({p for p, _ in lines}), sorted({i for _, i in lines})
    cells = [
        {
            "at": [steps.index(s.step), prompts.index(s.prompt), pictures.index(s.image)],
            "key": url(s, False),
            "state": "done",
            "thumb": url(s, False),
            "full": url(s, True),
            "details": [["drawn by", "the trainer, while training"], ["file", s.path.name]],
        }
        for s in run.samples
    ]
    axes = [
        _axis(STEP, "Step", [(str(step), f"step {step}") for step in steps]),
        _axis("prompt", "Prompt", [(str(p), texts.get(p, f"prompt {p}")) for p in prompts]),
        _axis("picture", "Picture", [(str(i), f"picture {i}") for i in pictures]),
    ]
    return {
        "title": f"{name_of(run)}: drawn by the trainer" if cells else "",
        "axes": axes if cells else [],
        "place": {STEP: "x", "prompt": "y", "picture": "y"},
        "step_axis": STEP,
        "cells": cells,
        "done": 0,
        "total": 0,
        "note": "" if cells else "The trainer left no pictures in this run's folder.",
    }


def _axis(key: str, label: str, values: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {
        "key": key,
        "label": label,
        "values": [{"key": k, "label": text, "sub": "", "details": [[label.lower(), text]]} for k, text in values],
    }
