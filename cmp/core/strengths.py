"""How strong each of several is by answers to pairs of them, after Bradley and Terry (1952).

The odds that one is preferred to another are exp(difference of their strengths). Half a win for each, as a tie is, makes the errors
wider than they are, never narrower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cmp.core.curves import Floats

_LOOSENESS = 2.0  # standard deviation that strengths are expected to have: few votes do not send them to infinity
_STEPS = 60  # of Newton's way


class Outcome(NamedTuple):
    """`share` of a win for the first of two, by place, and which picture it was won on."""

    first: int
    second: int
    share: float
    picture: int


def strengths_of(size: int, outcomes: Sequence[Outcome]) -> tuple[Floats, Floats]:
    """Strengths with mean 0, and the covariance of their errors, by Newton's method with a normal prior.

    Votes on the same prompt and seed are on the same pictures and resemble each other: where the scatter between pictures is larger than
    independent votes would have it, the errors are made larger by as much.
    """
    first, second, share, picture = (np.array(column) for column in zip(*outcomes, strict=True))
    design = np.zeros((len(outcomes), size))
    design[np.arange(len(outcomes)), first] += 1
    design[np.arange(len(outcomes)), second] -= 1
    strengths, prior = np.zeros(size), np.eye(size) / _LOOSENESS**2
    curvature = prior
    for _ in range(_STEPS):
        expected = 1 / (1 + np.exp(-design @ strengths))
        curvature = design.T @ (design * (expected * (1 - expected))[:, None]) + prior
        step = np.linalg.solve(curvature, design.T @ (share - expected) - strengths / _LOOSENESS**2)
        strengths = strengths + step / max(1.0, float(np.abs(step).max()))  # no leaps
        if np.abs(step).max() < 1e-9:
            break
    expected = 1 / (1 + np.exp(-design @ strengths))
    inverse = np.linalg.inv(curvature).astype(np.float64)
    sums = np.zeros((int(picture.max()) + 1, size))
    np.add.at(sums, picture, design * (share - expected)[:, None])
    return strengths - strengths.mean(), inverse * _excess(inverse, sums, curvature - prior)


def _excess(inverse: Floats, sums: Floats, information: Floats) -> float:
    """How many times more the sums over pictures scatter than those of independent votes, 1 at least."""
    count = len(sums)
    if count < 2:
        return 1.0
    seen = float(np.trace(inverse @ (sums.T @ sums))) * count / (count - 1)
    expected = float(np.trace(inverse @ information))
    return max(1.0, seen / expected) if expected > 0 else 1.0
