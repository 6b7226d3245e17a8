"""Blind votes on pairs of pictures: which pairs are shown, how strong each checkpoint is by them, and how sure that is.

A tie counts as half a win for each. "Both are bad" says nothing of which is better and is counted apart.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

from cmp.core.evidence import Evidence
from cmp.core.grids import Sampling, Tile
from cmp.core.picking import VOTES, Score, Verdict, verdict_of
from cmp.core.present import iso_time
from cmp.core.runs import Run
from cmp.core.strengths import Outcome, strengths_of
from cmp.errors import BadInput, NotFound

OUTCOMES = ("left", "right", "tie", "bad")
LONGEST_VOTER = 100  # characters
FEWEST_PICTURES = 3  # prompts and seeds: the votes on one resemble each other, so that these count, not the votes alone
_MOST_MORE = 100_000  # votes; more are no estimate


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer of a voter to two pictures. `left` and `right` are the checkpoints' keys within the run; `weights` the digests of theirs,
    "" where the pictures do not tell.
    """

    voter: str
    left: str
    right: str
    outcome: str
    prompt: str = ""
    negative: str = ""
    seed: int = 0
    left_cell: str = ""
    right_cell: str = ""
    left_weights: str = ""
    right_weights: str = ""
    at: float = 0.0

    def as_json(self) -> dict[str, object]:
        names = ("voter", "left", "right", "outcome", "prompt", "negative", "seed", "left_cell", "right_cell")
        return {"at": iso_time(self.at)} | {name: getattr(self, name) for name in names}


class Pair(NamedTuple):
    """The keys of two cells, as they are shown side by side. It is all that a voter may know."""

    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One cell that can be voted on. Cells of one `row` differ in nothing but their checkpoint."""

    key: str
    checkpoint: str
    row: tuple[object, ...]
    prompt: str
    negative: str
    seed: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What the votes of a run come to. `more` estimates how many more votes would leave one best, None where that cannot be said."""

    verdict: Verdict
    votes: int
    both_bad: int
    ties: int
    voters: tuple[tuple[str, int], ...]
    pairs: int
    pairs_seen: int
    pictures: int
    more: int | None
    results: Mapping[str, tuple[int, int, int]]  # wins, losses, ties by id

    def as_json(self, run: Run) -> dict[str, object]:
        told = self.verdict.as_json(run)
        scores = [dict(one) for one in told.pop("scores")]  # type: ignore[attr-defined]
        for one, score in zip(scores, self.verdict.scores, strict=True):
            one |= dict(zip(("wins", "losses", "ties"), self.results[score.checkpoint_id], strict=True)) | {"chance": chances(score)[0]}
        return told | {
            "votes": self.votes,
            "both_bad": self.both_bad,
            "ties": self.ties,
            "voters": [{"voter": name, "votes": count} for name, count in self.voters],
            "coverage": {"pairs": self.pairs, "seen": self.pairs_seen, "pictures": self.pictures},
            "more_votes": self.more,
            "scores": scores,
        }


def chances(score: Score) -> tuple[float, float | None, float | None]:
    """How likely it is to be preferred to a checkpoint of middle strength, with its interval."""
    low, high = (None if bound is None else _chance(bound) for bound in (score.low, score.high))
    return _chance(score.value), low, high


def _chance(strength: float) -> float:
    return 1 / (1 + math.exp(-max(min(strength, 500.0), -500.0)))


# -- pairs -----------------------------------------------------------------------------------------------------------------


def shown_cells(tiles: Iterable[Tile]) -> tuple[Shown, ...]:
    """The finished pictures of checkpoints, one of each checkpoint and row; previews and the base model are not voted on."""
    found: dict[tuple[object, ...], Shown] = {}
    for tile in tiles:
        cell = tile.cell
        if tile.fault or tile.preview or not tile.path or not cell.checkpoint:
            continue
        base = str((tile.base or {}).get("id"))
        row = (cell.prompt.text, cell.prompt.negative, cell.seed, cell.strength, cell.sampling, cell.stack, base)
        shown = Shown(tile.key, cell.checkpoint.id, row, cell.prompt.text, cell.prompt.negative, cell.seed)
        found[(*row, cell.checkpoint.id)] = shown
    return tuple(found.values())


