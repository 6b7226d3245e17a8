"""The Runs tab: every run, the chosen run's checkpoints, converting them, folders and names."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from typing import Any

import gradio as gr

from cmp import viewer
from cmp.core.conversion import Conversion, ConversionPlan, summarise
from cmp.core.present import size_text
from cmp.core.runs import Library, Sample
from cmp.errors import BadInput, CmpError
from cmp.jobs import Job
from cmp.ui.faults import cancelling, told
from cmp.ui.values import checkpoints_table, runs_table
from cmp.workbench import FailedConversion, Workbench

FORMS = [
    ("LoRA file (diffusers)", "lora"),
    ("LoRA file (A1111, Forge, ComfyUI)", "webui"),
    ("full diffusers pipeline", "pipeline"),
    ("full model in one file (A1111, ComfyUI)", "single"),
]


@dataclass(slots=True)
class RunsTab:
    """The widgets that other tabs speak to."""

    chosen: gr.Textbox
    ticked: gr.Textbox
    compare: gr.Button


def build_runs_tab(bench: Workbench, page: gr.Blocks) -> RunsTab:
    """Lays out the tab and connects its events."""
    chosen, ticked, seen, job_id = (gr.Textbox(visible=False) for _ in range(4))
    runs = _table("runs-table")
    gr.Markdown("#### Checkpoints of the chosen run")
    checkpoints = _table("checkpoints-table")
    with gr.Row():
        compare = gr.Button("Compare selected", variant="primary", elem_id="compare-selected")
        convert = gr.Button("Convert selected", elem_id="convert-selected")
        convert_new = gr.Button("Convert all new", elem_id="convert-new")
        cancel = gr.Button("Cancel", elem_id="convert-cancel")
    with gr.Row():
        form = gr.Dropdown(FORMS, value="lora", label="Convert to", elem_id="convert-form", scale=1, min_width=280)
        plan = gr.Textbox(plan_text([], []), label="Plan", interactive=False, lines=1, elem_id="convert-plan", scale=3, min_width=280)
    status = gr.Textbox(label="Conversion", interactive=False, lines=3, elem_id="convert-status", visible=False)
    problems = gr.Textbox(label="Could not be read", interactive=False, visible=False, elem_id="problems")
    _names(bench, chosen, ticked, seen)
    _folders(bench, seen)

    shown = [runs, checkpoints, chosen, seen, problems]

    def refresh(run_id: str, ticks: str, before: str) -> Any:
        library = bench.library(fresh=False)
        values = tables(bench, library, run_id, ticks)
        stamp = hashlib.sha256(json.dumps([values, str(library.problems)]).encode()).hexdigest()
        if stamp == before:  # nothing new: the page is left as it is
            return [gr.skip()] * len(shown)
        return [*values, stamp, problem_text(library)]

    def choose(event: gr.EventData) -> Any:
        run_id = (event._data.get("ticked") or [""])[0]
        library = bench.library(fresh=False)
        return [*tables(bench, library, run_id, ""), ""]

    page.load(refresh, [chosen, ticked, seen], shown, show_progress="hidden")
    gr.Timer(3).tick(refresh, [chosen, ticked, seen], shown, queue=False, show_progress="hidden")
    runs.select(choose, None, [runs, checkpoints, chosen, ticked], queue=False, show_progress="hidden")
    _ticks(bench, checkpoints, ticked, form, plan, seen)
    _conversion(bench, chosen, ticked, form, job_id, status, seen, (convert, convert_new, cancel))
    return RunsTab(chosen, ticked, compare)


def _table(name: str) -> gr.HTML:
    return gr.HTML(apply_default_css=False, html_template=viewer.TABLE_TEMPLATE, js_on_load=viewer.table_on_load(), elem_id=name)


def tables(bench: Workbench, library: Library, run_id: str, ticks: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Both tables and the id of the chosen run, which is the first one while none is chosen."""
    run = next((r for r in library.runs if r.id == run_id), next(iter(library.runs), None))
    ticked = ticks.split("\n") if ticks else []

    def thumb(sample: Sample) -> str:
        return f"cmp/sample/{bench.sample_name(sample)}.256.webp"

    return (
        runs_table(library, bench.name_of, run.id if run else None),
        checkpoints_table(run, bench.name_of, ticked, thumb),
        run.id if run else "",
    )


def problem_text(library: Library) -> Any:
    lines = [f"{problem.path}: {problem.reason}" for problem in library.problems]
    return gr.update(value="\n".join(lines), lines=max(1, len(lines)), visible=bool(lines))


def _ticks(bench: Workbench, checkpoints: gr.HTML, ticked: gr.Textbox, form: gr.Dropdown, plan: gr.Textbox, seen: gr.Textbox) -> None:
    def tick(event: gr.EventData) -> str:
        return "\n".join(event._data.get("ticked") or [])

    def say_plan(ticks: str, kind: str) -> str:
        return plan_text(*make_plans(bench, ticks.split("\n") if ticks else [], kind))

    checkpoints.select(tick, None, ticked, queue=False, show_progress="hidden")
    gr.on([ticked.change, form.change, seen.change], say_plan, [ticked, form], plan, queue=False, show_progress="hidden")


def make_plans(bench: Workbench, targets: list[str], form: str) -> tuple[list[ConversionPlan], list[CmpError]]:
    """The plans of what can be converted, and what stands against the rest."""
    plans, faults = [], []
    for target in targets:
        try:
            plans.append(bench.plan_conversion(target, form))
        except CmpError as fault:
            faults.append(fault)
    return plans, faults


