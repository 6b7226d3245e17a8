"""A matrix over its steps as a moving picture, written frame by frame: the memory is that of one, however many there are.

GIF: https://www.w3.org/Graphics/GIF/spec-gif89a.txt. WebP: https://developers.google.com/speed/webp/docs/riff_container.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from PIL import GifImagePlugin, Image

from cmp.core.infotext import plot_pairs
from cmp.errors import BadInput, NotFound
from cmp.pictures.layouts import Layout, Limits, Subject, lay_out
from cmp.pictures.lettering import clean
from cmp.pictures.settings import LONGEST_EXIF, to_exif
from cmp.pictures.sheets import draw, drawn_cells, largest, settings_of

LIMITS = Limits(4096, 6_000_000)  # a moving picture is looked at as a whole
USUAL, SHORTEST, LONGEST = 700, 20, 60_000  # milliseconds of a frame
_LAST = 2  # times as long is the last frame shown, so that one sees where it begins again


def check_duration(milliseconds: int) -> int:
    """The duration of a frame; raises BadInput for one that no program shows."""
    if not SHORTEST <= milliseconds <= LONGEST:
        raise BadInput(f"a frame is to last {milliseconds} ms", f"Use {SHORTEST} to {LONGEST}.")
    return milliseconds


def write_animation(frames: Sequence[Subject], target: Path, milliseconds: int = USUAL) -> tuple[str, ...]:
    """Writes a GIF or WebP by the ending of `target`, one frame for each subject; all must have the same columns and rows.

    It begins again for ever. Gives in words what became of its size. Raises NotFound if nothing was drawn, BadInput for another ending.
    """
    kind = {".gif": "GIF", ".webp": "WEBP"}.get(target.suffix.lower())
    if kind is None:
        raise BadInput(f"the animation is to be {target.name!r}", "End it with .gif or .webp.")
    drawn = [found for frame in frames for found in drawn_cells(frame)]
    if not drawn:
        raise NotFound("no cell that is shown was drawn, so there is no animation", "See what stands against the cells.")
    sheets = lay_out(frames[0], largest(path for _, path in drawn), LIMITS, cut=False)
    if len(sheets.parts) > 1:
        told = f"the animation would have {len(frames[0].arranged.columns)} columns and {len(frames[0].arranged.rows)} rows"
        raise BadInput(told, "Hide some, or choose one value of an axis.")
    notes = (f"its cells are scaled to {sheets.scale:.0%}",) if sheets.scale < 1 else ()
    told = plot_pairs([("Step", [frame.stamp for frame in frames])], frames[0].title, [("Sheet", ", ".join(notes))])
    text = ", ".join(filter(None, (settings_of(drawn[0][1]), told)))
    durations = [check_duration(milliseconds)] * (len(frames) - 1) + [min(milliseconds * _LAST, LONGEST)]
    (_write_gif if kind == "GIF" else _write_webp)(target, _pictures(frames, sheets.parts[0]), sheets.parts[0].size, durations, text)
    return notes


def _pictures(frames: Sequence[Subject], layout: Layout) -> Iterator[Image.Image]:
    """One at a time. The layout is the first one's, with the other's own stamp in it."""
    for frame in frames:
        top = layout.top if not frame.stamp else (*layout.top[:-1], replace(layout.top[-1], text=clean(frame.stamp)[:200]))
        yield draw(frame, replace(layout, top=top))


# -- GIF -------------------------------------------------------------------------------------------------------------------


def _write_gif(target: Path, pictures: Iterable[Image.Image], size: tuple[int, int], durations: Sequence[int], text: str) -> None:
    with target.open("wb") as file:
        file.write(b"GIF89a" + struct.pack("<HHBBB", *size, 0x70, 0, 0))  # no palette for all
        file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # begins again, for ever
        file.write(b"\x21\xfe" + _blocks(text.encode("utf-8", "replace")) + b"\x00")
        for picture, duration in zip(pictures, durations, strict=True):
            frame = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
            for part in GifImagePlugin.getdata(frame, duration=duration, include_color_table=True):
                file.write(part)
        file.write(b"\x3b")


def _blocks(content: bytes) -> bytes:
    return b"".join(bytes([len(part)]) + part for i in range(0, len(content), 255) if (part := content[i : i + 255]))


# -- WebP ------------------------------------------------------------------------------------------------------------------


def _write_webp(target: Path, pictures: Iterable[Image.Image], size: tuple[int, int], durations: Sequence[int], text: str) -> None:
    exif = to_exif(text) if 2 * len(text) < LONGEST_EXIF - 8 else b""
    with target.open("wb") as file:
        file.write(b"RIFF\0\0\0\0WEBP")
        _chunk(file, b"VP8X", bytes([0x02 | (0x08 if exif else 0), 0, 0, 0]) + _three(size[0] - 1) + _three(size[1] - 1))
        _chunk(file, b"ANIM", b"\xff\xff\xff\xff" + struct.pack("<H", 0))
        for picture, duration in zip(pictures, durations, strict=True):
            place = _three(0) * 2 + _three(size[0] - 1) + _three(size[1] - 1) + _three(duration) + b"\x02"  # not blended
            _chunk(file, b"ANMF", place + _still(picture))
        if exif:
            _chunk(file, b"EXIF", exif.removeprefix(b"Exif\0\0"))  # which is JPEG's
        end = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", end - 8))


def _still(picture: Image.Image) -> bytes:
    """The chunk of a still WebP that holds its pixels."""
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=85, method=2)
    content, at = out.getvalue(), 12
    while at < len(content):
        name, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return content[at : at + 8 + length + length % 2]
        at += 8 + length + length % 2
    raise ValueError("the encoder wrote no picture")


def _chunk(file: IO[bytes], name: bytes, content: bytes) -> None:
    file.write(name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2))


def _three(number: int) -> bytes:
    return number.to_bytes(3, "little")