def kept_cell(key: str, checkpoint: str, told: Mapping[str, Any]) -> Shown | None:
    """The same of a picture that another process drew, by what it tells of itself.

    None for a preview, and where it was drawn with files beside the checkpoint's: a picture does not tell whether these have changed since.
    """
    if told.get("as_preview") or told.get("stack"):
        return None
    try:
        prompt, negative, seed, sampling = told["prompt"], told["negative"], told["seed"], Sampling(**told["sampling"])
        row = (prompt, negative, seed, told["strength"], sampling, (), str((told["base"] or {}).get("id")))
    except (KeyError, TypeError, AttributeError, BadInput):  # of another version, or changed by another program
        return None
    if sampling.vae or not isinstance(seed, int) or not all(isinstance(text, str) for text in (prompt, negative)):
        return None
    return Shown(key, checkpoint, row, prompt, negative, seed)


def pairs_of(shown: Iterable[Shown]) -> list[tuple[str, str]]:
    """All pairs of different pictures of one row, by their keys."""
    rows: dict[tuple[object, ...], dict[str, None]] = {}
    for one in shown:
        rows.setdefault(one.row, {})[one.key] = None
    return list(dict.fromkeys(pair for keys in rows.values() for pair in combinations(sorted(keys), 2)))


def draw_pair(pairs: Sequence[tuple[str, str]], seen: Mapping[frozenset[str], int], rng: random.Random) -> Pair | None:
    """One of the pairs that a voter has seen least often, each as likely as another, its sides shuffled; None without a pair.

    Uniformly, since pairs that were chosen by what is known already would distort the strengths.
    """
    if not pairs:
        return None
    counts = [seen.get(frozenset(pair), 0) for pair in pairs]
    fewest = min(counts)
    least = [pair for pair, count in zip(pairs, counts, strict=True) if count == fewest]
    left, right = rng.choice(least)
    return Pair(right, left) if rng.random() < 0.5 else Pair(left, right)


def check_vote(outcome: str, voter: str) -> None:
    """Raises BadInput for an answer or a voter that there cannot be."""
    if outcome not in OUTCOMES:
        raise BadInput(f"the vote is {outcome!r}", f"Use one of: {', '.join(OUTCOMES)}.")
    if not voter.strip() or len(voter) > LONGEST_VOTER:
        raise BadInput(f"the voter is {voter[:LONGEST_VOTER]!r}", f"Use a name of 1 to {LONGEST_VOTER} characters.")


# -- strengths -------------------------------------------------------------------------------------------------------------


def count_votes(run: Run, votes: Sequence[Vote]) -> Tally:
    """The tally of a run's votes, cast oldest first. Raises NotFound without any."""
    if not votes:
        raise NotFound(f"nobody has voted on {run.id} yet", "Draw a grid of it, and vote on the page.")
    kept, warnings = _valid(votes, _present(run))
    judged = [vote for vote in kept if vote.outcome != "bad"]
    ids = tuple(c.id for c in run.checkpoints if c.flaw is None)
    results = dict.fromkeys(ids, (0, 0, 0))
    for vote in judged:
        for name, side in ((vote.left, "left"), (vote.right, "right")):
            won, lost, tied = results[name]
            results[name] = (won + (vote.outcome == side), lost + (vote.outcome not in (side, "tie")), tied + (vote.outcome == "tie"))
    verdict = _verdict(ids, judged, warnings)
    seen = {frozenset((vote.left, vote.right)) for vote in judged}
    voters = Counter(vote.voter for vote in votes)
    return Tally(
        verdict, len(votes), sum(vote.outcome == "bad" for vote in kept), sum(vote.outcome == "tie" for vote in kept),
        tuple(voters.most_common()), len(ids) * (len(ids) - 1) // 2, len(seen), len({_picture(vote) for vote in judged}),
        _more(verdict, len(judged)), results,
    )  # fmt: skip


