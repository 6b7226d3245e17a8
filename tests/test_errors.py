"""Errors as people read them."""

from __future__ import annotations

import pytest

from cmp.errors import NotFound


@pytest.mark.parametrize(
    ("message", "hint", "told"),
    [
        ("there is no run 'x'", "Look again.", "there is no run 'x'. Look again."),
        ("did you mean y?", "Look again.", "did you mean y? Look again."),
        ("there is no run 'x'", "", "there is no run 'x'"),
    ],
)
def test_message_and_hint_are_read_as_two_sentences(message: str, hint: str, told: str) -> None:
    assert NotFound(message, hint).told == told
