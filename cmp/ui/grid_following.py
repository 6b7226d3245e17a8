"""What is shown belongs together: where another run is chosen on the Compare tab, the grid beside the form is one of that run, or none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import gradio as gr

from cmp.core.orders import run_reference
from cmp.core.runs import Run
from cmp.errors import CmpError
from cmp.jobs import Job
from cmp.ui.grid_drawing import begin_in, begun, trainer_grid
from cmp.ui.grid_form import SAMPLES, Form
from cmp.ui.grid_jobs import EMPTY, KINDS, NONE_CHOSEN, NONE_DRAWN, Earlier, controls_of, grid_value, runs_shown, tiles_of
from cmp.ui.values import short_names
from cmp.workbench import Workbench
from cmp.workbench.kept_grids import kept_grids

_AS_TEXT = "(runs) => JSON.stringify(runs ?? [])"
_MOST_TRIED = 3  # earlier grids of a run of which it is looked whether they are still there


def connect_following(bench: Workbench, form: Form, before: Earlier) -> None:
    """Has the grid follow the runs and the kind of pictures that are chosen, and tells whose it is where it cannot."""
    sought, chosen = gr.Textbox(visible=False), gr.Textbox(visible=False)
    shown = [*begin_in(form), form.whose]

    def follow(picked: list[str], job_id: str, which: str, *, anew: bool = False) -> Any:
        job = bench.jobs.known(job_id)
        if which == SAMPLES:
            value = _trainers(bench, picked) if picked else NONE_CHOSEN  # as where the page is only just being filled
            return [*_only(form, shown, {form.grid: value, form.whose: ""}), ""]
        if job is not None and _belongs(job, picked):
            grid = {form.grid: grid_value(bench, job, before.of(job))} if anew else {}
            return [*_only(form, shown, grid | {form.whose: whose_told(bench, job, picked)}), ""]
        if not picked:
            return [*_only(form, shown, {form.grid: EMPTY if bench.settings.draws else NONE_DRAWN} if anew else {}), ""]
        if own := _own(bench, picked):
            return [*begun(bench, own, before.of(own)), whose_told(bench, own, picked), ""]
        earlier = _earlier(bench, picked)
        note = f"Looking for what was drawn of {names_of(bench, picked)} before …" if earlier else none_told(bench, picked)
        nothing = _nothing(note) if job_id else _only(form, begin_in(form), {form.grid: EMPTY | {"note": note}})
        return [*nothing, "", "\n".join(earlier)]

    def bring(found: str, picked: list[str], job_id: str) -> Any:
        for name in found.split("\n")[:_MOST_TRIED] if found and not job_id else ():
            if job := bench.grid_again(name):
                return [*begun(bench, job), whose_told(bench, job, picked)]
        return _only(form, shown, {} if job_id or not found else {form.grid: EMPTY | {"note": none_told(bench, picked)}})

    asked, quiet = [form.runs, form.job_id, form.source], {"queue": False, "show_progress": "hidden"}
    # a list of choices tells of a change whenever anything beside it does, a text only where it is another one
    form.runs.change(None, form.runs, chosen, js=_AS_TEXT)
    gr.on([chosen.change, form.job_id.change], follow, asked, [*shown, sought], trigger_mode="always_last", **quiet)
    form.source.input(partial(follow, anew=True), asked, [*shown, sought], trigger_mode="always_last", **quiet)
    sought.change(bring, [sought, form.runs, form.job_id], shown, trigger_mode="always_last", **quiet)


def _only(form: Form, shown: Sequence[Any], told: dict[Any, Any]) -> list[Any]:
    return [told.get(place, gr.skip()) for place in shown]


def _nothing(note: str) -> list[Any]:
    """No grid at all, where `begun` goes."""
    pause, cancel = gr.update(value=controls_of(None).pause, interactive=False), gr.update(interactive=False)
    return ["", "", gr.skip(), EMPTY | {"note": note}, "", pause, cancel, gr.Timer(active=False), ""]


def _trainers(bench: Workbench, picked: list[str]) -> Any:
    try:
        return trainer_grid(bench, picked)
    except CmpError:
        return gr.skip()


def _belongs(job: Job, picked: Collection[str]) -> bool:
    """Whether a grid may stand beside these runs: one of them is in it, or it is still being drawn, and all would wonder where it went."""
    its = runs_shown(job)
    return not job.over or not its or bool(its & set(picked))


def _own(bench: Workbench, picked: Collection[str]) -> Job | None:
    """The newest grid of this process with pictures of these runs; one of exactly them goes before others."""
    known = [job for job in bench.jobs.all() if job.kind in KINDS and runs_shown(job) & set(picked)]
    there = [job for job in known if not job.over or any(not tile.fault for tile in tiles_of(job).values())]
    return max(there, key=lambda job: (runs_shown(job) == set(picked), not job.over, job.made), default=None)


def _earlier(bench: Workbench, picked: Collection[str]) -> list[str]:
    """The newest grids that other processes drew of these runs."""
    places = {run_reference(run)["path"] for run in _runs(bench, picked)}
    return [one.id for one in kept_grids(bench) if places & set(one.places)][:_MOST_TRIED]


def _runs(bench: Workbench, picked: Collection[str]) -> list[Run]:
    return [run for run in bench.library(fresh=False).runs if run.id in picked]


def names_of(bench: Workbench, ids: Collection[str]) -> str:
    """The runs of these ids by name."""
    names = short_names(bench.library(fresh=False), bench.name_of)
    return ", ".join(names.get(name, name) for name in ids)


def whose_told(bench: Workbench, job: Job, picked: Sequence[str]) -> str:
    """Of which runs the grid is, in words, where other ones are chosen beside it; "" where these are the same."""
    its = runs_shown(job)
    if not its or its == set(picked):
        return ""
    state = "" if job.over else ", and is still being drawn"
    return f"This grid is of {names_of(bench, sorted(its))}{state}. Chosen at the left, and in the loss curve: {names_of(bench, picked)}."


def none_told(bench: Workbench, picked: Sequence[str]) -> str:
    """What stands in the place of the grid of runs of which there is none."""
    told = f"No grid of {names_of(bench, picked)} is here yet."
    if not bench.settings.draws:
        return f"{told} This server only shows pictures."
    return f"{told} Draw makes one of what is ticked at the left; the line below the button says how many pictures that is."
