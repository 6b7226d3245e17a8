"""The Storage tab: what is occupied, a preview of what may go, doing it, and undoing it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import gradio as gr

from cmp import viewer
from cmp.core.runs import path_text
from cmp.errors import BadInput, CmpError
from cmp.ui.clocks import clock
from cmp.ui.faults import cancelling, changing, told
from cmp.ui.storage_desk import Desk
from cmp.ui.storage_form import KEEP, SHARE, USUAL_AGE, USUAL_KEEP, USUAL_LAST, USUAL_WHAT, WHAT, Fields, emptying, rules_of
from cmp.ui.storage_values import NOTHING, confirmation, empty_plan, job_text
from cmp.workbench import Workbench
from cmp.workbench.storing import Restored

_SELDOM = 3.0  # seconds
_QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden"}


@dataclass(slots=True)
class Widgets:
    """What the events speak to. `preview`, `job` and `seen` are what the page knows: names of a preview and a job, and what it shows."""

    overview: gr.HTML
    clock: gr.Timer
    seen: gr.Textbox
    ticked: gr.Textbox
    preview: gr.Textbox
    job: gr.Textbox
    plan: gr.HTML | None = None
    do: gr.Button | None = None
    cancel: gr.Button | None = None
    status: gr.Textbox | None = None


def build_storage_tab(bench: Workbench, tab: gr.Tab) -> None:
    """Lays out the tab and connects its events. Where nothing may be changed there is nothing that could change anything."""
    desk = Desk(bench)
    hidden = [gr.Textbox(visible=False) for _ in range(4)]
    overview = _component("storage-overview", "storage_on_load", {"disks": [], "runs": [], "undo": [], "note": ""})
    widgets = Widgets(overview, clock(0.5), *hidden)
    if not bench.settings.read_only:
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                asked, preview, days, empty = _lay_out()
            with gr.Column(scale=3, min_width=320):
                widgets.plan = _component("storage-plan", "storage_plan_on_load", empty_plan(NOTHING))
                _doing(bench, desk, widgets)
        _previewing(desk, widgets, asked, preview, days, empty)
        _undoing(bench, desk, widgets)
    _watching(desk, widgets, tab)


def _component(name: str, on_load: str, value: dict[str, Any]) -> gr.HTML:
    return gr.HTML(
        value, apply_default_css=False, html_template=viewer.STORAGE_TEMPLATE, js_on_load=getattr(viewer, on_load)(), elem_id=name
    )


def _lay_out() -> tuple[list[gr.components.Component], gr.Button, gr.Textbox, gr.Button]:
    what = gr.CheckboxGroup(WHAT, value=USUAL_WHAT, label="May go", elem_id="storage-what", elem_classes="cmp-lines")
    with gr.Group() as rules:
        keep = gr.CheckboxGroup(
            KEEP, value=USUAL_KEEP, label="Checkpoints that stay", elem_id="storage-keep", elem_classes="cmp-lines",
            info="Starred ones and what a training ended with always stay. A run without a verdict stays whole if the best is to stay.",
        )  # fmt: skip
        with gr.Row():
            last = gr.Textbox(USUAL_LAST, label="How many of the last", elem_id="storage-last", min_width=130)
            every = gr.Textbox(label="And every so many steps", placeholder="1000", elem_id="storage-every", min_width=130)
        with gr.Row():
            most = gr.Textbox(label="Keep at most … checkpoints per run", placeholder="5", elem_id="storage-most", min_width=130)
            size = gr.Textbox(label="Keep at most … per run", placeholder="20GB", elem_id="storage-size", min_width=130)
    with gr.Row():
        age = gr.Textbox(USUAL_AGE, label="Touch nothing younger than", elem_id="storage-age", min_width=130)
        share = gr.Dropdown(SHARE, value="", label="Equal files of pipelines", elem_id="storage-share", min_width=200)
    preview = gr.Button("Preview", variant="primary", elem_id="storage-preview")
    with gr.Group():
        days = gr.Textbox(label="Trash: only what has lain there for so many days", placeholder="all of it", elem_id="storage-days")
        empty = gr.Button("Preview emptying the trash", elem_id="storage-empty")
    what.change(lambda ticked: gr.update(visible="thin" in ticked), what, rules, **_QUIET)
    return [what, keep, last, every, most, size, age, share], preview, days, empty


# -- preview, do, undo -----------------------------------------------------------------------------------------------------


def _previewing(desk: Desk, widgets: Widgets, asked: list[Any], preview: gr.Button, days: gr.Textbox, empty: gr.Button) -> None:
    def shown(name: str) -> Any:
        value, _ = desk.shown(name, NOTHING)
        return name, value, gr.update(interactive=desk.previewed(name) is not None), gr.Timer(active=True)

    @told
    def look(before: str, ticks: str, *values: Any) -> Any:
        return shown(desk.preview(ticks.split("\n") if ticks else [], *rules_of(Fields(*values)), before))

    @told
    def look_at_trash(before: str, ticks: str, text: str | None) -> Any:
        return shown(desk.preview(ticks.split("\n") if ticks else [], *emptying(text), before))

    outputs = [widgets.preview, widgets.plan, widgets.do, widgets.clock]
    preview.click(look, [widgets.preview, widgets.ticked, *asked], outputs, show_progress="minimal", show_progress_on=preview)
    empty.click(look_at_trash, [widgets.preview, widgets.ticked, days], outputs, show_progress="minimal", show_progress_on=empty)


def _doing(bench: Workbench, desk: Desk, widgets: Widgets) -> None:
    with gr.Row():
        widgets.do = gr.Button("Do it …", interactive=False, elem_id="storage-do", min_width=100)
        widgets.cancel = gr.Button("Cancel", interactive=False, elem_id="storage-cancel", min_width=100)
    with gr.Group(visible=False, elem_id="storage-confirm") as confirm:
        question = gr.Textbox(label="Are you sure?", interactive=False, lines=2, elem_id="storage-question")
        with gr.Row():
            yes = gr.Button("Yes, do it", variant="stop", elem_id="storage-yes", min_width=100)
            no = gr.Button("No, change nothing", elem_id="storage-no", min_width=100)
    widgets.status = gr.Textbox(
        label="What is being done", interactive=False, lines=2, max_lines=12, visible=False, elem_id="storage-status"
    )

    asked_of = gr.Textbox(visible=False)  # the preview that the question is about

    def ask(name: str) -> Any:
        preview = desk.previewed(name)
        return (gr.update(visible=True), confirmation(preview), name) if preview else (gr.update(visible=False), "", "")

    @changing
    def carry_out(name: str, meant: str) -> Any:
        if name != meant:
            raise BadInput("the preview is another one by now", "Look at it, and press Do it again.")
        job = desk.start(name)
        off, on = gr.update(interactive=False), gr.update(interactive=True)
        return gr.update(visible=False), off, on, job.id, gr.update(value=job_text(job), visible=True), gr.Timer(active=True)

    widgets.do.click(ask, widgets.preview, [confirm, question, asked_of], **_QUIET)
    no.click(lambda: gr.update(visible=False), None, confirm, **_QUIET)
    started = [confirm, widgets.do, widgets.cancel, widgets.job, widgets.status, widgets.clock]
    yes.click(carry_out, [widgets.preview, asked_of], started, show_progress="minimal", show_progress_on=yes)
    widgets.preview.change(lambda: gr.update(visible=False), None, confirm, **_QUIET)  # the question was about another one
    widgets.cancel.click(cancelling(bench), widgets.job, None)


def _undoing(bench: Workbench, desk: Desk, widgets: Widgets) -> None:
    def undo(event: gr.EventData) -> Any:
        target, at_once = str(event._data["key"]), event._data["kind"] == "trash"
        try:
            if at_once:  # a rename need not wait for other work
                paths = [path_text(step.path) for step in bench.restore(target) if isinstance(step, Restored)]
                return gr.skip(), gr.update(value=f"brought back {', '.join(paths)}", visible=True), gr.skip(), *shown_anew()
            job = bench.start_restore(target)
        except CmpError as fault:
            return gr.skip(), gr.update(value=f"not brought back: {fault.told}", visible=True), gr.skip(), *shown_anew()
        return job.id, gr.update(value=job_text(job), visible=True), gr.update(interactive=True), gr.skip(), gr.Timer(active=True)

    def shown_anew() -> tuple[Any, Any]:
        desk.measure(fresh=True)
        return desk.overview()[0], gr.Timer(active=True)

    def tick(event: gr.EventData) -> str:
        return "\n".join(event._data["ticked"])

    widgets.overview.edit(
        undo, None, [widgets.job, widgets.status, widgets.cancel, widgets.overview, widgets.clock], show_progress="hidden"
    )
    widgets.overview.select(tick, None, widgets.ticked, **_QUIET)


# -- following -------------------------------------------------------------------------------------------------------------


def _watching(desk: Desk, widgets: Widgets, tab: gr.Tab) -> None:
    """Shows what has come about since. What the page shows already is not sent again."""
    doing = [widgets.plan, widgets.do, widgets.cancel, widgets.status, widgets.preview, widgets.job] if widgets.plan else []

    def told_now(seen: str, name: str, job_id: str) -> tuple[list[Any], list[Any], bool]:
        """The values before and after the clock's, and whether anything is under way."""
        overview, under_way = desk.overview()
        seen_before = json.loads(seen) if seen else {}
        stamps = {"overview": _stamp(overview)}
        first = overview if stamps["overview"] != seen_before.get("overview") else gr.skip()
        rest: list[Any] = []
        if doing:
            rest, more, going_on = _told_of_work(desk, name, job_id, seen_before)
            stamps |= more
            under_way = under_way or going_on
        return [first, json.dumps(stamps)], rest, under_way

    def follow(seen: str, name: str, job_id: str) -> Any:
        before, after, under_way = told_now(seen, name, job_id)
        return *before, gr.skip() if under_way else gr.Timer(active=False), *after

    def look_in(seen: str, name: str, job_id: str) -> Any:
        desk.renew()
        before, after, under_way = told_now(seen, name, job_id)
        return *before, gr.Timer(active=True) if under_way else gr.skip(), *after

    def enter(name: str, job_id: str) -> Any:
        desk.measure()
        before, after, _ = told_now("", name, job_id)
        return *before, gr.Timer(active=True), *after

    outputs, known = [widgets.overview, widgets.seen, widgets.clock, *doing], [widgets.seen, widgets.preview, widgets.job]
    tab.select(enter, [widgets.preview, widgets.job], outputs, **_QUIET)
    widgets.clock.tick(follow, known, outputs, **_QUIET)
    # an answer that stops the clock may come after one that started it, so another one never stops
    gr.Timer(_SELDOM).tick(look_in, known, outputs, **_QUIET)


