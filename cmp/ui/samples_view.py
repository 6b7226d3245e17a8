"""The trainers' own pictures of one or several runs, in the matrix, kept up to date while a training goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gradio as gr

from cmp import viewer
from cmp.core.curves import LossCurve
from cmp.core.grids import Tile
from cmp.core.losses import losses_at
from cmp.core.runs import Library, Run
from cmp.core.sample_values import samples_value, step_marks
from cmp.jobs import Job
from cmp.ui.curves_tab import build_strip, strip_of
from cmp.ui.faults import changing
from cmp.ui.grid_jobs import KINDS, grid_value
from cmp.ui.grid_jobs import stamp_of as job_stamp
from cmp.ui.starring import star
from cmp.ui.unlisted import unlisted
from cmp.ui.values import LOOKING, is_unread, names_apart, reading_text
from cmp.workbench import Workbench

LOOK_EVERY = 3  # seconds
# what the page's address names beside the chosen run, and the address once they are shown
_FROM_LINK = "(run, others, linked) => [run, others, window.cmpRunLink?.beside(run) ?? '']"
_IS_SHOWN = "document.querySelector('#runs-table')?.checkVisibility()"
_TO_LINK = f"(run, others) => {{ if ({_IS_SHOWN}) window.cmpRunLink?.write([run, ...(others || [])], true); }}"
LINK = "(run, others) => { window.cmpRunLink?.write([run, ...(others || [])]); }"


@dataclass(slots=True)
class SamplesView:
    """The widgets that the tab speaks to. `stamp` tells which pictures are shown."""

    strip: gr.HTML
    matrix: gr.HTML
    beside: gr.Dropdown
    stamp: gr.Textbox


def build_samples_view(bench: Workbench, chosen: gr.Textbox) -> SamplesView:
    """Lays out the matrix of the run whose id is in `chosen`, and the choice of runs to be shown beside it."""
    beside = unlisted(gr.Dropdown([], multiselect=True, label="Beside the pictures of", visible=False, elem_id="samples-beside"))
    strip = build_strip("samples-curve")
    empty, template, mount = value_of(bench, Library(), []) | {"note": LOOKING}, viewer.MATRIX_TEMPLATE, viewer.matrix_on_load()
    matrix = gr.HTML(empty, apply_default_css=False, html_template=template, js_on_load=mount, elem_id="samples")
    stamp, linked = gr.Textbox(visible=False), gr.Textbox(visible=False)

    def show(run_id: str, others: list[str], wanted: str) -> Any:
        library = bench.library(fresh=False)
        rest = choices_beside(bench, library, run_id)
        kept = wanted.split("\n")[1:] if wanted else others or []
        kept = [other for other in kept if other in {name for _, name in rest}]
        ids = [run_id, *kept]
        now = stamp_of(bench, library, ids)  # before the pictures: what comes meanwhile is found by the next look
        choice = gr.update(choices=rest, value=kept, visible=bool(rest))
        return linked_value(bench, library, ids), choice, now, strip_of(bench, library, ids)

    def look(run_id: str, others: list[str], before: str) -> Any:
        library = bench.library(fresh=False)
        ids = [run_id, *(others or [])]
        now = stamp_of(bench, library, ids)
        return [gr.skip()] * 3 if now == before else (linked_value(bench, library, ids), now, strip_of(bench, library, ids))

    @changing
    def edit(event: gr.EventData, run_id: str, others: list[str]) -> Any:
        star(bench, event._data)
        library = bench.library(fresh=False)
        ids = [run_id, *(others or [])]
        return stamp_of(bench, library, ids), linked_value(bench, library, ids)

    asked, shown = [chosen, beside, linked], [matrix, beside, stamp, strip]
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    told = gr.on([chosen.change, beside.input], show, asked, shown, js=_FROM_LINK, trigger_mode="always_last", **quiet)
    told.then(None, [chosen, beside], None, js=_TO_LINK)
    gr.Timer(LOOK_EVERY).tick(look, [chosen, beside, stamp], [matrix, stamp, strip], **quiet)
    matrix.edit(edit, [chosen, beside], [stamp, matrix], show_progress="hidden")
    return SamplesView(strip, matrix, beside, stamp)


def linked_value(bench: Workbench, library: Library, ids: Sequence[str]) -> dict[str, Any]:
    """The same as `value_of`, its view in the page's address, and with stars for those checkpoints that there are."""
    stars = False if bench.settings.read_only else "known"
    return {"stars": stars} | value_of(bench, library, ids, wait=False) | {"link": "samples", "source": " ".join(filter(None, ids))}


