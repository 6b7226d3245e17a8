"""What every tab does alike: errors of input become the page's own messages, and a job is cancelled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from cmp.errors import CmpError
from cmp.workbench import Workbench

CHANGES, DRAWS, UPLOADS = "changes", "draws", "uploads"  # what a handler does beside telling


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler, whose errors of input appear as a message with what to do. Anything else is a fault of ours and is logged."""

    @functools.wraps(handler)
    def answer(*values: Any) -> Any:
        try:
            return handler(*values)
        except CmpError as fault:
            raise gr.Error(fault.told, title=fault.title, duration=15, print_exception=False) from None

    return answer


def changing(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a handler that changes or stops something: visitors may not call it, and a read-only page has it not."""
    return _marked(handler, CHANGES)


def drawing(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a handler that draws, which within limits everybody may where that is wanted."""
    return _marked(handler, DRAWS)


def uploading(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a handler that is given a file; a page has it not where files are not taken."""
    return _marked(handler, UPLOADS)


def _marked(handler: Callable[..., Any], does: str) -> Callable[..., Any]:
    answer = told(handler)
    answer.does = does  # type: ignore[attr-defined]
    return answer


def cancelling(bench: Workbench) -> Callable[[str], None]:
    """The handler of a Cancel button that is given the id of the job it belongs to, empty before the first."""

    @changing
    def cancel(job_id: str) -> None:
        if job_id:
            bench.jobs.cancel(job_id)

    return cancel
