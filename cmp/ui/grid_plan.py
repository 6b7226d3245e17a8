"""The line under the form that says what pressing Draw would do."""

from __future__ import annotations

from typing import Any

import gradio as gr

from cmp.errors import CmpError
from cmp.ui.clocks import clock
from cmp.ui.filling import Filled, read_grid
from cmp.ui.grid_form import Form
from cmp.ui.grid_jobs import plan_text
from cmp.ui.planner import Planner
from cmp.workbench import Workbench

# who types is not asked at each letter; the last change is always told, see trigger_mode
_REST = "(...values) => new Promise((go) => setTimeout(() => go(values), 200))"


def connect_plan(bench: Workbench, form: Form, dropped: Any) -> None:
    """Has the plan follow the form, and the choice of previews the machine, as long as nobody has chosen."""
    planner = Planner(bench)
    timer, chosen_for = clock(1.0), gr.Textbox(visible=False)

    def say_plan(before: str, *values: Any) -> Any:
        filled = Filled(*values)
        if not filled.picked:
            return "", gr.Timer(active=False), gr.skip(), before
        try:
            spec, runs, _ = read_grid(bench, filled, planned=True)
            planned = planner.ask(spec, runs, filled.given)
        except CmpError as fault:
            return fault.told, gr.Timer(active=False), gr.skip(), before
        if planned is None:
            return plan_text(bench, spec, None), gr.Timer(active=True), gr.skip(), before
        run = runs[0].id  # another run may have a larger base
        preview = planned.slow if run != before else gr.skip()
        return plan_text(bench, spec, planned.plan), gr.Timer(active=False), preview, run

    inputs, shown = [chosen_for, *form.asked], [form.plan, timer, form.fields["preview"], chosen_for]
    changes = [widget.change for name, widget in form.fields.items() if name not in ("preview", "title", "kept")]
    gr.on(changes, say_plan, inputs, shown, js=_REST, queue=False, trigger_mode="always_last", show_progress="hidden")
    dropped.then(say_plan, inputs, shown, queue=False, show_progress="hidden")
    gr.on([timer.tick, form.ended.change], say_plan, inputs, shown, queue=False, trigger_mode="always_last", show_progress="hidden")
