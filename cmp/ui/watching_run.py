"""A run that is being trained, on the Compare tab: its new checkpoints as they land, and its newest one now."""

from __future__ import annotations

from typing import Any

import gradio as gr

from cmp.errors import BadInput, CmpError
from cmp.ui.faults import changing, drawing
from cmp.ui.filling import Filled, pattern_of
from cmp.ui.grid_drawing import begin_in, begun
from cmp.ui.grid_form import Form
from cmp.workbench import Workbench
from cmp.workbench.callers import caller


def connect_watching(bench: Workbench, form: Form, tab: gr.Tab) -> None:
    """Connects the checkbox and the button."""
    shown = [*begin_in(form), form.fields["kept"]]

    def first_run(runs: list[str]) -> str:
        if not runs:
            raise BadInput("no run is chosen", "Choose the run that is being trained.")
        return runs[0]

    @changing
    def watch(on: bool, too: bool, runs: list[str], watched: str, *values: Any) -> Any:
        if not on:
            stop_watching(bench, watched)
            return *[gr.skip()] * len(shown), "", False
        filled = Filled(*values)
        pattern, kept = pattern_of(bench, filled)
        run_id = first_run(runs)
        job = bench.start_watch(run_id, pattern, filled.given, measure=too and can_measure(bench, run_id))
        return *begun(bench, job), kept, job.id, True

    @drawing
    def newest(runs: list[str], *values: Any) -> Any:
        filled = Filled(*values)
        pattern, kept = pattern_of(bench, filled)
        spec, run = bench.sample_newest(first_run(runs), pattern)
        return *begun(bench, bench.start_grid(spec, [run], filled.given)), kept

    form.watch.input(
        watch,
        [form.watch, form.watch_too, form.runs, form.watch_id, *form.asked],
        [*shown, form.watch_id, form.watch],
        show_progress="hidden",
    ).failure(lambda: False, None, form.watch, queue=False, show_progress="hidden")

    form.newest.click(newest, [form.runs, *form.asked], shown, show_progress="hidden")
    _offering(bench, form, tab)


def _offering(bench: Workbench, form: Form, tab: gr.Tab) -> None:
    """Shows the second checkbox where it means something; the run may have been measured since the tab was left."""

    def offer_measuring(runs: list[str]) -> Any:
        return gr.update(visible=bool(runs) and can_measure(bench, runs[0]))

    asking = [form.runs.change, tab.select]
    gr.on(asking, offer_measuring, form.runs, form.watch_too, trigger_mode="always_last", queue=False, show_progress="hidden")


def can_measure(bench: Workbench, run_id: str) -> bool:
    """Whether it is known on which held-out images a run is to be measured, and whoever asks may have that done."""
    if bench.settings.read_only or not caller().owner:
        return False
    try:
        run, _ = bench.find(run_id, only_ids=True)
    except CmpError:
        return False
    held = bench.last_measured(run).held_out
    return held is not None and held.is_dir()


def stop_watching(bench: Workbench, job_id: str) -> None:
    """Cancels the job, also where it has ended meanwhile."""
    try:
        if job_id and not bench.jobs.find(job_id).over:
            bench.jobs.cancel(job_id)
    except CmpError:
        return
