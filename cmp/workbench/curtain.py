"""What visitors are shown: everything but where it lies on this machine, and who voted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmp.core.handover import without_folders
from cmp.core.whereabouts import EITHER, NAME, OWN, PLACE, Told, forms_of, is_place, kind_of, may_hold_places, place_name, places_pattern

if TYPE_CHECKING:
    from cmp.workbench.shelf import Shelf

# fields that are nothing but places, and who voted
_OWNERS = frozenset({"folder", "path", "logs", "source", "output", "undo", "voter", "voters", "reasons"})
_INNER = frozenset({"value", "values", "lines"})  # fields that are of the kind of what they are the value of
# What looks like a path and is none: pictures within a text, and this server's own addresses.
_NO_PATH = re.compile(
    r"(data:[\w/+.-]+;base64,[A-Za-z0-9+/=]*"
    r"|(?<![\w./-])/(?:api/(?:v1|models|generate|prompts)\b|gradio_api/|cmp/(?:static|cell|sample|curve|export|scores|share|vote|ballot)/)[\w./=-]*)"
)


class Curtain:
    """Takes this machine's places out of values that are told."""

    def __init__(self, bench: Shelf) -> None:
        self._bench = bench

    def _cutter(self, without: frozenset[str] = frozenset()) -> _Cutter:
        """What lies in a folder that nobody else should read of keeps its name."""
        settings = self._bench.settings
        known = [*self._bench.roots, *self._bench.bases, *settings.bases, settings.home, Path.home()]
        found = {text for place in known for text in (str(place), os.path.realpath(place))}
        return _Cutter(forms_of(text for text in found if len(text) > 1), self._bench.told_of_runs(), without)

    def hide(self, value: Any) -> Any:
        """The same value, its texts without folders; what lies in one keeps its name, and a prompt stays as it was written."""
        return self._cutter().told_in(value)

    def public(self, value: Any) -> Any:
        """The same JSON value without the fields that tell places or voters, and its texts without folders."""
        return self._cutter(_OWNERS).told_in(value)

    def picture(self, content: bytes, media_type: str) -> bytes:
        """The same pixels, and of what else the file says only settings, these without folders. Raises Unreadable."""
        from cmp.pictures.retelling import retold

        return retold(content, media_type, self._cutter().told_in)


@dataclass(frozen=True, slots=True)
class _Cutter:
    """`places` are known folders, the longest first; `without` are fields that are left out."""

    places: list[str]
    told: Told
    without: frozenset[str]

    def told_in(self, value: Any) -> Any:
        """The whole value: what its fields hold of places is cut out of its sentences, too."""
        beside = places_pattern({text for text in _placed(value, None) if is_place(text)})
        return (replace(self, told=replace(self.told, beside=beside)) if beside else self).changed(value)

    def changed(self, value: Any, kind: str | None = None) -> Any:
        """The value, which is of that kind of fields: of a user's own words only the known places are cut."""
        if isinstance(value, str):
            return self._cut(value, kind) if "/" in value or "\\" in value else value
        if isinstance(value, Mapping):
            return self._mapping(value, kind)
        if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            pair = len(value) == 2 and kind is None  # it may be a name and its value
            kinds = (None, _spoken(kind_of(value[0]))) if pair else (kind,) * len(value)
            return type(value)(self.changed(one, its) for one, its in zip(value, kinds, strict=True))
        return value

    def _mapping(self, value: Mapping[Any, Any], kind: str | None) -> dict[Any, Any]:
        kept = {k: v for k, v in value.items() if k not in self.without}
        named = kind or next((_spoken(found) for name in ("name", "label") if (found := kind_of(value.get(name)))), None)
        told = {self._shortened(k): self.changed(v, self._kind(k, kind, named)) for k, v in kept.items()}
        forms = told.get("converted")  # of a checkpoint: which forms there are stays
        return told | {"converted": {k: bool(v) for k, v in forms.items()}} if self.without and isinstance(forms, dict) else told

    @staticmethod
    def _kind(name: object, around: str | None, named: str | None) -> str | None:
        """`around` is the kind of what the field is in, `named` that of what it is the value of."""
        return OWN if around == OWN else named if name in _INNER else kind_of(name)

    def _cut(self, text: str, kind: str | None) -> str:
        if kind != OWN and text.startswith(("{", "[")):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):  # a text like any other
                value = None
            if value is not None:
                shown = self.changed(value)
                return text if shown == value else json.dumps(shown)
        short = self._shortened(text)
        if kind == OWN or not may_hold_places(short):
            return short if kind != PLACE or short != text else place_name(short)
        if kind == PLACE or (kind == NAME and is_place(short)):
            return place_name(short)
        if kind == NAME:
            return short
        place, proof, more = short.partition(" (proof:") if kind == EITHER and is_place(short) else ("", "", short)
        return place_name(place) + proof + self.told.cut(more, _sentence)

    def _shortened(self, text: Any) -> Any:
        for place in self.places if isinstance(text, str) and ("/" in text or "\\" in text) else ():
            if place in text:
                text = text.replace(place + os.sep, "").replace(place, os.path.basename(place))
        return text


def _placed(value: Any, kind: str | None) -> Iterator[str]:
    """The texts of all fields that may be places."""
    if isinstance(value, str):
        if kind in (NAME, PLACE, EITHER):
            yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _placed(one, kind if name in _INNER else kind_of(name))
    elif isinstance(value, list | tuple):
        pair = len(value) == 2 and kind is None
        for one in value:
            yield from _placed(one, kind_of(value[0]) if pair else kind)


def _spoken(kind: str | None) -> str | None:
    """The kind of what people read under a field's name: more may be said there than the name of a thing."""
    return EITHER if kind == NAME else kind


def _sentence(text: str) -> str:
    return "".join(part if i % 2 else without_folders(part, ()) for i, part in enumerate(_NO_PATH.split(text)))
