"""Drawing on the Compare tab: a grid is started, watched, paused, cancelled, drawn again in part, and found again after a reload."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import gradio as gr

from cmp.core.grid_axes import row_at
from cmp.core.grids import GridSpec, Tile
from cmp.core.prompts import parse_prompts
from cmp.core.rerolling import common_seeds, rows_of, with_new_seed
from cmp.core.runs import Run
from cmp.errors import NotFound
from cmp.jobs import Job
from cmp.ui.choices import BASE
from cmp.ui.clocks import stop_at_end
from cmp.ui.faults import cancelling, changing, drawing
from cmp.ui.filling import Filled, fields_locked, line_of, read_grid, runs_of
from cmp.ui.glance import first_ids
from cmp.ui.grid_form import DRAWN, Form
from cmp.ui.grid_jobs import (
    Earlier,
    controls_of,
    grid_status,
    grid_value,
    labels_of,
    last_job,
    needs_answer,
    none_drawable,
    plan_text,
    spec_of,
    stamp_of,
)
from cmp.ui.offering import offer
from cmp.ui.planner import Planner
from cmp.ui.refilling import FIELDS, fields_of
from cmp.ui.samples_view import runs_with, value_of
from cmp.ui.starring import star
from cmp.workbench import Workbench
from cmp.workbench.callers import caller

# so that a reload finds this grid again, and not the newest one of somebody else
_PUT = "const at = new URL(location); at.searchParams.set('grid', id); history.replaceState(history.state, '', at);"
_CLEAR = """const at = new URL(location); at.searchParams.delete('grid'); at.searchParams.delete('view');
  history.replaceState(history.state, '', at);"""
REMEMBER = f"(id) => {{ if (id) {{ {_PUT} }} }}"
# on another tab the address speaks of what is shown there
_REMEMBER_SHOWN = f"""(id) => {{
  if (!document.querySelector('#grid')?.checkVisibility()) return;
  if (id) {{ {_PUT} }} else if (window.cmpRecalled) {{ {_CLEAR} }}
}}"""
# the grid that the page was opened with: later its address names whatever grid is shown
_OPENED_WITH = "(window.cmpOpenedWith ??= new URL(location).searchParams.get('grid') || '')"
_RECALL = f"() => {{ window.cmpRecalled = true; return {_OPENED_WITH}; }}"
_OF_RUN = "(found, id) => [found, id, new URL(location).searchParams.get('run') || '']"
_WANTED = "wanted "  # before the name of a grid that the address names
RECALLING = "recalling "
# while the form is being filled from that grid, nothing else may fill it: the last value is where it was filled from before
_EARLIER = f"values.at(-1) || ({_OPENED_WITH} && '{RECALLING}' + {_OPENED_WITH})"
# the value before it: the runs that the page's address names
TELL_RECALLING = f"(...values) => [...values.slice(0, -2), window.cmpRunLink?.compared() ?? '', {_EARLIER}]"
# the first tab is told to be selected when the page is made, too
FORGET = f"() => {{ if (window.cmpRecalled) {{ {_CLEAR} }} }}"
NOT_BEGUN = "Nothing was begun: none of these can be drawn, for what is said above."
_PLANNED_WITHIN = 3.0  # seconds; drawing begins all the same where it is not known by then that nothing can be drawn
# on a narrow page the grid is far below the button; what was told last comes back where nothing can be begun
_SHOW = """() => { if (innerWidth < 900) document.querySelector('#grid')?.scrollIntoView({ behavior: 'smooth' });
    window.cmpStatus = document.querySelector('#compare-status textarea')?.value ?? '';
    return 'Looking which of these can be drawn …'; }"""


def connect_drawing(bench: Workbench, form: Form, page: gr.Blocks, tab: gr.Tab, tabs: gr.Tabs, planner: Planner) -> Earlier:
    """Connects the events of the buttons, the grid and the clock; gives what was shown before each grid."""
    earlier = Earlier()

    @drawing
    def start(job_id: str, *values: Any) -> Any:
        filled = Filled(*values)
        spec, runs, kept = read_grid(bench, filled)
        bench.require_small(spec)
        planned = planner.ask(spec, runs, filled.given, _PLANNED_WITHIN)
        if planned and none_drawable(planned.plan):
            told = {form.plan: plan_text(bench, spec, planned.plan), form.status: NOT_BEGUN}
            told |= {form.question: gr.Accordion(open=True)} if needs_answer(planned.plan) else {}
            return [told.get(place, gr.skip()) for place in changed]
        job = bench.start_grid(spec, runs, filled.given)
        for run in runs:
            bench.remember_prompts(run, dict.fromkeys(prompt.text for prompt in parse_prompts(filled.prompts or "")))
        earlier.put(job, bench.jobs.known(job_id))
        return *begun(bench, job, earlier.of(job)), kept, gr.skip(), gr.skip()

    changed = [*begin_in(form), form.fields["kept"], form.plan, form.question]
    form.draw.click(None, None, form.status, js=_SHOW)
    started = form.draw.click(start, [form.job_id, *form.asked], changed, show_progress="hidden")
    started.failure(None, None, form.status, js="() => window.cmpStatus ?? ''")
    form.job_id.change(None, form.job_id, None, js=_REMEMBER_SHOWN)
    tab.select(None, form.job_id, None, js=REMEMBER)
    _watching(bench, form, earlier)
    _finding(bench, form, page, tabs)
    _controls(bench, form)
    _rerolling(bench, form, earlier)
    return earlier


def begin_in(form: Form) -> list[Any]:
    """Where `begun` goes."""
    return [form.job_id, form.stamp, form.source, form.grid, form.status, form.pause, form.cancel, form.clock, form.ended]


def begun(bench: Workbench, job: Job, earlier: Sequence[Tile] = ()) -> tuple[Any, ...]:
    """What shows a job from now on. The clock runs for one that is over, too: its tick tells how it ended, and what is to be answered."""
    status = grid_status(bench, job)[0]
    return job.id, stamp_of(job), DRAWN, grid_value(bench, job, earlier), status, *_buttons(job), gr.Timer(active=True), ""


def _buttons(job: Job) -> tuple[Any, Any]:
    now = controls_of(job)
    return gr.update(value=now.pause, interactive=now.can_pause), gr.update(interactive=now.can_cancel)


def _watching(bench: Workbench, form: Form, earlier: Earlier) -> None:
    def watch(job_id: str, before: str, which: str) -> Any:
        job = bench.jobs.known(job_id)
        if job is None:  # a tick that was under way, or the server was started anew and this job is over
            return gr.skip(), "", *[gr.skip()] * 4, job_id, gr.skip()
        stamp = stamp_of(job)
        text, ask = grid_status(bench, job)
        value = grid_value(bench, job, earlier.of(job)) if stamp != before and which == DRAWN else gr.skip()
        buttons = _buttons(job)  # before it is said to be over, so that the last tick tells the end
        ended = job.over and stamp == before
        row = bench.lending.wanted() if bench.lending and not job.over else ""
        asks = gr.Accordion(open=True) if ask else gr.skip()
        return value, stamp, text, *buttons, asks, job.id if ended else gr.skip(), row or gr.skip()

    @drawing
    def draw_row(row: str) -> None:
        """Queued, since for such events alone a Space says who sent them."""
        if row and bench.lending:
            bench.lending.carry_out(row)

    watched = [form.grid, form.stamp, form.status, form.pause, form.cancel, form.question, form.ended, form.row]
    if bench.lending:
        form.row.change(draw_row, form.row, None, show_progress="hidden")
    form.clock.tick(watch, [form.job_id, form.stamp, form.source], watched, queue=False, show_progress="hidden")
    stop_at_end(form.clock, form.ended, form.job_id, form.stamp)


def _finding(bench: Workbench, form: Form, page: gr.Blocks, tabs: gr.Tabs) -> None:
    """After a reload, the grid that was looked at, or else the newest of this server, and what was to be drawn in it."""
    chosen = [*fills_in(form), tabs]
    shown = [*begin_in(form), form.watch_id, form.watch, *chosen]

    def find(wanted: str) -> str:
        job = last_job(bench, wanted)
        if wanted and (job is None or job.id != wanted) and (again := bench.grid_again(wanted)):
            return f"{_WANTED}{again.id}"
        return "" if job is None else f"{_WANTED if job.id == wanted else ''}{job.id}"

    def show(found: str, job_id: str, run_id: str) -> Any:
        job = bench.jobs.known(found.removeprefix(_WANTED))
        if job is None or job_id:  # somebody who did not wait for it has begun another
            return [gr.skip()] * len(shown)
        watched = next((other.id for other in bench.jobs.all() if other.kind == "watch" and not other.over), "")
        begin = [*begun(bench, job), watched, bool(watched)]
        spec = spec_of(job)
        if spec is None or not found.startswith(_WANTED):  # another's grid changes nothing in the form
            return [*begin, *[gr.skip()] * len(chosen)]
        return [*begin, *filling(bench, spec, run_id), gr.Tabs(selected="compare")]

    found, quiet = gr.Textbox(visible=False), {"queue": False, "show_progress": "hidden"}
    opened = page.load(find, form.job_id, found, js=_RECALL, **quiet)
    opened.then(show, [found, form.job_id, form.came_with], shown, js=_OF_RUN, **quiet)


def fills_in(form: Form) -> list[Any]:
    """Where `filling` goes."""
    chosen = [form.runs, form.fields["picked"], form.fields["prompts"], form.offered, form.came_with, form.fields["seeds"]]
    return [*chosen, *(form.fields[name] for name in FIELDS)]


def filling(bench: Workbench, spec: GridSpec, run_id: str) -> list[Any]:
    """All that the form says of how a grid was drawn; see `form_of`."""
    told = fields_of(spec)
    return [*form_of(bench, spec, run_id), *(told.get(name, gr.skip()) for name in FIELDS)]


def is_recalled(bench: Workbench, wanted: str) -> bool:
    """Whether a page of this address fills its form from the grid that is named in it."""
    job = bench.jobs.known(wanted)
    return job is not None and spec_of(job) is not None


def form_of(bench: Workbench, spec: GridSpec, run_id: str = "") -> list[Any]:
    """What was chosen for a grid: runs, checkpoints, prompts and seeds. `run_id` is the run that the page's address names."""
    library = bench.library(fresh=False)
    ticked = [c.id if c else BASE for c in spec.checkpoints]
    known = any(run.id == run_id for run in library.runs)
    first = run_id if known else next(iter(first_ids(bench, library)), "")  # which the Runs tab has chosen on a new page
    runs = list(dict.fromkeys(c.run_id for c in spec.checkpoints if c)) or [first]
    shared = common_seeds(rows_of(spec))
    offers = offer(bench, library, runs, ticked, "\n".join(dict.fromkeys(map(line_of, spec.prompts))), "")
    return [*offers, first, ", ".join(map(str, shared)) if shared else gr.skip()]


