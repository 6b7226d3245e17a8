"""The voting page over HTTP: nothing tells which checkpoints a pair is of, a pair is one vote, and pictures of earlier processes count."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from cmp.ballots import LARGEST_BODY, ballot_routes
from cmp.core.grids import Sampling
from cmp.core.runs import Run
from cmp.guard import Guard, Rules
from cmp.pictures.files import save_png
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import Training, bench_of, origin_run, spoil

RUN = "lora_casual_shoes"
STEPS = (500, 1000, 1500)
PAGE, STRENGTHS = f"/cmp/vote/{RUN}", f"/cmp/ballot/strengths?run={RUN}"


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return origin_run(tmp_path, STEPS, final=False)


def run_of(bench: Workbench) -> Run:
    return bench.library().run(RUN)


def drawn(bench: Workbench, seeds: int = 2, **more: object) -> dict[str, str]:
    """Pictures of every checkpoint in the store, as an earlier process has left them: their keys, each with the checkpoint's."""
    run, found = run_of(bench), {}
    for number, c in enumerate(run.checkpoints):
        digest = bench.ready(run, c).digest(bench.store)
        for seed in range(seeds):
            key = f"{1 + 100 * number + seed:064x}"
            told = {"checkpoint": c.id, "prompt": "a shoe", "negative": "", "seed": seed, "strength": 1.0, "sampling": asdict(Sampling())}
            told |= {"stack": [], "base": {"id": "tiny-sd"}, "weights": digest, **more}
            save_png(Image.new("RGB", (8, 8), (80 * number, 40 * seed, 90)), bench.store.cell_path(key), "settings", told)
            found[key] = c.key
    return found


def serving(bench: Workbench, token: str | None = None, **more: Any) -> TestClient:
    rules = Rules(token=token, hosts=frozenset({"testserver"}), **more)
    return TestClient(Starlette(routes=ballot_routes(bench), middleware=[Middleware(Guard, rules=rules)]))


def ask(client: TestClient, what: str, code: int = 200, **told: object) -> Any:
    answer = client.post(f"/cmp/ballot/{what}", json=told)
    assert answer.status_code == code, answer.text
    return answer.json()


@pytest.fixture
def client(made: Training) -> TestClient:
    """A server that has drawn nothing itself: another process has."""
    drawn(bench_of(made))
    return serving(bench_of(made))


# -- blind -----------------------------------------------------------------------------------------------------------------


def test_nothing_that_a_voter_is_sent_tells_a_checkpoint_or_a_key(made: Training, client: TestClient) -> None:
    keys = drawn(bench_of(made))
    sent = [str(client.get(PAGE).text), str(client.get(PAGE).headers)]
    told = ask(client, "next", run=RUN, voter="ann")
    for number in range(6):
        for side in ("left", "right"):
            picture = client.get(f"/cmp/ballot/{told['pair']}/{side}.webp")
            assert picture.status_code == 200 and picture.headers["content-type"] == "image/webp"
            assert b"settings" not in picture.content and b"checkpoint" not in picture.content and "etag" not in picture.headers
            assert "no-store" in picture.headers["cache-control"]
            sent.append(str(picture.headers))
        assert set(told) == {"pair", "prompt", "progress"} and told["prompt"] == "a shoe"
        sent.append(str(told))
        told = ask(client, "cast", pair=told["pair"], voter="ann", outcome=("left", "tie", "bad")[number % 3])
    names = [*keys, *(f"@{step}" for step in STEPS), *(f"checkpoint-{step}" for step in STEPS), "step 1", "window"]
    assert [(name, text) for text in sent for name in names if name in text] == []


def test_sides_are_shuffled_and_every_pair_is_shown_before_any_comes_again(made: Training, client: TestClient) -> None:
    bench = bench_of(made)
    for _ in range(12):
        told = ask(client, "next", run=RUN, voter="ann")
        ask(client, "cast", pair=told["pair"], voter="ann", outcome="left")
    votes = bench.votes(run_of(bench))
    assert {frozenset((vote.left_cell, vote.right_cell)) for vote in votes[:6]} == {
        frozenset((v.left_cell, v.right_cell)) for v in votes[6:]
    }
    assert len({frozenset((vote.left_cell, vote.right_cell)) for vote in votes}) == 6
    sides = {(vote.left, vote.right) for vote in votes}
    assert any((right, left) in sides for left, right in sides), "of twelve votes at least one pair came both ways round"