def runs_with(library: Library, ids: Sequence[str]) -> list[Run]:
    """The runs of these ids in this order, without those that have gone."""
    known = {run.id: run for run in library.runs}
    return [known[name] for name in dict.fromkeys(ids) if name in known]


def value_of(bench: Workbench, library: Library, ids: Sequence[str], *, wait: bool = True) -> dict[str, Any]:
    """The pictures of these runs, of several only those that have any; of one that has none what was drawn of it last.

    Without `wait` a loss that was not read yet is left out for now.
    """
    shown = [(run, bench.gallery.samples(run)) for run in runs_with(library, ids)]
    shown = [(run, its) for run, its in shown if its] or shown[:1]
    names = names_apart(library, bench.name_of)
    if len(ids) == 1 and shown and not shown[0][1] and (job := drawn_of(bench, shown[0][0])):
        drawn = grid_value(bench, job)
        return drawn | {"title": f"{names[shown[0][0].id]}: drawn here", "rerolls": [], "link": ""}
    known = [(run, its) for run, its in shown if its and (wait or bench.gallery.knows_loss(run))]
    losses = {run.id: losses_at(_some(bench.gallery.loss(run)), {s.step for s in its if s.step is not None}) for run, its in known}
    value = samples_value(shown, lambda item: names.get(item.id) or bench.name_of(item), bench.gallery.name)
    export = {"export": export_of([run.id for run, _ in shown])} if value["cells"] else {}
    if not value["cells"] and (reading := _reading(library, [run for run, _ in shown])):
        value |= {"note": reading}
    return value | {"marks": step_marks(value, shown, losses, bench.marks(run for run, _ in shown))} | export


def export_of(ids: Sequence[str]) -> str:
    """Where files are made of the pictures of these runs, the first one in the path."""
    beside = "&".join(f"beside={quote(name, safe='')}" for name in ids[1:])
    return f"cmp/export/samples/{quote(ids[0])}{f'?{beside}' if beside else ''}"


def _reading(library: Library, shown: Sequence[Run]) -> str:
    """What is said while it is not known yet whether there are pictures; "" once it is."""
    if not shown:
        return reading_text(library)
    return "The folder of this run is being read …" if any(map(is_unread, shown)) else ""


def _some(curve: LossCurve | None) -> list[LossCurve]:
    return [curve] if curve else []


def drawn_of(bench: Workbench, run: Run) -> Job | None:
    """The newest grid in which something of this run was drawn."""
    for job in reversed(bench.jobs.all()):
        cells = (item.cell for item in tuple(job.items) if isinstance(item, Tile) and not item.fault)
        if job.kind in KINDS and any(cell.checkpoint and cell.checkpoint.run_id == run.id for cell in cells):
            return job
    return None


def stamp_of(bench: Workbench, library: Library, ids: Sequence[str]) -> str:
    """Equal while what is shown of these runs is: pictures, and what the columns say of checkpoints and loss."""
    runs = runs_with(library, ids)
    parts = [] if runs else [f"none, {library.unread}"]
    for run in runs:
        made = [(c.key, c.flaw, [form for form, _ in c.converted]) for c in run.checkpoints]
        drawn = drawn_of(bench, run) if len(ids) == 1 and not bench.gallery.samples(run) else None
        told = (
            run.id,
            bench.name_of(run),
            bench.gallery.stamp(run),
            bench.gallery.knows_loss(run),
            made,
            bench.starred(run),
            is_unread(run),
        )
        parts.append(f"{told}{job_stamp(drawn) if drawn else ''}")
    # flaws name files, and no text that is quoted twice should go to the page
    return hashlib.sha256("|".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def choices_beside(bench: Workbench, library: Library, run_id: str) -> list[tuple[str, str]]:
    """The other runs that have pictures, if the chosen one has any."""
    names = names_apart(library, bench.name_of)
    has = {run.id for run in library.runs if run.samples or (run.id == run_id and bench.gallery.samples(run))}
    return [(names[name], name) for name in names if name in has and name != run_id] if run_id in has else []
