"""Sheets: every cell in its place, every label there, the settings inside, and no grid too large or too odd for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cmp.core.arranging import arrange, read_matrix
from cmp.core.grids import Fault, GridSpec, Own, Prompt, Sampling, Tile
from cmp.core.infotext import parse_infotext, to_infotext
from cmp.core.matrices import grid_matrix
from cmp.core.runs import Checkpoint
from cmp.core.views import View
from cmp.errors import BadInput, NotFound
from cmp.pictures import sheets
from cmp.pictures.files import save_png
from cmp.pictures.layouts import Limits, Subject, lay_out
from cmp.pictures.settings import read_settings
from cmp.pictures.sheets import LIMITS, draw, write_sheet

FIRST = Checkpoint("shoes", "500", Path("/r/500"), "x", "lora", step=500)
OTHER = Checkpoint("a_run_with_a_name_that_is_wider_than_any_cell_can_be", "final", Path("/o"), "x", "lora")
Draw = Callable[..., list[Tile]]


@pytest.fixture
def drawn(tmp_path: Path) -> Draw:
    """Tiles of a grid, each of one colour that no other has."""

    def make(spec: GridSpec, side: int = 64) -> list[Tile]:
        tiles = []
        for i, cell in enumerate(spec.cells()):
            path = tmp_path / f"{i}.png"
            image = Image.new("RGB", (side, side), _colour(i))
            save_png(image, path, to_infotext(cell, image.size, "tiny-sd", None, "0.1"), {})
            tiles.append(Tile(cell, f"k{i}", path))
        return tiles

    return make


def _colour(i: int) -> tuple[int, int, int]:
    return 10 + i % 20 * 12, 10 + i // 20 * 12, 200


def subject(spec: GridSpec, tiles: list[Tile], view: View = View()) -> Subject:
    value = grid_matrix(spec, tiles, lambda c: ("base model", "") if c is None else (f"step {c.key}", c.run_id))
    paths = {tile.key: tile.path for tile in tiles}
    return Subject(arrange(*read_matrix(value), view), lambda cell: paths.get(cell.key), spec.title)


def sheet(spec: GridSpec, tiles: list[Tile], own: int = 64, view: View = View()) -> Image.Image:
    shown = subject(spec, tiles, view)
    (layout,) = lay_out(shown, (own, own), LIMITS).parts
    return draw(shown, layout)


def write(spec: GridSpec, tiles: list[Tile], target: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    return write_sheet(
        subject(spec, tiles), target, lambda part: target.with_name(f"{target.stem}-{part}{target.suffix}") if part else target
    )


def _areas(image: Image.Image, count: int) -> dict[int, tuple[int, int, int, int]]:
    """Where each tile's colour is: left, top, and how many pixels of it there are across and down."""
    found: dict[int, tuple[int, int, int, int]] = {}
    red, green, blue = image.convert("RGB").split()
    black = Image.new("L", image.size)
    for i in range(count):
        mask = red.point([255 * (v == _colour(i)[0]) for v in range(256)])
        for band, wanted in ((green, _colour(i)[1]), (blue, 200)):
            mask = Image.composite(mask, black, band.point([255 * (v == wanted) for v in range(256)]))
        left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
        found[i] = (left, top, right - left, bottom - top)
    return found


def _dark(image: Image.Image) -> int:
    return sum(count for count, value in image.getcolors(10_000_000) or [] if max(value) < 120)  # type: ignore[type-var, arg-type]


def _reddish(image: Image.Image) -> int:
    return sum(count for count, (r, g, b) in image.getcolors(10_000_000) or [] if r > max(g, b) + 60)  # type: ignore[misc]


