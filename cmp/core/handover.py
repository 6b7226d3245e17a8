"""What of a matrix leaves this computer: nothing that was hidden, and no folder of the user's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from cmp.core.arranging import read_matrix, see, unique_keys
from cmp.core.views import View
from cmp.core.whereabouts import OWN_WORDS, without_paths

Value = dict[str, Any]
_HANDED = (
    "title",
    "note",
    "verdict",
    "place",
    "step_axis",
)  # of what is not gone through by itself; all else is for the page


def without_folders(text: str, folders: Iterable[PurePath]) -> str:
    """The text with every path in it cut down to its name; those below the given folders also where they have spaces."""
    for kind in (PurePosixPath, PureWindowsPath) if text[:1] in ("/", "\\") or text[1:2] == ":" else ():
        if kind(text).is_absolute() and len(kind(text).parts) > 2 and "\n" not in text:
            return kind(text).name if _is_path_alone(text) else _without(text, folders)
    return _without(text, folders)


def _is_path_alone(text: str) -> bool:
    """Whether all of a text is one path: no sentence follows it."""
    return not re.search(r"[:;,]\s|\.\s", text)


def _without(text: str, folders: Iterable[PurePath]) -> str:
    for folder in sorted(map(str, folders), key=len, reverse=True):
        if len(folder) > 1:
            text = re.sub(re.escape(folder.rstrip("/\\")) + r"(?:[/\\]|(?![\w.-]))", "", text)
    return without_paths(text)


def hand_over(value: Mapping[str, Any], view: View, folders: Iterable[PurePath] = ()) -> tuple[Value, View]:
    """The matrix without what the view hides and without folders, and the view that is left of it."""
    folders = tuple(folders)

    def cut(text: str) -> str:
        return without_folders(text, folders)

    shown = see(read_matrix(value)[0], view)
    kept = [sorted(one.shown) for one in shown]
    axes, renamed = [], {}
    for told, one, numbers in zip(value.get("axes") or (), shown, kept, strict=True):
        own = str(told.get("label", "")).lower() in OWN_WORDS or told["key"] in OWN_WORDS
        heads = [told["values"][n] if own else _cut_head(told["values"][n], cut) for n in numbers]
        keys = unique_keys(str(head.get("key", n)) for n, head in zip(numbers, heads, strict=True))
        axes.append({**told, "values": [{**head, "key": key} for head, key in zip(heads, keys, strict=True)]})
        renamed[told["key"]] = {one.axis.keys[n]: key for n, key in zip(numbers, keys, strict=True)}
    places = [{None: None} | {n: i for i, n in enumerate(numbers)} for numbers in kept]
    cells = [
        _cut_cell(cell, cut) | {"at": [place[at] for place, at in zip(places, cell["at"], strict=True)]}
        for cell in value.get("cells") or ()
        if all(at in place for place, at in zip(places, cell["at"], strict=True))
    ]
    marks = _marks(value, {told["key"]: place for told, place in zip(axes, places, strict=True)}, cut)
    known = {cell.get("key") for cell in cells}
    scores = [{**score, "of": {key: n for key, n in score["of"].items() if key in known}} for score in value.get("scores") or ()]
    handed = {name: value[name] for name in _HANDED if name in value}
    handed |= {"axes": axes, "cells": cells, "marks": marks, "scores": scores, "common": _cut_details(value.get("common"), cut)}
    order = {axis: tuple(names[key] for key in keys if key in names) for axis, keys in view.order.items() if (names := renamed.get(axis))}
    pick = {axis: renamed[axis][key] for axis, key in view.pick.items() if key in renamed.get(axis, {})}
    return handed, View({axis: at for axis, at in view.place.items() if axis in renamed}, order, {}, pick)


def view_json(view: View) -> Value:
    """The view as the page takes it."""
    return {"place": dict(view.place), "order": {axis: list(keys) for axis, keys in view.order.items()}, "pick": dict(view.pick)}


def _marks(value: Mapping[str, Any], places: Mapping[str, Mapping[Any, Any]], cut: Callable[[str], str]) -> list[Value]:
    """What is known of values that are left, under their new numbers."""
    return [
        {**_cut_cell(mark, cut), "at": {axis: places[axis][at] for axis, at in mark["at"].items()}}
        for mark in value.get("marks") or ()
        if all(at in places.get(axis, {}) for axis, at in mark["at"].items())
    ]


def _cut_head(head: Mapping[str, Any], cut: Callable[[str], str]) -> Value:
    told = {name: cut(text) if isinstance(text, str) else text for name, text in head.items()}
    return told | ({"details": _cut_details(head["details"], cut)} if "details" in head else {})


def _cut_cell(cell: Mapping[str, Any], cut: Callable[[str], str]) -> Value:
    told = {name: cut(text) if name in ("fault", "flaw", "caption") and isinstance(text, str) else text for name, text in cell.items()}
    return told | ({"details": _cut_details(cell["details"], cut)} if cell.get("details") else {})


def _cut_details(details: Any, cut: Callable[[str], str]) -> list[list[Any]]:
    return [[n, v if str(n).lower() in OWN_WORDS or not isinstance(v, str) else cut(v)] for n, v in details or ()]
