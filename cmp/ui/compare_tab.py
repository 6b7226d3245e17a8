"""The Compare tab: the same prompts and seeds at every chosen checkpoint, or the pictures that the trainer drew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from cmp import viewer
from cmp.core.axes import parse_axis, parse_whole_axis
from cmp.core.grids import SCHEDULERS, GridSpec, Prompt, Sampling, Tile
from cmp.core.runs import Checkpoint, Library, Run, Sample
from cmp.core.scale import parse_alpha
from cmp.disk.ready import Answers
from cmp.errors import BadInput, NotFound, sentences
from cmp.jobs import Job
from cmp.ui.choices import BASE, first_picks, picks_at, prompts_for, told_picks, usable
from cmp.ui.faults import cancelling, told
from cmp.ui.runs_tab import RunsTab
from cmp.ui.values import matrix, names_apart, run_choices, samples_matrix
from cmp.workbench import Workbench

DEMO_GUIDANCE = 4.0  # the tiny model was made to be drawn with this; 7.5, which Stable Diffusion is used to, burns its colours
PLACEHOLDER = "What to draw, for example: a photo of TOKEN on a beach; with the word that the run was trained on"
DRAWN, SAMPLES = "drawn here", "drawn by the trainer"
EMPTY = {
    "title": "",
    "columns": [],
    "rows": [],
    "cells": [],
    "done": 0,
    "total": 0,
    "note": "Choose checkpoints and a prompt, and press Draw.",
}


@dataclass(slots=True)
class Form:
    """The tab's widgets."""

    source: gr.Radio
    runs: gr.Dropdown
    picks: gr.CheckboxGroup
    prompts: gr.Textbox
    draw: gr.Button
    cancel: gr.Button
    status: gr.Textbox
    asked: list[gr.components.Component]  # what a grid is described by, in the order of `Asked`
    question: gr.Accordion
    grid: gr.HTML
    job_id: gr.Textbox
    clock: gr.Timer


class Asked(NamedTuple):
    """The values of `Form.asked`. Fields of a closed section come as None."""

    picked: list[str]
    prompts: str
    negative: str | None
    seeds: str
    steps: float
    guidance: float
    strengths: str
    scheduler: str
    base: str | None
    alpha: str | None


def build_compare_tab(bench: Workbench, tab: gr.Tab, tabs: gr.Tabs, runs_tab: RunsTab, curves: gr.HTML) -> None:
    """Lays out the tab and connects its events."""
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            form = _lay_out(DEMO_GUIDANCE if bench.shows_demo else Sampling().guidance)
        with gr.Column(scale=4, min_width=480, elem_id="grid-column"):
            form.grid.render()
    _choosing(bench, form, tab, tabs, runs_tab, curves)
    _drawing(bench, form)


def _lay_out(cfg: float) -> Form:
    source = gr.Radio([DRAWN, SAMPLES], value=DRAWN, label="Pictures", elem_id="compare-source")
    runs = gr.Dropdown([], multiselect=True, label="Runs", elem_id="compare-runs")
    picks = gr.CheckboxGroup([], label="Checkpoints", elem_id="compare-checkpoints")
    prompts = gr.Textbox(label="Prompts, one per line", lines=2, elem_id="compare-prompts", placeholder=PLACEHOLDER)
    with gr.Row():
        draw = gr.Button("Draw", variant="primary", elem_id="compare-draw", min_width=80)
        cancel = gr.Button("Cancel", elem_id="compare-cancel", min_width=80)
    status = gr.Textbox(label="Drawing", interactive=False, lines=1, elem_id="compare-status", visible=False)
    seeds = gr.Textbox("0", label="Seeds", info="0 · 1-4 · 7, 11", elem_id="compare-seeds")
    negative = gr.Textbox(label="Negative prompt", lines=1, elem_id="compare-negative")
    with gr.Accordion("Sampling", open=False):
        steps = gr.Slider(1, 100, 12, step=1, label="Denoising steps", elem_id="compare-steps")
        guidance = gr.Slider(0, 20, cfg, step=0.5, label="Guidance scale (CFG)", elem_id="compare-guidance")
        strengths = gr.Textbox("1", label="LoRA strengths", info="1 · 0.5-1 [3] · 0, 0.5, 1", elem_id="compare-strengths")
        scheduler = gr.Dropdown(list(SCHEDULERS), value="base", label="Sampler", elem_id="compare-scheduler")
    with gr.Accordion("Base model and alpha", open=False) as question:
        base = gr.Textbox(label="Base model: an id or a folder on this computer", elem_id="compare-base")
        alpha = gr.Textbox(label="The LoRA's alpha, where nothing says it", elem_id="compare-alpha")
    template, mount = viewer.MATRIX_TEMPLATE, viewer.matrix_on_load()
    grid = gr.HTML(EMPTY, apply_default_css=False, html_template=template, js_on_load=mount, elem_id="grid", render=False)
    asked = [picks, prompts, negative, seeds, steps, guidance, strengths, scheduler, base, alpha]
    job_id, clock = gr.Textbox(visible=False), gr.Timer(0.3, active=False)
    return Form(source, runs, picks, prompts, draw, cancel, status, asked, question, grid, job_id, clock)


