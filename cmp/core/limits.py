"""What strangers may ask for: how large a grid, and how often anything."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmp.errors import BadInput

if TYPE_CHECKING:
    from cmp.core.grids import GridSpec

_FORGET_AT = 10_000  # clients that are remembered; who has all of its turns is forgotten first
_USUAL_SIDE = 1024  # pixels of a side that is left to the base model, at most


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one grid may be, where anybody may draw."""

    cells: int = 24
    steps: int = 30
    pixels: int = 768 * 768
    prompt: int = 1000  # characters

    def check(self, spec: GridSpec) -> None:
        """Raises BadInput for what is more; what the base model itself says of its size counts not."""
        self._at_most("the grid", spec.size, self.cells, "cells")
        for prompt in spec.prompts:
            self._at_most("a prompt", max(len(prompt.text), len(prompt.negative)), self.prompt, "characters")
        for sampling in {prompt.own.over(sampling) for prompt in spec.prompts for sampling in spec.samplings}:  # as it is drawn
            self._at_most("a picture", sampling.steps, self.steps, "denoising steps")
            if sampling.width or sampling.height:
                self._at_most("a picture", (sampling.width or _USUAL_SIDE) * (sampling.height or _USUAL_SIDE), self.pixels, "pixels")

    def _at_most(self, what: str, value: int, most: int, unit: str) -> None:
        if value > most:
            raise BadInput(f"{what} has {value} {unit}", f"At most {most} are drawn here for everybody; your own copy has no such limit.")


class Rates:
    """A bucket of turns for each client, which fills by itself. Safe to use from several threads."""

    def __init__(self, turns: int, every: float) -> None:
        """`turns` at once, and after them one in `every` seconds."""
        self._turns, self._every = turns, every
        self._left: dict[str, tuple[float, float]] = {}  # turns, and when they were so many
        self._lock = threading.Lock()

    def take(self, client: str, now: float) -> float:
        """Takes a turn; gives 0, or the seconds until there is one. `now` in seconds of a clock that never goes back."""
        with self._lock:
            left = self._now(client, now)
            taken = left >= 1
            self._left.pop(client, None)
            self._left[client] = (left - 1 if taken else left, now)
            while len(self._left) > _FORGET_AT:
                del self._left[next(iter(self._left))]
        return 0.0 if taken else (1 - left) * self._every

    def wait(self, client: str, now: float) -> float:
        """The same without taking it."""
        with self._lock:
            left = self._now(client, now)
        return 0.0 if left >= 1 else (1 - left) * self._every

    def _now(self, client: str, now: float) -> float:
        left, when = self._left.get(client, (float(self._turns), now))
        return min(float(self._turns), left + (now - when) / self._every)
