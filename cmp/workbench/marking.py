"""Stars, notes and names, in CMP_HOME: by ids, so that they stay where roots move; of what lies outside all roots by its path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cmp.core.marks import Mark, Marks, read_star
from cmp.core.runs import Checkpoint, Run, plain_text
from cmp.core.storage import trash_name
from cmp.disk.store import Store, subject_of

STAR, NAME = "star", "name"
_PATH = "path:"


def subjects_of(checkpoint: Checkpoint, listed: Checkpoint | None) -> tuple[str, ...]:
    """Under what a star of a checkpoint is kept, first, and may have been kept before. `listed` is the same one as the roots have it.

    The ids of what lies outside the roots are no names: another run may bear the same.
    """
    path = f"{_PATH}{subject_of(checkpoint.file or checkpoint.path)}"
    return tuple(map(plain_text, (listed.id, *listed.aliases, path) if listed else (path,)))


def marks_of(store: Store, runs: Iterable[Run]) -> Marks:
    """The marks of runs that lie below the roots, and of their checkpoints."""
    stars, names = store.all(STAR), store.all(NAME)
    by_path = any(subject.startswith(_PATH) for subject in stars)
    found: dict[str, Mark] = {}
    for run in runs:
        items: tuple[Run | Checkpoint, ...] = (run, *run.checkpoints)
        for item in items:
            mark = Mark()
            if isinstance(item, Checkpoint) and stars:
                subjects = subjects_of(item, item) if by_path else map(plain_text, (item.id, *item.aliases))
                mark = next((read_star(stars[subject]) for subject in subjects if subject in stars), mark)
            name = names.get(plain_text(item.id))
            mark = replace(mark, name=name) if isinstance(name, str) else mark
            if mark != Mark():
                found[item.id] = mark
    return found


def starred_and_gone(store: Store, run: Run) -> set[str]:
    """What the starred checkpoints that are not in a run any more are called in its trash."""
    here = {plain_text(name) for c in run.checkpoints for name in (c.id, *c.aliases)}
    stars = (name for name, kept in store.all(STAR).items() if name not in here and read_star(kept).star)
    return {trash_name(run, key) for id, _, key in (name.rpartition("@") for name in stars) if id == plain_text(run.id)}
