"""This machine's own record of how long pictures take and how large they become, for the plans to come."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cmp.core.grids import Sampling
from cmp.disk.bases import native_size
from cmp.disk.store import Store
from cmp.engine.prepare import Clothes, Prepared, size_of
from cmp.engine.samplers import calls, is_guided
from cmp.errors import Refused

_PACE = "pace of calls"  # seconds for each place that the denoiser computes once, and bytes for each place of a picture
_LOSSES = "pace of losses"  # seconds for each prediction that is measured
_NEWEST = 0.3  # how much the newest measurement counts against all before it


def remember_pace(store: Store, device: str, batch: Iterable[Prepared], seconds: float, sizes: Iterable[int]) -> None:
    """Keeps what a batch took, and the bytes of its files; where nothing can be kept, nothing is."""
    batch, measured = list(batch), _Measured()
    work, places = (sum(both) for both in zip(*map(measured.of, batch), strict=True))
    now = [seconds / work, sum(sizes) / places]
    before = _recorded(store, device, batch[0])
    if before:
        now = [old + _NEWEST * (new - old) for old, new in zip(before, now, strict=True)]
    try:
        store.put(_PACE, _subject(device, batch[0]), now)
    except Refused:
        return


def expect(store: Store, device: str, cells: Iterable[Prepared]) -> tuple[float | None, int | None]:
    """Seconds and bytes that drawing these cells will take, None where one of their kind has never been drawn here."""
    seconds = size = 0.0
    measured = _Measured()
    for one in cells:
        recorded = _recorded(store, device, one)
        if recorded is None:
            return None, None
        work, places = measured.of(one)
        seconds += recorded[0] * work
        size += recorded[1] * places
    return seconds, round(size)


def remember_loss_pace(store: Store, device: str, clothes: Clothes, seconds: float) -> None:
    """Keeps how long one prediction took that was measured; where nothing can be kept, nothing is."""
    before = _loss_pace(store, device, clothes)
    with suppress(Refused):
        store.put(_LOSSES, f"{device}|{clothes.base}", seconds if before is None else before + _NEWEST * (seconds - before))


def expect_losses(store: Store, device: str, clothes: Clothes, calls: int) -> float | None:
    """Seconds that so many predictions will take: as they took here before, or else as pictures did that were drawn with this base.

    None where neither was done here.
    """
    known = _loss_pace(store, device, clothes)
    if known is None:
        width, height = native_size(clothes.folder)
        drawn = (store.get(_PACE, f"{device}|{mode}|{clothes.base}") for mode in ("fast", "exact"))
        pace = next((float(found[0]) for found in drawn if isinstance(found, list) and len(found) == 2), None)
        known = None if pace is None else pace * width * height / 64
    return None if known is None else known * calls


def _loss_pace(store: Store, device: str, clothes: Clothes) -> float | None:
    found = store.get(_LOSSES, f"{device}|{clothes.base}")
    return float(found) if isinstance(found, int | float) else None


def _recorded(store: Store, device: str, one: Prepared) -> list[float] | None:
    found = store.get(_PACE, _subject(device, one))
    return [float(value) for value in found] if isinstance(found, list) and len(found) == 2 else None


def _subject(device: str, one: Prepared) -> str:
    return f"{device}|{one.mode}|{one.clothes.base}"


@dataclass(slots=True)
class _Measured:
    """What cells cost, counted once for all that are drawn in the same way."""

    _known: dict[tuple[Path, Sampling], tuple[float, float]] = field(default_factory=dict)

    def of(self, one: Prepared) -> tuple[float, float]:
        """How many places of 8 × 8 pixels the denoiser computes for a picture, over all its calls; and how many the picture has."""
        folder, sampling = one.clothes.folder, one.drawn.sampling
        if (folder, sampling) not in self._known:
            width, height = size_of(one)
            places = width * height / 64
            work = places * calls(folder, sampling) * (2 if is_guided(folder, sampling) else 1)
            self._known[folder, sampling] = work, places
        return self._known[folder, sampling]
