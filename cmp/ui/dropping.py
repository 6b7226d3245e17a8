"""A file that is dropped on the Compare tab: a picture's settings fill the form, and a file of prompts its prompts."""

from __future__ import annotations

from typing import Any

import gradio as gr

from cmp.core.prompts import LONGEST_FILE, parse_prompts
from cmp.errors import BadInput
from cmp.ui.choices import usable
from cmp.ui.faults import uploading
from cmp.ui.filling import fields_like
from cmp.ui.grid_form import Form
from cmp.workbench import Workbench

_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")
FILLED = (
    "prompts",
    "negative",
    "seeds",
    "steps",
    "guidance",
    "strengths",
    "scheduler",
    "size",
    "clip_skip",
    "search_replace",
    "vae",
    "stack",
)


def connect_dropping(bench: Workbench, form: Form) -> Any:
    """Connects the place for files; gives the event after which more can be done."""

    @uploading
    def take(content: bytes | None) -> Any:
        if content is None:
            return [gr.skip()] * (len(FILLED) + 3)
        fields, note = read_dropped(bench, content)
        runs = gr.update(value=fields["runs"]) if "runs" in fields else gr.skip()
        picked = picks_like(bench, fields) if "picked" in fields else gr.skip()
        values = [fields.get(name, gr.skip()) for name in FILLED]
        return runs, picked, *values, gr.update(value=note, visible=True)

    filled = [form.fields[name] for name in FILLED]
    return form.drop.upload(take, form.drop, [form.runs, form.fields["picked"], *filled, form.lost], show_progress="hidden")


def read_dropped(bench: Workbench, content: bytes) -> tuple[dict[str, Any], str]:
    """The fields that a file fills, and what is said of it; raises what stands against it."""
    if content.startswith(_PICTURES):
        found = bench.settings_in(content)
        fields, lost = fields_like(bench, found)
        whose = {"cmp": "this program"}.get(found.source, found.source)
        told_of = f"The settings in a picture of {whose} are in the form."
        return fields, "\n".join([told_of, *(f"not restored: {what}" for what in lost)])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise BadInput("the file is neither a picture nor text in UTF-8", "Drop a PNG, JPEG or WebP, or prompts as UTF-8 text.") from fault
    if len(text) > LONGEST_FILE:
        raise BadInput(f"the file has {len(text)} characters", f"Use at most {LONGEST_FILE}.")
    prompts = parse_prompts(text)
    if not prompts:
        raise BadInput("the file holds no prompt", "Write one per line; lines that begin with # are comments.")
    return {"prompts": text.strip()}, f"{len(prompts)} prompt{'s' if len(prompts) > 1 else ''} from the file are in the form."


def picks_like(bench: Workbench, fields: dict[str, Any]) -> Any:
    """The checkpoints to choose from beside the one that a picture shows, and that one ticked."""
    library = bench.library(fresh=False)
    if "runs" not in fields:
        return gr.update(value=fields["picked"])
    run = library.run(fields["runs"][0])
    return gr.update(choices=[("base model", "base"), *((bench.name_of(c), c.id) for c in usable(run))], value=fields["picked"])
