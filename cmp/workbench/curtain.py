"""What visitors are shown: everything but where it lies on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmp.workbench.shelf import Shelf

_OWNERS = frozenset({"folder", "path", "logs", "source", "output", "undo"})  # fields that are nothing but places


class Curtain:
    """Takes this machine's places out of values that are told."""

    def __init__(self, bench: Shelf) -> None:
        self._bench = bench

    def _places(self) -> list[str]:
        """The folders that nobody else should read of, the longest first. What lies in them keeps its name."""
        settings = self._bench.settings
        known = [*self._bench.roots, *self._bench.bases, *settings.bases, settings.home, Path.home()]
        found = {text for place in known for text in (str(place), os.path.realpath(place))}
        return sorted((text for text in found if len(text) > 1), key=len, reverse=True)

    def hide(self, value: Any) -> Any:
        """The same value, its texts without those folders."""
        return _changed(value, self._places(), frozenset())

    def public(self, value: Any) -> Any:
        """The same JSON value without the fields that tell places, and its texts without those folders."""
        return _changed(value, self._places(), _OWNERS)


def _changed(value: Any, places: list[str], without: frozenset[str]) -> Any:
    if isinstance(value, str):
        return _shortened(value, places) if "/" in value or "\\" in value else value
    if isinstance(value, Mapping):
        told = {_changed(k, places, without): _changed(v, places, without) for k, v in value.items() if k not in without}
        forms = told.get("converted")  # of a checkpoint: which forms there are stays
        return told | {"converted": {k: bool(v) for k, v in forms.items()}} if without and isinstance(forms, dict) else told
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_changed(one, places, without) for one in value)
    return value


def _shortened(text: str, places: list[str]) -> str:
    for place in places:
        if place in text:
            text = text.replace(place + os.sep, "").replace(place, os.path.basename(place))
    return text
