"""The fixed draws that a loss is measured with: for every image the same noise and the same timesteps, whatever checkpoint is measured.

A checkpoint's loss differs from the next one's by a few parts in a thousand, and a single draw of noise and timestep scatters by more
than its own size. With the same draws for all, that scatter is in no difference.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cmp.core.curves import Floats
from cmp.errors import BadInput

BANDS = 8  # of timesteps, equally wide
USUAL_DRAWS = 16  # an image
MOST_DRAWS = 100_000
REVISION = "1"  # raised by every change of ours that changes values, so that older ones are not compared with new ones


@dataclass(frozen=True, slots=True)
class Draws:
    """How often and where the loss of each image is drawn; checked when made. `seed` gives other draws.

    Every band has equally many, so that `draws` is rounded up to a multiple of the bands; fewer draws than BANDS have a band each.
    """

    draws: int = USUAL_DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.draws <= MOST_DRAWS:
            raise BadInput(f"draws is {self.draws}", f"Use 1 to {MOST_DRAWS} draws an image; {USUAL_DRAWS} is usual.")
        if self.seed < 0:
            raise BadInput(f"the seed of the draws is {self.seed}", "Use 0 or more.")

    @property
    def bands(self) -> int:
        return min(BANDS, self.draws)

    @property
    def each(self) -> int:
        """Draws in each band."""
        return math.ceil(self.draws / self.bands)

    @property
    def total(self) -> int:
        return self.bands * self.each

    def labels(self, steps: int) -> tuple[str, ...]:
        """The bands by the timestep in their middle, of so many that the model was trained with."""
        return tuple(str(round((band + 0.5) * steps / self.bands)) for band in range(self.bands))

    def places(self, image: str) -> Floats:
        """(bands, each): where in 0 … 1, from clean to pure noise, the image of that digest is drawn.

        Each band is cut into as many parts as it has draws, with one in each: in every other part as far from its end as in the one
        before from its beginning, so that what grows evenly within a band leaves no trace in the mean.
        """
        shifts = np.array([self._random(image, f"band {band} of {self.bands}").random() for band in range(self.bands)])[:, None]
        parts = np.arange(self.each)[None, :]
        inside = (parts + np.where(parts % 2 == 0, shifts, 1 - shifts)) / self.each
        found: Floats = (np.arange(self.bands)[:, None] + inside) / self.bands
        return np.clip(found, 0.0, np.nextafter(1.0, 0.0))

    def noise(self, image: str, band: int, number: int, shape: Sequence[int]) -> npt.NDArray[np.float32]:
        """Standard normal noise for one draw; it depends on the image's digest and the draw alone."""
        return self._random(image, f"noise {number * self.bands + band}").standard_normal(tuple(shape), dtype=np.float32)

    def _random(self, image: str, what: str) -> np.random.Generator:
        told = hashlib.sha256(f"{self.seed}|{image}|{what}".encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(told[:16], "little")))

    def setup(self, images: Sequence[tuple[str, str]], circumstances: Mapping[str, str]) -> str:
        """Digest of all that decides values beside weights and base: these draws, (digest, caption) of every image, the circumstances."""
        told = [REVISION, self.bands, self.each, self.seed, list(map(list, images)), dict(sorted(circumstances.items()))]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def timesteps(places: Floats, steps: int) -> npt.NDArray[np.int64]:
    """The timesteps of a model that was trained with so many, at places in 0 … 1."""
    return np.minimum((places * steps).astype(np.int64), steps - 1)
