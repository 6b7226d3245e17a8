"""What the Compare tab's form offers of some runs: their checkpoints, and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from cmp.core.runs import Library, Run
from cmp.ui.choices import BASE, first_picks, prompts_for, usable
from cmp.ui.values import names_apart, run_choices
from cmp.workbench import Workbench


def offer(
    bench: Workbench,
    library: Library,
    picked: Sequence[str],
    ticked: Sequence[str],
    text: str | None,
    before: str | None,
    *,
    fill: bool = False,
) -> tuple[Any, Any, str, str]:
    """What the form shows of these runs: the runs, their checkpoints, the prompts, and which prompts were only offered."""
    runs = [run for run in library.runs if run.id in picked]
    text, offered = prompts_for(runs, bench.last_prompts, text, before)
    chosen = gr.update(choices=run_choices(library, bench.name_of), value=list(picked))
    return chosen, pick_update(bench, runs, ticked, fill), text, offered


def pick_update(bench: Workbench, runs: Sequence[Run], ticked: Sequence[str], fill: bool) -> Any:
    """The checkpoints to choose from, and those that are ticked."""
    names = names_apart(Library(tuple(runs)), bench.name_of)
    choices = [("base model", BASE)] if runs else []
    for run in runs:
        told = "" if len(runs) == 1 else f"{names[run.id]} · "
        choices += [(f"{told}{bench.name_of(c)}", c.id) for c in usable(run)]
    return gr.update(choices=choices, value=first_picks(runs, ticked, fill=fill))
