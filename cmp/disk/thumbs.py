"""Small pictures that were made once: the page asks for hundreds of them at a time. Any of them can be made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from cmp.disk.replacing import keep_if_possible

_KEPT_FOR = 30 * 86400.0  # seconds since it was made
WORTH_KEEPING = 2_000  # bytes; making a smaller one takes no longer than reading it


def kept_thumbnail(home: Path, digest: str, side: int, make: Callable[[], bytes]) -> bytes:
    """The thumbnail of a picture by its digest, made if it is not there. What cannot be kept is given all the same."""
    place = _place(home, digest, side)
    with suppress(OSError):
        return place.read_bytes()
    content = make()
    if len(content) >= WORTH_KEEPING:
        keep_if_possible(place, content)
    return content


def sweep_thumbnails(home: Path, gone: Iterable[str], now: float | None = None) -> None:
    """Removes those of pictures that are gone, and those that were made long ago: a trainer's pictures may have gone unseen."""
    names = set(gone)
    limit = (time.time() if now is None else now) - _KEPT_FOR
    for file in (home / "thumbs").glob("??/*"):
        with suppress(OSError):
            if file.name.partition(".")[0] in names or file.stat().st_mtime < limit:
                file.unlink()


def _place(home: Path, digest: str, side: int) -> Path:
    return home / "thumbs" / digest[:2] / f"{digest}.{side}.webp"
