"""The Curves tab: the loss of one or several runs, with a mark at each checkpoint."""

from __future__ import annotations

from typing import Any

import gradio as gr

from cmp import viewer
from cmp.core.curves import LossCurve, is_epoch_axis, loss_tag
from cmp.core.runs import Library, Run
from cmp.errors import CmpError
from cmp.ui.glance import first_ids
from cmp.ui.values import chart, names_apart, run_choices
from cmp.workbench import Workbench

LOSS = "training loss"


def build_curves_tab(bench: Workbench, tab: gr.Tab, chosen: gr.Textbox) -> gr.HTML:
    """Lays out the tab and connects its events; gives the chart, which tells of the checkpoint whose mark was chosen."""
    came_with = gr.Textbox(visible=False)
    with gr.Row(equal_height=True):
        runs = gr.Dropdown([], multiselect=True, label="Runs", elem_id="curve-runs", scale=3)
        tag = gr.Dropdown([LOSS], value=LOSS, label="Curve", elem_id="curve-tag")
        smoothing = gr.Slider(0, 0.999, 0.6, step=0.001, label="Smoothing", elem_id="curve-smoothing")
        log = gr.Checkbox(False, label="Logarithmic loss axis", elem_id="curve-log")
    picture = gr.HTML(apply_default_css=False, html_template=viewer.CURVES_TEMPLATE, js_on_load=viewer.curves_on_load(), elem_id="curves")

    def enter(picked: list[str], run_id: str, earlier: str, wanted: str, weight: float, logarithmic: bool) -> Any:
        library = bench.library(fresh=False)
        known = [run.id for run in library.runs]
        if run_id != earlier and run_id in known:  # another run was chosen since
            picked = [run_id]
        picked = [name for name in picked if name in known] or first_ids(bench, library)
        choices = run_choices(library, bench.name_of)
        tags = [LOSS, *known_tags(bench, library, picked)]
        wanted = wanted if wanted in tags else LOSS
        value = draw_curves(bench, library, picked, wanted, weight, logarithmic)
        return gr.update(choices=choices, value=picked), gr.update(choices=tags, value=wanted), value, run_id

    def draw(picked: list[str], wanted: str, weight: float, logarithmic: bool) -> Any:
        return draw_curves(bench, bench.library(fresh=False), picked, wanted, weight, logarithmic)

    tab.select(enter, [runs, chosen, came_with, tag, smoothing, log], [runs, tag, picture, came_with], queue=False, show_progress="hidden")
    inputs = [runs, tag, smoothing, log]
    changed = [runs.input, tag.input, smoothing.change, log.input]
    gr.on(changed, draw, inputs, picture, queue=False, show_progress="hidden", trigger_mode="always_last")
    return picture


def known_tags(bench: Workbench, library: Library, picked: list[str]) -> list[str]:
    """Everything the picked runs logged against their steps."""
    tags: dict[str, None] = {}
    for run in library.runs:
        if run.id in picked:
            tags |= dict.fromkeys(curve.tag for curve in bench.curves(run).curves if not is_epoch_axis(curve.tag))
    return list(tags)


def draw_curves(bench: Workbench, library: Library, picked: list[str], tag: str, weight: float, log: bool) -> dict[str, Any]:
    """The chart of the picked runs; what cannot be drawn is told in its notes."""
    shown: list[tuple[Run, str, LossCurve]] = []
    notes: list[str] = []
    names = names_apart(library, bench.name_of)
    for run in library.runs:
        if run.id not in picked:
            continue
        name = names[run.id]
        try:
            logged = bench.curves(run)
        except CmpError as fault:
            notes.append(f"{name}: {fault.message}")
            continue
        wanted = loss_tag(c.tag for c in logged.curves) if tag == LOSS else tag
        curve = next((c for c in logged.curves if c.tag == wanted), None)
        notes += [f"{name}: {note}" for note in (*logged.notes, *(curve.notes if curve else ()))]
        if curve is not None:
            shown.append((run, name, curve))
        elif logged.curves:
            notes.append(f"{name}: logged no {tag}; it has {', '.join(c.tag for c in logged.curves)}")
    return chart(shown, weight, log, dict.fromkeys(notes))
