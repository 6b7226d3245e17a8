"""Converting on the Runs tab: which form, which checkpoints, the plan, progress and a way to stop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr

from cmp.core.conversion import LORA_FORMS
from cmp.errors import BadInput, CmpError
from cmp.ui.batches import Order, batch_text, plan_batch, plan_text, start_batch
from cmp.ui.clocks import clock, stop_at_end
from cmp.ui.faults import cancelling, changing
from cmp.ui.hints import DETAILS, on_page, told_of
from cmp.workbench import Workbench

FORMS = [
    ("LoRA file (diffusers): what diffusers, ComfyUI and Forge load onto a base model; a few MB", "lora"),
    ("LoRA file (webui): the same under kohya's names, for A1111 and older tools", "webui"),
    ("Full pipeline: a diffusers folder with the training merged in, for code that calls from_pretrained; some GB", "pipeline"),
    ("Full model in one file: for A1111 and ComfyUI as a checkpoint, and for from_single_file; some GB", "single"),
]
WHICH = [("the ticked ones", "ticked"), ("all of this run", "all"), ("every so many steps", "every"), ("the best by held-out loss", "best")]
COUNTED = {"every": ("Every so many steps", 1000), "best": ("How many", 1)}
TYPES = [("as it is", ""), ("fp16", "fp16"), ("bf16", "bf16"), ("fp32", "fp32")]
NOTHING = "Tick checkpoints above to see what converting them takes."


@dataclass(slots=True)
class Form:
    """The widgets; `asked` are those that make up an Order, in its order."""

    asked: list[gr.components.Component]
    convert: gr.Button
    cancel: gr.Button
    plan: gr.Textbox
    status: gr.Textbox


def build_conversion(bench: Workbench, chosen: gr.Textbox, ticked: gr.Textbox, seen: gr.Textbox, changed: gr.Textbox) -> None:
    """Lays out the form and connects its events."""
    form = _lay_out(chosen, ticked)
    _planning(bench, form, changed)
    _running(bench, form, seen, changed)


def _lay_out(chosen: gr.Textbox, ticked: gr.Textbox) -> Form:
    kind = gr.Radio(FORMS, value="lora", label="Convert to", elem_id="convert-form", elem_classes="cmp-lines")
    with gr.Row():
        which = gr.Dropdown(WHICH, value="ticked", label="Which checkpoints", elem_id="convert-which", min_width=150)
        count = gr.Number(1000, label="Every so many steps", precision=0, minimum=1, elem_id="convert-count", visible=False, min_width=120)
        dtype = gr.Dropdown(TYPES, value="", label="Number type", elem_id="convert-type", min_width=150)
        strength = gr.Number(1.0, label="Strength", elem_id="convert-strength", visible=False, min_width=90)
    again = gr.Checkbox(False, label="also what is converted already; what was there goes to .cmp-trash", elem_id="convert-again")
    plan = gr.Textbox(NOTHING, label="Plan", interactive=False, lines=2, max_lines=14, elem_id="convert-plan")
    with gr.Row():
        convert = gr.Button("Convert", variant="primary", elem_id="convert-selected", min_width=100)
        cancel = gr.Button("Cancel", elem_id="convert-cancel", interactive=False, min_width=100)
    status = gr.Textbox(label="Conversion", interactive=False, lines=3, max_lines=16, elem_id="convert-status", visible=False)

    def fit(form: str, which_ones: str) -> Any:
        label, value = COUNTED.get(which_ones, ("", 1))
        number = gr.update(visible=True, label=label, value=value) if label else gr.update(visible=False)
        return number, gr.update(visible=form not in LORA_FORMS)

    gr.on([kind.change, which.change], fit, [kind, which], [count, strength], queue=False, show_progress="hidden")
    return Form([ticked, chosen, which, count, kind, dtype, strength, again], convert, cancel, plan, status)


def _planning(bench: Workbench, form: Form, changed: gr.Textbox) -> None:
    def say_plan(*values: Any) -> str:
        order = Order(*values)
        if order.which == "ticked" and not order.ids:
            return NOTHING
        try:
            return plan_text(plan_batch(bench, order))
        except CmpError as fault:
            return told_of(fault, DETAILS)

    changes = [widget.change for widget in form.asked if hasattr(widget, "change")]
    # the first plan of a large dump reads all of it, to compare it with the base: others need not wait for that
    gr.on(changes, say_plan, form.asked, form.plan, trigger_mode="always_last", show_progress="minimal")
    changed.change(say_plan, form.asked, form.plan, trigger_mode="always_last", show_progress="hidden")


def _running(bench: Workbench, form: Form, seen: gr.Textbox, changed: gr.Textbox) -> None:
    job_id, ended, timer = gr.Textbox(visible=False), gr.Textbox(visible=False), clock(0.5)

    @changing
    def start(*values: Any) -> Any:
        order = Order(*values)
        if order.which == "ticked" and not order.ids:
            raise BadInput("no checkpoint is ticked", "Tick the checkpoints that you want to convert, or choose all of the run.")
        batch = plan_batch(bench, order)
        if not batch.due and batch.faults:
            raise on_page(batch.faults[0][1], DETAILS)
        if not batch.due:
            return "", gr.update(value=f"nothing to do: {plan_text(batch)}", visible=True), gr.Timer(active=False), gr.update()
        job = start_batch(bench, batch)
        return job.id, gr.update(value=batch_text(job), visible=True), gr.Timer(active=True), gr.update(interactive=True)

    def watch(job: str, shown: str) -> Any:
        found = bench.jobs.known(job)
        if found is None:  # the server was started anew
            return *[gr.skip()] * 4, job
        if not found.over:
            return batch_text(found), gr.update(interactive=True), *[gr.skip()] * 3
        text = batch_text(found)
        if text != shown:
            return text, *[gr.skip()] * 4
        return text, gr.update(interactive=False), "", str(time.time()), job

    shown = [job_id, form.status, timer, form.cancel]
    form.convert.click(start, form.asked, shown, show_progress="minimal")
    form.cancel.click(cancelling(bench), job_id, None)
    timer.tick(watch, [job_id, form.status], [form.status, form.cancel, seen, changed, ended], queue=False, show_progress="hidden")
    stop_at_end(timer, ended, job_id, form.status)
