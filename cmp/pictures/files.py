"""Writes pictures with their settings inside, and makes thumbnails."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from cmp.errors import Unreadable

LARGEST_PICTURE = 64_000_000  # pixels of a foreign picture that is still opened


def save_png(image: Image.Image, target: Path, infotext: str, record: Mapping[str, object]) -> None:
    """Writes a PNG with A1111's `parameters` text and our own JSON; complete under its name, or not there."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("parameters", infotext)
    chunks.add_itxt("cmp", json.dumps(record, ensure_ascii=False))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=".tmp-", suffix=".png")
    try:
        with os.fdopen(handle, "wb") as file:
            image.save(file, "PNG", pnginfo=chunks, compress_level=1)  # 1.8 × as fast as the default and 2 % larger
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        Path(draft).unlink(missing_ok=True)


def thumbnail(source: Path, side: int) -> bytes:
    """A WebP of at most `side` × `side` pixels; smaller pictures keep their size. Raises Unreadable."""
    try:
        with Image.open(source) as image:
            if image.width * image.height > LARGEST_PICTURE:
                raise Unreadable(f"{source} has {image.width} × {image.height} pixels", "Pictures of that size are not shown.")
            small = image.convert("RGB")
            small.thumbnail((side, side))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as fault:
        raise Unreadable(f"{source} is no picture that can be read: {fault}", "Draw or copy it again.") from fault
    out = io.BytesIO()
    # drawings of few pixels are kept exact: they are looked at enlarged
    small.save(out, "WEBP", lossless=max(small.size) <= 128, quality=80, method=2)
    return out.getvalue()


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
