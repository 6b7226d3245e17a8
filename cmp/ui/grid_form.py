"""The form of the Compare tab: its widgets, laid out. What they mean is told in `filling`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from cmp import viewer
from cmp.core.grids import SCHEDULERS
from cmp.ui.clocks import clock
from cmp.ui.filling import Filled
from cmp.ui.grid_jobs import EMPTY, NONE_DRAWN, QUESTION
from cmp.ui.unlisted import unlisted

PLACEHOLDER = "What to draw, for example: a photo of TOKEN on a beach; with the word that the run was trained on"
PROMPTS_INFO = "options: --n --d --s --l --w --h --name"
DRAWN, SAMPLES = "drawn here", "drawn by the trainer"
MODES = [("fast", "fast"), ("exact", "exact")]
MODE_INFO = "fast: several at once, within 1/255 of exact · exact: to the bit as diffusers draws"
DROPPED = [".png", ".jpg", ".jpeg", ".webp", ".txt", ".json"]

# the form is long: what belongs together stands close, so that most of it is seen at once
FORM_CSS = """
#compare-left { gap: 8px; }
#compare-form { gap: 8px; }
#compare-left .block:not(.hidden) { padding-top: 6px; padding-bottom: 6px; }
#compare-left .form { gap: 0; }
#compare-left .wrap:has(> label) { gap: 4px; }
#compare-left .wrap > label:has(> input) { padding: 3px 8px; }
#compare-left :is(textarea, input[type="text"]) { padding: 5px 8px; }
#compare-left [data-testid="block-info"] { margin-bottom: 3px; line-height: 1.3; }
#compare-left .row { gap: 8px; }
#compare-earlier { max-width: 720px; margin: -8px 0; }
#compare-earlier .wrap-inner { padding-top: 2px; padding-bottom: 2px; }
/* there from the start, see `_above_grid` */
:is(#compare-whose, #compare-status):has(textarea:placeholder-shown) { display: none; }
#compare-ticking { align-items: stretch; }
#compare-ticking button { min-width: 56px; }
#compare-ticking :is(textarea, input) { border: 0; font-size: 13px; }
"""


def picks_in(*choices: tuple[str, str], **more: str) -> gr.CheckboxGroup:
    """Checkpoints to tick."""
    return unlisted(gr.CheckboxGroup(list(choices), **more))


@dataclass(slots=True)
class Form:
    """The tab's widgets. `fields` are those that describe a grid, by their names in `Filled`."""

    source: gr.Radio
    runs: gr.Dropdown
    fields: dict[str, gr.components.Component]
    draw: gr.Button
    pause: gr.Button
    cancel: gr.Button
    status: gr.Textbox
    plan: gr.Textbox
    fill_picks: gr.Button
    fill_none: gr.Button
    by_axis: gr.Textbox  # which checkpoints to tick, as the command line's --checkpoints
    fill_samplers: gr.Button
    question: gr.Accordion
    drop: gr.UploadButton
    lost: gr.Textbox
    watch: gr.Checkbox
    watch_too: gr.Checkbox
    newest: gr.Button
    grid: gr.HTML
    earlier: gr.Dropdown  # grids that were drawn before
    whose: gr.Textbox  # of which runs the grid is, where others are chosen
    job_id: gr.Textbox
    stamp: gr.Textbox
    watch_id: gr.Textbox
    ended: gr.Textbox
    offered: gr.Textbox  # the prompts that were only offered
    came_with: gr.Textbox  # the run that was chosen in the Runs tab when this one was entered last
    row: gr.Textbox  # the row that waits to be drawn in an event of this page, where a card is lent for events
    clock: gr.Timer
    asked: list[gr.components.Component] = field(default_factory=list)  # the fields in the order of Filled

    def __post_init__(self) -> None:
        self.asked = [self.fields[name] for name in Filled._fields]


def lay_out(cfg: float, draws: bool = True) -> Form:
    """All widgets of the left column; whoever places the grid and what stands above it renders these. Where nothing is drawn, only the
    choice of pictures shows.
    """
    source = gr.Radio([DRAWN, SAMPLES], value=DRAWN if draws else SAMPLES, label="Pictures", elem_id="compare-source")
    runs = unlisted(gr.Dropdown([], multiselect=True, label="Runs", elem_id="compare-runs"))
    # outside of the column: what stands in one within a tab is not told what happens to it before the tab was opened
    kept, job_id, stamp, watch_id, ended, offered, came_with, row = (gr.Textbox(visible=False) for _ in range(8))
    unseen = (job_id, stamp, watch_id, ended, offered, came_with, row, clock(0.15))
    with gr.Column(visible=draws, elem_id="compare-form"):
        return _drawing(source, runs, {"kept": kept}, unseen, cfg, draws)


def _drawing(
    source: gr.Radio, runs: gr.Dropdown, f: dict[str, gr.components.Component], unseen: tuple[Any, ...], cfg: float, draws: bool
) -> Form:
    """What is to be drawn, and the buttons that do it."""
    ticking = _ticking(f)
    f["prompts"] = gr.Textbox(label="Prompts, one per line", lines=2, elem_id="compare-prompts", placeholder=PLACEHOLDER, info=PROMPTS_INFO)
    drop, lost = _dropping()
    with gr.Row():
        draw = gr.Button("Draw", variant="primary", size="md", elem_id="compare-draw", min_width=80)
        pause = gr.Button("Pause", size="md", elem_id="compare-pause", min_width=80, interactive=False)
        cancel = gr.Button("Cancel", size="md", elem_id="compare-cancel", min_width=80, interactive=False)
    plan = gr.Textbox(label="Plan", interactive=False, lines=1, max_lines=12, elem_id="compare-plan", container=False)
    status = gr.Textbox(label="Drawing", interactive=False, lines=1, max_lines=8, elem_id="compare-status", placeholder=" ")
    question = _question(f)
    with gr.Row():
        f["seeds"] = gr.Textbox("0", label="Seeds", info="0 · 1-4 · 7, 11 · -1 random", elem_id="compare-seeds", scale=3, min_width=140)
        f["locked"] = gr.Checkbox(False, label="Lock", info="keep seeds", elem_id="compare-lock", scale=1, min_width=90)
    f["negative"] = gr.Textbox(label="Negative prompt", lines=1, elem_id="compare-negative", info="several with ||")
    f["mode"] = gr.Radio(MODES, value="fast", label="Mode", info=MODE_INFO, elem_id="compare-mode")
    f["preview"] = gr.Checkbox(False, label="Preview first: small and with few steps, then replaced", elem_id="compare-preview")
    fill_samplers = _sampling(f, cfg)
    _more_axes(f)
    watch, watch_too, newest = _watching()
    template, mount = viewer.MATRIX_TEMPLATE, viewer.matrix_on_load()
    grid = gr.HTML(
        EMPTY if draws else NONE_DRAWN, apply_default_css=False, html_template=template, js_on_load=mount, elem_id="grid", render=False
    )
    return Form(
        source, runs, f, draw, pause, cancel, status, plan, *ticking, fill_samplers, question, drop, lost,
        watch, watch_too, newest, grid, *_above_grid(), *unseen,
    )  # fmt: skip


def _above_grid() -> tuple[gr.Dropdown, gr.Textbox]:
    # both are there from the start: a tab whose parts come and go is told to be opened again, and fills its form anew
    none = [("No earlier grid", "")]
    earlier = unlisted(gr.Dropdown(none, value="", label="Earlier grids", container=False, elem_id="compare-earlier", render=False))
    whose = gr.Textbox(
        label="Whose pictures",
        container=False,
        interactive=False,
        placeholder=" ",
        lines=1,
        max_lines=3,
        elem_id="compare-whose",
        render=False,
    )
    return earlier, whose


def _ticking(f: dict[str, gr.components.Component]) -> tuple[gr.Button, gr.Button, gr.Textbox]:
    with gr.Group():
        f["picked"] = picks_in(label="Checkpoints", elem_id="compare-checkpoints")
        with gr.Row(elem_id="compare-ticking"):
            fill_picks = gr.Button("Tick all", size="sm", elem_id="compare-fill", min_width=60, scale=1)
            fill_none = gr.Button("None", size="sm", elem_id="compare-none", min_width=50, scale=1)
            by_axis = gr.Textbox(
                label="Tick by expression", placeholder="or: 500:3000:500 · last 4 · best", container=False, lines=1, max_lines=1,
                elem_id="compare-axis", min_width=120, scale=4,
            )  # fmt: skip
    return fill_picks, fill_none, by_axis


def _question(f: dict[str, gr.components.Component]) -> gr.Accordion:
    with gr.Accordion(QUESTION, open=False, elem_id="compare-question") as question:
        f["base"] = gr.Textbox(label="Base model: an id or a folder on this computer", elem_id="compare-base")
        f["alpha"] = gr.Textbox(label="The LoRA's alpha, where nothing says it", elem_id="compare-alpha")
    return question


def _sampling(f: dict[str, gr.components.Component], cfg: float) -> gr.Button:
    with gr.Accordion("Steps, CFG, strength, sampler", open=False, elem_id="compare-sampling"):
        with gr.Row():
            f["steps"] = gr.Textbox("12", label="Denoising steps", info="12 · 10-30 (+10)", elem_id="compare-steps", min_width=120)
            f["guidance"] = gr.Textbox(f"{cfg:g}", label="CFG scale", info="7.5 · 1-9 [3]", elem_id="compare-guidance", min_width=120)
        f["strengths"] = gr.Textbox("1", label="LoRA strengths", info="1 · 0.5-1 [3] · 0, 0.5, 1", elem_id="compare-strengths")
        f["scheduler"] = gr.Textbox("base", label="Sampler", info=samplers_info(), elem_id="compare-scheduler")
        fill = gr.Button("Fill in all samplers", size="sm", elem_id="compare-fill-samplers")
    return fill


def samplers_info(own: str = "") -> str:
    """What may be written for a sampler; `own` is that of the base model, where it is known."""
    return " · ".join([f"base, the base model's own{f' ({own})' if own else ''}", *SCHEDULERS[1:]])


def _more_axes(f: dict[str, gr.components.Component]) -> None:
    with gr.Accordion("More axes: size, Prompt S/R, LoRAs, VAE, title", open=False, elem_id="compare-more"):
        f["title"] = gr.Textbox(label="Title of the grid", elem_id="compare-title")
        f["search_replace"] = gr.Textbox(
            label="Prompt S/R",
            info="what to search for, then what replaces it: red, blue, green",
            lines=1,
            elem_id="compare-search-replace",
        )
        with gr.Row():
            f["size"] = gr.Textbox(label="Size", info="512x512, 512x768", elem_id="compare-size", min_width=140)
            f["clip_skip"] = gr.Textbox(label="Clip skip", info="1 · 1, 2", elem_id="compare-clip-skip", min_width=100)
        f["stack"] = gr.Textbox(
            label="Extra LoRAs", info="one a line: an id as RUN@STEP, or a path on this computer", lines=1,
            max_lines=5, elem_id="compare-stack",
        )  # fmt: skip
        f["stack_strengths"] = gr.Textbox("1", label="Their strengths", info="1 · 0, 0.5, 1", elem_id="compare-stack-strengths")
        f["vae"] = gr.Textbox(label="VAE", info="folders or files on this computer; base is the base model's", elem_id="compare-vae")


def _dropping() -> tuple[gr.UploadButton, gr.Textbox]:
    with gr.Row(elem_classes="cmp-drop-input"):
        drop = gr.UploadButton(
            "Drop a picture here to take its settings, or a file of prompts …",
            size="sm",
            type="binary",
            elem_id="compare-drop",
            file_types=DROPPED,
        )
    lost = gr.Textbox(label="From the file", interactive=False, lines=1, max_lines=10, visible=False, elem_id="compare-restored")
    return drop, lost


def _watching() -> tuple[gr.Checkbox, gr.Checkbox, gr.Button]:
    with gr.Accordion("While a run is trained", open=False, elem_id="compare-watching"):
        watch = gr.Checkbox(False, label="Draw each new checkpoint of the first chosen run as it lands", elem_id="compare-watch")
        too = gr.Checkbox(
            False, label="Measure it too, on the images that were measured on last", visible=False, elem_id="compare-watch-too"
        )
        newest = gr.Button("Sample newest now", size="sm", elem_id="compare-newest")
    return watch, too, newest