def _choosing(bench: Workbench, form: Form, tab: gr.Tab, tabs: gr.Tabs, runs_tab: RunsTab, curves: gr.HTML) -> None:
    offered, came_with = gr.Textbox(visible=False), gr.Textbox(visible=False)

    def enter(picked: list[str], ticked: list[str], text: str, before: str, run_id: str, earlier: str) -> Any:
        library = bench.library(fresh=False)
        known = [run.id for run in library.runs]
        if run_id != earlier and run_id in known:  # another run was chosen since
            picked = [run_id]
        picked = [name for name in picked if name in known] or known[:1]
        return *offer(bench, library, picked, ticked, text, before), run_id

    def change_runs(picked: list[str], ticked: list[str], text: str, before: str) -> Any:
        return offer(bench, bench.library(fresh=False), picked, ticked, text, before, fill=True)

    chosen = [form.runs, form.picks, form.prompts, offered]
    tab.select(enter, [*chosen, runs_tab.chosen, came_with], [*chosen, came_with], queue=False, show_progress="hidden")
    form.runs.input(change_runs, chosen, chosen, queue=False, show_progress="hidden")
    _from_elsewhere(bench, [form.prompts, offered, runs_tab.chosen], [tabs, *chosen, came_with], runs_tab, curves)


def _from_elsewhere(bench: Workbench, known: list[Any], shown: list[Any], runs_tab: RunsTab, curves: gr.HTML) -> None:
    """The ways into this tab with something chosen: ticked checkpoints of the Runs tab, and a mark on a curve."""

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
    curves.select(compare_mark, known, shown, queue=False, show_progress="hidden")


def _drawing(bench: Workbench, form: Form) -> None:
    @told
    def start(*values: Any) -> Any:
        asked = Asked(*values)
        spec = read_spec(bench, asked)
        runs = runs_of(bench, spec)
        given = Answers(parse_alpha(asked.alpha), (asked.base or "").strip() or None)
        job = bench.start_grid(spec, runs, given)
        for run in runs:
            bench.remember_prompts(run, [prompt.text for prompt in spec.prompts])
        return job.id, gr.Timer(active=True), DRAWN, gr.update(value="loading the base model …", visible=True), grid_value(bench, job)

    def watch(job: str) -> Any:
        found = bench.jobs.find(job)
        text, ask = grid_status(found)
        return grid_value(bench, found), text, gr.Timer(active=not found.over), gr.Accordion(open=True) if ask else gr.skip()

    @told
    def show(which: str, picked: list[str], job: str) -> Any:
        if which == SAMPLES:
            return trainer_grid(bench, picked)
        return grid_value(bench, bench.jobs.find(job)) if job else EMPTY

    form.draw.click(start, form.asked, [form.job_id, form.clock, form.source, form.status, form.grid], show_progress="hidden")
    form.cancel.click(cancelling(bench), form.job_id, None)
    watched = [form.grid, form.status, form.clock, form.question]
    form.clock.tick(watch, form.job_id, watched, queue=False, show_progress="hidden")
    form.source.input(show, [form.source, form.runs, form.job_id], form.grid, queue=False, show_progress="hidden")


def offer(
    bench: Workbench,
    library: Library,
    picked: Sequence[str],
    ticked: Sequence[str],
    text: str | None,
    before: str | None,
    *,
    fill: bool = False,
) -> tuple[Any, Any, str, str]:
    """What the form shows of these runs: the runs, their checkpoints, the prompts, and which prompts were only offered."""
    runs = [run for run in library.runs if run.id in picked]
    text, offered = prompts_for(runs, bench.last_prompts, text, before)
    chosen = gr.update(choices=run_choices(library, bench.name_of), value=list(picked))
    return chosen, pick_update(bench, runs, ticked, fill), text, offered