def test_cells_of_one_checkpoint_and_strength_stand_in_one_column_and_those_of_one_setting_in_one_row(drawn: Draw) -> None:
    spec = GridSpec(
        (None, FIRST, OTHER), (Prompt("a", name="A"), Prompt("b", "bad")), (1, 2), (0.5, 1.0),
        (Sampling(guidance=4), Sampling(guidance=7)), title="Title",
    )  # fmt: skip
    tiles = drawn(spec)
    areas = _areas(sheet(spec, tiles), len(tiles))
    columns: dict[object, set[int]] = {}
    rows: dict[object, set[int]] = {}
    for i, tile in enumerate(tiles):
        left, top, across, down = areas[i]
        assert (across, down) == (128, 128), "each is there in full, and no other lies over it"
        columns.setdefault((tile.cell.checkpoint, tile.cell.strength if tile.cell.checkpoint else 0), set()).add(left)
        rows.setdefault((tile.cell.prompt, tile.cell.seed, tile.cell.sampling), set()).add(top)
    assert len(columns) == 5 and all(len(at) == 1 for at in columns.values()) and len(set.union(*columns.values())) == 5
    assert len(rows) == 8 and all(len(at) == 1 for at in rows.values()) and len(set.union(*rows.values())) == 8


def test_a_view_turns_hides_and_picks(drawn: Draw) -> None:
    spec = GridSpec((FIRST, OTHER), (Prompt("a"),), (1, 2, 3))
    tiles = drawn(spec)
    hidden = {"run": frozenset({FIRST.run_id})}
    areas = _areas(sheet(spec, tiles, view=View({"checkpoint": "y", "seed": "x"}, {"seed": ("3",)}, hidden)), 6)
    there = {(tiles[i].cell.checkpoint, tiles[i].cell.seed): left for i, (left, _, across, _) in areas.items() if across}
    assert set(there) == {(OTHER, 1), (OTHER, 2), (OTHER, 3)} and there[OTHER, 3] < there[OTHER, 1] < there[OTHER, 2]
    areas = _areas(sheet(spec, tiles, view=View({"seed": ""}, pick={"seed": "2"})), 6)
    assert [tiles[i].cell.seed for i, (_, _, across, _) in areas.items() if across] == [2, 2]


def test_prompts_with_values_of_their_own_have_rows_of_their_own(drawn: Draw) -> None:
    spec = GridSpec((FIRST,), (Prompt("a"), Prompt("b", own=Own(seed=9, guidance=2.0))), (1, 2))
    areas = _areas(sheet(spec, drawn(spec)), 3)
    assert len({top for _, top, _, _ in areas.values()}) == 3


def test_title_and_short_names_are_written_on_it(drawn: Draw) -> None:
    plain = GridSpec((FIRST,), (Prompt("a shoe"), Prompt("a hat")))
    titled = replace(plain, title="Which is best?")
    tiles = drawn(plain)
    base, with_title = sheet(plain, tiles), sheet(titled, tiles)
    assert _dark(with_title) > _dark(base) and with_title.height > base.height
    named = replace(plain, prompts=(Prompt("a shoe", name="red one"), Prompt("a hat")))
    assert _dark(sheet(named, drawn(named))) > _dark(base), "a name stands over the words, and does not take their place"


def test_failed_missing_gone_and_unreadable_cells_are_told_apart(tmp_path: Path, drawn: Draw) -> None:
    spec = GridSpec((FIRST, OTHER), (Prompt("a"),))
    tiles = drawn(spec)
    clean = sheet(spec, tiles)
    assert _reddish(clean) == 0
    (tmp_path / "broken.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    changed = {
        "failed": replace(tiles[1], path=None, fault=Fault("it is broken", "Mend it.")),
        "preview": replace(tiles[1], preview=True),
        "gone": replace(tiles[1], path=None),
        "unreadable": replace(tiles[1], path=tmp_path / "broken.png"),
    }
    pixels = {name: sheet(spec, [tiles[0], tile]).tobytes() for name, tile in changed.items()} | {
        "missing": sheet(spec, tiles[:1]).tobytes()
    }
    assert len(set(pixels.values())) == 5
    for name in changed:
        assert _reddish(Image.frombytes("RGB", clean.size, pixels[name])) > 0, name
    assert _reddish(sheet(spec, tiles[:1])) == 0, "a cell that nobody has drawn yet is no fault"


@pytest.mark.parametrize("name", ["s.png", "s.jpg", "s.webp"])
def test_a_sheet_carries_its_settings_and_axes(tmp_path: Path, drawn: Draw, name: str) -> None:
    spec = GridSpec((FIRST, OTHER), (Prompt("a"),), (1, 2), title="T")
    write(spec, drawn(spec), tmp_path / name)
    found = read_settings(tmp_path / name)
    assert (found.prompt, found.seed) == ("a", 1) and "grid (Checkpoint name, Run, Seed)" in found.not_restored[0]


