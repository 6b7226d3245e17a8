"""One labelled picture of a whole grid: checkpoints and strengths across; down a band per prompt, and in it a row for each other value."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from cmp.core.grids import Cell, Tile
from cmp.core.infotext import script_pairs
from cmp.core.labels import AXES, BASE_MODEL, CHECKPOINT, NEGATIVE, PROMPT, STRENGTH, Axis, values_of, varying
from cmp.errors import NotFound
from cmp.pictures.files import format_of, save_picture
from cmp.pictures.settings import LARGEST_PICTURE, LONGEST_EXIF

LARGEST_SIDE = 16_000  # pixels; a larger grid is scaled down rather than refused
_GAP, _LABEL, _EDGE = 6, 150, 8  # pixels between cells; width of the row labels; around all
_LINE, _MOST_LINES = 16, 4  # pixels from line to line; of one text
_INK, _FAINT, _PAPER, _RULE, _RED = (24, 28, 36), (110, 116, 128), (255, 255, 255), (205, 208, 214), (180, 35, 24)
_USUAL = ("LoRAs: none", "VAE: the base model's", "Size: the base model's", "Clip skip: 1")  # not worth a line

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    size: int
    colour: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Band:
    """One prompt: what stands over its rows, and the cells of each row."""

    head: tuple[_Line, ...]
    rows: tuple[tuple[tuple[_Line, ...], tuple[Tile, ...]], ...]


def write_sheet(tiles: Sequence[Tile], target: Path, title: str = "") -> None:
    """Writes the sheet as PNG, JPEG or WebP by the file's ending; raises NotFound if nothing was drawn, BadInput for another ending.

    It carries the settings of its first picture, as A1111's X/Y/Z plot does, and the values of its axes.
    """
    kind = format_of(target)
    drawn = next((tile for tile in tiles if tile.path), None)
    if drawn is None:
        raise NotFound("no cell was drawn, so there is no sheet", "See what stands against the cells.")
    with Image.open(str(drawn.path)) as first:
        own, settings = first.size, str(first.info.get("parameters", ""))
    cells = [tile.cell for tile in tiles]
    text = ", ".join(part for part in (settings, script_pairs(cells, title)) if part)
    if kind != "PNG" and 2 * len(text) >= LONGEST_EXIF - 8:
        text = settings  # the values of the axes are on the sheet; JPEG and WebP hold no more text
    save_picture(draw_sheet(tiles, own, title), target, text)


def draw_sheet(tiles: Sequence[Tile], own: tuple[int, int], title: str = "") -> Image.Image:
    """The sheet as a picture; `own` is the size of one cell."""
    cells = [tile.cell for tile in tiles]
    columns = list(dict.fromkeys(map(_column, cells)))
    rest = [axis for axis in varying(cells) if axis not in (CHECKPOINT, STRENGTH, PROMPT, NEGATIVE)]
    rows = len({(cell.prompt, *(axis.of(cell) for axis in rest)) for cell in cells})
    label = _LABEL if rest else 0
    side = _cell_size(own, len(columns), rows, label)
    width = max(2 * _EDGE + label + len(columns) * (side[0] + _GAP), 320)
    head = _wrapped(_head(cells, title), width - 2 * _EDGE)
    names = [_wrapped(_column_label(name, cells), side[0]) for name in columns]
    bands = [_band(prompt, tiles, rest, width - 2 * _EDGE, label) for prompt in dict.fromkeys(cell.prompt for cell in cells)]
    tall = [[max(side[1], len(lines) * _LINE) + _GAP for lines, _ in band.rows] for band in bands]
    top = 2 * _EDGE + len(head) * _LINE + max(map(len, names)) * _LINE
    height = top + sum(len(band.head) * _LINE + _EDGE + sum(each) for band, each in zip(bands, tall, strict=True)) + _EDGE
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, head, _EDGE, _EDGE)
    across = {name: _EDGE + label + i * (side[0] + _GAP) for i, name in enumerate(columns)}
    for name, told in zip(columns, names, strict=True):
        _write(pen, told, across[name], top - _EDGE - len(told) * _LINE)
    y = top
    for band, each in zip(bands, tall, strict=True):
        _write(pen, band.head, _EDGE, y)
        y += len(band.head) * _LINE + _EDGE // 2
        for (lines, found), step in zip(band.rows, each, strict=True):
            _write(pen, lines, _EDGE, y)
            for tile in found:
                _place(sheet, pen, tile, (across[_column(tile.cell)], y), side)
            y += step
        y += _EDGE // 2
    return sheet


def _column(cell: Cell) -> tuple[str, str]:
    return CHECKPOINT.of(cell) or "", STRENGTH.of(cell) or ""


def _column_label(column: tuple[str, str], cells: Sequence[Cell]) -> list[_Line]:
    """The run only where there are several, the strength only where it is not always the same."""
    run, at, key = column[0].rpartition("@")
    runs = {cell.checkpoint.run_id for cell in cells if cell.checkpoint}
    lines = [_Line(run, 11, _FAINT)] if at and len(runs) > 1 else []
    lines.append(_Line(key if at else BASE_MODEL, 13, _INK))
    if column[1] and len(values_of(STRENGTH, cells)) > 1:
        lines.append(_Line(f"{STRENGTH.name}: {column[1]}", 11, _FAINT))
    return lines


def _head(cells: Sequence[Cell], title: str) -> list[_Line]:
    """The title, and the settings that all cells share."""
    differing = varying(cells)
    shared = [axis.label(cells[0]) for axis in AXES if axis not in (PROMPT, NEGATIVE, *differing) and axis.of(cells[0]) is not None]
    shared = [label for label in shared if label not in _USUAL]
    base_first = next((cell for cell in cells if cell.checkpoint), cells[0])
    if STRENGTH not in differing and cells[0].checkpoint is None and base_first.checkpoint:
        shared.insert(0, STRENGTH.label(base_first))
    return [*([_Line(title, 15, _INK)] if title else []), _Line(" · ".join(shared), 11, _FAINT)]


def _band(prompt: object, tiles: Sequence[Tile], rest: Sequence[Axis], width: int, label: int) -> _Band:
    mine = [tile for tile in tiles if tile.cell.prompt == prompt]
    first = mine[0].cell.prompt
    head = [_Line(first.name, 14, _INK)] if first.name else []
    head.append(_Line(first.text or "(no prompt)", 11 if first.name else 13, _FAINT if first.name else _INK))
    head += [_Line(f"Negative prompt: {first.negative}", 11, _FAINT)] if first.negative else []
    rows: dict[tuple[str | None, ...], list[Tile]] = {}
    for tile in mine:
        rows.setdefault(tuple(axis.of(tile.cell) for axis in rest), []).append(tile)
    told = [
        (tuple(_wrapped([_Line(axis.label(found[0].cell), 12, _INK) for axis in rest], label - _EDGE)), tuple(found))
        for found in rows.values()
    ]
    return _Band(tuple(_wrapped(head, width)), tuple(told))


def _cell_size(own: tuple[int, int], columns: int, rows: int, label: int) -> tuple[int, int]:
    """Small drawings are enlarged by whole numbers so that labels fit beside them; huge sheets are scaled down."""
    factor: float = max(1, 128 // max(own))
    area = (LARGEST_PICTURE / 2 / (columns * rows * own[0] * own[1])) ** 0.5
    room = LARGEST_SIDE - label - 2 * _EDGE
    factor = min(factor, area, (room / columns - _GAP) / own[0], (room / rows - _GAP) / own[1])
    return max(1, int(own[0] * factor)), max(1, int(own[1] * factor))


def _wrapped(lines: Sequence[_Line], width: int) -> list[_Line]:
    """The lines broken so that none is wider; of one text at most a few, the last of which then ends in …"""
    out: list[_Line] = []
    for line in lines:
        font = ImageFont.load_default(line.size)
        broken = _broken(line.text, font, max(width, 24))
        if len(broken) > _MOST_LINES:
            broken = [*broken[: _MOST_LINES - 1], f"{broken[_MOST_LINES - 1]} …"]
        out += [_Line(text, line.size, line.colour) for text in broken]
    return out


def _broken(text: str, font: Font, width: int) -> list[str]:
    """The words in lines no wider than that, and words that are wider broken; a line more than is shown is enough."""
    lines = [""]
    for word in text[: (_MOST_LINES + 2) * width].split():  # no letter is narrower than a pixel
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        while word and len(lines) <= _MOST_LINES + 1:
            fits = _fitting(word, font, width)
            lines[-1], word = word[:fits], word[fits:]
            lines += [""] if word else []
        if len(lines) > _MOST_LINES + 1:
            break
    return lines


def _fitting(word: str, font: Font, width: int) -> int:
    """How many letters of a word are no wider than that; at least one."""
    counts = range(1, min(len(word), width) + 1)
    return max(1, bisect_left(counts, True, key=lambda count: font.getlength(word[:count]) > width))


def _write(pen: ImageDraw.ImageDraw, lines: Sequence[_Line], x: int, y: int) -> None:
    for i, line in enumerate(lines):
        pen.text((x, y + i * _LINE), line.text, line.colour, ImageFont.load_default(line.size))


def _place(sheet: Image.Image, pen: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], side: tuple[int, int]) -> None:
    said = "not drawn" if tile.path is None else "preview" if tile.preview else ""
    if tile.path is not None:
        try:
            with Image.open(tile.path) as image:
                way = Image.Resampling.NEAREST if side[0] >= image.width else Image.Resampling.LANCZOS
                sheet.paste(image.convert("RGB").resize(side, way), corner)
        except (OSError, UnidentifiedImageError):
            said = "unreadable"
    if said:
        pen.text((corner[0] + 4, corner[1] + 4), said, _RED, ImageFont.load_default(11))
    # a white picture on white paper needs an edge
    pen.rectangle([corner[0] - 1, corner[1] - 1, corner[0] + side[0], corner[1] + side[1]], outline=_RULE)
