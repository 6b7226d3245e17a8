"""The pictures of a run that lie in the store, whoever drew them and when: found by the weights that they say they were drawn from."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from cmp.core.runs import Checkpoint, Run
from cmp.disk.ready import Ready, open_checkpoint, remembered_answers
from cmp.disk.store import Store
from cmp.disk.tensors import identify
from cmp.errors import CmpError

if TYPE_CHECKING:
    from cmp.core.votes import Shown

_KEPT = 20.0  # seconds for which a digest is taken as it was: the config beside the weights counts too


class DrawnCells:
    """Remembers for some seconds what was drawn from. Safe to use from several threads."""

    def __init__(self, store: Store, ready: Callable[[Run, Checkpoint], Ready]) -> None:
        self._store, self._ready = store, ready
        self._weights: dict[str, tuple[float, str, str | None]] = {}  # by checkpoint: when, in what state, and the digest

    def of(self, run: Run) -> tuple[Shown, ...]:
        """One picture of each checkpoint and row. An id decides nothing: other runs have had the same."""
        from cmp.core.votes import kept_cell
        from cmp.disk.cell_index import CellIndex

        read_through = self._store.all("tensors-digest")
        usable = [c for c in reversed(run.checkpoints) if c.flaw is None]
        owners = {digest: c.id for c in usable if (digest := self._digest(run, c, read_through))}
        found: dict[tuple[object, ...], Shown] = {}
        for cell in CellIndex(self._store).of_weights(owners) if owners else ():
            if shown := kept_cell(cell.key, owners[cell.weights], cell.told):
                found[(*shown.row, shown.checkpoint)] = shown
        return tuple(found.values())

    def _digest(self, run: Run, checkpoint: Checkpoint, read_through: Collection[str]) -> str | None:
        """The digest of a checkpoint's weights as a picture tells it; None where nothing was drawn of it as it is now."""
        with suppress(CmpError):
            state = f"{[str(identify(file)) for file in checkpoint.files]} {remembered_answers(run, self._store)}"
            name, now = f"{checkpoint.path} {checkpoint.id}", time.monotonic()
            known = self._weights.get(name)
            if known is None or now - known[0] > _KEPT or known[1] != state:
                known = self._weights[name] = now, state, self._look_up(run, checkpoint, read_through)
            return known[2]
        return None

    def _look_up(self, run: Run, checkpoint: Checkpoint, read_through: Collection[str]) -> str | None:
        """Reads headers alone: what was never read through was never drawn."""
        subject = open_checkpoint(checkpoint).header.subject
        if not any(name == subject or name.startswith(f"{subject}|") for name in read_through):
            return None
        return self._ready(run, checkpoint).digest(self._store)
