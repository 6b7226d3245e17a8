"""A picture's pixels as a model is to see them: upright, in RGB, what is transparent white."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from cmp.errors import Unreadable
from cmp.pictures.settings import check_size

_FAULTS = (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError, EOFError, MemoryError)


def read_rgb(content: bytes, name: object, tile: tuple[int, int, int] | None = None) -> Image.Image:
    """The whole picture, or one of several that were put side by side: (which, columns, rows). Raises Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked right here
            with Image.open(io.BytesIO(content)) as opened:
                check_size(opened, name)
                found = _in_rgb(ImageOps.exif_transpose(opened))
    except _FAULTS as fault:
        raise Unreadable(f"{name} is no picture that can be read: {str(fault)[:200]}", "Take it away, or copy it anew.") from fault
    if tile is None:
        return found
    which, across, down = tile
    width, height = found.width // across, found.height // down
    left, top = which % across * width, which // across * height
    return found.crop((left, top, left + width, top + height))


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
