"""One labelled picture of a whole grid: checkpoints across, prompts and seeds down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cmp.core.grids import Cell, Tile
from cmp.errors import BadInput, NotFound

LARGEST_SIDE = 16_000  # pixels; a larger grid is scaled down rather than refused
_GAP, _LABEL = 6, 150  # pixels between cells; width of the row labels
_INK, _FAINT, _PAPER, _LINE = (24, 28, 36), (110, 116, 128), (255, 255, 255), (205, 208, 214)


def write_sheet(tiles: Sequence[Tile], target: Path) -> None:
    """Writes the sheet as PNG, JPEG or WebP by the file's ending; raises NotFound if nothing was drawn, BadInput for another ending."""
    if target.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise BadInput(f"the sheet is to be {target.name!r}", "End it with .png, .jpg or .webp.")
    drawn = [tile for tile in tiles if tile.path]
    if not drawn:
        raise NotFound("no cell was drawn, so there is no sheet", "See what stands against the cells.")
    with Image.open(str(drawn[0].path)) as first:
        own = first.size
    columns = list(dict.fromkeys(_column(tile.cell) for tile in tiles))
    rows = list(dict.fromkeys(_row(tile.cell) for tile in tiles))
    side = _cell_size(own, len(columns), len(rows))
    sheet = Image.new("RGB", (_LABEL + len(columns) * (side[0] + _GAP), 40 + len(rows) * (side[1] + _GAP)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _labels(pen, columns, rows, side)
    for tile in tiles:
        corner = (_LABEL + columns.index(_column(tile.cell)) * (side[0] + _GAP), 40 + rows.index(_row(tile.cell)) * (side[1] + _GAP))
        _place(sheet, pen, tile, corner, side)
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)


def _cell_size(own: tuple[int, int], columns: int, rows: int) -> tuple[int, int]:
    """Small drawings are enlarged by whole numbers so that labels fit beside them; huge sheets are scaled down."""
    factor: float = max(1, 128 // max(own))
    factor = min(factor, LARGEST_SIDE / (columns * own[0]), LARGEST_SIDE / (rows * own[1]))
    return max(1, int(own[0] * factor)), max(1, int(own[1] * factor))


def _column(cell: Cell) -> str:
    if cell.checkpoint is None:
        return "base model"
    return cell.checkpoint.key + (f" × {cell.strength:g}" if cell.strength != 1 else "")


def _row(cell: Cell) -> tuple[str, str]:
    return (
        cell.prompt.text,
        f"seed {cell.seed}, CFG Scale: {cell.sampling.guidance:g}, {cell.sampling.steps} steps, {cell.sampling.scheduler}",
    )


def _labels(pen: ImageDraw.ImageDraw, columns: list[str], rows: list[tuple[str, str]], side: tuple[int, int]) -> None:
    font, small = ImageFont.load_default(13), ImageFont.load_default(10)
    for i, text in enumerate(columns):
        pen.text((_LABEL + i * (side[0] + _GAP), 14), _fitting(pen, text, font, side[0])[0], _INK, font)
    for i, (prompt, rest) in enumerate(rows):
        y = 40 + i * (side[1] + _GAP)
        lines = [(line, font, _INK) for line in _fitting(pen, prompt, font, _LABEL - 12)]
        lines += [(line, small, _FAINT) for line in _fitting(pen, rest, small, _LABEL - 12)]
        for line, face, colour in lines[: max(1, side[1] // 15)]:
            pen.text((6, y), line, colour, face)
            y += 15


def _fitting(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines no wider than `width`."""
    lines = [""]
    for word in text.split() or [""]:
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _place(sheet: Image.Image, pen: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], side: tuple[int, int]) -> None:
    if tile.path is None:
        pen.text((corner[0] + 4, corner[1] + 4), "not drawn", (180, 35, 24), ImageFont.load_default(11))
    else:
        with Image.open(tile.path) as image:
            way = Image.Resampling.NEAREST if side[0] >= image.width else Image.Resampling.LANCZOS
            sheet.paste(image.convert("RGB").resize(side, way), corner)
    # a white picture on white paper needs an edge
    pen.rectangle([corner[0] - 1, corner[1] - 1, corner[0] + side[0], corner[1] + side[1]], outline=_LINE)
