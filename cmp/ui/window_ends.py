"""The ends of a window side by side: in pictures that are there already, or else made ready to be drawn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from cmp.core.labels import BASE_MODEL
from cmp.core.runs import Checkpoint, Run
from cmp.core.sample_values import step_key
from cmp.core.samples import FINAL_VARIANT
from cmp.core.window_ends import cells_of_both, grid_of_both
from cmp.errors import CmpError
from cmp.jobs import Job
from cmp.ui.choices import BASE
from cmp.ui.faults import told
from cmp.ui.grid_drawing import begin_in, begun
from cmp.ui.grid_form import DRAWN, SAMPLES, Form
from cmp.ui.grid_jobs import KINDS, grid_value
from cmp.ui.offering import offer
from cmp.ui.samples_view import value_of
from cmp.workbench import Workbench

Ends = Sequence[Checkpoint | None]  # None is the base model


class Beside(NamedTuple):
    """What the matrix shows where both ends are there: a job's grid, or for None the trainer's pictures."""

    job: Job | None
    value: dict[str, Any]


def connect_ends(bench: Workbench, form: Form, pick: gr.HTML, known: list[Any], shown: list[Any]) -> None:
    """Has the Pick tab's panels lead here. `shown` are the tabs and the form, which are told of both ends as well."""

    @told
    def compare_ends(event: gr.EventData, text: str, before: str, run_id: str) -> Any:
        library = bench.library(fresh=False)
        run = library.run(event._data["run"])
        ids = [str(name) for name in event._data.get("ids") or ()][:2]
        ends: list[Checkpoint | None] = [run.checkpoint(name.rpartition("@")[2]) for name in ids]
        ends = ends if len(ends) == 2 else [None, *ends]
        offers = offer(bench, library, [run.id], [c.id if c else BASE for c in ends], text, before)
        return gr.Tabs(selected="compare"), *offers, run_id, *_shown(bench, form, found_beside(bench, run, ends), ends)

    # in the queue, since a message reaches the page only from there
    pick.select(compare_ends, known, [*shown, *begin_in(form)], show_progress="hidden")


def found_beside(bench: Workbench, run: Run, ends: Ends) -> Beside | None:
    """The newest grid of this process in which both ends are, or the trainer's pictures, or a grid that another process drew."""
    keys = [_keys(c) if c else {BASE_MODEL} for c in ends]
    for job in reversed(bench.jobs.all()):
        if job.kind in KINDS and (value := grid_value(bench, job)).get("cells") and (at := cells_of_both(value, run.id, keys)):
            return Beside(job, _opening(value, at))
    if (value := _trainers(bench, run)) and (at := cells_of_both(value, run.id, [_steps(bench, run, c) for c in ends])):
        return Beside(None, _opening(value, at))
    if job := _drawn_before(bench, run, ends):
        value = grid_value(bench, job)
        if at := cells_of_both(value, run.id, keys, done=False):
            return Beside(job, _opening(value, at))
    return None


def _keys(checkpoint: Checkpoint) -> set[str]:
    """What a grid calls it on its axis: by the whole id, or beside another run by the key alone."""
    ids = (checkpoint.id, *checkpoint.aliases)
    return {*ids, *(name.rpartition("@")[2] for name in ids)}


def _shown(bench: Workbench, form: Form, found: Beside | None, ends: Ends) -> list[Any]:
    """What goes where `begun` does."""
    places = begin_in(form)
    if found is None:
        gr.Info(none_told(ends, bench.settings.draws))
        told = {form.source: DRAWN} if bench.settings.draws else {}
    elif found.job is None:
        told = {form.source: SAMPLES, form.grid: found.value}
    else:
        told = dict(zip(places, begun(bench, found.job), strict=True)) | {form.grid: found.value}
    return [told.get(place, gr.skip()) for place in places]


def _opening(value: dict[str, Any], at: list[list[int | None]]) -> dict[str, Any]:
    return value | {"compare": {"cells": at, "asked": str(time.time())}}


def _trainers(bench: Workbench, run: Run) -> dict[str, Any]:
    return value_of(bench, bench.library(fresh=False), [run.id]) if bench.gallery.samples(run) else {}


def _steps(bench: Workbench, run: Run, checkpoint: Checkpoint | None) -> set[str]:
    """The columns of the trainer's pictures that a checkpoint has. What was drawn at the end is of the last weights alone."""
    if checkpoint is None or checkpoint.step is None:
        return set()
    of_step = [sample for sample in bench.gallery.samples(run) if sample.step == checkpoint.step]
    return {step_key(sample) for sample in of_step if sample.variant != FINAL_VARIANT or checkpoint == run.checkpoints[-1]}


def _drawn_before(bench: Workbench, run: Run, ends: Ends) -> Job | None:
    """The grid of what another process drew of both; None where any of it would have to be drawn, or for who asks too often."""
    first, last = ends
    if first is None or last is None:
        return None
    try:
        spec = grid_of_both(bench.pictures(run), first, last)
        return None if spec is None else bench.show_drawn(spec, [run])
    except CmpError:
        return None


def none_told(ends: Ends, draws: bool) -> str:
    names = [_label(c) for c in ends]
    told = f"No picture with the same prompt and seed is there of both {names[0]} and {names[1]}."
    return f"{told} They are ticked now: press Draw, and open them side by side." if draws else f"{told} This server only shows pictures."


def _label(checkpoint: Checkpoint | None) -> str:
    key = checkpoint.key if checkpoint else BASE_MODEL
    return f"step {key}" if key.isdigit() else key
