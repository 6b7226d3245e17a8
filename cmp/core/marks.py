"""What people say of a run or a checkpoint: a star, a note, a name. None of it is in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cmp.core.runs import plain_text
from cmp.errors import BadInput

LONGEST_NOTE = 2000  # characters


@dataclass(frozen=True, slots=True)
class Mark:
    """`name` is None where none was given. A note may stand without a star: it outlives one that is taken away."""

    star: bool = False
    note: str = ""
    name: str | None = None

    def as_json(self) -> dict[str, object]:
        return {"star": self.star, "note": self.note, "name": self.name}

    @property
    def told(self) -> dict[str, object]:
        """Star and note for a head, without what is not there."""
        return ({"star": True} if self.star else {}) | ({"note": self.note} if self.note else {})


Marks = Mapping[str, Mark]  # by id; who has none is not in it
NONE = Mark()


def check_note(text: str) -> str:
    """A note as it is kept; raises BadInput for one that is too long."""
    if len(text) > LONGEST_NOTE:
        raise BadInput(f"the note has {len(text)} characters", f"Use at most {LONGEST_NOTE}.")
    return plain_text(text).strip()


def starred_value(kept: object, on: bool, note: str | None) -> dict[str, object] | None:
    """What is kept of a star after it was put or taken away; `note` None leaves the one that is there. None where nothing is left."""
    before = read_star(kept)
    now = before.note if note is None else note
    return {"star": on, "note": now} if on or now else None


def read_star(kept: object) -> Mark:
    """The star and note that were kept."""
    told = kept if isinstance(kept, dict) else {}
    return Mark(bool(told.get("star")), str(told.get("note") or ""))
