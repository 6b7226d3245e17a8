"""What the Storage tab's form asks for, as rules: which checkpoints stay, and what else gives room back."""

from __future__ import annotations

import re
from typing import NamedTuple

from cmp.core.storage import MIN_AGE, Rules, parse_age, parse_size
from cmp.errors import BadInput
from cmp.workbench.storing import Asked

WHAT = [
    ("Converted forms that can be made again", "converted"),
    ("Frozen weights of dumps: kept once, to the last bit. Resuming a training needs restoring first", "compact"),
    ("Checkpoints that no rule below keeps", "thin"),
    ("Optimizer state: no training can be resumed from those checkpoints", "optimizer"),
]
KEEP = [("the best by the verdict, with all that cannot be told from it", "best"), ("the last", "last"), ("starred", "starred")]
# what is ticked at first: the window of the verdict and the last stay
USUAL_WHAT, USUAL_KEEP, USUAL_LAST, USUAL_AGE = ["converted", "compact", "thin"], ["best", "last", "starred"], "1", "1h"
SHARE = [
    ("leave them", ""),
    ("share their blocks, and stay two files (reflinks)", "reflink"),
    ("become one file: who edits one edits both (hard links)", "hardlink"),
]


class Fields(NamedTuple):
    """The form's values. Fields that are not shown come as None."""

    what: list[str] | None
    keep: list[str] | None
    last: str | None
    every: str | None
    most: str | None
    size: str | None
    age: str | None
    share: str | None


def rules_of(fields: Fields) -> tuple[Rules, Asked]:
    """What is asked for; raises BadInput and quotes what cannot be used."""
    what = frozenset(fields.what or ())
    asked = Asked("compact" in what, what & {"converted", "optimizer"}, share=fields.share or None, unjudged=True)
    if not what and not asked.share:
        raise BadInput("nothing was chosen that may go", "Tick what may give its room back.")
    age = parse_age(fields.age, "the age") if (fields.age or "").strip() else MIN_AGE  # type: ignore[arg-type]
    return (_retention(fields, age) if "thin" in what else Rules(min_age=age)), asked


def _retention(fields: Fields, age: float) -> Rules:
    keep, every, most = fields.keep or [], _whole(fields.every, "steps"), _whole(fields.most, "checkpoints")
    size = parse_size(fields.size, "the size") if (fields.size or "").strip() else None  # type: ignore[arg-type]
    last = (_whole(fields.last, "checkpoints") or 1) if "last" in keep else 0
    if not keep and every is None and most is None and size is None:
        raise BadInput("no rule says which checkpoints stay", "Tick one, or say how many may stay.")
    return Rules(bool(keep) or every is not None, last, every, "best" in keep, most, size, age)


def _whole(text: str | None, unit: str) -> int | None:
    text = (text or "").strip()
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) or not int(text):
        raise BadInput(f"{text!r} is no number of {unit}", "Use a whole number from 1 on.")
    return int(text)


def emptying(days: str | None) -> tuple[Rules, Asked]:
    """What emptying the trash asks for: of all, or of what has lain there for so many days; raises BadInput."""
    text = (days or "").strip()
    older = None if not text else parse_age(text if text[-1:].isalpha() else f"{text}d", "the age")
    return Rules(), Asked(empty_trash=True, older=older)
