"""Names for the files of a matrix that sort as it is arranged and that every system takes, and the table that tells what they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from cmp.core.arranging import Arranged, Axis, Cell, Seen, arrange, matching, see
from cmp.core.views import View

LONGEST_NAME = 80  # characters of a title in a file's name
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|\Z)", re.IGNORECASE)  # what Windows keeps for itself
_LONG = 24  # characters; a longer value is told by its number
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?\Z", re.ASCII | re.IGNORECASE)


def file_name(title: str, otherwise: str = "grid") -> str:
    """A title as a file's name, without ending: what no system takes is left out."""
    kept = "".join(c if c.isprintable() and c not in '<>:"/\\|?*%' else " " for c in title)
    name = " ".join(kept.split())[:LONGEST_NAME].strip(" .")
    return f"{otherwise} {name}".strip() if not name or _RESERVED.match(name) else name


def slug(text: str) -> str:
    """A text in small ASCII letters, digits and hyphens; "" where nothing is left of it."""
    return re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9.]+", "-", text.lower().replace("−", "-"))).strip("-.")


def pack(axes: Sequence[Axis], cells: Iterable[Cell], view: View = View()) -> list[tuple[str, Cell]]:
    """Each cell that is not hidden, whatever is picked, with its name: `001-step-500/prompt-1_seed-0`, without ending."""
    seen = see(axes, view)
    kept = matching(cells, seen, any_pick=True)
    # over all picks the columns are those of a view in which what is picked lies down, too
    every = arrange(axes, kept, View({**view.place, **{one.axis.key: "y" for one in seen if not one.place}}, view.order, view.hidden))
    across = [one for place in "Xx" for one in every.axes if one.place == place]
    rest = [one for one in seen if one.place not in ("X", "x") and len({cell.at[one.number] for cell in kept} - {None}) > 1]
    width = max(3, len(str(len(every.columns))))
    named, taken = [], set[str]()
    for number, cell in _in_order(every, kept):
        labels = [_value_name(one, at) for one in across if (at := cell.at[one.number]) is not None]
        folder = "-".join([f"{number:0{width}d}", *filter(None, labels)])[:60].strip("-.")
        parts = [_value_name(one, at) for one in rest if (at := cell.at[one.number]) is not None]
        name = base = f"{folder}/{'_'.join(parts)[:100] or 'picture'}"
        count = 1
        while name.lower() in taken:
            count += 1
            name = f"{base}-{count}"
        taken.add(name.lower())
        named.append((name, cell))
    return named


def _in_order(arranged: Arranged, cells: Sequence[Cell]) -> Iterable[tuple[int, Cell]]:
    """The cells column by column, each once, with the column's number from 1; 0 for those that another stands before everywhere."""
    found: dict[int, tuple[int, Cell]] = {}
    for (_, column), cell in sorted(arranged.placed.items(), key=lambda item: (item[0][1], item[0][0])):
        found.setdefault(id(cell), (column + 1, cell))
    return [*found.values(), *((0, cell) for cell in cells if id(cell) not in found)]


def _value_name(one: Seen, at: int) -> str:
    """`seed-0`; a text of several words, or one in other letters, by its number: `prompt-1`. What lies across is called as its head is."""
    label, value = str(one.axis.values[at].get("label") or ""), one.axis.told(at)
    if one.place in ("X", "x") and label.isascii() and (told := slug(label)):
        return told[:40].strip("-.")
    told = slug(value) if value.isascii() and " " not in value and len(value) <= _LONG else ""
    return f"{slug(one.axis.label) or 'value'}-{told or f'{at + 1:0{len(str(len(one.axis.values)))}d}'}"


# -- the table -------------------------------------------------------------------------------------------------------------


def table(axes: Sequence[Axis], named: Sequence[tuple[str, Cell]], common: Iterable[Sequence[Any]] = ()) -> list[list[str]]:
    """A head and a row for each cell, `named` with its file: its coordinates, key, state, and all that is known of how it was drawn."""
    shared = {str(name): str(value) for name, value in common}
    details = [_details(axes, cell) for _, cell in named]
    more = [
        name
        for name in dict.fromkeys(name for told in (*details, shared) for name in told)
        if name.lower() not in {axis.label.lower() for axis in axes}
    ]
    head = ["file", *(axis.label for axis in axes), "key", "state", "seconds", "reused", "fault", "mark", *more]
    rows = [head]
    for (file, cell), told in zip(named, details, strict=True):
        at = [axis.told(cell.at[n]) for n, axis in enumerate(axes)]
        known = [_plain(cell.record.get(name)) for name in ("key", "state", "seconds", "reused", "fault", "mark")]
        rows.append([file, *at, *known, *((shared | told).get(name, "") for name in more)])
    return [[harmless(text) for text in row] for row in rows]


def _details(axes: Sequence[Axis], cell: Cell) -> dict[str, str]:
    of_values = (pair for n, axis in enumerate(axes) if (i := cell.at[n]) is not None for pair in axis.values[i].get("details") or ())
    return {str(name): str(value) for name, value in (*of_values, *(cell.record.get("details") or ()))}


def _plain(value: object) -> str:
    return "" if value is None or value is False else "yes" if value is True else str(value)


def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one that begins like one has a quote before it. Numbers stay numbers."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) and not _NUMBER.match(text) else text
