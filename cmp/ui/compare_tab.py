"""The Compare tab: the same prompts and seeds at every chosen checkpoint, or the pictures that the trainer drew."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import gradio as gr

from cmp.core.grids import SCHEDULERS
from cmp.errors import BadInput, Refused
from cmp.ui.cell_store import build_cell_store
from cmp.ui.choices import BASE, picks_at, told_picks, usable
from cmp.ui.curves_tab import build_strip, follow_runs
from cmp.ui.dropping import connect_dropping
from cmp.ui.earlier_grids import connect_earlier
from cmp.ui.faults import told
from cmp.ui.glance import first_ids
from cmp.ui.grid_drawing import RECALLING, TELL_RECALLING, connect_drawing, is_recalled
from cmp.ui.grid_following import connect_following
from cmp.ui.grid_form import Form, lay_out
from cmp.ui.grid_plan import connect_plan
from cmp.ui.offering import offer
from cmp.ui.planner import Planner
from cmp.ui.runs_tab import RunsTab
from cmp.ui.watching_run import connect_watching
from cmp.ui.window_ends import connect_ends
from cmp.workbench import Workbench
from cmp.workbench.targets import choose_columns

# beside the form the grid stays in view: one that is taller than the window stays with its end in it, so that all of it is soon seen
_STAY = """() => {
  const node = document.querySelector("#grid-column");
  if (!node || node.cmpStays) return;
  const tell = () => node.style.setProperty("--cmp-rest", `${innerHeight - node.offsetHeight - 8}px`);
  node.cmpStays = new ResizeObserver(tell);
  node.cmpStays.observe(node);
  addEventListener("resize", tell);
}"""
_TO_LINK = "(runs) => { if (document.querySelector('#compare-runs')?.checkVisibility()) window.cmpRunLink?.write(runs || []); }"
# prompts are suggested to whoever has not begun to type meanwhile
_UNLESS_TYPED = "(told, now) => { const [before, next] = JSON.parse(told || '[]'); return (now || '') === (before || '') ? next : now; }"


def build_compare_tab(
    bench: Workbench, page: gr.Blocks, tab: gr.Tab, tabs: gr.Tabs, runs_tab: RunsTab, charts: Sequence[gr.HTML], pick: gr.HTML
) -> None:
    """Lays out the tab and connects its events; `charts` and `pick` elsewhere tell what is to be compared."""
    draws = bench.settings.draws
    with gr.Row(elem_classes="cmp-drop-zone" if draws else None):
        with gr.Column(scale=1, min_width=320, elem_id="compare-left"):
            form = lay_out(bench.usual_sampling().guidance, draws)
            if draws:
                build_cell_store(bench)
        with gr.Column(scale=4, min_width=480, elem_id="grid-column"):
            strip = build_strip("compare-curve")
            for place in (form.whose, form.earlier, form.grid):
                place.render()
    follow_runs(bench, strip, form.runs)
    tab.select(None, js=_STAY)
    _choosing(bench, form, tab, runs_tab)
    _ticking(bench, form)
    _from_elsewhere(bench, form, tabs, runs_tab, (*charts, strip, runs_tab.strip), pick)
    planner = Planner(bench)  # what the line tells is what the button goes by
    connect_following(bench, form, connect_drawing(bench, form, page, tab, tabs, planner))
    connect_earlier(bench, form, tab)
    if draws:
        connect_plan(bench, form, connect_dropping(bench, form), planner)
        connect_watching(bench, form, tab)


def _choosing(bench: Workbench, form: Form, tab: gr.Tab, runs_tab: RunsTab) -> None:
    """What is chosen, and how it came here."""
    offered, came_with = form.offered, form.came_with

    def enter(picked: list[str], ticked: list[str], text: str, before: str, run_id: str, linked: str, earlier: str) -> Any:
        _, recalling, wanted = earlier.partition(RECALLING)
        if recalling and is_recalled(bench, wanted):
            return [gr.skip()] * len([*chosen, came_with])
        library = bench.library(fresh=False)
        known = [run.id for run in library.runs]
        named = [name for name in linked.split("\n") if name in known]
        if named:
            picked, run_id = named, named[0]  # which the Runs tab chooses, now or in a moment
        elif run_id != earlier and run_id in known:  # another run was chosen since
            picked = [run_id]
        picked = [name for name in picked if name in known] or first_ids(bench, library)
        runs, picks, prompts, offers = offer(bench, library, picked, ticked, text, before)
        return runs, picks, json.dumps([text, prompts, time.time()]), offers, run_id

    def change_runs(picked: list[str], ticked: list[str], text: str, before: str) -> Any:
        return offer(bench, bench.library(fresh=False), picked, ticked, text, before, fill=True)

    chosen = [form.runs, form.fields["picked"], form.fields["prompts"], offered]
    linked, suggested = gr.Textbox(visible=False), gr.Textbox(visible=False)
    asked = [*chosen, runs_tab.chosen, linked, came_with]
    entered = [suggested if field is form.fields["prompts"] else field for field in (*chosen, came_with)]
    suggested.change(None, [suggested, form.fields["prompts"]], form.fields["prompts"], js=_UNLESS_TYPED)
    tab.select(enter, asked, entered, js=TELL_RECALLING, queue=False, show_progress="hidden")
    gr.on([form.runs.change, tab.select], None, form.runs, js=_TO_LINK)
    form.runs.input(change_runs, chosen, chosen, queue=False, show_progress="hidden")

    everyone = ", ".join(SCHEDULERS)
    form.fill_samplers.click(lambda: everyone, None, form.fields["scheduler"], queue=False, show_progress="hidden")


def _ticking(bench: Workbench, form: Form) -> None:
    """All checkpoints, none, or those of an expression."""

    def tick_all(picked: list[str], ticked: list[str]) -> Any:
        runs = [run for run in bench.library(fresh=False).runs if run.id in picked]
        everything = [checkpoint.id for run in runs for checkpoint in usable(run)]
        return ([BASE] if BASE in ticked else []) + everything

    def tick_by(axis: str, picked: list[str], ticked: list[str]) -> Any:
        if not axis.strip():
            return gr.skip()
        return ([BASE] if BASE in ticked else []) + picks_by(bench, picked, axis)

    form.fill_none.click(list, None, form.fields["picked"], queue=False, show_progress="hidden")
    # in the queue, since a message reaches the page only from there
    chosen_by = [form.by_axis, form.runs, form.fields["picked"]]
    form.by_axis.submit(told(tick_by), chosen_by, form.fields["picked"], show_progress="hidden")
    form.fill_picks.click(tick_all, [form.runs, form.fields["picked"]], form.fields["picked"], queue=False, show_progress="hidden")


def picks_by(bench: Workbench, picked: Sequence[str], axis: str) -> list[str]:
    """The checkpoints that an axis text chooses of each run; raises BadInput, and Refused for one that cannot be drawn with."""
    if not picked:
        raise BadInput("no run is chosen", "Choose one above.")
    columns = choose_columns(bench, picked, axis, only_ids=True)
    if flawed := next((c for c in columns.checkpoints if c.flaw), None):
        raise Refused(f"{flawed.id} cannot be drawn with: {flawed.flaw}", "Leave it out.")
    for words in columns.told:  # how sure it is which are the best
        gr.Info(words)
    return [c.id for c in columns.checkpoints]


def _from_elsewhere(bench: Workbench, form: Form, tabs: gr.Tabs, runs_tab: RunsTab, charts: Sequence[gr.HTML], pick: gr.HTML) -> None:
    """The ways into this tab with something chosen: ticked checkpoints of the Runs tab, a mark on a curve, and a window's ends."""
    known = [form.fields["prompts"], form.offered, runs_tab.chosen]
    shown = [tabs, form.runs, form.fields["picked"], form.fields["prompts"], form.offered, form.came_with]

    def compare_selected(text: str, before: str, run_id: str, ticks: str) -> Any:
        ticked = [BASE, *ticks.split("\n")] if ticks else []
        offers = offer(bench, bench.library(fresh=False), [run_id], ticked, text, before)
        if not ticks:
            gr.Info(told_picks(len(offers[1]["value"]) - 1))
        return gr.Tabs(selected="compare"), *offers, run_id

    @told
    def compare_mark(event: gr.EventData, text: str, before: str, run_id: str) -> Any:
        library = bench.library(fresh=False)
        marked = library.run(event._data["run"])
        offers = offer(bench, library, [marked.id], picks_at(marked, event._data["step"]), text, before)
        return gr.Tabs(selected="compare"), *offers, run_id

    # in the queue, since a message reaches the page only from there
    runs_tab.compare.click(compare_selected, [*known, runs_tab.ticked], shown, show_progress="hidden")
    for chart in charts:
        chart.select(compare_mark, known, shown, queue=False, show_progress="hidden")
    connect_ends(bench, form, pick, known, shown)