def _told_of_work(desk: Desk, asked: str, job_id: str, before: dict[str, str]) -> tuple[list[Any], dict[str, str], bool]:
    """The values of plan, Do, Cancel, status, preview's and job's names; what they are told by; and whether anything is under way."""
    job, name = desk.job(job_id), asked
    ended = job is not None and job.over
    if job and ended:
        desk.measure(fresh=True)
        name = desk.again(job) or name  # what was not done since something had changed is shown as it would be now
    value, looking = desk.shown(name, NOTHING)
    text = job_text(job) if job else before.get("status", "")
    stamps = {"plan": _stamp([value, name]), "status": text, "job": job.id if job and not ended else ""}
    plan, ready, status, cancel = [gr.skip()] * 4
    if stamps["plan"] != before.get("plan"):
        plan, ready = value, gr.update(interactive=desk.previewed(name) is not None)
    if text != before.get("status", ""):
        status = gr.update(value=text, visible=True)
    if stamps["job"] != before.get("job"):
        cancel = gr.update(interactive=bool(stamps["job"]))
    # an answer that comes late must not take back what was asked for meanwhile
    name_now = name if name != asked else gr.skip()
    job_now = stamps["job"] if stamps["job"] != job_id else gr.skip()
    return [plan, ready, cancel, status, name_now, job_now], stamps, looking or job is not None


def _stamp(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
