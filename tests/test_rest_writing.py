"""What REST writes beside conversions and pictures: names, answers, votes, room, and what is handed over. Each told as it was kept."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from cmp.disk.ready import Answers
from cmp.rest import api_routes
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for
from tests.sharing import RUN, SECRET, Given, given_run, vote
from tests.support import BASE_NAME, adapter_tensors, base_pipeline, save
from tests.uploads import Hub

OWNER = Caller(address="198.51.100.1", by_id=True)


class Api:
    """The routes over a workbench, asked by its owner."""

    def __init__(self, bench: Workbench) -> None:
        self.client = TestClient(FastAPI(routes=api_routes(bench)))

    def get(self, path: str) -> Any:
        with acting_for(OWNER):
            return self.client.get(path).json()

    def post(self, verb: str, status: int = 200, **asked: Any) -> Any:
        with acting_for(OWNER):
            answer = self.client.post(f"/api/v1/{verb}", json=asked)
        assert answer.status_code == status, answer.text
        return answer.json() if status < 400 else answer.json()["detail"]

    def finished(self, job: str) -> Any:
        for _ in range(600):
            told = self.get(f"/api/v1/jobs/{job}")
            if told["state"] in ("done", "failed", "cancelled"):
                return told
            time.sleep(0.05)
        raise AssertionError(told)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return given_run(tmp_path_factory.mktemp("rest"))


@pytest.fixture
def api(given: Given) -> Iterator[Api]:
    yield Api(given.bench)


def test_a_name_is_kept_and_taken_away_and_ids_stay(api: Api) -> None:
    assert api.post("name", target=RUN, name="  Shoes  ") == {"target": RUN, "name": "Shoes"}
    assert api.post("name", target=f"{RUN}@500", name="the early one")["target"] == f"{RUN}@500"
    run = api.get("/api/v1/list")["runs"][0]
    assert (run["id"], run["name"], run["checkpoints"][0]["name"]) == (RUN, "Shoes", "the early one")
    assert api.post("name", target=RUN, name="")["name"] is None and api.get("/api/v1/list")["runs"][0]["name"] is None
    told = api.post("name", 422, target=RUN, name="x" * 201)
    assert told["error"].startswith("name: ") and "200" in told["error"] and "xxx" not in told["error"]
    assert api.post("name", 404, target="another", name="x")["code"] == 3


def test_a_vote_is_taken_back(api: Api, given: Given) -> None:
    vote(given)
    before = api.get(f"/api/v1/vote?run={RUN}")["votes"]
    assert api.post("vote/back", run=RUN, voter=SECRET) == {"run": RUN, "taken": True, "votes": before - 1}
    assert api.post("vote/back", run=RUN, voter=SECRET)["taken"] is False
    assert api.post("vote/back", 422, run=f"{RUN}@500", voter=SECRET)["hint"] == f"Name the run: {RUN}."


def test_what_would_go_of_the_pictures_is_told_and_goes_only_when_it_is_said(tmp_path: Path) -> None:
    own = given_run(tmp_path)
    api = Api(own.bench)
    assert "what may stay" in api.post("prune", 422)["error"]
    assert "'2 pounds'" in api.post("prune", 422, max_size="2 pounds")["error"]
    plan = api.post("prune", max_size="0")
    assert plan["cells"] == plan["going"] == 8 and not plan["done"] and own.bench.cells_size()[0] == 8
    done = api.post("prune", max_size="0", yes=True)
    assert done["done"] and done["freed_bytes"] == plan["before_bytes"] and own.bench.cells_size()[0] == 0


def test_an_answer_is_remembered_once_the_checkpoint_can_be_read_with_it(tmp_path: Path) -> None:
    save(tmp_path / "loras" / "style.safetensors", {f"unet.{name}": values for name, values in adapter_tensors(1).items()})
    base_pipeline(tmp_path / "bases")
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "loras",), (tmp_path / "bases",)))
    api, run = Api(bench), bench.library().runs[0]
    target = run.checkpoints[0].id
    assert "nothing was answered" in api.post("answer", 422, target=target)["error"]
    assert api.post("answer", 422, target=target, base="../secret")["hint"].startswith("Name it by its id")
    assert "nothing says which alpha" in api.post("answer", 409, target=target, base="nobody/nothing")["error"]
    assert api.post("answer", 404, target=target, base="nobody/nothing", alpha=8)["code"] == 3 and bench.answers(run) == Answers()
    assert api.post("answer", target=target, alpha=16) == {"run": run.id, "answers": {"alpha": 16.0, "base": None}}
    assert api.get(f"/api/v1/show?target={target}")["scale"]["alpha"] == 16.0
    assert api.post("answer", 422, target=run.id, alpha=16)["hint"] == "Choose one of its checkpoints."


def test_a_page_is_told_file_by_file_and_uploaded_only_when_it_is_said(hub: Hub, given: Given) -> None:
    api = Api(given.bench)
    plan = api.post("share", target=RUN, space="me/shoes")
    names = {file["path"] for file in plan["files"]}
    assert (plan["done"], plan["goes_to"]) == (False, "space me/shoes") and {"index.html", "README.md"} <= names and hub.asked == []
    told = api.finished(api.post("share", 202, target=RUN, space="me/shoes", yes=True)["job"])
    assert told["state"] == "done" and "me/shoes" not in str(told), "visitors see jobs, and a repository may be private"
    assert set(committed_paths(hub)) == names
    assert hub.made.get("private") is True or hub.made.get("visibility") == "private", "libraries say it in one way or the other"
    assert "is a checkpoint" in api.post("share", 422, target=f"{RUN}@500", space="me/shoes", yes=True)["error"]
    hub.failing = 403
    told = api.finished(api.post("share", 202, target=RUN, space="me/shoes", yes=True)["job"])
    assert told["state"] == "failed" and "may not write" in told["error"]["error"] and "me/shoes" not in str(told)
    assert "not said where to" in api.post("share", 422, target=RUN)["error"]
    assert "'a b'" in api.post("share", 422, target=RUN, space="a b")["error"]
    assert api.post("share", 404, target=str(given.made.run), space="me/shoes")["code"] == 3, "no path is taken"


def test_the_chosen_lora_goes_with_a_card_that_says_how_it_was_chosen(hub: Hub, given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # which this server does not speak
    api = Api(given.bench)
    job = api.post("share", 202, target=RUN, model="me/shoes", license="mit", yes=True)["job"]
    assert api.finished(job)["state"] == "done"
    card = next(base64.b64decode(one["value"]["content"]).decode() for one in hub.commit if one["value"].get("path") == "README.md")
    pictures = [name for name in committed_paths(hub) if name.startswith("images/")]
    assert {name.rpartition(".")[2] for name in pictures if f"({name})" in card} == {"png", "webp"}, "the curve, and the grid as one sheet"
    for words in ('license: "mit"', "a red shoe", "step 500", "held-out loss", "| rank | 8 |", BASE_NAME):
        assert words in card, f"{words}:\n{card}"
    assert list(hub.large.values()) and SECRET not in card


def committed_paths(hub: Hub) -> list[str]:
    return [one["value"]["path"] for one in hub.commit if one["key"] in ("file", "lfsFile")]


def test_a_server_that_may_only_be_looked_at_has_none_of_these_routes(given: Given) -> None:
    settings = Settings(
        given.bench.settings.home, (given.made.outputs,), (given.made.bases,), mode="space", read_only=True, open_reading=True
    )
    api = Api(Workbench(settings))
    told = api.get("/openapi.json")["paths"]
    assert {path for path, methods in told.items() if set(methods) - {"get"}} == {"/api/generate", "/api/v1/grid"}
    for verb in ("name", "answer", "vote/back", "star", "prune", "restore", "share", "convert", "watch"):
        assert "there is no" in api.post(verb, 404)["error"], verb
    for verb in ("vote", "storage", "measure", "cells"):
        assert "does not take POST" in api.post(verb, 405)["error"], verb
