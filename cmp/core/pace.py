"""How long writing takes: estimated before it begins, measured while it goes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cmp.core.conversion import ConversionPlan
from cmp.core.present import size_text

USUAL = 100_000_000  # bytes a second that are read, computed, written, synced and read back, on a plain disk; until it is measured
SURE = 1_000_000  # bytes, and a hundredth of all, by which a rate can be told: before them it is that of loading libraries
EACH = 0.5  # seconds that one conversion takes however small it is


@dataclass(frozen=True, slots=True)
class Pace:
    """`done` of `total` bytes were read, written or read back in so many seconds."""

    done: int
    total: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Bytes a second; None while there is nothing to judge by."""
        return self.done / self.seconds if self.done >= max(SURE, self.total / 100) and self.seconds > 0 else None

    def __str__(self) -> str:
        if not self.rate:
            return f"{size_text(self.total)} to read and write"
        left = (self.total - self.done) / self.rate
        return f"{size_text(self.done)} of {size_text(self.total)}, {size_text(self.rate)}/s, {duration_text(left)} left"


def bytes_of_work(plan: ConversionPlan) -> int:
    """How many bytes a conversion writes and reads back; what the proof of its base reads comes to that where it is not known."""
    return 2 * plan.bytes


def expected_seconds(plans: Iterable[ConversionPlan], rate: float | None = None) -> float:
    """How long conversions will take, at `rate` bytes of results a second, or else at a rate that is usual for all bytes touched."""
    plans = [plan for plan in plans if not plan.done]
    if rate:
        return sum(plan.bytes for plan in plans) / rate
    return sum(EACH + (plan.checkpoint.bytes + plan.bytes) / USUAL for plan in plans)


def duration_text(seconds: float, *, about: bool = False) -> str:
    """`under 1 s`, `40 s`, `5 min`, `2 h 10 min`; with `about` said to be an estimate."""
    if seconds < 1:
        return "under 1 s"
    minutes = round(seconds / 60)
    told = f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
    return f"about {told}" if about else told
