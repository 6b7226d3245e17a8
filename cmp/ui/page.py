"""The page: one tab per file, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from cmp import viewer
from cmp.ui.callers import watch_events
from cmp.ui.compare_tab import build_compare_tab
from cmp.ui.curves_tab import build_curves_tab, connect_marks
from cmp.ui.grid_drawing import FORGET
from cmp.ui.grid_form import FORM_CSS
from cmp.ui.pick_tab import build_pick_tab
from cmp.ui.runs_tab import build_runs_tab
from cmp.ui.samples_view import LINK
from cmp.ui.storage_tab import build_storage_tab
from cmp.workbench import Workbench

CSS = (
    """
/* pictures take the width there is; on a wider screen the page stands in the middle */
.gradio-container { width: 100%; max-width: 2240px !important; margin-inline: auto !important; overflow: clip !important; }
/* Gradio's own subdued text has a contrast of 2:1 */
.gradio-container { --block-info-text-color: color-mix(in srgb, var(--body-text-color) 66%, var(--background-fill-primary)); }
#compare-plan textarea, #compare-whose textarea { border: 0; padding: 0 2px; background: none; box-shadow: none; }
#compare-plan { border: 0; background: none; }
footer { display: none !important; }
.html-container:has(.cmp-mount) { padding: 0 !important; }
/* choices that are sentences stand below each other */
.cmp-lines .wrap { flex-direction: column !important; gap: 4px !important; }
.cmp-lines .wrap label { width: 100%; white-space: normal; box-shadow: none; padding: 4px 8px; }
#problems textarea { color: #b42318; }
.dark #problems textarea { color: #f97066; }
/* pictures are what one comes for: what stands above them takes as little room as it can */
#page-title h2 { margin: 0; font-size: 18px; line-height: 32px; white-space: nowrap; }
#demo-note { margin-bottom: -6px; }
#demo-note p { font-size: 13px; line-height: 1.5; }
#samples-column { gap: 8px; }
/* a field and its buttons are one line: as high as what is typed into, and at its foot */
.cmp-field { align-items: flex-end !important; }
.cmp-field > button { flex: 0 1 auto; height: 40px; margin: 0 var(--spacing-lg) var(--spacing-lg) 0; padding-block: 0; }
.cmp-field > button { border-radius: 6px; font-size: 14px; font-weight: 500; }
/* beside the name of the run whose checkpoints are ticked below */
#run-list { position: relative; }
#run-actions { gap: 12px; }
#run-list:has(#checkpoints-table .cmp-title[hidden]) { padding-top: 40px; }
#compare-selected { position: absolute; z-index: 2; top: 0; right: 0; width: auto; height: 32px; padding-block: 0; font-size: 13px; }
#checkpoints-table .cmp-title { display: flex; align-items: center; min-height: 32px; padding-right: 220px; }
#checkpoints-table .cmp-box { max-height: 46vh; }
#checkpoints-table :is(.cmp-thumb, .cmp-thumb img) { width: 36px; }
#checkpoints-table .cmp-thumb img { height: 36px; }
/* a run without pictures leaves their room to its checkpoints, and what can be done with them stands beside these */
@media (min-width: 1100px) {
  .cmp-run-page:has(#samples .is-empty) { flex-direction: column; }
  .cmp-run-page:has(#samples .is-empty) > .column { width: 100%; }
  .cmp-run-page:has(#samples .is-empty) > #run-column { flex-direction: row; gap: 24px; }
  #samples .is-empty .cmp-note { padding: 12px; }
  .cmp-run-page:has(#samples .is-empty) #run-list { flex: 3 1 0; }
  .cmp-run-page:has(#samples .is-empty) #run-actions { flex: 2 1 0; }
}
.cmp-tabs > .tab-wrapper { margin-bottom: 12px; }
/* the name of the page and its tabs share a line where there is room */
@media (min-width: 901px) {
  #page-title { z-index: 1; width: max-content; height: 32px; margin: 0 0 calc(-32px - var(--layout-gap)); overflow: visible; }
  .cmp-tabs > .tab-wrapper { padding-left: 256px; }
}
/* on a phone all tabs stand in one line, and wrap where even that is too long */
@media (max-width: 700px) {
  .cmp-tabs > .tab-wrapper > .tab-container > button { padding: 0 clamp(7px, 2.7vw, 16px); }
}
/* the grid stays in view beside the long form; sticking needs ancestors that do not scroll, hence the clip above */
#grid-column { position: sticky; top: min(8px, var(--cmp-rest, 8px)); align-self: flex-start; }
/* on a narrow page pictures come before the form */
@media (max-width: 900px) { #grid-column { order: -1; position: static; } }
"""
    + FORM_CSS
)
DEMO = "This is the bundled demo. Start with `--runs DIR`, or add a folder under *Folders* below, to see your own runs."


class Dashboard(gr.Blocks):
    """The page. Whoever launches it, `prepare` says how: it is given what was asked for."""

    prepare: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None

    def launch(self, **asked: Any) -> Any:  # type: ignore[override]
        return super().launch(**(self.prepare(asked) if self.prepare else asked))


def _in_address(tab: gr.Tab, name: str) -> None:
    """Has the address name a tab that an event has opened; before all else that writes there when the tab opens."""
    tab.select(None, js=f"() => window.cmpTabLink?.('{name}')")


def build_page(bench: Workbench) -> Dashboard:
    """The whole dashboard; `server.launch_options` says how to launch it."""
    with Dashboard(title="Checkpoint comparison", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        gr.HTML(
            apply_default_css=False,
            html_template=viewer.ALERTS_TEMPLATE,
            js_on_load=viewer.alerts_on_load(),
            elem_id="alerts",
            padding=False,
        )
        gr.Markdown("## Checkpoint comparison", elem_id="page-title")
        with gr.Tabs(elem_classes="cmp-tabs", overflow_behavior="wrap") as tabs:
            with gr.Tab("Runs", id="runs") as runs_page:
                _in_address(runs_page, "runs")
                if bench.shows_demo:
                    gr.Markdown(DEMO, elem_id="demo-note")
                runs = build_runs_tab(bench, page)
            with gr.Tab("Curves", id="curves") as curves_tab:
                _in_address(curves_tab, "curves")
                curves = build_curves_tab(bench, curves_tab, runs.chosen, runs.picked)
            with gr.Tab("Pick", id="pick") as pick_tab:
                _in_address(pick_tab, "pick")
                pick = build_pick_tab(bench, pick_tab, tabs, runs.chosen, runs.ticked)
            with gr.Tab("Compare", id="compare") as compare_tab:
                _in_address(compare_tab, "compare")
                build_compare_tab(bench, page, compare_tab, tabs, runs, (curves,), pick)
            with gr.Tab("Storage", id="storage") as storage_tab:
                _in_address(storage_tab, "storage")
                build_storage_tab(bench, storage_tab)
        connect_marks(bench, curves, tabs, runs.chosen, runs.ticked)
        gr.on([runs_page.select, curves_tab.select, pick_tab.select, storage_tab.select], None, js=FORGET)
        runs_page.select(None, [runs.chosen, runs.beside], None, js=LINK)
        watch_events(bench, page)
    return page
