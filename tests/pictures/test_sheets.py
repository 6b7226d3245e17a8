"""Sheets: every cell in its place, every label there, the settings inside, and no grid too large or too odd for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cmp.core.grids import GridSpec, Own, Prompt, Sampling, Tile
from cmp.core.infotext import parse_infotext, to_infotext
from cmp.core.runs import Checkpoint
from cmp.errors import BadInput, NotFound
from cmp.pictures.files import save_png
from cmp.pictures.settings import LARGEST_PICTURE, read_settings
from cmp.pictures.sheets import LARGEST_SIDE, draw_sheet, write_sheet

FIRST = Checkpoint("shoes", "500", Path("/r/500"), "x", "lora", step=500)
OTHER = Checkpoint("a_run_with_a_name_that_is_wider_than_any_cell_can_be", "final", Path("/o"), "x", "lora")


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[[GridSpec], list[Tile]]:
    """Tiles of a grid, each of one colour that no other has."""

    def draw(spec: GridSpec, side: int = 64) -> list[Tile]:
        tiles = []
        for i, cell in enumerate(spec.cells()):
            path = tmp_path / f"{i}.png"
            image = Image.new("RGB", (side, side), _colour(i))
            save_png(image, path, to_infotext(cell, image.size, "tiny-sd", None, "0.1"), {})
            tiles.append(Tile(cell, "k", path))
        return tiles

    return draw


def _colour(i: int) -> tuple[int, int, int]:
    return 10 + i % 20 * 12, 10 + i // 20 * 12, 200


def _areas(sheet: Image.Image, count: int) -> dict[int, tuple[int, int, int, int]]:
    """Where each tile's colour is: left, top, and how many pixels of it there are across and down."""
    found: dict[int, tuple[int, int, int, int]] = {}
    for i in range(count):
        mask = Image.eval(sheet.convert("RGB").split()[0], lambda v, i=i: 255 * (v == _colour(i)[0]))
        second = Image.eval(sheet.convert("RGB").split()[1], lambda v, i=i: 255 * (v == _colour(i)[1]))
        third = Image.eval(sheet.convert("RGB").split()[2], lambda v: 255 * (v == 200))
        black = Image.new("L", sheet.size)
        both = Image.composite(Image.composite(mask, black, second), black, third)
        left, top, right, bottom = both.getbbox() or (0, 0, 0, 0)
        found[i] = (left, top, right - left, bottom - top)
    return found


def test_cells_of_one_checkpoint_and_strength_stand_in_one_column_and_those_of_one_setting_in_one_row(drawn: Callable) -> None:
    spec = GridSpec(
        (None, FIRST, OTHER), (Prompt("a", name="A"), Prompt("b", "bad")), (1, 2), (0.5, 1.0), (Sampling(guidance=4), Sampling(guidance=7))
    )
    tiles = drawn(spec)
    areas = _areas(draw_sheet(tiles, (64, 64), "Title"), len(tiles))
    columns: dict[object, set[int]] = {}
    rows: dict[object, set[int]] = {}
    for i, tile in enumerate(tiles):
        left, top, across, down = areas[i]
        assert (across, down) == (128, 128), "each is there in full, and no other lies over it"
        columns.setdefault((tile.cell.checkpoint, tile.cell.strength if tile.cell.checkpoint else 0), set()).add(left)
        rows.setdefault((tile.cell.prompt, tile.cell.seed, tile.cell.sampling), set()).add(top)
    assert len(columns) == 5 and all(len(at) == 1 for at in columns.values()) and len(set.union(*columns.values())) == 5
    assert len(rows) == 8 and all(len(at) == 1 for at in rows.values()) and len(set.union(*rows.values())) == 8


def test_prompts_with_values_of_their_own_have_rows_of_their_own(drawn: Callable) -> None:
    tiles = drawn(GridSpec((FIRST,), (Prompt("a"), Prompt("b", own=Own(seed=9, guidance=2.0))), (1, 2)))
    areas = _areas(draw_sheet(tiles, (64, 64)), 3)
    assert len({top for _, top, _, _ in areas.values()}) == 3


