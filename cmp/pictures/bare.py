"""Pictures that say nothing but what they show: their settings, and the names of models and folders in those, stay here."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cmp.errors import Unreadable
from cmp.pictures.settings import check_size

_FAULTS = (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError, EOFError)


def bare_picture(source: Path, side: int | None, kind: str = "WEBP") -> bytes:
    """The pixels alone as "WEBP" or "PNG", at most `side` × `side` of them, with None as many as there are. Raises Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked right here
            with Image.open(source) as image:
                check_size(image, source)
                shown = image.convert("RGB")
    except _FAULTS as fault:
        raise Unreadable(f"{source} is no picture that can be read: {fault}", "Draw or copy it again.") from fault
    shown.info.clear()  # what was read with it, such as a profile, is written again otherwise
    if side is not None:
        shown.thumbnail((side, side))
    out = io.BytesIO()
    if kind == "PNG":
        shown.save(out, "PNG", optimize=False)
    else:  # pictures of few pixels are kept exact: they are looked at enlarged
        shown.save(out, "WEBP", lossless=max(shown.size) <= 128, quality=88, method=2)
    return out.getvalue()
