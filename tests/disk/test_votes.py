"""Votes are kept: of several voters, by two processes at once, and told as a table in which nothing is a formula."""

from __future__ import annotations

import csv
import multiprocessing
from pathlib import Path

import pytest
from PIL import Image

from cmp.core.votes import Vote
from cmp.disk.store import Store
from cmp.disk.votes import Votes, weights_in, write_votes
from cmp.errors import Refused
from cmp.pictures.files import save_png

VOTE = Vote("ann", "500", "final", "tie", "a shoe", "blur", 2**63 - 1, "k1", "k2", "w1", "w2", 12.5)


def test_a_vote_comes_back_as_it_was_cast_and_belongs_to_one_run(tmp_path: Path) -> None:
    votes = Votes(Store(tmp_path))
    votes.add(tmp_path / "run", VOTE)
    assert Votes(Store(tmp_path)).of(tmp_path / "run") == (VOTE,)
    assert votes.of(tmp_path / "other") == ()
    votes.add(tmp_path / "run", Vote("a \ud800 lone half", "500", "1000", "left"))
    assert votes.of(tmp_path / "run")[1].left == "500"


def test_what_a_voter_has_seen_counts_pairs_whatever_their_sides(tmp_path: Path) -> None:
    votes, place = Votes(Store(tmp_path)), tmp_path / "run"
    for voter, left, right in (("ann", "a", "b"), ("ann", "b", "a"), ("bob", "a", "c")):
        votes.add(place, Vote(voter, "1", "2", "left", left_cell=left, right_cell=right))
    assert votes.seen(place, "ann") == {frozenset("ab"): 2} and votes.seen(place, "bob") == {frozenset("ac"): 1}


def test_taking_back_forgets_the_voters_own_last_vote_alone(tmp_path: Path) -> None:
    votes, place = Votes(Store(tmp_path)), tmp_path / "run"
    for voter in ("ann", "ann", "bob"):
        votes.add(place, Vote(voter, "1", "2", "left"))
    assert votes.take_back(place, "ann") and [vote.voter for vote in votes.of(place)] == ["ann", "bob"]
    assert votes.take_back(place, "ann") and not votes.take_back(place, "ann") and len(votes.of(place)) == 1


def _cast(home: Path, voter: str, count: int) -> None:
    votes = Votes(Store(home))
    for number in range(count):
        votes.add(home / "run", Vote(voter, "1", "2", "left", seed=number))


def test_two_processes_that_vote_at_once_lose_none(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_cast, args=(tmp_path, voter, 40)) for voter in ("ann", "bob")]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    cast = Votes(Store(tmp_path)).of(tmp_path / "run")
    assert sorted((vote.voter, vote.seed) for vote in cast) == [(voter, n) for voter in ("ann", "bob") for n in range(40)]


def test_the_table_has_a_row_for_each_vote_and_no_formula_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    target = tmp_path / "votes.csv"
    write_votes([VOTE, Vote("=cmd()", "1", "2", "left", 'say "hi", twice')], target)
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["voter"] for row in rows] == ["ann", "'=cmd()"] and rows[1]["prompt"] == 'say "hi", twice'
    assert rows[0]["outcome"] == "tie" and rows[0]["at"] == "1970-01-01T00:00:12Z"
    with pytest.raises(Refused, match=r"votes\.csv"):
        write_votes([], target)
    write_votes([VOTE], target, force=True)
    assert len(target.read_text().splitlines()) == 2


def test_a_picture_tells_the_weights_that_it_was_drawn_from(tmp_path: Path) -> None:
    save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", "", {"weights": "abc", "prompt": "x"})
    save_png(Image.new("RGB", (8, 8)), tmp_path / "b.png", "", {"prompt": "x"})
    assert [weights_in(tmp_path / name) for name in ("a.png", "b.png", "none.png")] == ["abc", "", ""]
