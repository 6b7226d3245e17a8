"""The Measure section of the Pick tab: on which images, what that would do, doing it, and the panels as values come.

Only the owner has it: it reads folders that are named by their paths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from cmp.core.agreeing import tells_apart
from cmp.core.measured import MeasurePlan
from cmp.core.picking import candidates
from cmp.core.runs import Run
from cmp.errors import BadInput, CmpError, NotFound
from cmp.jobs import Job
from cmp.ui.clocks import stop_at_end
from cmp.ui.faults import cancelling, changing
from cmp.ui.measure_form import Section, lay_out
from cmp.ui.measure_values import LOOKING, Fields, command_of, filled, found_in, job_text, needed, on_page, plan_text, read_fields, run_of
from cmp.ui.planner import Beside
from cmp.workbench import Workbench
from cmp.workbench.callers import caller

_QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
# who types is not asked at each letter; the last change is always told, see trigger_mode
_REST = "(...values) => new Promise((go) => setTimeout(() => go(values), 400))"
_SHOW = "() => setTimeout(() => document.querySelector('#pick-measure')?.scrollIntoView({ behavior: 'smooth' }), 150)"


@dataclass(frozen=True, slots=True)
class Desk:
    """What the events go by: the workbench, what makes plans beside the page, and what the panels show of a run."""

    bench: Workbench
    plans: Beside[MeasurePlan]
    value_of: Callable[[str], dict[str, Any]]

    def run(self, shown: str) -> Run:
        """The run of the tab, by the tab's own note of it; raises NotFound where there is none."""
        run_id = shown.partition("\n")[2]
        if not run_id:
            raise NotFound("no run is shown", "Choose one above.")
        return self.bench.find(run_id, only_ids=True)[0]

    def job(self, run_id: str) -> Job | None:
        """What is measured of a run now, or was last."""
        jobs = [job for job in self.bench.jobs.all() if job.kind == "measure" and run_of(job) == run_id]
        return max(jobs, key=lambda job: (not job.over, job.made), default=None)

    def label(self, checkpoint_id: str) -> str:
        key = checkpoint_id.rpartition("@")[2]
        return f"step {key}" if key.isdigit() else key

    def text(self, job: Job) -> str:
        place = self.bench.jobs.record(job.id).position if job.state == "waiting" else None
        return job_text(job, place, self.label)


def build_measuring(bench: Workbench, shown: gr.Textbox, panels: gr.HTML, value_of: Callable[[str], dict[str, Any]]) -> None:
    """Lays the section out and connects it. `shown` holds the tab's run behind a line break."""
    if bench.settings.read_only:
        return
    desk, section = Desk(bench, Beside(), value_of), lay_out()
    _filling(desk, section, shown, panels)
    _planning(desk, section, shown)
    _doing(desk, section, shown, panels)


def _filling(desk: Desk, section: Section, shown: gr.Textbox, panels: gr.HTML) -> None:
    """The form as it was filled in for a run before, and what is being measured of it."""

    def fill(noted: str) -> Any:
        if not caller().owner:
            return [gr.skip()] * len(outputs)
        try:
            run = desk.run(noted)
        except CmpError:
            return [gr.Accordion(visible=False), *[gr.skip()] * (len(outputs) - 1)]
        if len(candidates(run)) < 1:
            return [gr.Accordion(visible=False), *[gr.skip()] * (len(outputs) - 1)]
        typed = filled(desk.bench.asked_last(run), desk.bench.answers(run))
        job = desk.job(run.id)
        going = job is not None and not job.over
        opened = gr.Accordion(visible=True, open=going or not any(map(tells_apart, desk.bench.verdicts(run))))
        return opened, *typed, *_uses(typed.metrics), *_told_of(desk, job), gr.Timer(active=going)

    def open_it(event: gr.EventData) -> Any:
        return gr.Accordion(open=True) if event._data.get("what") == "measure" and caller().owner else gr.skip()

    outputs = [section.whole, *section.asked, *section.used, section.job, section.status, section.measure, section.cancel, section.clock]
    shown.change(fill, shown, outputs, **_QUIET).then(
        _planner(desk), [shown, *section.asked], [section.plan, section.command, section.ask], **_QUIET
    )  # which a form that stays as it is needs too
    panels.edit(open_it, None, section.whole, **_QUIET)


