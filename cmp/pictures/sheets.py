"""One labelled picture of a matrix as it is arranged: heads and groups around the cells; inside, the settings as A1111's plot has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, UnidentifiedImageError

from cmp.core.arranging import Arranged, Cell, Seen
from cmp.core.infotext import plot_pairs
from cmp.errors import NotFound, Unreadable
from cmp.pictures.files import format_of, save_picture
from cmp.pictures.layouts import EDGE, GAP, Layout, Limits, Size, Subject, lay_out
from cmp.pictures.lettering import FAINT, INK, PALE, PAPER, RED, RULE, Line, clean, wrapped, write
from cmp.pictures.settings import LONGEST_EXIF, check_size

LIMITS = Limits(16_000, 40_000_000)  # a side that WebP holds, and pixels that a computer of some years holds several times
_STATES = {"waiting": "not drawn", "drawing": "being drawn"}
_TINT = (253, 241, 239)
_FAULTS = (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, Unreadable)  # of pictures that cannot be read


def write_sheet(subject: Subject, target: Path, place: Callable[[int], Path]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Writes the sheet as PNG, JPEG or WebP by the ending of `target`, in parts where one picture cannot hold it.

    `place` gives the path for part 1, 2, …; a sheet in one part is part 0. Gives the paths, and in words what became of its size.
    The first picture's settings are in it, then the values of its axes. Raises NotFound if nothing was drawn.
    """
    kind = format_of(target)
    drawn = drawn_cells(subject)
    if not drawn:
        raise NotFound("no cell that is shown was drawn, so there is no sheet", "See what stands against the cells.")
    own, settings = largest(path for _, path in drawn), settings_of(drawn[0][1])
    sheets = lay_out(subject, own, LIMITS)
    count = len(sheets.parts)
    scaled = f"scaled to {sheets.scale:.0%}" if sheets.scale < 1 else ""
    paths = [place(number if count > 1 else 0) for number in range(1, count + 1)]
    for number, (path, layout) in enumerate(zip(paths, sheets.parts, strict=True), start=1):
        part = f"part {number} of {count}" if count > 1 else ""
        more = [("Sheet", ", ".join(filter(None, (scaled, part))))]
        text = ", ".join(filter(None, (settings, plot_pairs(axes_told(subject.arranged), subject.title, more))))
        if kind != "PNG" and 2 * len(text) >= LONGEST_EXIF - 8:
            text = ", ".join(filter(None, (settings, plot_pairs([], "", more))))  # the sheet itself says the rest
        save_picture(draw(subject, layout), path, text)
    notes = [f"its cells are {scaled}, since one picture holds no more"] if scaled else []
    notes += [f"it is in {count} parts, since one picture holds no more"] if count > 1 else []
    return tuple(paths), tuple(notes)


def drawn_cells(subject: Subject) -> list[tuple[Cell, Path]]:
    """The cells that are shown and have a picture, in the order in which they are read."""
    cells = (subject.arranged.placed[place] for place in sorted(subject.arranged.placed))
    return [(cell, path) for cell in cells if cell.record.get("state") == "done" and (path := subject.path_of(cell))]


def largest(paths: Iterable[Path]) -> Size:
    """A size that holds every one of these pictures; those that cannot be read do not count."""
    sizes = [(64, 64)]
    for path in dict.fromkeys(paths):
        try:
            with Image.open(path) as image:
                check_size(image, path)
                sizes.append(image.size)
        except _FAULTS:
            continue
    known = sizes[1:] or sizes
    return max(width for width, _ in known), max(height for _, height in known)


def settings_of(path: Path) -> str:
    """A1111's text in a picture, "" for none."""
    try:
        with Image.open(path) as image:
            return str(image.info.get("parameters", ""))
    except _FAULTS:
        return ""


def axes_told(arranged: Arranged) -> list[tuple[str, list[str]]]:
    """The axes on which the cells that are shown differ, each with their values: first those that lie across."""
    ordered: Sequence[Seen] = [one for place in ("x", "X", "y", "Y") for one in arranged.axes if one.place == place]
    told = []
    for one in ordered:
        there = {cell.at[one.number] for cell in arranged.placed.values()}
        told.append((one.axis.label, [one.axis.told(at) for at in one.shown if at in there]))
    return [(name, values) for name, values in told if len(values) > 1]


# -- drawing ---------------------------------------------------------------------------------------------------------------


def draw(subject: Subject, layout: Layout) -> Image.Image:
    """One part of the sheet."""
    sheet = Image.new("RGB", layout.size, PAPER)
    pen = ImageDraw.Draw(sheet)
    write(pen, layout.top, EDGE, EDGE)
    for first, count, words in layout.groups:
        x, end = layout.x_of(first), layout.x_of(first + count) - GAP
        write(pen, words, x, layout.over_groups)
        pen.line([x, layout.over_heads - 3, end - 1, layout.over_heads - 3], RULE)
    for place, column in enumerate(layout.columns):
        write(pen, column.head, layout.x_of(place), layout.over_heads)
    y = layout.over_rows
    for row in layout.rows:
        if row.above:
            pen.line([EDGE, y + 2, layout.size[0] - EDGE, y + 2], RULE)
            write(pen, row.above, EDGE, y + EDGE // 2)
            y += row.whole - row.height - GAP
        write(pen, row.head, EDGE, y)
        for place, column in enumerate(layout.columns):
            cell = subject.arranged.cell_at(row.number, column.number)
            _place(sheet, pen, (cell, subject.path_of(cell) if cell else None), (layout.x_of(place), y), layout.side)
        y += row.height + GAP
    return sheet


def _place(sheet: Image.Image, pen: ImageDraw.ImageDraw, shown: tuple[Cell | None, Path | None], corner: Size, side: Size) -> None:
    cell, path = shown
    record = cell.record if cell else {}
    state = str(record.get("state") or "waiting")
    left, top = corner
    box = [left - 1, top - 1, left + side[0], top + side[1]]
    picture = _picture(path, side) if state == "done" and path else None
    if picture:
        sheet.paste(picture, (left + (side[0] - picture.width) // 2, top + (side[1] - picture.height) // 2))
        if mark := str(record.get("mark") or ""):
            (told,) = wrapped([Line(mark, 11, RED)], side[0] - 8, 1)[:1]
            pen.text((left + 4, top + 4), told.text, RED, stroke_width=2, stroke_fill=PAPER)
        pen.rectangle(box, outline=RULE)  # a white picture on white paper needs an edge
        return
    failed = state == "fault"
    words = "failed" if failed else _STATES.get(state, "the picture is gone" if path is None else "unreadable")
    pen.rectangle(box, fill=_TINT if failed else PALE, outline=RED if failed else RULE)
    lines = wrapped([Line(words, 12, RED if failed or state == "done" else FAINT)], side[0] - 8, 2)
    if failed:
        lines += wrapped([Line(clean(str(record.get("fault") or "")), 11, INK)], side[0] - 8, max(1, (side[1] - 24) // 15))
    while lines and sum(line.height for line in lines) > max(side[1] - 6, 16):
        lines.pop()
    write(pen, lines, left + 4, top + 4)


def _picture(path: Path, side: Size) -> Image.Image | None:
    """The picture in that room, None if it cannot be read."""
    try:
        with Image.open(path) as image:
            check_size(image, path)
            factor = min(side[0] / image.width, side[1] / image.height)
            size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
            way = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
            return image.convert("RGB").resize(size, way)
    except _FAULTS:
        return None
