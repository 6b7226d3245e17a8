"""This machine's own record of how long pictures take and how large they become, for the plans to come."""

from __future__ import annotations

from collections.abc import Iterable

from cmp.disk.store import Store
from cmp.engine.prepare import Prepared, size_of
from cmp.errors import Refused

_NEWEST = 0.3  # how much the newest measurement counts against all before it


def remember_pace(store: Store, device: str, batch: Iterable[Prepared], seconds: float, sizes: Iterable[int]) -> None:
    """Keeps what a batch took, and the bytes of its files; where nothing can be kept, nothing is."""
    batch = list(batch)
    work, places = sum(map(_work, batch)), sum(map(_places, batch))
    now = [seconds / work, sum(sizes) / places]
    before = _recorded(store, device, batch[0])
    if before:
        now = [old + _NEWEST * (new - old) for old, new in zip(before, now, strict=True)]
    try:
        store.put("pace", _subject(device, batch[0]), now)
    except Refused:
        return


def expect(store: Store, device: str, cells: Iterable[Prepared]) -> tuple[float | None, int | None]:
    """Seconds and bytes that drawing these cells will take, None where one of their kind has never been drawn here."""
    seconds = size = 0.0
    for one in cells:
        recorded = _recorded(store, device, one)
        if recorded is None:
            return None, None
        seconds += recorded[0] * _work(one)
        size += recorded[1] * _places(one)
    return seconds, round(size)


def _recorded(store: Store, device: str, one: Prepared) -> list[float] | None:
    found = store.get("pace", _subject(device, one))
    return [float(value) for value in found] if isinstance(found, list) and len(found) == 2 else None


def _subject(device: str, one: Prepared) -> str:
    return f"{device}|{one.mode}|{one.clothes.base}"


def _work(one: Prepared) -> float:
    return one.drawn.sampling.steps * _places(one)


def _places(one: Prepared) -> float:
    width, height = size_of(one)
    return width * height / 64
