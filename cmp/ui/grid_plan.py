"""The line under the form that says what pressing Draw would do."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from cmp.errors import CmpError
from cmp.ui.clocks import clock
from cmp.ui.filling import Filled, read_grid
from cmp.ui.grid_form import Form
from cmp.ui.grid_jobs import needs_answer, plan_text
from cmp.ui.planner import Planner
from cmp.workbench import Workbench

# who types is not asked at each letter; the last change is always told, see trigger_mode
_NUMBER = "String(window.cmpPlanAsked = (window.cmpPlanAsked ?? 0) + 1)"
_AT_ONCE = f"(_, ...values) => [{_NUMBER}, ...values]"
_REST = f"(_, ...values) => new Promise((go) => setTimeout(() => go([{_NUMBER}, ...values]), 200))"
# only the answer to the last question counts: an earlier one that comes late would bring back its text, and stop the clock
_TELL = """(told) => {
  const { asked, plan, waits, preview, run, ask } = JSON.parse(told || "{}");
  const set = (props) => ({ __type__: "update", ...(asked === String(window.cmpPlanAsked) ? props : {}) });
  return [set({ value: plan }), set({ active: waits }), set(preview === null ? {} : { value: preview }), set({ value: run }),
    set(ask ? { open: true } : {})];
}"""


def connect_plan(bench: Workbench, form: Form, dropped: Any) -> None:
    """Has the plan follow the form, and the choice of previews the machine, as long as nobody has chosen."""
    planner = Planner(bench)
    timer, chosen_for, asked, answer = clock(1.0), *(gr.Textbox(visible=False) for _ in range(3))

    def plan(before: str, *values: Any) -> tuple[str, bool, bool | None, str, bool]:
        """The line, whether it is still being worked out, previews or not (None leaves them), the run for which that was chosen, and
        whether nothing can be drawn before a base model or an alpha is said.
        """
        filled = Filled(*values)
        if not filled.picked:
            return "", False, None, before, False
        try:
            spec, runs, _ = read_grid(bench, filled, planned=True)
            bench.require_small(spec)
            planned = planner.ask(spec, runs, filled.given)
        except CmpError as fault:
            return fault.told, False, None, before, False
        if planned is None:
            return plan_text(bench, spec, None), True, None, before, False
        run = runs[0].id  # another run may have a larger base
        slow = planned.slow if run != before else None
        return plan_text(bench, spec, planned.plan), False, slow, run, needs_answer(planned.plan)

    def say_plan(number: str, *values: Any) -> str:
        return json.dumps(dict(zip(("asked", "plan", "waits", "preview", "run", "ask"), (number, *plan(*values)), strict=True)))

    inputs, quiet = [asked, chosen_for, *form.asked], {"queue": False, "show_progress": "hidden"}
    # while a form is being filled an event may know the ticks of one run and the choices of another, which Gradio takes for a fault
    quiet["preprocess"] = False
    changes = [widget.change for name, widget in form.fields.items() if name not in ("preview", "title", "kept")]
    gr.on(changes, say_plan, inputs, answer, js=_REST, trigger_mode="always_last", **quiet)
    dropped.then(say_plan, inputs, answer, js=_AT_ONCE, **quiet)
    gr.on([timer.tick, form.ended.change], say_plan, inputs, answer, js=_AT_ONCE, trigger_mode="always_last", **quiet)
    answer.change(None, answer, [form.plan, timer, form.fields["preview"], chosen_for, form.question], js=_TELL)
