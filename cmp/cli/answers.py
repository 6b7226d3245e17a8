"""Options that several verbs share, turned into values."""

from __future__ import annotations

from cmp.core.scale import parse_alpha
from cmp.disk.ready import Answers


def read_answers(alpha: str | None, base: str | None) -> Answers:
    """What the user says of scale and base; raises BadInput."""
    return Answers(parse_alpha(alpha), base or None)
