"""Blind votes: pairs without favour, strengths that hold what they promise, and what does not count."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cmp.core.grids import Cell, Fault, Prompt, Sampling, Tile
from cmp.core.picking import Verdict
from cmp.core.runs import Checkpoint, Run
from cmp.core.votes import Vote, chances, check_vote, count_votes, draw_pair, evidence_of, pairs_of, shown_cells
from cmp.errors import BadInput, NotFound

STEPS = (500, 1000, 1500, 2000)
PLACE = Path("/r")
CHECKPOINTS = tuple(Checkpoint("r", str(step), PLACE / str(step), "x", "lora", step=step) for step in STEPS)
RUN = Run("r", PLACE, PLACE, "x", checkpoints=CHECKPOINTS)


def simulated(strengths: Sequence[float], votes: int, seed: int, *, pictures: int = 30, alike: float = 0.0) -> list[Vote]:
    """Voters prefer by strength and chance; `alike` is how much a single picture's own luck counts for all votes on it."""
    rng = np.random.default_rng(seed)
    luck = alike * rng.normal(size=(pictures, len(strengths)))
    found = []
    for _ in range(votes):
        i, j = rng.choice(len(strengths), 2, replace=False)
        picture = int(rng.integers(pictures))
        odds = strengths[i] + luck[picture, i] - strengths[j] - luck[picture, j]
        outcome = "tie" if rng.random() < 0.2 else "left" if rng.random() < 1 / (1 + np.exp(-odds)) else "right"
        found.append(Vote("ann", str(STEPS[i]), str(STEPS[j]), outcome, "a shoe", seed=picture))
    return found


def verdicts(strengths: Sequence[float], votes: int, seeds: int = 100, **more: float) -> list[Verdict]:
    return [count_votes(RUN, simulated(strengths, votes, seed, **more)).verdict for seed in range(seeds)]  # type: ignore[arg-type]


# -- strengths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"pictures": 8, "alike": 1.0}, {"pictures": 3, "alike": 1.0}])
@pytest.mark.parametrize("votes", [12, 100])
def test_equally_strong_ones_are_tied_also_where_votes_on_one_picture_resemble_each_other(votes: int, more: dict[str, float]) -> None:
    found = verdicts([0.0, 0.0], votes, 200, **more)
    assert np.mean([one.best is not None for one in found]) <= 0.07


def test_the_strongest_is_in_the_window_and_with_enough_votes_alone() -> None:
    few, many = verdicts([0.0, 1.0, 0.5, -1.0], 60), verdicts([0.0, 1.6, 0.0, -1.0], 500, 30)
    assert np.mean(["r@1000" in {*one.window, *one.unknown} for one in few]) >= 0.93
    assert np.mean([one.best == "r@1000" for one in many]) >= 0.9


def test_strengths_are_those_that_the_votes_were_made_with() -> None:
    truth = np.array([0.0, 1.0, 0.5, -1.0])
    found = evidence_of(RUN, simulated(list(truth), 4000, 1, pictures=1000))
    assert found is not None and found.ids == tuple(f"r@{step}" for step in STEPS)
    # a fifth are ties, half a win each, which draws all of them together
    assert np.corrcoef(found.values, truth)[0, 1] > 0.98 and abs(float(found.values.mean())) < 1e-9


def test_a_few_votes_all_for_one_send_nothing_to_infinity() -> None:
    tally = count_votes(RUN, [Vote("ann", "500", "1000", "left", seed=seed) for seed in range(4)])
    assert tally.verdict.best is None and 0.5 < chances(tally.verdict.scores[0])[0] < 0.95
    assert tally.verdict.scores[0].value > tally.verdict.scores[1].value and tally.verdict.unknown == ("r@1500", "r@2000")


def test_many_votes_on_one_picture_say_nothing_of_others() -> None:
    tally = count_votes(RUN, [Vote(f"voter {n}", "500", "1000", "left") for n in range(200)])
    assert tally.verdict.best is None and any("one prompt and seed" in told for told in tally.verdict.warnings)


def test_sides_do_not_matter_and_neither_does_the_order() -> None:
    votes = simulated([0.0, 1.0, 0.5, -1.0], 80, 3)
    turned = {"left": "right", "right": "left"}
    other = [Vote("ann", v.right, v.left, turned.get(v.outcome, v.outcome), v.prompt, seed=v.seed) for v in reversed(votes)]
    one, two = count_votes(RUN, votes), count_votes(RUN, other)
    assert one.verdict.window == two.verdict.window and one.results == two.results
    assert np.allclose([score.value for score in one.verdict.scores], [score.value for score in two.verdict.scores])


# -- the tally -------------------------------------------------------------------------------------------------------------


def test_both_bad_is_counted_apart_and_moves_no_strength() -> None:
    votes = simulated([0.0, 1.0, 0.5, -1.0], 40, 1)
    bad = [Vote("bob", "500", "1000", "bad", seed=n) for n in range(50)]
    one, two = count_votes(RUN, votes), count_votes(RUN, [*votes, *bad])
    assert [score.value for score in one.verdict.scores] == [score.value for score in two.verdict.scores]
    assert (two.votes, two.both_bad, dict(two.voters)) == (90, 50, {"ann": 40, "bob": 50})
    only = count_votes(RUN, bad)
    assert only.verdict.best is None and only.verdict.scores == () and len(only.verdict.window) == 4 and only.more is None