def plan_text(plans: list[ConversionPlan], faults: list[CmpError]) -> str:
    """Size, free space, and what is in the way, before anything is written."""
    if not plans and not faults:
        return "Tick checkpoints to see what converting them takes."
    due = [plan for plan in plans if not plan.done]
    parts = [f"{len(due)} to convert, {size_text(sum(plan.bytes for plan in due))}"]
    if due:
        folder = next(p for p in due[0].target.parents if p.exists())
        parts.append(f"{size_text(shutil.disk_usage(folder).free)} free in {folder}")
        scales = {f"scale {plan.scale.value:g}" for plan in due if plan.scale}
        parts += sorted(scales)
    if done := len(plans) - len(due):
        parts.append(f"{done} already converted")
    parts += [f"not possible: {fault.told}" for fault in faults]
    return " · ".join(parts)


def _conversion(
    bench: Workbench,
    chosen: gr.Textbox,
    ticked: gr.Textbox,
    form: gr.Dropdown,
    job_id: gr.Textbox,
    status: gr.Textbox,
    seen: gr.Textbox,
    buttons: tuple[gr.Button, gr.Button, gr.Button],
) -> None:
    convert, convert_new, cancel = buttons
    clock = gr.Timer(0.5, active=False)

    @told
    def start_selected(ticks: str, kind: str) -> Any:
        if not ticks:
            raise BadInput("no checkpoint is ticked", "Tick the checkpoints that you want to convert.")
        return start_conversion(bench, ticks.split("\n"), kind)

    @told
    def start_new(run_id: str, kind: str) -> Any:
        run = bench.library(fresh=False).run(run_id)
        return start_conversion(bench, [c.id for c in run.checkpoints if c.flaw is None and kind not in dict(c.converted)], kind)

    def watch(job: str) -> Any:
        found = bench.jobs.find(job)
        return conversion_text(found), gr.Timer(active=not found.over), "" if found.over else gr.skip()

    shown = [job_id, status, clock]
    convert.click(start_selected, [ticked, form], shown, show_progress="hidden")
    convert_new.click(start_new, [chosen, form], shown, show_progress="hidden")
    cancel.click(cancelling(bench), job_id, None)
    clock.tick(watch, job_id, [status, clock, seen], queue=False, show_progress="hidden")


def start_conversion(bench: Workbench, targets: list[str], kind: str) -> tuple[str, Any, gr.Timer]:
    """Queues what is not converted yet: the job's id (empty if nothing is due), the status, and the clock that watches it."""
    plans, faults = make_plans(bench, targets, kind)
    due = [plan for plan in plans if not plan.done]
    if not due and faults:
        raise faults[0]
    if not due:
        done = f"nothing to do: {len(plans)} of {len(targets)} are converted already" if targets else "nothing to do: all are converted"
        return "", gr.update(value=done, visible=True), gr.Timer(active=False)
    left = (len(plans) - len(due), faults)
    job = bench.jobs.start("convert", f"convert {len(due)} to {kind}", len(due), lambda: bench.convert_all(due), left)
    return job.id, gr.update(value="starting …", visible=True), gr.Timer(active=True)


def conversion_text(job: Job) -> str:
    """How far a conversion has come, or how it ended."""
    converted = [item for item in job.items if isinstance(item, Conversion)]
    failed = [item for item in job.items if isinstance(item, FailedConversion)]
    skipped, faults = job.subject if isinstance(job.subject, tuple) else (0, [])
    lines = [f"{job.state}: {summarise(len(converted), skipped, len(failed) + len(faults))}"]
    if job.over and (left := job.total - len(converted) - len(failed)):
        lines[0] += f"; {left} not started"
    if not job.over and job.progress:
        lines.append(job.progress.what)
    lines += [f"{item.checkpoint} → {item.output} ({size_text(item.bytes)}): {'; '.join(item.checks)}" for item in converted]
    lines += [f"{item.checkpoint}: {item.error.told}" for item in failed]
    lines += [fault.told for fault in faults]
    lines += [job.error.told] if job.error else []
    return "\n".join(lines)


def _names(bench: Workbench, chosen: gr.Textbox, ticked: gr.Textbox, seen: gr.Textbox) -> None:
    with gr.Accordion("Names", open=False), gr.Row(equal_height=True):
        name = gr.Textbox(label="Display name of the chosen run, or of the one ticked checkpoint", elem_id="display-name", scale=4)
        save = gr.Button("Save name", elem_id="save-name")

    @told
    def rename(text: str, run_id: str, ticks: str) -> str:
        targets = ticks.split("\n") if ticks else [run_id]
        if len(targets) > 1:
            raise BadInput(f"{len(targets)} checkpoints are ticked", "Tick the one that the name is for, or none for the run.")
        bench.rename(targets[0], text)
        return ""

    save.click(rename, [name, chosen, ticked], seen, show_progress="hidden")


def _folders(bench: Workbench, seen: gr.Textbox) -> None:
    with gr.Accordion("Folders", open=False):
        shown = gr.Textbox(
            value=lambda: "\n".join(map(str, bench.roots)), label="Looking in", interactive=False, lines=2, elem_id="folders"
        )
        with gr.Row(equal_height=True):
            folder = gr.Textbox(label="Folder with training runs", placeholder="/home/me/outputs", elem_id="folder", scale=4)
            add = gr.Button("Add", elem_id="folder-add")
            remove = gr.Button("Remove", elem_id="folder-remove")

    def after() -> tuple[str, str]:
        return "\n".join(map(str, bench.roots)), ""

    @told
    def add_folder(text: str) -> tuple[str, str]:
        bench.add_folder(text)
        return after()

    @told
    def remove_folder(text: str) -> tuple[str, str]:
        bench.remove_folder(text)
        return after()

    add.click(add_folder, folder, [shown, seen], show_progress="hidden")
    remove.click(remove_folder, folder, [shown, seen], show_progress="hidden")