def test_strengths_are_told_to_those_who_ask_alone(client: TestClient) -> None:
    told = ask(client, "next", run=RUN, voter="ann")
    after = ask(client, "cast", pair=told["pair"], voter="ann", outcome="left")
    assert set(after["progress"]) == {"mine", "votes", "voters", "pairs", "left", "pictured", "checkpoints", "more"}
    asked = client.get(STRENGTHS).json()
    assert len(asked["rows"]) == 2 and {row["won"] for row in asked["rows"]} == {0, 1} and "strength in votes" in asked["reason"]


def test_progress_says_what_this_voter_has_left_and_of_how_many_checkpoints_there_are_pictures(made: Training, tmp_path: Path) -> None:
    bench = bench_of(made)
    for key, step in drawn(bench).items():
        if step == "1500":
            bench.store.cell_path(key).unlink()
    client = serving(bench_of(made))
    told = ask(client, "next", run=RUN, voter="ann")
    left = [told["progress"]["left"]]
    assert (told["progress"]["pairs"], told["progress"]["pictured"], told["progress"]["checkpoints"]) == (2, 2, 3)
    for _ in range(3):
        told = ask(client, "cast", pair=told["pair"], voter="ann", outcome="bad")
        left.append(told["progress"]["left"])
    assert left == [2, 1, 0, 0], "the same pair again is nothing new"
    assert ask(client, "back", run=RUN, voter="ann")["progress"]["left"] == 0
    assert ask(client, "next", run=RUN, voter="bob")["progress"] | {"more": None} == {
        "pairs": 2, "left": 2, "pictured": 2, "checkpoints": 3, "mine": 0, "votes": 2, "voters": 1, "more": None,
    }  # fmt: skip


# -- one pair, one vote ----------------------------------------------------------------------------------------------------


def test_a_pair_is_answered_once_and_by_whom_it_was_shown_to(made: Training, client: TestClient) -> None:
    told = ask(client, "next", run=RUN, voter="ann")
    ask(client, "cast", 404, pair=told["pair"], voter="bob", outcome="left")
    ask(client, "cast", 422, pair=told["pair"], voter="ann", outcome="better")
    ask(client, "cast", pair=told["pair"], voter="ann", outcome="left")
    ask(client, "cast", 404, pair=told["pair"], voter="ann", outcome="left")
    bench = bench_of(made)
    assert [(vote.voter, vote.outcome) for vote in bench.votes(run_of(bench))] == [("ann", "left")]
    assert client.get(f"/cmp/ballot/{told['pair']}/left.webp").status_code == 404


def test_a_vote_that_is_taken_back_shows_its_pair_again_as_it_was_and_touches_no_other_voter(made: Training, client: TestClient) -> None:
    bench = bench_of(made)
    for voter in ("bob", "ann", "ann"):
        told = ask(client, "next", run=RUN, voter=voter)
        ask(client, "cast", pair=told["pair"], voter=voter, outcome="left")
    last = bench.votes(run_of(bench))[-1]
    told = ask(client, "back", run=RUN, voter="ann")
    assert told["taken"] and [vote.voter for vote in bench.votes(run_of(bench))] == ["bob", "ann"]
    ask(client, "cast", pair=told["pair"], voter="ann", outcome="right")
    again = bench.votes(run_of(bench))[-1]
    assert (again.left_cell, again.right_cell, again.outcome) == (last.left_cell, last.right_cell, "right")
    assert ask(client, "back", run=RUN, voter="eve")["taken"] is False
    assert len(bench.votes(run_of(bench))) == 3


# -- whose pictures --------------------------------------------------------------------------------------------------------


def test_pictures_of_an_earlier_process_are_those_of_these_very_weights(made: Training) -> None:
    drawn(bench_of(made))
    bench = bench_of(made)
    assert {one.checkpoint for one in bench._shown(run_of(bench), None)} == {f"{RUN}@{step}" for step in STEPS}
    spoil(made, lambda tensors: tensors.update({name: 2 * value for name, value in tensors.items() if "lora_B" in name}))
    anew = bench_of(made)
    assert {one.checkpoint for one in anew._shown(run_of(anew), None)} == {f"{RUN}@1000", f"{RUN}@1500"}, "step 500 was trained anew"


def test_an_id_alone_makes_no_picture_a_checkpoints_own(made: Training, tmp_path: Path) -> None:
    drawn(bench_of(made))
    other = origin_run(tmp_path / "other", STEPS, rank=4, final=False)
    bench = Workbench(Settings(made.outputs.parent / "home", (other.outputs,), (other.bases,)))
    for c in run_of(bench).checkpoints:
        bench.ready(run_of(bench), c).digest(bench.store)
    assert bench._shown(run_of(bench), None) == ()


