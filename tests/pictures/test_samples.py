"""A trainer's picture on its way to the page."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from cmp.errors import Unreadable
from cmp.pictures.samples import sample_picture

FILE = Path("/run/validation/x.png")


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def joined(count: int) -> bytes:
    wide = Image.new("RGB", (8 * count, 8))
    for i in range(count):
        wide.paste((i, 0, 0), (8 * i, 0, 8 * i + 8, 8))
    return png(wide)


def test_a_picture_is_sent_as_it_is_and_small_where_it_is_shown_small() -> None:
    content = png(Image.new("RGB", (600, 300), "red"))
    assert sample_picture(content, FILE, None, None) == (content, "image/png")
    small, kind = sample_picture(content, FILE, 256, None)
    assert kind == "image/webp" and Image.open(io.BytesIO(small)).size == (256, 128)


def test_one_of_several_that_were_joined_is_cut_out() -> None:
    content = joined(3)
    for i in range(3):
        for side in (None, 256):
            cut = Image.open(io.BytesIO(sample_picture(content, FILE, side, (i, 3, 1))[0])).convert("RGB")
            assert cut.size == (8, 8) and cut.getpixel((4, 4)) == (i, 0, 0)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    for side in (None, 256):
        with pytest.raises(Unreadable):
            sample_picture(bomb, FILE, side, None)


def test_half_a_picture_and_what_is_none_are_not_sent() -> None:
    whole = png(Image.effect_noise((64, 64), 50))
    for content in (whole[: len(whole) // 2], b"", b"<svg onload=alert(1)></svg>", b"GIF89a" + bytes(100), whole[:8] + bytes(100)):
        for side in (None, 256):
            with pytest.raises(Unreadable, match="no picture that can be read, or is still being written"):
                sample_picture(content, FILE, side, None)
