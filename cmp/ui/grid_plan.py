"""The line under the form that says what pressing Draw would do."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import gradio as gr

from cmp.errors import CmpError
from cmp.ui.clocks import clock
from cmp.ui.filling import Filled, read_grid
from cmp.ui.grid_form import Form, samplers_info
from cmp.ui.grid_jobs import needs_answer, plan_text
from cmp.ui.hints import QUESTION, told_of
from cmp.ui.planner import Planner
from cmp.workbench import Workbench

# who types is not asked at each letter; the last change is always told, see trigger_mode
_NUMBER = "String(window.cmpPlanAsked = (window.cmpPlanAsked ?? 0) + 1)"
_AT_ONCE = f"(_, ...values) => [{_NUMBER}, ...values]"
_REST = f"(_, ...values) => new Promise((go) => setTimeout(() => go([{_NUMBER}, ...values]), 200))"
# only the answer to the last question counts: an earlier one that comes late would bring back its text, and stop the clock
_TELL = """(told) => {
  const { asked, plan, waits, preview, run, ask, samplers } = JSON.parse(told || "{}");
  const set = (props) => ({ __type__: "update", ...(asked === String(window.cmpPlanAsked) ? props : {}) });
  return [set({ value: plan }), set({ active: waits }), set(preview === null ? {} : { value: preview }), set({ value: run }),
    set(ask ? { open: true } : {}), set(samplers ? { info: samplers } : {})];
}"""


class Said(NamedTuple):
    """The line, whether it is still being worked out, previews or not (None leaves them), the run for which that was chosen, whether
    nothing can be drawn before a base model or an alpha is said, and what may be written for a sampler (None leaves it).
    """

    plan: str
    waits: bool = False
    preview: bool | None = None
    run: str = ""
    ask: bool = False
    samplers: str | None = None


def connect_plan(bench: Workbench, form: Form, dropped: Any, planner: Planner) -> None:
    """Has the plan follow the form, and the choice of previews the machine, as long as nobody has chosen."""
    timer, chosen_for, asked, answer = clock(1.0), *(gr.Textbox(visible=False) for _ in range(3))

    def plan(before: str, *values: Any) -> Said:
        filled = Filled(*values)
        if not filled.picked:
            return Said("", run=before)
        try:
            spec, runs, _ = read_grid(bench, filled, planned=True)
            bench.require_small(spec)
            planned = planner.ask(spec, runs, filled.given)
        except CmpError as fault:
            return Said(told_of(fault, QUESTION), run=before)
        if planned is None:
            return Said(plan_text(bench, spec, None), waits=True, run=before)
        run = runs[0].id  # another run may have a larger base
        slow = planned.slow if run != before else None
        told = plan_text(bench, spec, planned.plan)
        return Said(told, preview=slow, run=run, ask=needs_answer(planned.plan), samplers=samplers_info(planned.sampler))

    def say_plan(number: str, *values: Any) -> str:
        return json.dumps({"asked": number, **plan(*values)._asdict()})

    inputs, quiet = [asked, chosen_for, *form.asked], {"queue": False, "show_progress": "hidden"}
    changes = [widget.change for name, widget in form.fields.items() if name not in ("preview", "title", "kept")]
    gr.on(changes, say_plan, inputs, answer, js=_REST, trigger_mode="always_last", **quiet)
    dropped.then(say_plan, inputs, answer, js=_AT_ONCE, **quiet)
    gr.on([timer.tick, form.ended.change], say_plan, inputs, answer, js=_AT_ONCE, trigger_mode="always_last", **quiet)
    told = [form.plan, timer, form.fields["preview"], chosen_for, form.question, form.fields["scheduler"]]
    answer.change(None, answer, told, js=_TELL)
