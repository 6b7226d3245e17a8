"""The widgets of the Measure section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gradio as gr

from cmp.core.draws import USUAL_DRAWS
from cmp.core.measured import LOSS
from cmp.ui.clocks import clock
from cmp.ui.measure_values import CHOICES, LABELS, Fields, needed

_CAPTIONS = "with captions as for training: metadata.jsonl, captions.json, or a .txt beside each"
_MODEL = "an id in the Hugging Face cache, or a folder"
_ABOUT = {
    "held_out": f"a folder on this computer of images that were not trained with; {_CAPTIONS}",
    "training": "a folder of images that were trained with: their loss shows what is learned by heart",
    "draws": "each with a timestep of its own; more of them make the loss surer",
    "clip": _MODEL,
    "encoder": f"such as DINOv2; {_MODEL}",
    "preference": f"such as PickScore; {_MODEL}",
    "reference": "a folder: what pictures are to resemble, or for identity the subject",
    "subject": "words that call up what was trained; empty for the run's trigger words",
    "base": "an id, or a folder on this computer",
    "alpha": "of the LoRA, where nothing says it",
}


@dataclass(frozen=True, slots=True)
class Section:
    """What the events speak to; `asked` is the form in the order of `Fields`, `job`, `seen` and `ended` are what the page knows."""

    USED: ClassVar[tuple[str, ...]] = tuple(needed([]))  # fields that only some metrics have a use for

    whole: gr.Accordion
    asked: list[Any]
    plan: gr.Textbox
    command: gr.Textbox
    measure: gr.Button
    cancel: gr.Button
    status: gr.Textbox
    clock: gr.Timer
    ask: gr.Timer
    job: gr.Textbox
    seen: gr.Textbox
    ended: gr.Textbox

    @property
    def metrics(self) -> gr.CheckboxGroup:
        found: gr.CheckboxGroup = self.asked[0]
        return found

    @property
    def used(self) -> list[Any]:
        return [self.asked[Fields._fields.index(name)] for name in self.USED]


def lay_out() -> Section:
    """The section, which is shown once a run is."""
    with gr.Accordion("Measure", open=False, visible=False, elem_id="pick-measure") as whole:
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                f: dict[str, Any] = {
                    "metrics": gr.CheckboxGroup(
                        CHOICES, value=[LOSS], label="What to measure", elem_id="measure-metrics", elem_classes="cmp-lines"
                    )
                }
            with gr.Column(scale=2, min_width=300):
                for name in ("held_out", "training", "reference", "clip", "encoder", "preference", "subject", "draws"):
                    f[name] = _field(name)
                with gr.Accordion("Base model and alpha", open=False, elem_id="measure-question"):
                    f["base"], f["alpha"] = _field("base"), _field("alpha")
        plan = gr.Textbox(label="Plan", interactive=False, lines=1, max_lines=10, elem_id="measure-plan")
        with gr.Row():
            measure = gr.Button("Measure", variant="primary", elem_id="measure-start", min_width=100)
            cancel = gr.Button("Cancel", interactive=False, elem_id="measure-cancel", min_width=100)
        status = gr.Textbox(label="Measuring", interactive=False, lines=1, max_lines=10, visible=False, elem_id="measure-status")
        with gr.Accordion("The same on the command line", open=False):
            command = gr.Textbox(label="Command", interactive=False, lines=1, max_lines=6, elem_id="measure-command")
    asked = [f[name] for name in Fields._fields]
    hidden = [gr.Textbox(visible=False) for _ in range(3)]
    return Section(whole, asked, plan, command, measure, cancel, status, clock(0.5), clock(1.0), *hidden)


def _field(name: str) -> gr.Textbox:
    value = str(USUAL_DRAWS) if name == "draws" else ""
    first = needed([LOSS]).get(name, True)
    return gr.Textbox(value, label=LABELS[name], info=_ABOUT[name], lines=1, visible=first, elem_id=f"measure-{name.replace('_', '-')}")
