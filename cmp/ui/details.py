"""The details of one checkpoint on the Runs tab, and the questions that only the user can answer."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from cmp import viewer
from cmp.core.describing import Fact, checkpoint_facts
from cmp.core.scale import parse_alpha
from cmp.disk.ready import Answers
from cmp.errors import BadInput, CmpError
from cmp.ui.faults import changing
from cmp.workbench import Workbench
from cmp.workbench.targets import take_answer

NOTE = "Choose a checkpoint to see what it holds and what it can become."


def build_details(bench: Workbench, looked: gr.Textbox, changed: gr.Textbox) -> None:
    """Lays out the details of the checkpoint whose id is in `looked`, told anew whenever `changed` does."""
    empty = details_value("", (), NOTE)
    shown = gr.HTML(
        empty, apply_default_css=False, html_template=viewer.DETAILS_TEMPLATE, js_on_load=viewer.details_on_load(), elem_id="details"
    )
    with gr.Group(visible=False) as question, gr.Row(elem_classes="cmp-field"):
        alpha = gr.Textbox(label="alpha", placeholder="a number", elem_id="answer-alpha", visible=False, min_width=110)
        base = gr.Textbox(label="Base model", placeholder="a name or a folder", elem_id="answer-base", visible=False, min_width=220)
        use = gr.Button("Use it for this run", elem_id="answer-use", min_width=150)

    def look(target: str) -> Any:
        if not target:
            return empty, gr.update(visible=False), gr.update(), gr.update()
        try:
            found = bench.show(target)
        except CmpError as fault:  # it has gone since
            return details_value("", (), fault.told), gr.update(visible=False), gr.update(), gr.update()
        asked = questions(found)
        value = details_value(target, checkpoint_facts(found), "")
        boxes = (gr.update(visible=name in asked) for name in ("alpha", "base"))
        return value, gr.update(visible=bool(asked)), *boxes

    @changing
    def answer(target: str, number: str | None, folder: str | None) -> Any:
        given = Answers(parse_alpha(number), (folder or "").strip() or None)
        if given == Answers():
            raise BadInput("nothing was answered", "Type alpha, or the base model.")
        take_answer(bench, target, given)
        return str(time.time()), "", ""

    told_by = [shown, question, alpha, base]
    looked.change(look, looked, told_by, trigger_mode="always_last")  # the first look at a large dump compares it with the base
    changed.change(look, looked, told_by, trigger_mode="always_last", show_progress="hidden")
    use.click(answer, [looked, alpha, base], [changed, alpha, base], show_progress="minimal")


def details_value(title: str, facts: tuple[Fact, ...], note: str) -> dict[str, Any]:
    """What the viewer is fed with."""
    rows = [{"label": fact.label, "lines": list(fact.lines), "tone": fact.tone} for fact in facts]
    return {"title": title, "facts": rows, "note": note}


def questions(found: dict[str, Any]) -> list[str]:
    """What only the user can tell about a checkpoint: its alpha where nothing says it, its base where none is at hand."""
    return ["alpha"] * bool(found.get("question")) + ["base"] * bool(found.get("base_missing"))
