"""The verbs of blind votes: pairs of pictures, the votes on them, and what they come to."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from cmp.core.runs import Run
from cmp.errors import BadInput, NotFound
from cmp.settings import Settings
from cmp.workbench.drawn_cells import DrawnCells
from cmp.workbench.measuring import Measuring

if TYPE_CHECKING:
    from cmp.core.votes import Pair, Shown, Tally, Vote


class Voting(Measuring):
    """What people said of pictures without knowing whose they are. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._drawn = DrawnCells(self.store, self.ready)

    def next_pair(self, run: Run, voter: str, job: str | None = None) -> Pair:
        """Two pictures of one prompt and seed for a voter, told by nothing but their keys; of one grid's job, or of all of this process.

        No pair comes twice before all were voted on. Raises NotFound where there are no two.
        """
        from cmp.core.votes import OUTCOMES, check_vote, draw_pair, pairs_of
        from cmp.disk.votes import Votes

        check_vote(OUTCOMES[0], voter)
        pair = draw_pair(pairs_of(self._shown(run, job)), Votes(self.store).seen(run.place, voter), Random(secrets.randbits(64)))
        if pair is None:
            raise NotFound(
                f"there are no two pictures of {run.id} with the same prompt and seed", "Draw a grid of several checkpoints first."
            )
        return pair

    def ahead(self, run: Run, voter: str) -> tuple[int, int, int]:
        """How many pairs of pictures there are, how many of them a voter has not answered to yet, and of how many checkpoints they are."""
        from cmp.core.votes import pairs_of
        from cmp.disk.votes import Votes

        shown, seen = self._shown(run, None), Votes(self.store).seen(run.place, voter)
        pairs = pairs_of(shown)
        keys = {key for pair in pairs for key in pair}
        left = sum(frozenset(pair) not in seen for pair in pairs)
        return len(pairs), left, len({one.checkpoint for one in shown if one.key in keys})

    def cast_vote(self, run: Run, voter: str, left: str, right: str, outcome: str, job: str | None = None) -> None:
        """Keeps an answer to a pair: "left", "right", "tie", or "bad" for both. Raises BadInput for what is no pair."""
        from cmp.core.votes import Vote, check_vote
        from cmp.disk.votes import Votes, weights_in

        self.require_writing()
        check_vote(outcome, voter)
        shown = {one.key: one for one in self._shown(run, job)}
        one, other = shown.get(left), shown.get(right)
        if one is None or other is None or left == right or one.row != other.row:
            raise BadInput("these are no two pictures of this run with the same prompt and seed", "Ask for the next pair.")
        weights, of_other = (weights_in(self.store.cell_path(key)) for key in (left, right))
        key, other_key = (side.checkpoint.rpartition("@")[2] for side in (one, other))
        told = Vote(voter, key, other_key, outcome, one.prompt, one.negative, one.seed, left, right, weights, of_other, time.time())
        Votes(self.store).add(run.place, told)

    def take_back_vote(self, run: Run, voter: str) -> bool:
        """Forgets the voter's last vote on a run; whether there was one."""
        from cmp.disk.votes import Votes

        self.require_writing()
        return Votes(self.store).take_back(run.place, voter)

    def last_pair(self, run: Run, voter: str) -> Pair | None:
        """The pair that a voter has answered to last, as it was shown; None for none, and where a picture of it is gone."""
        from cmp.core.votes import Pair

        last = next((vote for vote in reversed(self.votes(run)) if vote.voter == voter), None)
        there = {one.key for one in self._shown(run, None)} if last else set()
        return Pair(last.left_cell, last.right_cell) if last and {last.left_cell, last.right_cell} <= there else None

    def prompt_of(self, key: str) -> str:
        """What the picture of a cell was asked to show, "" where it does not tell."""
        from cmp.disk.cells import description

        return str((description(self.store.cell_path(key)) or {}).get("prompt", ""))

    def votes(self, run: Run) -> tuple[Vote, ...]:
        """The votes on a run, the oldest first."""
        from cmp.disk.votes import Votes

        return Votes(self.store).of(run.place)

    def write_votes(self, run: Run, target: Path, *, force: bool = False) -> None:
        """Writes the votes on a run as CSV; unless `force` raises Refused where something lies already."""
        from cmp.disk.votes import write_votes

        write_votes(self.votes(run), target, force=force)

    def tally(self, run: Run) -> Tally:
        """What the votes on a run come to; raises NotFound without any."""
        from cmp.core.votes import count_votes

        return count_votes(run, self.votes(run))

    def pictures(self, run: Run) -> tuple[Shown, ...]:
        """The pictures of a run's checkpoints that are still there, by whatever process they were drawn."""
        return self._shown(run, None)

    def _shown(self, run: Run, job: str | None) -> tuple[Shown, ...]:
        """The pictures of a run that are still there: of one grid's job, or else all that were drawn, by whatever process."""
        from cmp.core.grids import Tile
        from cmp.core.votes import shown_cells

        jobs = [self.jobs.find(job)] if job else self.jobs.all()
        tiles = [item for one in jobs for item in list(one.items) if isinstance(item, Tile)]
        ids = {name: c.id for c in run.checkpoints if c.flaw is None for name in (c.id, *c.aliases)}
        places = {c.path for c in run.checkpoints}
        own = [tile for tile in tiles if tile.cell.checkpoint and tile.cell.checkpoint.id in ids and tile.cell.checkpoint.path in places]
        kept = () if job else self._drawn.of(run)
        found = {(*one.row, ids[one.checkpoint]): one for one in (*kept, *shown_cells(own))}
        return tuple(one for one in found.values() if self.store.cell_path(one.key).is_file())
