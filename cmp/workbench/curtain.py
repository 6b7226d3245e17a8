"""What visitors are shown: everything but where it lies on this machine, and who voted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmp.core.handover import OWN_WORDS, without_folders

if TYPE_CHECKING:
    from cmp.workbench.shelf import Shelf

# fields that are nothing but places, and who voted
_OWNERS = frozenset({"folder", "path", "logs", "source", "output", "undo", "voter", "voters"})
# What looks like a path and is none: pictures within a text, and this server's own addresses.
_NO_PATH = re.compile(
    r"(data:[\w/+.-]+;base64,[A-Za-z0-9+/=]*"
    r"|(?<![\w./-])/(?:api/(?:v1|models|generate|prompts)\b|gradio_api/|cmp/(?:static|cell|sample|curve|export|scores|share|vote|ballot)/)[\w./=-]*)"
)


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
        """The same value, its texts without folders; what lies in one keeps its name, and a prompt stays as it was written."""
        return _changed(value, self._places(), frozenset())

    def public(self, value: Any) -> Any:
        """The same JSON value without the fields that tell places or voters, and its texts without folders."""
        return _changed(value, self._places(), _OWNERS)


def _changed(value: Any, places: list[str], without: frozenset[str], *, own: bool = False) -> Any:
    """`own`: the texts are the user's words, which are no paths, but may name the known places."""
    if isinstance(value, str):
        return _cut(value, places, without, own) if "/" in value or "\\" in value else value
    if isinstance(value, Mapping):
        kept = {k: v for k, v in value.items() if k not in without}
        told = {_shortened(k, places): _changed(v, places, without, own=own or _is_own(k)) for k, v in kept.items()}
        forms = told.get("converted")  # of a checkpoint: which forms there are stays
        return told | {"converted": {k: bool(v) for k, v in forms.items()}} if without and isinstance(forms, dict) else told
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        pair = len(value) == 2 and _is_own(value[0])  # a name and its value
        return type(value)(_changed(one, places, without, own=own or pair) for one in value)
    return value


def _is_own(name: object) -> bool:
    return isinstance(name, str) and name.lower() in (*OWN_WORDS, "prompts", "negative_prompt", "negatives")


def _cut(text: str, places: list[str], without: frozenset[str], own: bool) -> str:
    if not own and text.startswith(("{", "[")):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # a text like any other
            value = None
        if value is not None:
            shown = _changed(value, places, without)
            return text if shown == value else json.dumps(shown)
    text = _shortened(text, places)
    return text if own else "".join(part if i % 2 else without_folders(part, ()) for i, part in enumerate(_NO_PATH.split(text)))


def _shortened(text: Any, places: list[str]) -> Any:
    for place in places if isinstance(text, str) else ():
        if place in text:
            text = text.replace(place + os.sep, "").replace(place, os.path.basename(place))
    return text
