"""Page events on behalf of whoever sent them: what they may not do is refused, and on a read-only page it is not there at all."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from cmp.ui.faults import CHANGES, DRAWS, UPLOADS, told
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for
from cmp.workbench.curtain import Curtain

KEY = "cmp.caller"  # where the guard has put who asks into a request's scope


def watch_events(bench: Workbench, page: gr.Blocks) -> None:
    """Takes out what must not be done here, and has everything else done with its caller's rights. Call it when all events are there."""
    if bench.settings.read_only:
        _take_out(page, lambda does: does == CHANGES or (does in (DRAWS, UPLOADS) and not bench.settings.draws))
    curtain = Curtain(bench)
    for event in page.fns.values():
        if event.fn is not None:
            event.fn = _on_behalf(bench, curtain, event.fn)


def _take_out(page: gr.Blocks, unwanted: Callable[[str], bool]) -> None:
    """Takes events out, those that follow them too, and hides the widgets that nothing else listens to."""
    gone = {number for number, event in page.fns.items() if unwanted(getattr(event.fn, "does", ""))}
    while more := {number for number, event in page.fns.items() if event.trigger_after in gone} - gone:
        gone |= more
    touched = {target for number in gone for target, _ in page.fns[number].targets}
    for number in gone:
        del page.fns[number]
    heard = {target for event in page.fns.values() if event.fn is not None for target, _ in event.targets}
    for number in touched - heard:
        if isinstance(block := page.blocks.get(number), gr.Button | gr.Checkbox | gr.UploadButton):
            block.visible = False


def _on_behalf(bench: Workbench, curtain: Curtain, handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def answer(*values: Any) -> Any:
        who = _caller()
        with acting_for(who):
            if not who.owner and getattr(handler, "does", "") == CHANGES:
                told(bench.require_writing)()
            if who.owner:
                return handler(*values)
            try:
                return curtain.hide(handler(*values))
            except gr.Error as fault:
                fault.message = curtain.hide(fault.message)
                raise

    return answer


def _caller() -> Caller:
    """Who sent the event that is being handled; a visitor if nobody has said."""
    request = LocalContext.request.get(None)
    scope = getattr(getattr(request, "request", None), "scope", None) or {}
    found = scope.get(KEY)
    who = found if isinstance(found, Caller) else Caller(owner=False, address="unknown")
    return replace(who, page=str(getattr(request, "session_hash", None) or ""))
