"""A picture as a model is measured on it: upright, at one size, and its size known before it is looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmp.errors import Unreadable
from cmp.pictures.cropping import cropped, upright_size


@pytest.mark.parametrize("turned", range(1, 9))
def test_the_size_by_the_header_is_that_of_the_picture_as_it_is_cut(tmp_path: Path, turned: int) -> None:
    file, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = turned
    Image.new("RGB", (40, 20), "red").save(file, exif=exif)
    values, had = cropped(file, 16, 16)
    assert values.shape == (16, 16, 3) and upright_size(file) == had == ((20, 40) if turned > 4 else (40, 20))


def test_the_middle_stays_and_what_is_transparent_is_white(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 4), dtype=np.uint8)
    wide[:, 10:20] = (0, 0, 255, 255)
    Image.fromarray(wide, "RGBA").save(tmp_path / "a.png")
    assert (cropped(tmp_path / "a.png", 10, 10)[0] == (0, 0, 255)).all()
    Image.fromarray(wide[:, :10], "RGBA").save(tmp_path / "b.png")
    assert (cropped(tmp_path / "b.png", 10, 10)[0] == 255).all()


def test_what_is_no_picture_is_refused_by_its_header_already(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    for read in (upright_size, lambda file: cropped(file, 8, 8)):
        with pytest.raises(Unreadable, match=r"a\.png is no picture"):
            read(tmp_path / "a.png")
