"""Timers that events start and stop."""

from __future__ import annotations

import gradio as gr
from gradio.context import Context


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
