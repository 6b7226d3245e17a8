"""The Pick tab: which checkpoint is the best by every rule that has something to go by, and what to do with it."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from cmp import viewer
from cmp.ui.faults import told
from cmp.ui.glance import first_run
from cmp.ui.measuring import build_measuring
from cmp.ui.pick_values import pick_value
from cmp.ui.values import reading_text
from cmp.workbench import Workbench
from cmp.workbench.callers import caller

_FROM_LINK = "(run, shown) => [run || new URL(location).searchParams.get('run') || '', shown]"  # before the Runs tab has chosen one


def build_pick_tab(bench: Workbench, tab: gr.Tab, tabs: gr.Tabs, chosen: gr.Textbox, ticked: gr.Textbox) -> gr.HTML:
    """Lays out the tab and connects its events; gives the panels, which tell of the checkpoints that are to be compared."""
    shown = gr.Textbox(visible=False)
    panels = gr.HTML(apply_default_css=False, html_template=viewer.PICK_TEMPLATE, js_on_load=viewer.pick_on_load(), elem_id="pick")

    def enter(run_id: str | None, before: str | None) -> Any:
        """The run that is chosen on the Runs tab, unless another was chosen here since."""
        came_with, _, here = (before or "").partition("\n")
        value = value_of(bench, here if here and came_with == (run_id or "") else run_id or "")
        return value, f"{run_id or ''}\n{value['run']}"  # a page that was opened here may have chosen none yet

    @told
    def act(event: gr.EventData, before: str | None) -> Any:
        came_with = (before or "").partition("\n")[0]
        what, asked = event._data.get("what"), str(event._data.get("run") or "")
        if what == "measure":  # which is another section's
            return [gr.skip()] * 5
        if what in ("run", "look"):
            value = value_of(bench, asked)
            return gr.skip(), gr.skip(), gr.skip(), value, f"{came_with}\n{value['run']}"
        run, checkpoint = bench.find(str(event._data["id"]), only_ids=True)
        if what == "star" and checkpoint:
            bench.star(checkpoint.id, bool(event._data.get("on")), only_ids=True)
            return gr.skip(), gr.skip(), gr.skip(), value_of(bench, run.id), gr.skip()
        return gr.Tabs(selected="runs"), run.id, checkpoint.id if checkpoint else "", gr.skip(), gr.skip()

    tab.select(enter, [chosen, shown], [panels, shown], js=_FROM_LINK, queue=False, show_progress="hidden")
    # each of them, also while the page is only just looking whether something has changed
    panels.edit(act, shown, [tabs, chosen, ticked, panels, shown], trigger_mode="multiple", show_progress="hidden")
    build_measuring(bench, shown, panels, lambda run_id: value_of(bench, run_id))
    return panels


def value_of(bench: Workbench, run_id: str) -> dict[str, Any]:
    """What the tab shows of a run, or of the first one where that is not there; that folders are being read where it may still be found."""
    library = bench.library(fresh=False)
    named, first = next((run for run in library.runs if run.id == run_id), None), first_run(bench, library)
    if library.unread and named is None and (run_id or first is None):
        return pick_value(library, None, (), bench.name_of) | {"run": run_id, "empty": reading_text(library), "reading": True}
    run = named or first
    if run is None:
        return pick_value(library, None, (), bench.name_of)
    run, _ = bench.find(run.id, only_ids=True)  # of which the headers may not have been read yet
    only_looks = bench.settings.read_only or not caller().owner
    found = pick_value(library, run, bench.verdicts(run), bench.name_of, bench.starred(run), only_looks, bench.measurements(run))
    return found | {"at": time.time()}
