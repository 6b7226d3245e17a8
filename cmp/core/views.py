"""How a user wants a matrix to be arranged: one JSON value, which a link carries and which therefore may be anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cmp.errors import BadInput

PLACES = ("X", "x", "Y", "y", "")
LARGEST_VIEW = 100_000  # characters of its JSON
MOST_NAMED = 10_000  # axes, or values of one axis, that a view may name
_HINT = "It is what the page's link carries: objects with an entry for each axis."


@dataclass(frozen=True, slots=True)
class View:
    """How a user wants a matrix: of each axis its place, the order of its values, those hidden, and the one picked."""

    place: Mapping[str, str] = field(default_factory=dict)
    order: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hidden: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pick: Mapping[str, str] = field(default_factory=dict)


def read_view(told: object) -> View:
    """The view that a JSON value describes, None for none. Axes, values and places that there are not do no harm; raises BadInput for
    what is no view.
    """
    given = _mapping({} if told is None else told, "the view")
    place = {axis: where for axis, where in _texts(given.get("place"), "place").items() if where in PLACES}
    hidden = _lists(given.get("hidden"), "hidden")
    return View(place, _lists(given.get("order"), "order"), {a: frozenset(v) for a, v in hidden.items()}, _texts(given.get("pick"), "pick"))


def _mapping(told: object, what: str) -> Mapping[str, Any]:
    if not isinstance(told, Mapping):
        raise BadInput(f"{what} is {told!r:.60}, and an object is wanted", _HINT)
    if len(told) > MOST_NAMED:
        raise BadInput(f"{what} names {len(told)} axes", f"At most {MOST_NAMED} are read.")
    return told


def _texts(told: object, what: str) -> dict[str, str]:
    given = _mapping({} if told is None else told, f"the view's {what}")
    for axis, value in given.items():
        if not isinstance(value, str):
            raise BadInput(f"the view's {what} of {axis[:60]!r} is {value!r:.60}, and a text is wanted", _HINT)
    return dict(given)


def _lists(told: object, what: str) -> dict[str, tuple[str, ...]]:
    given = _mapping({} if told is None else told, f"the view's {what}")
    for axis, values in given.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise BadInput(f"the view's {what} of {axis[:60]!r} is {values!r:.60}, and a list of texts is wanted", _HINT)
        if len(values) > MOST_NAMED:
            raise BadInput(f"the view's {what} of {axis[:60]!r} has {len(values)} entries", f"At most {MOST_NAMED} are read.")
    return {axis: tuple(values) for axis, values in given.items()}
