"""Timers that events start and stop."""

from __future__ import annotations

import gradio as gr
from gradio.context import Context

_STOP = "(ended, job) => ({ __type__: 'update', ...(ended && ended === job ? { active: false } : {}) })"


def clock(seconds: float) -> gr.Timer:
    """A stopped timer. It stands outside of all tabs and sections: in one that is only just being opened it may miss that it was started,
    and the page would wait for ever.
    """
    timer = gr.Timer(seconds, active=False, render=False)
    place, Context.block = Context.block, Context.root_block
    try:
        timer.render()
    finally:
        Context.block = place
    return timer


def stop_at_end(clock: gr.Timer, ended: gr.Textbox, job: gr.Textbox) -> None:
    """Stops a clock once `ended` names the job that it runs for now. A tick's own answer must not: it may come when the next has begun.

    Whatever starts the clock for a job that may be over empties `ended`, or the same name again would change nothing. A tick names the job
    only if the page has shown its end already: two ticks may be under way at once, and the earlier one be answered last.
    """
    ended.change(None, [ended, job], clock, js=_STOP)
