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
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # an EXIF tag, and its values that swap width and height


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
        raise _unreadable(path, fault) from fault


def upright_size(path: Path) -> tuple[int, int]:
    """The size of a picture as it is meant to be seen, by its header alone; raises Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked right here
            with Image.open(path) as opened:
                check_size(opened, path)
                width, height = opened.size
                return (height, width) if opened.getexif().get(_ORIENTATION, 1) in _TURNED else (width, height)
    except _FAULTS as fault:
        raise _unreadable(path, fault) from fault


def _unreadable(path: Path, fault: BaseException) -> Unreadable:
    return Unreadable(f"{path} is no picture that can be read: {str(fault)[:200]}", "Take it out of the folder, or mend it.")


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    whole = image.convert("RGBA")
    under = Image.new("RGBA", whole.size, "white")
    return Image.alpha_composite(under, whole).convert("RGB")
