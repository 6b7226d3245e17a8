"""A picture as a model is trained with it: upright, in RGB, scaled until it covers a size, and cut to it around the middle."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from cmp.errors import Unreadable
from cmp.pictures.settings import check_size

_FAULTS = (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError, EOFError, MemoryError)


def cropped(path: Path, width: int, height: int) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """(height, width, 3) values of 0 … 255, and the size that the picture had; raises Unreadable. What is transparent becomes white."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked right here
            with Image.open(path) as opened:
                check_size(opened, path)
                upright = ImageOps.exif_transpose(opened)
                image = _in_rgb(upright)
                had = image.size
                fitted = image if had == (width, height) else ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
                return np.asarray(fitted, dtype=np.uint8).copy(), had
    except _FAULTS as fault:
        raise Unreadable(f"{path} is no picture that can be read: {str(fault)[:200]}", "Take it out of the folder, or mend it.") from fault


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    whole = image.convert("RGBA")
    under = Image.new("RGBA", whole.size, "white")
    return Image.alpha_composite(under, whole).convert("RGB")
