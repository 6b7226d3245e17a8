"""Animations: one frame for each step, each as long as it was asked to be, whatever program opens them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from cmp.core.arranging import over_steps, read_matrix
from cmp.core.grids import GridSpec, Prompt, Tile
from cmp.core.infotext import to_infotext
from cmp.core.matrices import grid_matrix
from cmp.core.runs import Checkpoint
from cmp.errors import BadInput, NotFound
from cmp.pictures import animations
from cmp.pictures.animations import write_animation
from cmp.pictures.files import save_png
from cmp.pictures.layouts import Limits, Subject
from cmp.pictures.settings import read_settings

STEPS = tuple(Checkpoint("shoes", str(step), Path("/r"), "x", "lora", step=step) for step in (500, 1000, 1500))
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


def frames(folder: Path, seeds: tuple[int, ...] = (1,), side: int = 128, count: int = 3) -> list[Subject]:
    spec = GridSpec(STEPS[:count], (Prompt("a"),), seeds, title="Over the steps")
    tiles = []
    for i, cell in enumerate(spec.cells()):
        assert cell.checkpoint
        image = Image.new("RGB", (side, side), COLOURS[STEPS.index(cell.checkpoint)])
        save_png(image, folder / f"{i}.png", to_infotext(cell, image.size, "tiny", None, "0"), {})
        tiles.append(Tile(cell, f"k{i}", folder / f"{i}.png"))
    value = grid_matrix(spec, tiles, lambda c: (f"step {c.key}", "") if c else ("base model", ""))
    paths = {tile.key: tile.path for tile in tiles}
    shown = over_steps(*read_matrix(value))
    return [Subject(arranged, lambda cell: paths.get(cell.key), spec.title, (), str(head["label"])) for head, arranged in shown]


@pytest.mark.parametrize("name", ["s.gif", "s.webp"])
def test_every_step_is_one_frame_that_lasts_as_long_as_asked_and_the_last_one_longer(tmp_path: Path, name: str) -> None:
    assert write_animation(frames(tmp_path), tmp_path / name, 250) == ()
    lasted = []
    with Image.open(tmp_path / name) as image:
        assert (image.n_frames, image.info["loop"]) == (3, 0)
        for i, colour in enumerate(COLOURS):
            image.seek(i)
            shown = image.convert("RGB")
            lasted.append(image.info["duration"])
            middle = shown.getpixel((shown.width - 74, shown.height - 74))
            assert all(abs(a - b) < 12 for a, b in zip(middle, colour, strict=True)), "and nothing of the frame before it"  # type: ignore[arg-type]
    assert lasted == [250, 250, 500]


@pytest.mark.parametrize("name", ["s.gif", "s.webp"])
def test_the_step_is_written_into_each_frame(tmp_path: Path, name: str) -> None:
    same = frames(tmp_path, count=1) * 2
    other = [same[0], Subject(same[0].arranged, same[0].path_of, same[0].title, (), "step 9")]
    write_animation(other, tmp_path / name)
    with Image.open(tmp_path / name) as image:
        pixels = []
        for i in range(image.n_frames):
            image.seek(i)
            pixels.append(image.convert("RGB").crop((0, 0, image.width, 70)).tobytes())
    assert pixels[0] != pixels[1]


def test_the_settings_of_the_first_picture_are_in_a_webp_and_can_be_read_back(tmp_path: Path) -> None:
    write_animation(frames(tmp_path, (4, 5)), tmp_path / "s.webp")
    found = read_settings(tmp_path / "s.webp")
    assert (found.prompt, found.seed) == ("a", 4) and "grid (Step)" in found.not_restored[0]


def test_no_frame_is_made_before_the_one_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    target = tmp_path / "s.webp"
    drawn = animations._pictures

    def watched(*given: object) -> Iterator[Image.Image]:
        for picture in drawn(*given):  # type: ignore[arg-type]
            yield picture
            sizes.append(target.stat().st_size)

    monkeypatch.setattr(animations, "_pictures", watched)
    monkeypatch.setattr(animations.io, "DEFAULT_BUFFER_SIZE", 1)
    many = frames(tmp_path, tuple(range(9)))
    for picture in many[0].arranged.placed.values():
        path = many[0].path_of(picture)
        assert path
        Image.effect_noise((128, 128), 90).convert("RGB").save(path)
    write_animation(many, target)
    assert sizes[0] > 8192 and sizes == sorted(set(sizes)), "the file has grown each time a frame was done"


def test_a_large_one_is_scaled_down_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animations, "LIMITS", Limits(500, 200_000))
    notes = write_animation(frames(tmp_path, (1, 2), 512), tmp_path / "s.gif")
    with Image.open(tmp_path / "s.gif") as image:
        assert max(image.size) <= 500 and image.width * image.height <= 200_000
    assert "scaled to" in notes[0]


def test_what_cannot_be_an_animation_is_refused(tmp_path: Path) -> None:
    some = frames(tmp_path)
    for name, milliseconds in (("s.png", 100), ("s.gif", 5), ("s.webp", 10**6)):
        with pytest.raises(BadInput):
            write_animation(some, tmp_path / name, milliseconds)
    with pytest.raises(NotFound):
        write_animation([Subject(frame.arranged, lambda cell: None) for frame in some], tmp_path / "s.gif")
