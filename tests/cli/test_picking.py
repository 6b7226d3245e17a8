"""The verbs best and vote as scripts use them: fields, exit codes, and what goes where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmp.core.votes import Vote
from cmp.disk.store import Store
from cmp.disk.votes import Votes
from tests.in_process import Said, command
from tests.support import Training, origin_run
from tests.test_judging import RUN, STEPS, log_losses

FIELDS = {"run", "rule", "best", "window", "reason", "warnings", "scores"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Training:
    made = origin_run(tmp_path_factory.mktemp("run"), STEPS, final=False)
    log_losses(made, lambda step: 0.1 + 0.1 * ((step - 1000) / 500) ** 2)
    return made


def said(made: Training, *arguments: str) -> Said:
    return command(made.bases.parent / "home", "--runs", str(made.outputs), "--bases", str(made.bases), *arguments)


def test_best_tells_the_verdict_as_the_contract_has_it(made: Training) -> None:
    found = said(made, "best", RUN, "--json")
    assert found.code == 0 and set(found.json) >= FIELDS, found.told
    assert (found.json["run"], found.json["rule"], found.json["best"], found.json["window"]) == (
        RUN,
        "held-out",
        f"{RUN}@1000",
        [f"{RUN}@1000"],
    )
    assert set(found.json["scores"][0]) >= {"checkpoint", "step", "metric", "value", "low", "high", "n"}
    assert [score["step"] for score in found.json["scores"]] == list(STEPS)
    plain = said(made, "best", RUN)
    assert "best  " in plain.out and "all others are worse at 95 %" in plain.out and "note: " in plain.err


@pytest.mark.parametrize(
    ("gate", "code", "passes"),
    [("1000 vs 500", 0, True), ("1000 vs base", 0, True), ("1000 vs 1000", 0, True), ("500 vs 1000", 1, False), ("500 vs 1500", 5, None)],
)
def test_a_gate_exits_with_what_it_finds_and_tells_the_interval(made: Training, gate: str, code: int, passes: bool | None) -> None:
    found = said(made, "best", RUN, "--gate", gate, "--json")
    assert (found.code, found.json["gate"]["passes"]) == (code, passes), found.told
    assert found.json["gate"]["low"] <= found.json["gate"]["worse"] <= found.json["gate"]["high"] and set(found.json) >= FIELDS
    plain = said(made, "best", RUN, "--gate", gate)
    assert plain.code == code and "95 %" in plain.out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--by", "nothing"), 3, "'nothing'"),
        (("--by", "val/loss", "--higher", "--lower"), 2, "--lower"),
        (("--by", "votes"), 3, "nobody has voted"),
        (("--gate", "500"), 2, "--gate"),
        (("--gate", "500 vs 7"), 3, "'7'"),
        (("--gate", "500 vs 1000", "--margin", "-1"), 2, "margin"),
        (("--gate", "500 vs 1000", "--margin", "nan"), 2, "margin"),
    ],
)
def test_what_is_wrong_is_told_with_its_code(made: Training, arguments: tuple[str, ...], code: int, told: str) -> None:
    found = said(made, "best", RUN, *arguments, "--json")
    assert (found.code, found.json["code"]) == (code, code) and told in found.json["error"] and found.json["hint"], found.told


def test_a_checkpoint_is_no_run(made: Training) -> None:
    assert said(made, "best", f"{RUN}@500", "--json").code == 2 and said(made, "vote", f"{RUN}@500", "--json").code == 2


def test_best_by_a_tag_says_which_way_it_took_to_be_better(made: Training) -> None:
    guessed = said(made, "best", RUN, "--by", "val/loss", "--json")
    assert guessed.json["best"] == f"{RUN}@1000" and any("lower is taken to be better" in told for told in guessed.json["warnings"])
    turned = said(made, "best", RUN, "--by", "val/loss", "--higher", "--json")
    assert turned.json["window"] == [f"{RUN}@2000"] and not any("taken to be" in told for told in turned.json["warnings"])


def test_convert_takes_the_best_of_the_same_verdict(made: Training) -> None:
    found = said(made, "convert", RUN, "--to", "lora", "--best", "1", "--dry-run", "--json")
    assert found.code == 0 and [plan["checkpoint"] for plan in found.json["planned"]] == [f"{RUN}@1000"], found.told
    assert "all others are worse at 95 %" in found.err


def test_storage_keeps_the_best_of_the_same_verdict(made: Training) -> None:
    found = said(made, "storage", RUN, "--keep", "best", "--min-age", "0", "--json")
    stays = [item["path"].rpartition("-")[2] for item in found.json["items"] if item["action"] == "keep"]
    assert found.code == 0 and "1000" in stays and "500" not in stays, found.told


def test_vote_tells_the_tally_and_writes_every_vote(made: Training, tmp_path: Path) -> None:
    store = Store(made.bases.parent / "home")
    for number in range(30):
        Votes(store).add(made.run, Vote("ann", "1000", "500", "tie" if number % 6 == 0 else "left", "a shoe", seed=number))
    Votes(store).add(made.run, Vote("bob", "1000", "2000", "bad", "a shoe"))
    found = said(made, "vote", RUN, "--csv", str(tmp_path / "v.csv"), "--json")
    assert found.code == 0 and set(found.json) >= FIELDS | {"votes", "both_bad", "coverage", "more_votes", "voters"}, found.told
    assert (found.json["votes"], found.json["both_bad"], found.json["best"]) == (31, 1, f"{RUN}@1000")
    assert found.json["coverage"] == {"pairs": 6, "seen": 1, "pictures": 30} and len(found.json["ballots"]) == 31
    assert len((tmp_path / "v.csv").read_text().splitlines()) == 32
    assert said(made, "vote", RUN, "--csv", str(tmp_path / "v.csv"), "--json").code == 5
    plain = said(made, "vote", RUN)
    assert plain.code == 0 and "31 votes by 2 voters, 1 of them both bad. Of the 6 pairs of checkpoints" in plain.out
    assert "1 has votes and 5 have none." in plain.out
    by_votes = said(made, "best", RUN, "--by", "votes", "--gate", "500 vs 1000", "--json")
    assert by_votes.code == 1 and json.dumps(by_votes.json)
