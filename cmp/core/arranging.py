"""Which cells of a matrix stand where: the same meaning as the page's, for what is exported.

A matrix is the plain value that the viewer is fed with, a view what the user made of it; both are JSON, and a view comes from a caller.
An axis lies across ("x", outer groups "X"), down ("y", "Y"), or has one value chosen at a time (""). A coordinate that is null belongs to
every value: the base model has no strength.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cmp.core.views import View

At = tuple[int | None, ...]
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Axis:
    """One kind of value: its heads as the viewer is fed with them, each under a key that no other has. `place` is where it lies unless a
    view says another.
    """

    key: str
    label: str
    values: tuple[Record, ...]
    keys: tuple[str, ...]
    place: str = ""
    is_step: bool = False

    def told(self, at: int | None) -> str:
        """A value in full, without the axis' name before it; "" for none."""
        if at is None:
            return ""
        head, name = self.values[at], self.label.lower()
        if head.get("told"):
            return str(head["told"])
        label = str(head.get("label") or "")
        named = label.lower().startswith(f"{name} ") or label.lower().startswith(f"{name}:")
        plain = label[len(name) :].lstrip(" :") if named else label
        return next((str(value) for what, value in head.get("details") or () if str(what).lower() == name), plain)


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture: a value of each axis by its number, None for all of them, and all else that is known of it."""

    at: At
    record: Record

    @property
    def key(self) -> str:
        return str(self.record.get("key") or "")


@dataclass(frozen=True, slots=True)
class Seen:
    """An axis as a view shows it: its number, the visible values in their order, and the one of them that counts where one is picked."""

    axis: Axis
    number: int
    shown: tuple[int, ...]
    place: str
    picked: int | None


@dataclass(frozen=True, slots=True)
class Head:
    """What stands at a column or row: the values of its axes by their numbers, in words, and the group it belongs to."""

    at: At
    label: str
    sub: str = ""
    group: str = ""
    outer: At = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Heads beside each other that belong together, by the first one's number and how many they are."""

    text: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Arranged:
    """The cells in columns and rows; `picks` are the axes of which one value was chosen, though there are others."""

    axes: tuple[Seen, ...]
    columns: tuple[Head, ...]
    rows: tuple[Head, ...]
    placed: Mapping[tuple[int, int], Cell]
    picks: tuple[Seen, ...] = ()

    def cell_at(self, row: int, column: int) -> Cell | None:
        return self.placed.get((row, column))

    @property
    def column_groups(self) -> tuple[Group, ...]:
        return groups_of(self.columns)

    @property
    def row_groups(self) -> tuple[Group, ...]:
        return groups_of(self.rows)


# -- reading ---------------------------------------------------------------------------------------------------------------


def read_matrix(value: Mapping[str, Any]) -> tuple[tuple[Axis, ...], tuple[Cell, ...]]:
    """Axes and cells of a matrix's value, which comes from this program."""
    place, step = value.get("place") or {}, value.get("step_axis")
    axes = tuple(
        Axis(
            told["key"], told.get("label") or told["key"], tuple(told["values"]),
            unique_keys([str(head.get("key", i)) for i, head in enumerate(told["values"])]),
            place.get(told["key"], ""), bool(step) and told["key"] == step,
        )
        for told in value.get("axes") or ()
    )  # fmt: skip
    return axes, tuple(Cell(tuple(told["at"]), told) for told in value.get("cells") or ())


def unique_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """The keys, a second one of the same name with its number behind it, as the viewer has them."""
    times: dict[str, int] = {}
    out = []
    for key in keys:
        count = times.get(key, 0)
        times[key] = count + 1
        out.append(f"{key}\0{count}" if count else key)
    return tuple(out)


# -- arranging -------------------------------------------------------------------------------------------------------------


def arrange(axes: Sequence[Axis], cells: Iterable[Cell], view: View = View()) -> Arranged:
    """The cells that a view shows, each in its place."""
    seen = see(axes, view)
    kept = matching(cells, seen)
    return place_cells(seen, kept, _heads(kept, seen, "X", "x"), _heads(kept, seen, "Y", "y"))


def see(axes: Sequence[Axis], view: View) -> tuple[Seen, ...]:
    """The axes as a view shows them."""
    return tuple(_see(axis, number, view) for number, axis in enumerate(axes))


def _see(axis: Axis, number: int, view: View) -> Seen:
    known = {key: i for i, key in enumerate(axis.keys)}
    wanted = [known[key] for key in view.order.get(axis.key, ()) if key in known]
    hidden = view.hidden.get(axis.key, frozenset())
    order = tuple(dict.fromkeys((*wanted, *range(len(axis.keys)))))
    shown = tuple(at for at in order if axis.keys[at] not in hidden) or order  # a link may hide everything
    chosen = known.get(view.pick.get(axis.key, ""))
    usual = (shown[-1] if axis.is_step else shown[0]) if shown else None
    return Seen(axis, number, shown, view.place.get(axis.key, axis.place), chosen if chosen in shown else usual)


def matching(cells: Iterable[Cell], seen: Sequence[Seen], *, any_pick: bool = False) -> tuple[Cell, ...]:
    """The cells of which no value is hidden, and that have the picked values; with `any_pick` whatever is picked."""
    allowed = [
        (one.number, frozenset(one.shown) if one.place or any_pick else frozenset(() if one.picked is None else (one.picked,)))
        for one in seen
    ]
    return tuple(cell for cell in cells if all((at := cell.at[number]) is None or at in values for number, values in allowed))


