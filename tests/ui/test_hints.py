"""Hints of the command line, told in the words of the page."""

from __future__ import annotations

import pytest

from cmp.errors import NotFound
from cmp.ui.hints import DETAILS, hint_here, told_of

BY_PLACE = "A pipeline of that name was found at /m/sd 15/x, below your runs folder; use --bases '/m/sd 15'."


@pytest.mark.parametrize(
    ("hint", "here"),
    [
        ("Give it with --base ID_OR_DIR.", "Name it under “Base model and alpha”: an id, or a folder on this computer."),
        ("Give it: --alpha X. If alpha was equal to the rank, that is --alpha 8; others draw at another strength.",
         "Give it: alpha, under “Base model and alpha”. If alpha was equal to the rank, that is alpha 8; others draw at another strength."),
        (BY_PLACE, "A pipeline of that name was found at /m/sd 15/x, below your runs folder; "
         "add '/m/sd 15' under “Folders” on the Runs tab, as one of base models."),
        ("Name it as --base ID_OR_DIR.", "Name it under “Base model and alpha”."),
        ("Choose the checkpoints anew.", "Choose the checkpoints anew."),
    ],
)  # fmt: skip
def test_what_to_do_is_told_by_where_it_is_filled_in(hint: str, here: str) -> None:
    assert hint_here(hint) == here and "--" not in here


def test_on_the_runs_tab_it_is_in_the_details() -> None:
    told = told_of(NotFound("the base model is missing", "Give it with --base ID_OR_DIR."), DETAILS)
    assert told == "the base model is missing. Name it under “the checkpoint’s details”: an id, or a folder on this computer."