def test_the_text_of_a_png_sheet_is_a1111s(tmp_path: Path, drawn: Draw) -> None:
    spec = GridSpec((FIRST, replace(FIRST, key="1000", step=1000)), (Prompt("a"),), (7, 8))
    write(spec, drawn(spec), tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as image:
        pairs = parse_infotext(image.info["parameters"]).pairs
    assert (pairs["Script"], pairs["X Type"], pairs["Steps"], pairs["Fixed Y Values"]) == ("X/Y/Z plot", "Checkpoint name", "12", "7, 8")
    assert "Sheet" not in pairs


def test_many_long_prompts_do_not_break_a_jpeg(tmp_path: Path, drawn: Draw) -> None:
    spec = GridSpec((FIRST,), tuple(Prompt(f"{i} " + "x" * 3900) for i in range(12)))
    write(spec, drawn(spec, 8), tmp_path / "s.jpg")
    assert read_settings(tmp_path / "s.jpg").prompt == spec.prompts[0].text


def test_a_large_grid_is_scaled_down_and_says_so(tmp_path: Path, drawn: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "LIMITS", Limits(1000, 900_000))
    spec = GridSpec((FIRST, OTHER), (Prompt("a"),), (1, 2))
    paths, notes = write(spec, drawn(spec, 1024), tmp_path / "s.webp")
    with Image.open(tmp_path / "s.webp") as image:
        assert max(image.size) <= 1000 and image.width * image.height <= 900_000
    assert paths == (tmp_path / "s.webp",) and "scaled to" in notes[0] and read_settings(tmp_path / "s.webp").prompt == "a"


def test_what_no_picture_holds_comes_in_numbered_parts_with_every_cell_once(
    tmp_path: Path, drawn: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "LIMITS", Limits(700, 400_000))
    checkpoints = tuple(replace(FIRST, key=str(i), step=i) for i in range(9))
    spec = GridSpec(checkpoints, (Prompt("a"),), tuple(range(7)))
    tiles = drawn(spec, 128)
    paths, notes = write(spec, tiles, tmp_path / "s.png")
    assert [path.name for path in paths] == [f"s-{i}.png" for i in range(1, len(paths) + 1)] and len(paths) > 3
    assert f"{len(paths)} parts" in notes[-1] and not (tmp_path / "s.png").exists()
    seen: list[int] = []
    for number, path in enumerate(paths, start=1):
        with Image.open(path) as image:
            assert max(image.size) <= 700 and image.width * image.height <= 400_000
            assert f"part {number} of {len(paths)}" in parse_infotext(image.info["parameters"]).pairs["Sheet"]
            seen += [i for i, (_, _, across, _) in _areas(image, len(tiles)).items() if across]
    assert sorted(seen) == list(range(len(tiles)))


@pytest.mark.parametrize(
    "text", ["", "x" * 4000, "a " * 2000, "靴" * 300, "\n\n", "\u200b \u202e", "نعل أحمر", "👟🏽 👨‍👩‍👧", "\ud800", "\x00\x1b[31m", "नमस्ते"]
)
def test_any_prompt_and_title_can_be_laid_out(drawn: Draw, text: str) -> None:
    spec = GridSpec((FIRST, OTHER), (Prompt(text, name=text[:40]), Prompt("b")), (1, 2), title=text)
    tiles = [Tile(cell, "", fault=Fault(text or "-")) for cell in spec.cells()]
    for view in (View(), View({"prompt": "x"}), View({"prompt": "X", "checkpoint": "Y"})):
        sheet(spec, tiles, view=view)


def test_no_sheet_of_nothing_and_none_with_another_ending(tmp_path: Path, drawn: Draw) -> None:
    spec = GridSpec((FIRST,), (Prompt("a"),))
    tiles = drawn(spec)
    with pytest.raises(BadInput, match=r"s\.gif"):
        write(spec, tiles, tmp_path / "s.gif")
    with pytest.raises(NotFound, match="no cell"):
        write(spec, [replace(tiles[0], path=None)], tmp_path / "s.png")
