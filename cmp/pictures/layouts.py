"""Where everything stands on a sheet: cells in rows and columns, heads and groups around them, in pictures of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmp.core.arranging import Arranged, Cell, Head, groups_of
from cmp.pictures.lettering import FAINT, INK, Line, height_of, wrapped

GAP, LABEL, EDGE = 6, 190, 10  # pixels between cells; width of the row heads; around all
SMALLEST_CELL = 96  # pixels; cells are made no smaller than this, but the sheet is cut into parts

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be shown; `path_of` gives a cell's picture, None where there is none. `stamp` is a line of its own, such as the step."""

    arranged: Arranged
    path_of: Callable[[Cell], Path | None]
    title: str = ""
    told: tuple[str, ...] = ()
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large one picture may become, in pixels."""

    side: int
    area: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row by its number, its head, and what stands over it where a group begins."""

    number: int
    head: tuple[Line, ...]
    above: tuple[Line, ...]
    height: int

    @property
    def whole(self) -> int:
        return self.height + GAP + (height_of(self.above) + EDGE if self.above else 0)


@dataclass(frozen=True, slots=True)
class Column:
    number: int
    head: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """One picture. `groups` are over the columns: the first one's place within this picture, how many they are, and the words."""

    side: Size
    label: int
    top: tuple[Line, ...]
    groups: tuple[tuple[int, int, tuple[Line, ...]], ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    size: Size

    @property
    def over_groups(self) -> int:
        return EDGE + height_of(self.top) + (EDGE if self.top else 0)

    @property
    def over_heads(self) -> int:
        tall = max((height_of(words) for _, _, words in self.groups), default=0)
        return self.over_groups + (tall + GAP if tall else 0)

    @property
    def over_rows(self) -> int:
        tall = max((height_of(column.head) for column in self.columns), default=0)
        return self.over_heads + (tall + GAP if tall else 0)

    def x_of(self, place: int) -> int:
        return EDGE + self.label + place * (self.side[0] + GAP)


@dataclass(frozen=True, slots=True)
class Sheets:
    """A sheet in one part or several; `scale` is that of its cells, 1 for the pictures' own size."""

    parts: tuple[Layout, ...]
    scale: float


def lay_out(subject: Subject, own: Size, limits: Limits, *, cut: bool = True) -> Sheets:
    """The parts that show all of a subject whose pictures are at most `own` large.

    Small pictures are enlarged by whole numbers, so that labels fit beside them. What does not fit is scaled down, and unless `cut` is
    False, cut into parts rather than made smaller than SMALLEST_CELL.
    """
    columns, rows = range(len(subject.arranged.columns)), range(len(subject.arranged.rows))
    scale: float = max(1, 128 // max(own))
    least = min(1.0, SMALLEST_CELL / max(own)) if cut else 0.0
    for _ in range(40):
        whole = _lay_out(subject, _scaled(own, scale), columns, rows)
        too_much = _excess(whole.size, limits)
        if too_much <= 1:
            return Sheets((whole,), scale)
        if scale <= least or (not cut and max(own) * scale <= 8):
            break
        scale = max(scale / max(too_much, 1.02), least)
        scale = int(scale) if scale > 1 else scale  # all pixels of an enlarged picture are equally large
    return Sheets(tuple(_parts(subject, _scaled(own, scale), limits)), scale)


def _scaled(own: Size, scale: float) -> Size:
    return max(1, int(own[0] * scale)), max(1, int(own[1] * scale))


def _excess(size: Size, limits: Limits) -> float:
    return max(size[0] / limits.side, size[1] / limits.side, (size[0] * size[1] / limits.area) ** 0.5)


def _parts(subject: Subject, side: Size, limits: Limits) -> Iterator[Layout]:
    """As many columns as fit beside each other, then as many rows as fit below."""
    arranged = subject.arranged
    across = max(1, min(len(arranged.columns), (limits.side - 2 * EDGE - LABEL) // (side[0] + GAP), int(limits.area**0.5) // side[0]))
    ranges = [range(c, min(c + across, len(arranged.columns))) for c in range(0, len(arranged.columns), across)]
    most = limits.area // (2 * EDGE + LABEL + across * (side[0] + GAP))
    for rows in _row_ranges(subject, side, ranges[0], min(limits.side, most)):
        for columns in ranges:
            yield _lay_out(subject, side, columns, rows)


def _row_ranges(subject: Subject, side: Size, columns: range, most: int) -> Iterator[range]:
    whole = _lay_out(subject, side, columns, range(len(subject.arranged.rows)))
    above = whole.over_rows + 2 * EDGE + 80  # heads of other columns may be taller, and a group's words come again in its next part
    start, used = 0, above
    for row in whole.rows:
        if used + row.whole > most and row.number > start:
            yield range(start, row.number)
            start, used = row.number, above
        used += row.whole
    yield range(start, len(whole.rows))


def _lay_out(subject: Subject, side: Size, columns: range, rows: range) -> Layout:
    arranged = subject.arranged
    label = LABEL if any(head.label or head.sub for head in arranged.rows) else 0
    width = max(2 * EDGE + label + len(columns) * (side[0] + GAP) - GAP, 320)
    top = wrapped([Line(subject.title, 16)], width - 2 * EDGE, 2) if subject.title else []
    top += [line for text in subject.told for line in wrapped([Line(text, 11, FAINT)], width - 2 * EDGE)]
    top += wrapped([Line(subject.stamp, 18)], width - 2 * EDGE, 1) if subject.stamp else []
    seen = [arranged.columns[c] for c in columns]
    groups = tuple(
        (group.first, group.count, tuple(wrapped([Line(group.text, 13)], group.count * (side[0] + GAP) - GAP)))
        for group in groups_of(seen)
        if group.text
    )
    made = Layout(
        side, label, tuple(top), groups,
        tuple(Column(c, tuple(_words(arranged.columns[c], side[0]))) for c in columns),
        tuple(_rows(arranged.rows, rows, side[1], label, width)), (width, 0),
    )  # fmt: skip
    height = made.over_rows + sum(row.whole for row in made.rows) + EDGE
    return Layout(side, label, made.top, groups, made.columns, made.rows, (width, height))


def _words(head: Head, width: int) -> list[Line]:
    lines = [Line(head.label, 13)] if head.label else []
    return wrapped([*lines, *([Line(head.sub, 11, FAINT)] if head.sub else [])], width)


def _rows(heads: Sequence[Head], rows: range, tall: int, label: int, width: int) -> Iterator[Row]:
    for r in rows:
        head = heads[r]
        begins = head.group and (r == rows.start or heads[r - 1].outer != head.outer)
        above = wrapped([Line(head.group, 13, INK)], width - 2 * EDGE) if begins else []
        lines = _words(head, label - EDGE) if label else []
        yield Row(r, tuple(lines), tuple(above), max(tall, height_of(lines)))
