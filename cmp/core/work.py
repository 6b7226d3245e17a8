"""Long work as it is told and kept: its states, how far it has come, and how long it will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cmp.core.present import iso_time
from cmp.core.runs import plain_text

ENDED = ("done", "failed", "cancelled")
UNFINISHED = ("waiting", "running", "paused", "interrupted")
STATES = (*UNFINISHED, *ENDED)
ASKS = ("cancel", "pause", "resume")


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One piece of long work at a moment.

    `state`: "waiting" in a queue, "running", "paused" by the user, "interrupted" by the end of its process, "done", "failed" or
    "cancelled". `done` counts items, `reused` those among them that were there already, `faults` those that could not be made.
    `worked` are the seconds that went into the others. Times in Unix seconds. `asked` is what a running job has been asked to do and
    has not done yet. `position` counts from 1 in the queue of its process. `tries` is how often it was taken up again without getting on.
    `reasons` says why items could not be made, each with how many of them.
    """

    id: str
    kind: str
    title: str
    total: int
    state: str = "waiting"
    done: int = 0
    what: str = ""
    reused: int = 0
    faults: int = 0
    worked: float = 0.0
    error: Mapping[str, object] | None = None
    made: float = 0.0
    queued: float = 0.0
    started: float | None = None
    ended: float | None = None
    asked: str | None = None
    position: int | None = None
    tries: int = 0
    reasons: tuple[tuple[str, int], ...] = ()

    @property
    def over(self) -> bool:
        return self.state in ENDED

    @property
    def remaining(self) -> float | None:
        """Seconds still to go by what an item has taken so far; None while none tells. What was there already took no time."""
        fresh = self.done - self.reused
        if self.over or fresh <= 0 or not self.worked or self.total <= 0:
            return None
        return self.worked / fresh * max(0, self.total - self.done)

    def as_json(self) -> dict[str, object]:
        remaining = self.remaining
        return {
            "job": self.id,
            "kind": self.kind,
            "title": plain_text(self.title),
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "what": plain_text(self.what),
            "reused": self.reused,
            "faults": self.faults,
            "reasons": [{"error": plain_text(why), "count": count} for why, count in self.reasons],
            "remaining_seconds": None if remaining is None else round(remaining, 1),
            "position": self.position,
            "asked": self.asked,
            "made": iso_time(self.made),
            "started": iso_time(self.started or 0),
            "ended": iso_time(self.ended or 0),
            "error": dict(self.error) if self.error else None,
        }