def place_cells(seen: tuple[Seen, ...], cells: Iterable[Cell], columns: tuple[Head, ...], rows: tuple[Head, ...]) -> Arranged:
    """The cells under these heads; of several in one place the one that says most of itself."""
    under_columns, under_rows = _Finder(columns, _of(seen, "X", "x")), _Finder(rows, _of(seen, "Y", "y"))
    placed: dict[tuple[int, int], Cell] = {}
    for cell in cells:
        for place in ((r, c) for r in under_rows.of(cell) for c in under_columns.of(cell)):
            there = placed.get(place)
            if there is None or cell.at.count(None) < there.at.count(None):
                placed[place] = cell
    picks = tuple(one for one in seen if not one.place and len(one.shown) > 1)
    return Arranged(seen, columns, rows, placed, picks)


def _of(seen: Sequence[Seen], *places: str) -> tuple[Seen, ...]:
    return tuple(one for place in places for one in seen if one.place == place)


def _project(cell: Cell, seen: Sequence[Seen]) -> At:
    return tuple(cell.at[one.number] for one in seen)


def _agree(a: At, b: At) -> bool:
    return all(x is None or y is None or x == y for x, y in zip(a, b, strict=True))


def _says_more(a: At, b: At) -> bool:
    """Whether `a` says all that `b` says, and something of which `b` says nothing."""
    return a.count(None) < b.count(None) and all(y is None or x == y for x, y in zip(a, b, strict=True))


def _heads(cells: Iterable[Cell], seen: Sequence[Seen], outer: str, inner: str) -> tuple[Head, ...]:
    axes = _of(seen, outer, inner)
    found = dict.fromkeys(_project(cell, axes) for cell in cells)
    kept = [at for at in found if None not in at or not any(_says_more(other, at) for other in found)]
    ranks = [{value: i for i, value in enumerate(one.shown)} | {None: -1} for one in axes]
    kept.sort(key=lambda at: [ranks[n][value] for n, value in enumerate(at)])
    return tuple(_head(at, axes, outer) for at in kept)


def _head(at: At, axes: Sequence[Seen], outer: str) -> Head:
    """The first inner value's label, all others behind it; of the outer values the group."""
    told = [(one.place == outer, one.axis.values[value]) for one, value in zip(axes, at, strict=True) if value is not None]
    group = [_words(value) for is_outer, value in told if is_outer]
    inner = [value for is_outer, value in told if not is_outer]
    sub = [str(inner[0].get("sub") or "") if inner else "", *map(_words, inner[1:])]
    outer_at = tuple(value for one, value in zip(axes, at, strict=True) if one.place == outer)
    label = str(inner[0].get("label") or "") if inner else ""
    return Head(at, label, " · ".join(filter(None, sub)), " · ".join(filter(None, group)), outer_at)


def _words(value: Record) -> str:
    return " ".join(filter(None, (str(value.get("label") or ""), str(value.get("sub") or ""))))


def groups_of(heads: Sequence[Head]) -> tuple[Group, ...]:
    """The runs of heads with the same outer values."""
    out: list[Group] = []
    for i, head in enumerate(heads):
        if out and heads[i - 1].outer == head.outer:
            out[-1] = replace(out[-1], count=out[-1].count + 1)
        else:
            out.append(Group(head.group, i, 1))
    return tuple(out)


class _Finder:
    """Under which heads a cell stands."""

    def __init__(self, heads: Sequence[Head], axes: Sequence[Seen]) -> None:
        self._heads, self._axes = heads, axes
        self._known: dict[At, tuple[int, ...]] = {head.at: (i,) for i, head in enumerate(heads) if None not in head.at}

    def of(self, cell: Cell) -> tuple[int, ...]:
        at = _project(cell, self._axes)
        if at not in self._known:
            self._known[at] = tuple(i for i, head in enumerate(self._heads) if _agree(head.at, at))
        return self._known[at]


# -- over the steps --------------------------------------------------------------------------------------------------------


def over_steps(axes: Sequence[Axis], cells: Iterable[Cell], view: View = View()) -> tuple[tuple[Record, Arranged], ...]:
    """The arrangement at each visible step, all with the same columns and rows, and the step's head; () where no axis is the step.

    The step axis is taken out of columns and rows. A cell without a step, such as the base model's, is in each of them.
    """
    cells = tuple(cells)
    step = next((axis for axis in axes if axis.is_step), None)
    if step is None:
        return ()
    view = replace(view, place={**view.place, step.key: ""})
    seen = see(axes, view)
    at = next(one for one in seen if one.axis is step)
    frames = [(value, tuple(replace(one, picked=value) if one is at else one for one in seen)) for value in at.shown]
    kept = [matching(cells, seen_now) for _, seen_now in frames]
    every = tuple(dict.fromkeys(id(cell) for frame in kept for cell in frame))
    by_id = {id(cell): cell for frame in kept for cell in frame}
    union = [by_id[name] for name in every]
    columns, rows = _heads(union, seen, "X", "x"), _heads(union, seen, "Y", "y")
    return tuple(
        (step.values[value], place_cells(now, mine, columns, rows)) for (value, now), mine in zip(frames, kept, strict=True) if mine
    )
