"""The folders on the Runs tab: where runs are looked for, and where base models are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from cmp.ui.faults import changing
from cmp.workbench import Workbench
from cmp.workbench.callers import caller


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of folders, how they are shown, added and removed; `name` is that of its fields."""

    name: str
    looking: str
    label: str
    placeholder: str
    shown: Callable[[], Iterable[Path]]
    add: Callable[[str], object]
    remove: Callable[[str], None]


def build_folders(bench: Workbench, page: gr.Blocks, seen: gr.Textbox, changed: gr.Textbox) -> None:
    """Lays out the folders; `seen` is told when runs are sought elsewhere, `changed` when base models are."""
    with gr.Accordion("Folders", open=False, elem_id="folders-section"):
        _fields(
            page, seen,
            _Kind(
                "folder", "Looking in", "Folder with training runs", "/home/me/outputs", lambda: bench.roots,
                bench.add_folder, bench.remove_folder,
            ),
        )  # fmt: skip
        _fields(
            page, changed,
            _Kind(
                "base-folder", "Base models are sought in", "Folder with base models (in diffusers' layout)", "/home/me/models",
                lambda: bench.bases, bench.add_base_folder, bench.remove_base_folder,
            ),
        )  # fmt: skip


def _fields(page: gr.Blocks, heard: gr.Textbox, kind: _Kind) -> None:
    def folders() -> str:
        return "\n".join(map(str, kind.shown())) if caller().owner else ""

    shown = gr.Textbox(label=kind.looking, interactive=False, lines=1, max_lines=6, elem_id=f"{kind.name}s")
    # not as a value that is a function: that is asked for in the queue, whose stream would end just when somebody first presses something
    page.load(folders, None, shown, queue=False, show_progress="hidden")
    with gr.Row(elem_classes="cmp-field"):
        folder = gr.Textbox(label=kind.label, placeholder=kind.placeholder, elem_id=kind.name, scale=4, min_width=200)
        add = gr.Button("Add", elem_id=f"{kind.name}-add", min_width=80)
        remove = gr.Button("Remove", elem_id=f"{kind.name}-remove", min_width=80)

    @changing
    def add_folder(text: str) -> tuple[str, str]:
        kind.add(text)
        return folders(), str(time.time())

    @changing
    def remove_folder(text: str) -> tuple[str, str]:
        kind.remove(text)
        return folders(), str(time.time())

    add.click(add_folder, folder, [shown, heard], show_progress="hidden")
    remove.click(remove_folder, folder, [shown, heard], show_progress="hidden")