def _uses(metrics: list[str]) -> list[Any]:
    use = needed(metrics)
    return [gr.update(visible=use[name]) for name in Section.USED]


def _told_of(desk: Desk, job: Job | None) -> tuple[Any, ...]:
    """The job's id, how far it has come, and whether one can be begun or cancelled."""
    going = job is not None and not job.over
    text = gr.update(value=desk.text(job) if job else "", visible=job is not None)
    return job.id if job else "", text, gr.update(interactive=not going), gr.update(interactive=going)


def _planner(desk: Desk) -> Callable[..., Any]:
    """The handler that says what pressing Measure would do. Nothing of it for visitors, whose paths are not looked at."""

    def say(noted: str, *values: Any) -> Any:
        if not caller().owner or not noted.partition("\n")[2]:
            return gr.skip(), gr.skip(), gr.Timer(active=False)
        typed = Fields(*values)
        try:
            run = desk.run(noted)
            spec, given = read_fields(typed)
            plan = desk.plans.made((run.place, spec, given), lambda: desk.bench.plan_measure(run, spec, given))
        except CmpError as fault:
            return on_page(fault.told), gr.skip(), gr.Timer(active=False)
        told = LOOKING if plan is None else plan_text(plan, desk.label)
        return told, command_of(run, typed), gr.Timer(active=plan is None)

    return say


def _planning(desk: Desk, section: Section, shown: gr.Textbox) -> None:
    say, inputs, outputs = _planner(desk), [shown, *section.asked], [section.plan, section.command, section.ask]
    changes = [widget.change for widget in section.asked]  # those too that are filled in for another run
    gr.on(changes, say, inputs, outputs, js=_REST, trigger_mode="always_last", **_QUIET)
    gr.on([section.ask.tick, section.ended.change], say, inputs, outputs, trigger_mode="always_last", **_QUIET)
    section.metrics.input(_uses, section.metrics, list(section.used), trigger_mode="always_last", **_QUIET)


def _doing(desk: Desk, section: Section, shown: gr.Textbox, panels: gr.HTML) -> None:
    @changing
    def begin_measuring(noted: str, *values: Any) -> Any:
        desk.bench.require_writing()  # before any path is looked at
        run = desk.run(noted)
        if (job := desk.job(run.id)) and not job.over:
            raise BadInput(f"{run.id} is being measured already", "Wait for it, or press Cancel.")
        try:
            spec, given = read_fields(Fields(*values))
            job = desk.bench.start_measure(run, spec, given)
        except CmpError as fault:
            raise type(fault)(on_page(fault.message), on_page(fault.hint)) from None
        return *_told_of(desk, job), gr.Timer(active=True), ""

    @changing
    def follow_measuring(job_id: str, seen: str, noted: str) -> Any:
        job = desk.bench.jobs.known(job_id)
        if job is None:  # the server was started anew, and nothing has taken it up
            return gr.skip(), "", *[gr.skip()] * 3, job_id
        stamp = f"{job.id}|{len(found_in(job))}|{job.over}"
        run_id = run_of(job)
        fresh = stamp != seen and noted.partition("\n")[2] == run_id
        _, text, ready, stop = _told_of(desk, job)
        return desk.value_of(run_id) if fresh else gr.skip(), stamp, text, ready, stop, job.id if job.over and stamp == seen else gr.skip()

    begun = [section.job, section.status, section.measure, section.cancel, section.clock, section.seen]
    section.measure.click(begin_measuring, [shown, *section.asked], begun, show_progress="minimal", show_progress_on=section.measure)
    section.cancel.click(cancelling(desk.bench), section.job, None)
    watched = [panels, section.seen, section.status, section.measure, section.cancel, section.ended]
    section.clock.tick(follow_measuring, [section.job, section.seen, shown], watched, **_QUIET)
    stop_at_end(section.clock, section.ended, section.job, section.seen)