def pick_update(bench: Workbench, runs: Sequence[Run], ticked: Sequence[str], fill: bool) -> Any:
    """The checkpoints to choose from, and those that are ticked."""
    names = names_apart(Library(tuple(runs)), bench.name_of)
    choices = [("base model", BASE)] if runs else []
    for run in runs:
        told = "" if len(runs) == 1 else f"{names[run.id]} · "
        choices += [(f"{told}{bench.name_of(c)}", c.id) for c in usable(run)]
    return gr.update(choices=choices, value=first_picks(runs, ticked, fill=fill))


def read_spec(bench: Workbench, asked: Asked) -> GridSpec:
    """The grid that the form describes; raises BadInput that names the field."""
    negative = (asked.negative or "").strip()
    prompts = tuple(Prompt(line.strip(), negative) for line in (asked.prompts or "").splitlines() if line.strip())
    if not asked.picked:
        raise BadInput("no checkpoint is chosen", "Tick at least one, or the base model.")
    if not prompts:
        raise BadInput("there is no prompt", "Write what to draw, one prompt per line.")
    checkpoints = tuple(bench.find(name, only_ids=True)[1] for name in asked.picked if name != BASE)
    columns = (*((None,) if BASE in asked.picked else ()), *sorted((c for c in checkpoints if c), key=lambda c: (c.run_id, c.sort_key)))
    sampling = Sampling(int(asked.steps), float(asked.guidance), scheduler=asked.scheduler)
    return GridSpec(columns, prompts, parse_whole_axis(asked.seeds, "seeds"), parse_axis(asked.strengths, "strengths"), (sampling,))


def runs_of(bench: Workbench, spec: GridSpec) -> list[Run]:
    """The runs of a grid's checkpoints. The base model alone is that of the first run there is."""
    library = bench.library(fresh=False)
    names = dict.fromkeys(c.run_id for c in spec.checkpoints if c)
    if names:
        return [library.run(name) for name in names]
    if not library.runs:
        raise NotFound("there is no run, so no base model is known", "Add a folder in the Runs tab.")
    return [library.runs[0]]


def grid_value(bench: Workbench, job: Job) -> dict[str, Any]:
    """What the viewer shows of a grid that is being drawn or has been."""
    if not isinstance(job.subject, GridSpec):  # a job of an earlier process, which is made again only when its turn comes
        return EMPTY
    tiles = [item for item in job.items if isinstance(item, Tile)]
    several = len({c.run_id for c in job.subject.checkpoints if c}) > 1
    names = names_apart(bench.library(fresh=False), bench.name_of) if several else {}

    def label(checkpoint: Checkpoint | None) -> tuple[str, str]:
        if checkpoint is None:
            return "base model", ""
        name = bench.name_of(checkpoint)
        named = f"step {name}" if name == str(checkpoint.step) else name
        return named, names.get(checkpoint.run_id, "")

    return matrix(job.subject, tiles, label, working=not job.over)


def grid_status(job: Job) -> tuple[str, bool]:
    """How far a grid has come, in words, and whether the user is asked for a base model or an alpha."""
    tiles = [item for item in job.items if isinstance(item, Tile)]
    faults = [tile.fault for tile in tiles if tile.fault]
    reused = sum(tile.reused for tile in tiles)
    lines = [f"{job.state}: {len(tiles) - len(faults)} of {job.total} cells drawn" + (f", {reused} of them earlier" if reused else "")]
    if job.progress and not job.over and job.progress.what.startswith("waiting"):
        lines.append(job.progress.what)
    if faults:
        lines.append(f"{len(faults)} could not be drawn: {sentences(faults[0].error, faults[0].hint)}")
    ask = any("--base" in fault.hint or "--alpha" in fault.hint for fault in faults)
    if ask:
        lines.append("Which base model, which alpha? Say so under “Base model and alpha” and press Draw again.")
    if job.error:
        lines.append(job.error.told)
    return "\n".join(lines), ask


def trainer_grid(bench: Workbench, picked: Sequence[str]) -> dict[str, Any]:
    """The pictures that the trainer of the first picked run left."""
    library = bench.library(fresh=False)
    run = next((r for r in library.runs if r.id in picked and r.samples), None) or next((r for r in library.runs if r.id in picked), None)
    if run is None:
        raise NotFound("no run is chosen", "Choose one above.")

    def url(sample: Sample, whole: bool) -> str:
        return f"cmp/sample/{bench.sample_name(sample)}.{'png' if whole else '256.webp'}"

    return samples_matrix(run, bench.name_of, url)
