"""Writes pictures with their settings inside, and makes thumbnails."""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from cmp.errors import BadInput, Unreadable
from cmp.pictures.settings import check_size, to_exif

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LONGEST_SIDES = {"PNG": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383}  # pixels


def save_png(image: Image.Image, target: Path, infotext: str, record: Mapping[str, object]) -> None:
    """Writes a PNG with A1111's `parameters` text and our own JSON; complete under its name, or not there."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("parameters", infotext)
    chunks.add_itxt("cmp", json.dumps(record, ensure_ascii=False))
    # 1.8 × as fast as the default and 2 % larger
    _write(target, lambda file: image.save(file, "PNG", pnginfo=chunks, compress_level=1))


def format_of(target: Path) -> str:
    """PNG, JPEG or WEBP by the name's ending; raises BadInput for another."""
    kind = FORMATS.get(target.suffix.lower())
    if kind is None:
        raise BadInput(f"the picture is to be {target.name!r}", "End it with .png, .jpg or .webp.")
    return kind


def save_picture(image: Image.Image, target: Path, infotext: str) -> None:
    """Writes a PNG, JPEG or WebP by the name's ending, with A1111's text in it; complete under its name, or not there.

    Raises BadInput for another ending, and for what the format does not hold.
    """
    kind = format_of(target)
    if max(image.size) > LONGEST_SIDES[kind]:
        raise BadInput(f"the picture has {image.width} × {image.height} pixels, more than {kind} holds", "End it with .png.")
    if kind == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("parameters", infotext)
        _write(target, lambda file: image.save(file, "PNG", pnginfo=chunks))
    else:
        exif = to_exif(infotext)
        _write(target, lambda file: image.save(file, kind, exif=exif, quality=90))


def _write(target: Path, save: Callable[[IO[bytes]], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".tmp-{secrets.token_hex(8)}{target.suffix}")  # not mkstemp's, which nobody else may read
    try:
        with draft.open("xb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def thumbnail(source: Path, side: int, quality: int = 80) -> bytes:
    """A WebP of at most `side` × `side` pixels; smaller pictures keep their size. Raises Unreadable."""
    try:
        with Image.open(source) as image:
            check_size(image, source)
            small = image.convert("RGB")
            small.thumbnail((side, side))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as fault:
        raise Unreadable(f"{source} is no picture that can be read: {fault}", "Draw or copy it again.") from fault
    out = io.BytesIO()
    # drawings of few pixels are kept exact: they are looked at enlarged
    small.save(out, "WEBP", lossless=max(small.size) <= 128, quality=quality, method=2)
    return out.getvalue()


def longest_side(source: Path) -> int:
    """In pixels; 0 for what is no picture."""
    try:
        with Image.open(source) as image:
            return max(image.size)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return 0


def media_type_of(source: Path) -> str:
    """A picture's media type told from its content, not from its name; "" for what is none."""
    try:
        with Image.open(source) as image:
            return Image.MIME.get(image.format or "", "")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return ""


def whole(source: Path) -> tuple[bytes, str]:
    """A picture's bytes as they are, and its media type told from its content, not from its name; raises Unreadable."""
    try:
        with Image.open(source) as image:
            media_type = Image.MIME.get(image.format or "", "")
        content = source.read_bytes()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as fault:
        raise Unreadable(f"{source} is no picture that can be read: {fault}", "Draw or copy it again.") from fault
    if media_type not in ("image/png", "image/jpeg", "image/webp"):
        raise Unreadable(f"{source} is a {media_type or 'file of unknown type'}", "PNG, JPEG and WebP are shown.")
    return content, media_type
