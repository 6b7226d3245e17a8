"""The grids that were drawn before, by whatever process, to be chosen from on the Compare tab. Looking draws nothing."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from cmp.core.grids import GridSpec
from cmp.core.orders import run_reference
from cmp.core.present import counted
from cmp.jobs import Job
from cmp.ui.grid_drawing import begin_in, begun, filling, fills_in
from cmp.ui.grid_form import Form
from cmp.ui.grid_jobs import spec_of
from cmp.ui.values import short_names
from cmp.workbench import Workbench
from cmp.workbench.callers import caller
from cmp.workbench.kept_grids import KeptGrid, kept_grids

NOT_ALL = "Some pictures of this grid are not here any more, or a checkpoint or base model of it has gone."


def connect_earlier(bench: Workbench, form: Form, tab: gr.Tab) -> None:
    """Fills the list when the tab is opened and when a grid is over; one that is chosen is shown, and fills the form."""
    shown = [*begin_in(form), *fills_in(form)]

    def offer() -> Any:
        choices = earlier_choices(bench)
        first = (f"Earlier grids ({len(choices)}) …" if choices else "No earlier grid", "")
        return gr.update(choices=[first, *choices], value="")

    def choose(name: str, run_id: str) -> Any:
        if not name or (not caller().owner and name not in [one for _, one in earlier_choices(bench)]):
            return [gr.skip()] * len(shown)
        job = _job(bench, name)
        spec = spec_of(job) if job else _told(bench, name)
        if job is None:
            gr.Warning(f"{NOT_ALL} {'The form says how it was drawn: Draw makes what is missing.' if spec else ''}".strip())
        begin = begun(bench, job) if job else [gr.skip()] * len(begin_in(form))
        return [*begin, *(filling(bench, spec, run_id) if spec else [gr.skip()] * len(fills_in(form)))]

    # in the queue, since a message reaches the page only from there
    chosen = form.earlier.select(choose, [form.earlier, form.came_with], shown, show_progress="minimal", show_progress_on=form.earlier)
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    chosen.then(offer, None, form.earlier, **quiet)
    gr.on([tab.select, form.ended.change], offer, None, form.earlier, trigger_mode="always_last", **quiet)


def earlier_choices(bench: Workbench) -> list[tuple[str, str]]:
    """What is told of each, and its id. Visitors are told of the runs that this server shows."""
    library = bench.library(fresh=False)
    names, ids = short_names(library, bench.name_of), {str(run_reference(run)["path"]): run.id for run in library.runs}
    kept = kept_grids(bench)
    if not caller().owner:
        kept = tuple(one for one in kept if all(place in ids for place in one.places))
    return [(_label(one, {place: names[name] for place, name in ids.items()}), one.id) for one in kept]


def _label(one: KeptGrid, names: dict[str, str]) -> str:
    runs = ", ".join(names.get(place, name) for name, place in zip(one.names, one.places, strict=True))
    return " · ".join(filter(None, (one.title, runs, counted(one.cells, "cell"), when(one.made, time.time()))))


def when(moment: float, now: float) -> str:
    """A moment by this machine's clock, the day only where it is not today."""
    then, today = time.localtime(moment), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("today %H:%M", then)
    return time.strftime("%Y-%m-%d %H:%M", then)


def _job(bench: Workbench, name: str) -> Job | None:
    job = bench.jobs.known(name)
    return job if job is not None and spec_of(job) is not None else bench.grid_again(name)


def _told(bench: Workbench, name: str) -> GridSpec | None:
    """How a grid was drawn that cannot be shown, for who may draw it again."""
    kept = bench.kept_grid(name) if caller().owner and bench.settings.draws else None
    return kept[0] if kept else None
