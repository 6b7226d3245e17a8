"""Timers that events start and stop."""

from __future__ import annotations

import gradio as gr
from gradio.context import Context

_STOP = "(ended, job) => ({ __type__: 'update', ...(ended && ended === job ? { active: false } : {}) })"
_GO_ON = """(ended, job) => {
    const late = ended && ended === job;
    return [{ __type__: 'update', ...(late ? { active: true } : {}) }, { __type__: 'update', ...(late ? { value: '' } : {}) }];
}"""


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


def stop_at_end(clock: gr.Timer, ended: gr.Textbox, job: gr.Textbox, seen: gr.Textbox) -> None:
    """Stops a clock once `ended` names the job that it runs for now. A tick's own answer must not: it may come when the next has begun.

    Whatever starts the clock for a job that may be over empties `ended`, or the same name again would change nothing. A tick names the job
    only if the page has shown its end already, by what was `seen` last: two ticks may be under way at once, and the earlier one be answered
    last. Where that comes after the end the clock goes on, so that the end is shown again.
    """
    ended.change(None, [ended, job], clock, js=_STOP)
    seen.change(None, [ended, job], [clock, ended], js=_GO_ON)