def test_previews_are_not_voted_on(made: Training) -> None:
    drawn(bench_of(made), as_preview=True)
    bench = bench_of(made)
    assert bench._shown(run_of(bench), None) == ()
    assert "no two pictures" in ask(serving(bench), "next", 404, run=RUN, voter="ann")["detail"]["error"]


# -- who may ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["next", "cast", "back"])
def test_what_another_site_can_send_is_refused(client: TestClient, what: str) -> None:
    told = {"run": RUN, "voter": "ann", "pair": "x", "outcome": "left"}
    at = f"/cmp/ballot/{what}"
    assert client.post(at, data=told).status_code == 415
    assert client.post(at).status_code == 415
    assert client.post(at, content="{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post(at, json=told, headers={"Origin": "http://evil.test"}).status_code == 403
    assert client.get(at).status_code in (404, 405)


@pytest.mark.parametrize(
    "body", ["", "[]", "null", '{"run": 1, "voter": "a"}', '{"voter": "a"}', "[" * 5000, '{"run": "' + "x" * LARGEST_BODY + '"}']
)
def test_a_body_that_is_no_question_is_refused_in_words(client: TestClient, body: str) -> None:
    answer = client.post("/cmp/ballot/next", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and answer.json()["detail"]["hint"]


def test_a_server_that_is_read_only_takes_no_votes_and_says_so(made: Training) -> None:
    drawn(bench_of(made))
    bench = bench_of(made)
    client = serving(bench)
    told = ask(client, "next", run=RUN, voter="ann")
    ask(client, "cast", pair=told["pair"], voter="ann", outcome="left")
    bench.settings = replace(bench.settings, read_only=True)
    client = serving(bench)
    assert "This server is read-only" in client.get(PAGE).text
    for what in ("next", "back", "cast"):
        assert client.post(f"/cmp/ballot/{what}", json={"run": RUN, "voter": "ann", "pair": "x", "outcome": "left"}).status_code == 404, (
            what
        )
    assert client.get(f"/cmp/ballot/{told['pair']}/left.webp").status_code == 404
    assert len(client.get(STRENGTHS).json()["rows"]) == 2 and len(bench.votes(run_of(bench))) == 1


def test_where_everybody_may_look_votes_are_taken_with_the_token_alone(made: Training) -> None:
    drawn(bench_of(made))
    bench = bench_of(made)
    owner, visitor = (serving(bench, "secret", open_reading=True) for _ in range(2))
    owner.headers["X-CMP-Token"] = "secret"
    told = ask(owner, "next", run=RUN, voter="ann")
    ask(visitor, "cast", 401, pair=told["pair"], voter="ann", outcome="left")
    ask(visitor, "next", 401, run=RUN, voter="eve")
    ask(owner, "cast", pair=told["pair"], voter="ann", outcome="left")
    assert "token" in visitor.get(PAGE).text and 'data-closed=""' in owner.get(PAGE).text
    assert len(visitor.get(STRENGTHS).json()["rows"]) == 2 and len(bench.votes(run_of(bench))) == 1


def test_without_the_token_nothing_is_shown_and_a_link_with_it_leads_to_the_page(made: Training) -> None:
    drawn(bench_of(made))
    client = serving(bench_of(made), "secret")
    assert client.get(PAGE).status_code == 401 and client.post("/cmp/ballot/next", json={"run": RUN, "voter": "a"}).status_code == 401
    opened = client.get(f"{PAGE}?token=secret")
    assert opened.status_code == 200 and RUN in opened.text and "token" not in str(opened.url)


@pytest.mark.parametrize("name", ["off #1?", 'a"><script>alert(1)</script>', "ein Lauf é"])
def test_a_run_of_any_name_has_a_page_that_finds_its_way_and_a_link_with_the_token(tmp_path: Path, name: str) -> None:
    made = origin_run(tmp_path, STEPS, name=name.replace("/", "_"), final=False)
    bench = bench_of(made)
    (run,) = bench.library().runs
    client = serving(bench, "secret")
    opened = client.get(f"/cmp/vote/{quote(run.id)}?token=secret")
    assert opened.status_code == 200 and "<script>alert" not in opened.text
    assert re.search(r'data-up="\.\./\.\./"', opened.text) and opened.text.count("<script") == 2
    assert "default-src 'none'" in opened.headers["content-security-policy"]


def test_a_run_that_is_not_there_has_no_page(client: TestClient) -> None:
    assert client.get("/cmp/vote/nothing").status_code == 404
    ask(client, "next", 404, run="nothing", voter="ann")
    ask(client, "next", 422, run=RUN, voter="  ")
