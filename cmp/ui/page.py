"""The page: one tab per file, nothing else."""

from __future__ import annotations

import gradio as gr

from cmp.ui.compare_tab import build_compare_tab
from cmp.ui.curves_tab import build_curves_tab, connect_marks
from cmp.ui.grid_drawing import FORGET
from cmp.ui.runs_tab import build_runs_tab
from cmp.ui.samples_view import LINK
from cmp.workbench import Workbench

CSS = """
.gradio-container { max-width: 1680px !important; overflow: clip !important; }
/* Gradio's own subdued text has a contrast of 2:1 */
.gradio-container { --block-info-text-color: color-mix(in srgb, var(--body-text-color) 66%, var(--background-fill-primary)); }
#compare-plan textarea { border: 0; padding: 0 2px; background: none; box-shadow: none; }
#compare-plan { border: 0; background: none; }
footer { display: none !important; }
.html-container:has(.cmp-mount) { padding: 0 !important; }
/* choices that are sentences stand below each other */
.cmp-lines .wrap { flex-direction: column !important; gap: 4px !important; }
.cmp-lines .wrap label { width: 100%; white-space: normal; box-shadow: none; padding: 4px 8px; }
#problems textarea { color: #b42318; }
.dark #problems textarea { color: #f97066; }
/* the grid stays in view beside the long form; sticking needs ancestors that do not scroll, hence the clip above */
#grid-column { position: sticky; top: 8px; align-self: flex-start; }
/* on a narrow page pictures come before the form */
@media (max-width: 900px) { #grid-column { order: -1; position: static; } }
"""
DEMO = "This is the bundled demo. Start with `--runs DIR`, or add a folder under *Folders* below, to see your own runs."


def build_page(bench: Workbench) -> gr.Blocks:
    """The whole dashboard; `server.launch_options` says how to launch it."""
    with gr.Blocks(title="Checkpoint comparison", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        gr.Markdown("## Checkpoint comparison")
        with gr.Tabs(elem_classes="cmp-tabs") as tabs:
            with gr.Tab("Runs", id="runs") as runs_page:
                if bench.shows_demo:
                    gr.Markdown(DEMO)
                runs = build_runs_tab(bench, page)
            with gr.Tab("Curves", id="curves") as curves_tab:
                curves = build_curves_tab(bench, curves_tab, runs.chosen, runs.picked)
            with gr.Tab("Compare", id="compare") as compare_tab:
                build_compare_tab(bench, page, compare_tab, tabs, runs, curves)
        connect_marks(bench, curves, tabs, runs.chosen, runs.ticked)
        gr.on([runs_page.select, curves_tab.select], None, js=FORGET)
        runs_page.select(None, [runs.chosen, runs.beside], None, js=LINK)
    return page
