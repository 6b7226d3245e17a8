"""Widgets whose values are looked up by their ids, not in the choices that the server remembers of a page."""

from __future__ import annotations

from typing import TypeVar

import gradio as gr

T = TypeVar("T", gr.CheckboxGroup, gr.Dropdown)


def unlisted(made: T) -> T:
    """The widget, of which several values are taken as they come: an event may still know the choices of another run, and the server none
    at all of a page whose state it has dropped, or that was open before it was started anew.

    No class of its own, since Gradio writes a .pyi file beside the module of every class that is derived from a component.
    """
    made.preprocess = lambda payload: payload or []  # type: ignore[method-assign]
    return made