def test_the_tally_tells_coverage_wins_and_how_many_more_votes_might_settle_it() -> None:
    votes = [Vote("ann", "500", "1000", ("left", "left", "right", "tie")[n % 4], seed=n) for n in range(40)]
    tally = count_votes(RUN, votes)
    told = tally.as_json(RUN)
    assert told["coverage"] == {"pairs": 6, "seen": 1, "pictures": 40} and tally.results["r@500"] == (20, 10, 10)
    assert tally.more is not None and 20 < tally.more < 1000
    assert [one["checkpoint"] for one in told["scores"]] == ["r@500", "r@1000"]  # type: ignore[attr-defined,index]
    settled = count_votes(RUN, [Vote("ann", "500", "1000", "left", seed=n) for n in range(60)])
    assert settled.verdict.best == "r@500" and settled.more == 0
    even = [Vote("ann", "500", "1000", ("left", "right")[n % 2], seed=n) for n in range(40)]
    assert count_votes(RUN, even).more is None


def test_more_votes_come_close_to_what_was_estimated() -> None:
    """Of runs that go on as they began, most are settled by twice the votes that were said to be needed."""
    settled = []
    for seed in range(20):
        votes = simulated([0.4, -0.4], 2000, seed, pictures=500)
        tally = count_votes(RUN, votes[:40])
        if tally.more:
            settled.append(count_votes(RUN, votes[: 40 + 2 * max(tally.more, 20)]).verdict.best is not None)
    assert len(settled) >= 5 and np.mean(settled) >= 0.6


def test_no_votes_are_told() -> None:
    with pytest.raises(NotFound, match="nobody has voted"):
        count_votes(RUN, [])


def test_votes_on_what_has_gone_or_was_trained_anew_do_not_count() -> None:
    old = [Vote("ann", "500", "1000", "left", seed=n, left_weights="a", right_weights="b") for n in range(9)]
    new = [Vote("ann", "1000", "500", "left", seed=n, left_weights="b", right_weights="c") for n in range(5)]
    gone = [Vote("ann", "500", "7", "left", seed=n) for n in range(3)]
    tally = count_votes(RUN, [*old, *new, *gone])
    assert tally.results["r@1000"] == (5, 0, 0) and len(tally.verdict.warnings) == 2


# -- pairs -----------------------------------------------------------------------------------------------------------------


def tile(checkpoint: Checkpoint | None, key: str, *, seed: int = 0, path: Path | None = Path("/p.png"), **more: object) -> Tile:
    return Tile(Cell(checkpoint, Prompt("a shoe"), seed, 1.0, Sampling()), key, path, **more)  # type: ignore[arg-type]


def test_pairs_are_of_one_row_and_never_of_previews_faults_or_the_base_model() -> None:
    first, second, third, fourth = CHECKPOINTS
    tiles = [tile(first, "a"), tile(second, "b"), tile(third, "c", seed=1), tile(None, "base"), tile(fourth, "p", preview=True)]
    tiles += [tile(fourth, "f", path=None, fault=Fault("no")), tile(first, "d", seed=1)]
    assert sorted(pairs_of(shown_cells(tiles))) == [("a", "b"), ("c", "d")]


def test_equal_pictures_are_no_pair_and_the_last_tile_of_a_cell_counts() -> None:
    first, second, _, _ = CHECKPOINTS
    assert pairs_of(shown_cells([tile(first, "a"), tile(second, "a")])) == []
    assert pairs_of(shown_cells([tile(first, "old"), tile(second, "b"), tile(first, "new")])) == [("b", "new")]


def test_no_pair_comes_twice_before_all_were_seen_then_all_come_again_and_sides_are_shuffled() -> None:
    pairs = [("a", "b"), ("a", "c"), ("b", "c"), ("d", "e")]
    rng, seen, drawn = random.Random(1), Counter[frozenset[str]](), []
    for _ in range(400):
        pair = draw_pair(pairs, seen, rng)
        assert pair is not None
        drawn.append(pair)
        seen[frozenset(pair)] += 1
    for at in range(0, 400, 4):
        assert {frozenset(pair) for pair in drawn[at : at + 4]} == set(map(frozenset, pairs))
    assert 150 < sum(pair.left < pair.right for pair in drawn) < 250
    firsts = Counter(draw_pair(pairs, {}, random.Random(n)) for n in range(800))
    assert len(firsts) == 8 and min(firsts.values()) > 60
    assert draw_pair([], {}, rng) is None


@pytest.mark.parametrize(("outcome", "voter"), [("best", "ann"), ("", "ann"), ("left", " "), ("left", "x" * 101)])
def test_an_answer_or_a_voter_that_there_cannot_be_is_refused(outcome: str, voter: str) -> None:
    with pytest.raises(BadInput):
        check_vote(outcome, voter)