def _ink(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return sum(count for count, value in image.getcolors(10_000_000) or [] if value == colour)


def test_title_short_names_and_settings_are_written_on_it(drawn: Callable) -> None:
    plain = GridSpec((FIRST,), (Prompt("a shoe"),))
    named = replace(plain, prompts=(Prompt("a shoe", name="red one"),))
    strong = replace(plain, seeds=(1, 2))
    size = (64, 64)
    dark = (24, 28, 36)
    base, titled = draw_sheet(drawn(plain), size), draw_sheet(drawn(plain), size, "Which is best?")
    assert _ink(titled, dark) > _ink(base, dark) and titled.height > base.height
    assert draw_sheet(drawn(named), size).height > base.height
    assert draw_sheet(drawn(strong), size).width > base.width - 1


def test_a_cell_that_was_not_drawn_and_a_preview_are_marked(drawn: Callable) -> None:
    red = (180, 35, 24)
    tiles = drawn(GridSpec((FIRST, OTHER), (Prompt("a"),)))
    clean = draw_sheet(tiles, (64, 64))
    assert _ink(clean, red) == 0
    for changed in (replace(tiles[1], path=None), replace(tiles[1], preview=True)):
        assert _ink(draw_sheet([tiles[0], changed], (64, 64)), red) > 0


@pytest.mark.parametrize("name", ["s.png", "s.jpg", "s.webp"])
def test_a_sheet_carries_its_settings_and_axes(tmp_path: Path, drawn: Callable, name: str) -> None:
    spec = GridSpec((FIRST, OTHER), (Prompt("a"),), (1, 2), title="T")
    write_sheet(drawn(spec), tmp_path / name, spec.title)
    found = read_settings(tmp_path / name)
    assert (found.prompt, found.seed) == ("a", 1) and "grid (Checkpoint name, Seed)" in found.not_restored[0]


def test_the_text_of_a_png_sheet_is_a1111s(tmp_path: Path, drawn: Callable) -> None:
    write_sheet(drawn(GridSpec((FIRST, OTHER), (Prompt("a"),))), tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as sheet:
        pairs = parse_infotext(sheet.info["parameters"]).pairs
    assert (pairs["Script"], pairs["X Type"], pairs["Steps"]) == ("X/Y/Z plot", "Checkpoint name", "12")


def test_many_long_prompts_do_not_break_a_jpeg(tmp_path: Path, drawn: Callable) -> None:
    spec = GridSpec((FIRST,), tuple(Prompt(f"{i} " + "x" * 3900) for i in range(12)))
    write_sheet(drawn(spec, 8), tmp_path / "s.jpg")
    assert read_settings(tmp_path / "s.jpg").prompt == spec.prompts[0].text


def test_a_large_grid_is_scaled_down_and_can_be_read_back(tmp_path: Path, drawn: Callable) -> None:
    tiles = drawn(GridSpec((FIRST,), (Prompt("a"),)), 2048)
    checkpoints = [replace(FIRST, key=str(i), step=i) for i in range(5)]
    many = [replace(tiles[0], cell=replace(tiles[0].cell, checkpoint=c, seed=seed)) for c in checkpoints for seed in range(5)]
    write_sheet(many, tmp_path / "s.jpg")
    with Image.open(tmp_path / "s.jpg") as sheet:
        assert max(sheet.size) <= LARGEST_SIDE and sheet.width * sheet.height <= LARGEST_PICTURE
    assert read_settings(tmp_path / "s.jpg").prompt == "a"


@pytest.mark.parametrize("text", ["", "x" * 4000, "a " * 2000, "靴" * 300, "\n\n", "\u200b \u202e"])
def test_any_prompt_and_title_can_be_laid_out(drawn: Callable, text: str) -> None:
    draw_sheet(drawn(GridSpec((FIRST, OTHER), (Prompt(text, name=text[:40]),), (1, 2)), 8), (8, 8), text)


def test_no_sheet_of_nothing_and_none_with_another_ending(tmp_path: Path, drawn: Callable) -> None:
    tiles = drawn(GridSpec((FIRST,), (Prompt("a"),)))
    with pytest.raises(BadInput, match=r"s\.gif"):
        write_sheet(tiles, tmp_path / "s.gif")
    with pytest.raises(NotFound, match="no cell"):
        write_sheet([replace(tiles[0], path=None)], tmp_path / "s.png")
