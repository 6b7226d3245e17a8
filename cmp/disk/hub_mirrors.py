"""What is kept of a place on the Hub below CMP_HOME: a folder like any other, and beside it a note of what of the place it holds.

A place has one folder whatever commit it stands at, so that stars, answers and conversions stay with its runs when it grows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from cmp.core.runs import Problem
from cmp.disk.hub_files import HubFile, HubPlace, is_plain
from cmp.disk.replacing import replacing
from cmp.errors import CmpError

_NOTE = "mirror.json"


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where a place is mirrored, at which commit, and what of it is not there, each with the reason."""

    root: Path
    commit: str
    problems: tuple[Problem, ...] = ()


@dataclass(slots=True)
class Note:
    """What a mirror holds. `commit` is the last that was fetched whole; `going_on`: a later one was begun, so that some files may be newer.

    `marks`: path on the Hub → what its content is known by, for all that was fetched or looked into. `left_out`: path in the mirror → why
    it is not there, or not as a whole.
    """

    commit: str = ""
    going_on: bool = False
    marks: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def has(self, commit: str) -> bool:
        return self.commit == commit and not self.going_on


def mirror_folder(place: HubPlace, home: Path) -> Path:
    """Where the mirror of a place and its note are kept."""
    return home / "hub" / place.kind / place.owner / f"{place.name}{_digest(place)}"


def _digest(place: HubPlace) -> str:
    told = f"{place.revision}/{place.folder}"
    return "" if told == "main/" else f"-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def inside(place: HubPlace, path: str) -> str:
    """A path of the Hub as it is in the mirror."""
    return path.removeprefix(f"{place.folder}/") if place.folder else path


def mark_of(file: HubFile) -> str:
    """What the content of a file is known by; empty where the Hub tells nothing of it."""
    known = file.sha256 or file.blob
    return f"{file.size} {known}" if known else ""


def read_note(above: Path) -> Note:
    """The note of a mirror; an empty one where nothing was fetched, and where it cannot be read."""
    try:
        told = json.loads((above / _NOTE).read_text("utf-8"))
        marks = {str(path): str(mark) for path, mark in told["marks"].items() if is_plain(str(path))}
        return Note(str(told["commit"]), bool(told["going_on"]), marks, {str(path): str(why) for path, why in told["left_out"].items()})
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return Note()


def write_note(above: Path, note: Note) -> None:
    told = {"commit": note.commit, "going_on": note.going_on, "marks": note.marks, "left_out": note.left_out}
    with replacing(above / _NOTE) as draft:
        draft.write_text(json.dumps(told), "utf-8")


def known_mirror(above: Path, place: HubPlace) -> Mirror | None:
    """The mirror as it was fetched last, None where it never was as a whole."""
    note, root = read_note(above), above / place.name
    problems = tuple(Problem(root / path, why) for path, why in sorted(note.left_out.items()))
    return Mirror(root, note.commit, problems) if note.commit else None


def fetched_before(above: Path, place: HubPlace, fault: CmpError) -> Mirror:
    """The mirror that was fetched last, with a note of why it is not renewed; raises the fault where there is none."""
    if (known := known_mirror(above, place)) is None:
        raise fault
    return Mirror(known.root, known.commit, (*known.problems, Problem(known.root, f"shown as it was fetched before: {fault.message}")))
