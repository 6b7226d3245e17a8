"""A trainer's picture as the page shows it: whole or small, one of several that were joined, and never larger than memory holds."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cmp.errors import Unreadable
from cmp.pictures.settings import check_size

_SHOWN = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_FAULTS = (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError, EOFError, MemoryError)


def sample_picture(content: bytes, path: Path, side: int | None, tile: tuple[int, int, int] | None) -> tuple[bytes, str]:
    """Bytes and media type: at most `side` × `side` pixels as WebP, or with None the file as it is.

    Of what is decoded nothing is sent on unless all of it could be read: a file that is still being written is told as such. Raises
    Unreadable.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked right here
            with Image.open(io.BytesIO(content), formats=tuple(_SHOWN)) as image:
                check_size(image, path)
                kind = _SHOWN[str(image.format)]
                if side is None and tile is None:
                    image.load()
                    return content, kind
                shown = _cut(image.convert("RGB"), tile)
    except _FAULTS as fault:
        raise Unreadable(f"{path} is no picture that can be read, or is still being written: {fault}", "Look again in a moment.") from fault
    if side is None:
        return _written(shown, "PNG"), _SHOWN["PNG"]
    shown.thumbnail((side, side))
    return _written(shown, "WEBP"), _SHOWN["WEBP"]


def _cut(image: Image.Image, tile: tuple[int, int, int] | None) -> Image.Image:
    if tile is None:
        return image
    which, across, down = tile
    width, height = image.width // across, image.height // down
    left, top = which % across * width, which // across * height
    return image.crop((left, top, left + width, top + height))


def _written(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "PNG":
        image.save(out, kind, compress_level=1)
    else:  # pictures of few pixels are kept exact: they are looked at enlarged
        image.save(out, kind, lossless=max(image.size) <= 128, quality=80, method=2)
    return out.getvalue()