def _present(run: Run) -> dict[str, str]:
    """The ids of the checkpoints that can be used, by all keys that they go by."""
    return {key: c.id for c in run.checkpoints if c.flaw is None for key in (c.key, *(a.rpartition("@")[2] for a in c.aliases))}


def _valid(votes: Sequence[Vote], present: Mapping[str, str]) -> tuple[list[Vote], list[str]]:
    """The votes on checkpoints that are there, under their ids, and in words what was left out.

    Where pictures under one name were drawn from other weights than the newest, the run was trained anew: their votes say nothing now.
    """
    newest: dict[str, str] = {}
    for vote in votes:
        newest |= {key: weights for key, weights in ((vote.left, vote.left_weights), (vote.right, vote.right_weights)) if weights}
    kept, gone, older = [], 0, 0
    for vote in votes:
        left, right = present.get(vote.left), present.get(vote.right)
        if left is None or right is None or left == right:
            gone += 1
        elif any(w and w != newest[key] for key, w in ((vote.left, vote.left_weights), (vote.right, vote.right_weights))):
            older += 1
        else:
            kept.append(replace(vote, left=left, right=right))
    told = [f"{gone} of {len(votes)} votes are on checkpoints that are not there or the same"] if gone else []
    told += [f"{older} of {len(votes)} votes are on earlier weights of the same name, and do not count"] if older else []
    return kept, told


def _picture(vote: Vote) -> tuple[str, str, int]:
    return vote.prompt, vote.negative, vote.seed


def _verdict(ids: Sequence[str], votes: Sequence[Vote], warnings: Sequence[str]) -> Verdict:
    found = _evidence(ids, votes, warnings)
    if found is None:
        return Verdict(None, tuple(ids), VOTES, "no vote says which of two is better", tuple(warnings), unknown=tuple(ids))
    return verdict_of(found, ids)


def evidence_of(run: Run, votes: Sequence[Vote]) -> Evidence | None:
    """What the votes say of each checkpoint, None where they say nothing."""
    kept, warnings = _valid(votes, _present(run))
    return _evidence([c.id for c in run.checkpoints if c.flaw is None], [vote for vote in kept if vote.outcome != "bad"], warnings)


def _evidence(ids: Sequence[str], votes: Sequence[Vote], warnings: Sequence[str]) -> Evidence | None:
    if not votes:
        return None
    pictures = len({_picture(vote) for vote in votes})
    if pictures < FEWEST_PICTURES:
        told = f"the votes are on {pictures} prompts and seeds" if pictures > 1 else "all votes are on one prompt and seed"
        warnings = [*warnings, f"{told}, and say nothing of others: nothing is told apart by under {FEWEST_PICTURES}"]
    voted = [name for name in ids if any(name in (vote.left, vote.right) for vote in votes)]
    strengths, covariance = strengths_of(len(voted), _outcomes(voted, votes))
    counts = Counter(name for vote in votes for name in (vote.left, vote.right))
    return Evidence(
        VOTES, "strength in votes", False, tuple(voted), strengths, covariance, tuple(counts[name] for name in voted), pictures - 1,
        warnings=tuple(warnings),
    )  # fmt: skip


def _outcomes(ids: Sequence[str], votes: Sequence[Vote]) -> list[Outcome]:
    place = {name: i for i, name in enumerate(ids)}
    pictures = {picture: i for i, picture in enumerate(dict.fromkeys(map(_picture, votes)))}
    shares = {"left": 1.0, "right": 0.0, "tie": 0.5}
    return [Outcome(place[vote.left], place[vote.right], shares[vote.outcome], pictures[_picture(vote)]) for vote in votes]


def _more(verdict: Verdict, votes: int) -> int | None:
    """If the strengths are as they look: the votes until the interval of each that is tied with the best no longer reaches zero."""
    if len(verdict.window) == 1 or not verdict.scores:
        return 0 if verdict.best else None
    factors = []
    for score in verdict.scores:
        gap, low, _ = score.behind
        if score.checkpoint_id in verdict.window[1:]:
            if low is None or gap <= 0:
                return None
            factors.append(((gap - low) / gap) ** 2)
    more = math.ceil(votes * (max(factors) - 1))
    return max(more, 1) if more < _MOST_MORE else None
