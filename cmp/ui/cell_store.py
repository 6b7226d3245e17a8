"""The drawn pictures that are kept: how much room they take, and how room is made, with a plan first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import gradio as gr

from cmp.core.present import size_text
from cmp.errors import BadInput
from cmp.ui.faults import changing, told
from cmp.workbench import Workbench

if TYPE_CHECKING:
    from cmp.disk.cells import PrunePlan

DAY, MB = 86400.0, 1_000_000


def build_cell_store(bench: Workbench) -> None:
    """Lays out the section and connects its events."""
    with gr.Accordion("Pictures kept here", open=False, elem_id="cells") as section:
        size = gr.Textbox(label="Kept", interactive=False, lines=1, elem_id="cells-size")
        with gr.Row():
            most = gr.Textbox(label="Keep at most, MB", placeholder="2000", elem_id="cells-most", min_width=110)
            days = gr.Textbox(label="Drop unused, days", placeholder="30", elem_id="cells-days", min_width=110)
        with gr.Row():
            plan = gr.Button("Show what would go", size="sm", elem_id="cells-plan", min_width=110)
            prune = gr.Button("Delete them", size="sm", elem_id="cells-prune", interactive=False, min_width=110)
        shown = gr.Textbox(label="Plan", interactive=False, lines=2, visible=False, elem_id="cells-told")
    planned = gr.Textbox(visible=False)

    def measure() -> str:
        return size_line(*bench.cells_size())

    @told
    def say(megabytes: str | None, unused: str | None) -> Any:
        text, count = plan_line(bench, megabytes, unused)
        return gr.update(value=text, visible=True), text, gr.update(interactive=count > 0)

    @changing
    def carry_out(megabytes: str | None, unused: str | None, before: str) -> Any:
        text, count = plan_line(bench, megabytes, unused)
        if text != before:  # what would go now is not what was shown
            return gr.update(value=text, visible=True), text, gr.update(interactive=count > 0), measure()
        freed = bench.prune(make_plan(bench, megabytes, unused))
        return gr.update(value=f"{size_text(freed)} came free.", visible=True), "", gr.update(interactive=False), measure()

    section.expand(measure, None, size, queue=False, show_progress="hidden")
    plan.click(say, [most, days], [shown, planned, prune], show_progress="hidden")
    prune.click(carry_out, [most, days, planned], [shown, planned, prune, size], show_progress="hidden")


def size_line(count: int, size: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}, {size_text(size)}"


def plan_line(bench: Workbench, megabytes: str | None, unused: str | None) -> tuple[str, int]:
    """What would go, in words, and how many pictures that are. Raises BadInput where it was not said what may stay."""
    found = make_plan(bench, megabytes, unused)
    text = f"{len(found.going)} of {size_line(found.cells, found.bytes)} would go; {size_text(found.bytes_after)} would stay."
    text += f"\n{found.held} more are held by grids that are not finished." if found.held else ""
    return text + "\nAny of them can be drawn again, to the bit." if found.going else text, len(found.going)


def make_plan(bench: Workbench, megabytes: str | None, unused: str | None) -> PrunePlan:
    """The plan of what the two fields say; raises BadInput."""
    size, age = _number(megabytes, "MB"), _number(unused, "days")
    if size is None and age is None:
        raise BadInput("it was not said what may stay", "Say how many MB, or after how many days, or both.")
    return bench.plan_prune(most_bytes=None if size is None else round(size * MB), unused_for=None if age is None else age * DAY)


def _number(text: str | None, unit: str) -> float | None:
    text = (text or "").strip()
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text, re.ASCII):
        raise BadInput(f"{text!r} is no number of {unit}", "Write digits, such as 30 or 0.5.")
    return float(text)
