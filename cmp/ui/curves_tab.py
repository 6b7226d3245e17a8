"""The Curves tab: the losses of one or several runs, with a mark at each checkpoint that leads on to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gradio as gr

from cmp import viewer
from cmp.core.runs import Library
from cmp.ui.faults import told
from cmp.ui.glance import first_ids
from cmp.ui.values import names_apart, reading_text
from cmp.workbench import Workbench

SOURCE = "cmp/curve/"  # relative, since the page may lie below another address than /
EMPTY = "No training run was found. Add the folder that holds yours on the Runs tab."


def build_curves_tab(bench: Workbench, tab: gr.Tab, chosen: gr.Textbox, picked: gr.Textbox) -> gr.HTML:
    """Lays out the tab and connects its events; gives the chart, which tells of the checkpoint that is to be compared.

    A run that was `picked` since the last look is shown; else those that were shown last, and at the very first that which is `chosen`.
    """
    came_with = gr.Textbox(visible=False)
    picture = gr.HTML(apply_default_css=False, html_template=viewer.CURVES_TEMPLATE, js_on_load=viewer.curves_on_load(), elem_id="curves")

    def enter(run_id: str, clicked: str, earlier: str) -> Any:
        library = bench.library(fresh=False)
        return first_value(bench, library, run_id, clicked if clicked != earlier else ""), clicked

    tab.select(enter, [chosen, picked, came_with], [picture, came_with], queue=False, show_progress="hidden")
    return picture


def curves_value(bench: Workbench, library: Library, *chosen: str, compact: bool = False) -> dict[str, Any]:
    """What the chart is fed with; without `chosen`, the runs that were shown stay."""
    names, now = names_apart(library, bench.name_of), time.time()
    runs = [{"run": run.id, "label": names[run.id], "training": run.state(now) == "training"} for run in library.runs]
    known = [run.id for run in library.runs if run.id in chosen]
    actions = ["compare", *([] if compact or bench.settings.read_only else ["convert", "star"])]
    empty = "" if runs else reading_text(library) or EMPTY
    return {"source": SOURCE, "runs": runs, "chosen": known, "actions": actions, "compact": compact, "empty": empty}


def first_value(bench: Workbench, library: Library, run_id: str, *chosen: str) -> dict[str, Any]:
    """The same for a page that may have shown no curve yet: then the run of this id, or that which the other tabs show."""
    known = any(run.id == run_id for run in library.runs)
    return curves_value(bench, library, *chosen) | {"usual": run_id if known else next(iter(first_ids(bench, library)), "")}


def connect_marks(bench: Workbench, curves: gr.HTML, tabs: gr.Tabs, chosen: gr.Textbox, ticked: gr.Textbox) -> None:
    """What a checkpoint's mark offers beside comparing: converting leads to the Runs tab with it ticked, a star stays here."""

    @told
    def act(event: gr.EventData) -> Any:
        run, checkpoint = bench.find(str(event._data["id"]), only_ids=True)
        if event._data["what"] == "star" and checkpoint:
            bench.star(checkpoint.id, not event._data.get("on"))
            return gr.skip(), gr.skip(), gr.skip(), curves_value(bench, bench.library(fresh=False)) | {"at": time.time()}
        return gr.Tabs(selected="runs"), run.id, checkpoint.id if checkpoint else "", gr.skip()

    curves.edit(act, None, [tabs, chosen, ticked, curves], show_progress="hidden")


def build_strip(name: str) -> gr.HTML:
    """A strip of losses above the pictures of the same runs; see `strip_of`."""
    template, mount = viewer.CURVES_TEMPLATE, viewer.curves_on_load()
    return gr.HTML(visible=False, apply_default_css=False, html_template=template, js_on_load=mount, elem_id=name)


def strip_of(bench: Workbench, library: Library, picked: Sequence[str]) -> Any:
    """The losses of these runs; hidden where none was logged, as far as that is known without reading."""
    runs = [run for run in library.runs if run.id in picked and run.logs]
    logged = any(not bench.gallery.knows_loss(run) or bench.gallery.loss(run) is not None for run in runs)
    return gr.update(value=curves_value(bench, library, *picked, compact=True), visible=logged) if logged else gr.update(visible=False)


def follow_runs(bench: Workbench, strip: gr.HTML, runs: gr.Dropdown) -> None:
    """Has the strip show the losses of the runs that are picked."""

    def follow(picked: list[str]) -> Any:
        return strip_of(bench, bench.library(fresh=False), picked)

    runs.change(follow, runs, strip, queue=False, show_progress="hidden")
