"""The Runs tab: every run at a glance, the chosen run's pictures and checkpoints, converting them, folders and names."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

import gradio as gr

from cmp import viewer
from cmp.core.runs import Library
from cmp.core.samples import Sample
from cmp.errors import BadInput
from cmp.ui.converting import build_conversion
from cmp.ui.details import build_details
from cmp.ui.faults import changing
from cmp.ui.folders_form import build_folders
from cmp.ui.glance import first_run, glances, has_pictures
from cmp.ui.samples_view import build_samples_view
from cmp.ui.values import LOOKING, checkpoints_table, names_apart, runs_table
from cmp.workbench import Workbench

# the run that was clicked, known to the other tabs before the server has answered
_CLICKED = "() => document.querySelector('#runs-table tr.is-ticked')?.dataset.key ?? ''"
_FROM_LINK = "(run, ...rest) => [new URL(location).searchParams.get('run') || run, ...rest]"


@dataclass(slots=True)
class RunsTab:
    """The widgets that other tabs speak to. `chosen` is the run that is shown, `picked` the one that somebody clicked."""

    chosen: gr.Textbox
    picked: gr.Textbox
    ticked: gr.Textbox
    compare: gr.Button
    strip: gr.HTML
    beside: gr.Dropdown


def build_runs_tab(bench: Workbench, page: gr.Blocks) -> RunsTab:
    """Lays out the tab and connects its events."""
    chosen, picked, ticked, looked, seen, changed = (gr.Textbox(visible=False) for _ in range(6))
    runs = _table("runs-table", LOOKING)
    with gr.Row(elem_classes="cmp-run-page"):
        with gr.Column(scale=2, min_width=320, elem_id="samples-column"):
            samples = build_samples_view(bench, chosen)
        with gr.Column(scale=1, min_width=320, elem_id="run-column"):
            with gr.Column(min_width=320, elem_id="run-list"):
                compare = gr.Button("Compare the ticked ones", variant="primary", elem_id="compare-selected")
                checkpoints = _table("checkpoints-table")
            with gr.Column(min_width=320, elem_id="run-actions"):
                build_details(bench, looked, changed)
                with gr.Accordion("Convert", open=False, elem_id="convert", visible=not bench.settings.read_only) as convert:
                    build_conversion(bench, chosen, ticked, seen, changed)
                with gr.Group(visible=not bench.settings.read_only):
                    _names(bench, chosen, ticked, seen)
                    build_folders(bench, page, seen, changed)
    problems = gr.Textbox(label="Could not be read", interactive=False, visible=False, elem_id="problems")

    def choose(event: gr.EventData) -> Any:
        run_id = (event._data.get("ticked") or [""])[0]
        library = bench.library(fresh=False)
        return [*tables(bench, library, run_id, ""), run_id, "", ""]

    _keep_fresh(bench, page, [chosen, ticked, seen], [runs, checkpoints, chosen, seen, changed, problems])
    runs.select(None, None, chosen, js=_CLICKED)
    runs.select(choose, None, [runs, checkpoints, chosen, picked, ticked, looked], queue=False, show_progress="hidden")
    _open_when_ticked(convert, ticked, changed)
    checkpoints.select(pick, None, [ticked, looked], queue=False, show_progress="hidden")
    return RunsTab(chosen, picked, ticked, compare, samples.strip, samples.beside)


def _keep_fresh(bench: Workbench, page: gr.Blocks, known: list[Any], shown: list[Any]) -> None:
    """Tells both tables anew when the page is loaded, and while it is open. `known` is the run, the ticks and what was told last."""

    def refresh(run_id: str, ticks: str, before: str) -> Any:
        library = bench.library(fresh=False)
        values = tables(bench, library, run_id, ticks)
        stamp = _stamp([values, str(library.problems)])
        if stamp == before:  # nothing new: the page is left as it is
            return [gr.skip()] * len(shown)
        return [*values, stamp, _stamp(values[1]["rows"]), problem_text(library)]

    def again(run_id: str, ticks: str, before: str) -> Any:
        """As `refresh`, but it does not name the run that it was asked for: another one may have been clicked since."""
        runs_rows, rows, run, *more = refresh(run_id, ticks, before)
        return [runs_rows, rows, gr.skip() if run == run_id else run, *more]

    page.load(refresh, known, shown, js=_FROM_LINK, queue=False, show_progress="hidden")
    gr.Timer(3).tick(again, known, shown, queue=False, show_progress="hidden")


def _open_when_ticked(convert: gr.Accordion, ticked: gr.Textbox, changed: gr.Textbox) -> None:
    """What is ticked, here or on a curve, is to be compared or converted: its plan is shown."""
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    opened = ticked.change(lambda ticks: gr.Accordion(open=True) if ticks else gr.skip(), ticked, convert, **quiet)
    # what a closed section was told while it was opening may be lost: it is told again
    opened.then(lambda ticks: str(time.time()) if ticks else gr.skip(), ticked, changed, **quiet)


def _stamp(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _table(name: str, note: str = "") -> gr.HTML:
    empty = {"columns": [], "rows": [], "ticked": [], "many": False, "note": note}
    return gr.HTML(empty, apply_default_css=False, html_template=viewer.TABLE_TEMPLATE, js_on_load=viewer.table_on_load(), elem_id=name)


def tables(bench: Workbench, library: Library, run_id: str, ticks: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Both tables and the id of the chosen run; while none is chosen, the first one that has pictures."""
    seen = glances(bench, library)
    first = first_run(bench, library)
    if library.unread and first and not has_pictures(bench, first):
        first = None  # one that has some may still be found
    run = next((r for r in library.runs if r.id == run_id), None if run_id and library.unread else first)
    ticked = ticks.split("\n") if ticks else []
    names = names_apart(library, bench.name_of)

    def thumb(sample: Sample) -> str | None:
        name = bench.gallery.name(sample)
        return f"cmp/sample/{name}.256.webp" if name else None

    return (
        runs_table(library, bench.name_of, run.id if run else None, seen),
        checkpoints_table(run, bench.name_of, ticked, thumb, bench.starred(run) if run else ()) | {"title": names[run.id] if run else ""},
        run.id if run else run_id,
    )


def problem_text(library: Library) -> Any:
    lines = [f"{problem.path}: {problem.reason}" for problem in library.problems]
    return gr.update(value="\n".join(lines), lines=max(1, len(lines)), visible=bool(lines))


def pick(event: gr.EventData) -> Any:
    """What a click in the table of checkpoints means: another one is looked at, or others are ticked."""
    looked, ticks = event._data.get("looked"), event._data.get("ticked") or []
    return (gr.skip(), looked) if looked else ("\n".join(ticks), gr.skip())


def _names(bench: Workbench, chosen: gr.Textbox, ticked: gr.Textbox, seen: gr.Textbox) -> None:
    with gr.Accordion("Names", open=False), gr.Row(elem_classes="cmp-field"):
        name = gr.Textbox(label="Display name of the chosen run, or of the one ticked checkpoint", elem_id="display-name", scale=4)
        save = gr.Button("Save name", elem_id="save-name", min_width=110)

    @changing
    def rename(text: str, run_id: str, ticks: str) -> str:
        targets = ticks.split("\n") if ticks else [run_id]
        if len(targets) > 1:
            raise BadInput(f"{len(targets)} checkpoints are ticked", "Tick the one that the name is for, or none for the run.")
        bench.rename(targets[0], text)
        return ""

    save.click(rename, [name, chosen, ticked], seen, show_progress="hidden")
