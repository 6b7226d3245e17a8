"""Widgets whose values are looked up by their ids, not in the choices that the server remembers of a page."""

from __future__ import annotations

from abc import ABCMeta
from functools import cache
from typing import Any, TypeVar

import gradio as gr

T = TypeVar("T", gr.CheckboxGroup, gr.Dropdown)


def unlisted(made: T) -> T:
    """The widget, of which several values are taken as they come: an event may still know the choices of another run, and the server none
    at all of a page whose state it has dropped, or that was open before it was started anew.
    """
    made.__class__ = _taking_all(type(made))
    return made


@cache
def _taking_all(kind: type[Any]) -> type[Any]:
    """The kind of widget, which looks nothing up. A class, since Gradio makes a widget anew from it whenever its choices change; not one
    that is written down as others are, since Gradio writes a .pyi file beside the module of each.
    """
    return ABCMeta.__new__(
        type(kind), kind.__name__, (kind,), {"preprocess": lambda self, payload: payload or [], "__module__": kind.__module__}
    )
