"""Widgets of which values are taken whatever choices the server remembers."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

from cmp.ui.unlisted import unlisted


@pytest.mark.parametrize("kind", [gr.CheckboxGroup, gr.Dropdown])
def test_values_are_taken_also_after_gradio_has_made_the_widget_anew(kind: type) -> None:
    with gr.Blocks():
        made = unlisted(kind(["a"], **({"multiselect": True} if kind is gr.Dropdown else {})))
    anew = made.__class__(**made.constructor_args | {"choices": ["b"], "render": False})  # as Gradio does where an event gives choices
    assert anew.preprocess(["a"]) == made.preprocess(["a"]) == ["a"] and anew.preprocess(None) == []
    assert made.get_block_name() == kind.__name__.lower() and type(made).component_class_id == kind.component_class_id
    assert not list(Path(unlisted.__code__.co_filename).parent.glob("*.pyi"))