def _controls(bench: Workbench, form: Form) -> None:
    @changing
    def pause(job_id: str) -> Any:
        if not job_id:
            return [gr.skip()] * 3
        job = bench.jobs.find(job_id)
        (bench.jobs.resume if job.state == "paused" else bench.jobs.pause)(job_id)
        return *_buttons(job), gr.Timer(active=not job.over)

    form.pause.click(pause, form.job_id, [form.pause, form.cancel, form.clock], show_progress="hidden")
    form.cancel.click(cancelling(bench), form.job_id, None)


def _rerolling(bench: Workbench, form: Form, earlier: Earlier) -> None:
    """A row of the grid with another seed, or for a cell a row beside it: the matrix tells which by its `edit` event."""

    @drawing
    def reroll(event: gr.EventData, job_id: str, *values: Any) -> Any:
        filled = Filled(*values)
        job = bench.jobs.find(job_id)
        if event._data.get("what") == "star":
            star(bench, event._data)
            return [grid_value(bench, job, earlier.of(job)) if place is form.grid else gr.skip() for place in changed]
        before = spec_of(job)
        if before is None:
            raise NotFound("there is no grid to draw again", "Press Draw first.")
        row = row_at(before.cells(), labels_of(bench, before, job), dict(event._data.get("at") or {}))
        if row is None:
            raise NotFound("this row is not in the grid any more", "Another grid has been drawn since; choose the row there.")
        beside = event._data.get("what") == "cell"
        spec = with_new_seed(before, row.key, secrets.randbelow(2**32), beside=beside)
        if not job.over and job.kind == "grid" and caller().owner:  # its pictures stay; what is missing is drawn with the rest
            bench.jobs.cancel(job.id)
        fields = fields_locked(filled, rows_of(spec))
        new = bench.start_grid(spec, grid_runs(bench, spec), filled.given)
        earlier.put(new, job)
        if not beside:
            gr.Info("This row is drawn with another seed in its place. The grid as it was is among “Earlier grids”, above it.")
        return *begun(bench, new, earlier.of(new)), fields.get("seeds", gr.skip()), fields.get("prompts", gr.skip())

    changed = [*begin_in(form), form.fields["seeds"], form.fields["prompts"]]
    form.grid.edit(reroll, [form.job_id, *form.asked], changed, show_progress="hidden")


def grid_runs(bench: Workbench, spec: GridSpec) -> Sequence[Run]:
    """The runs of a grid that was drawn before, those of its stacked LoRAs included."""
    worn = {one.checkpoint for stack in spec.stacks for one in stack}
    runs = runs_of(bench, spec.checkpoints)
    return [*runs, *(bench.checkpoint_again({"id": c.id, "path": str(c.file or c.path)})[0] for c in worn)]


def trainer_grid(bench: Workbench, picked: list[str]) -> dict[str, Any]:
    """The pictures that the trainers of the picked runs left."""
    library = bench.library(fresh=False)
    if not runs_with(library, picked):
        raise NotFound("no run is chosen", "Choose one above.")
    return value_of(bench, library, picked)
