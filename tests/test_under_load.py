"""A server of which much is asked at once: it tells how it does, and no visitor has more of it than a share."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from cmp.core.grids import GridSpec, Prompt, Sampling
from cmp.errors import BadInput, Busy, Refused, TooOften
from cmp.guard import Guard, Rules
from cmp.rest import api_routes
from cmp.server import rules_for
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for
from tests.support import in_a_loop_of_its_own, origin_run
from tests.test_jobs import over

RUN = "lora_casual_shoes"
GRID = GridSpec((None,), (Prompt("a"),), samplings=(Sampling(steps=1),))
VISITOR = Caller(owner=False, address="192.0.2.1")
OPEN = Rules(open_reading=True, strangers=True, hosts=frozenset({"testserver"}))


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    made = origin_run(tmp_path)
    space = Settings(tmp_path / "home", (made.outputs,), (made.bases,), device="cpu", mode="space", read_only=True, open_reading=True)
    return Workbench(space)


def serving(bench: Workbench, *more: Route, rules: Rules = OPEN) -> FastAPI:
    return FastAPI(routes=[*more, *api_routes(bench)], middleware=[Middleware(Guard, rules=rules)])


async def begin(app: FastAPI, path: str, client: str) -> int:
    """The status of an answer as soon as it begins; goes on reading until it is cancelled."""
    status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            status.set_result(message["status"])

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"testserver")],
        "client": (client, 1),
    }
    task = asyncio.create_task(app(scope, receive, send))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    _RUNNING.add(task)
    return await asyncio.wait_for(status, 60)


_RUNNING: set[asyncio.Task[None]] = set()


def test_health_is_told_while_every_thread_that_answers_is_busy(bench: Workbench) -> None:
    threads, go_on = 3, threading.Event()
    taken = threading.Semaphore(0)

    def busy(_: Request) -> PlainTextResponse:
        taken.release()
        go_on.wait(60)
        return PlainTextResponse("")

    async def run() -> int:
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        app = serving(bench, Route("/cmp/busy", busy))
        waiting = [asyncio.create_task(begin(app, "/cmp/busy", "192.0.2.1")) for _ in range(threads)]
        for _ in range(threads):
            await asyncio.to_thread(taken.acquire, True, 60)
        try:
            return await begin(app, "/health", "192.0.2.2")
        finally:
            go_on.set()
            await asyncio.gather(*waiting)

    assert in_a_loop_of_its_own(run()) == 200


def test_a_plan_is_as_small_as_a_grid_that_may_be_drawn_and_not_asked_for_too_often(bench: Workbench) -> None:
    client = TestClient(serving(bench))
    asked = {"targets": [RUN], "prompts": ["x"], "steps": "1", "dry_run": True}
    for more, told in (({"seeds": "1-13"}, "26 cells"), ({"steps": "27-31"}, "31 denoising steps")):
        answer = client.post("/api/v1/grid", json=asked | more)
        assert answer.status_code == 422 and told in answer.text, answer.text
    with acting_for(VISITOR):
        for _ in range(30):
            bench.require_planning(GRID)
        with pytest.raises(TooOften):
            bench.require_planning(GRID)
    bench.require_planning(GRID)


def test_a_visitor_is_told_of_no_large_plan_where_only_the_owner_draws(bench: Workbench) -> None:
    owned = Workbench(replace(bench.settings, mode="local", read_only=False, token="open sesame open"))
    large = replace(GRID, seeds=tuple(range(25)))
    owned.require_small(large)
    with acting_for(VISITOR), pytest.raises(BadInput, match="25 cells"):
        owned.require_small(large)


@pytest.fixture
def held(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Grids of which none ends before it is told to."""
    done = threading.Event()
    monkeypatch.setattr(bench, "draw_when_free", lambda *_, **__: iter([done.wait(60)]))
    yield done
    for job in bench.jobs.all():
        bench.jobs.cancel(job.id)
    done.set()


def test_one_visitor_holds_four_places_in_the_queue_and_has_them_back(bench: Workbench, held: threading.Event) -> None:
    run = bench.find(RUN)[0]
    with acting_for(VISITOR):
        first, *_ = (bench.start_grid(GRID, [run]) for _ in range(4))
        with pytest.raises(Busy, match="4 of your jobs"):
            bench.start_grid(GRID, [run])
    with acting_for(Caller(owner=False, address="192.0.2.2")):
        bench.start_grid(GRID, [run])
    for job in bench.jobs.all():
        bench.jobs.cancel(job.id)
    held.set()
    over(first)
    with acting_for(VISITOR):
        bench.start_grid(GRID, [run])
    assert len(bench.jobs.records()) == 6


def test_one_visitor_follows_four_jobs_at_once_and_another_one_more(bench: Workbench, held: threading.Event) -> None:
    with acting_for(VISITOR):
        path = f"/api/v1/jobs/{bench.start_grid(GRID, [bench.find(RUN)[0]]).id}/events"

    async def run() -> list[int]:
        app = serving(bench)
        told = [await begin(app, path, "192.0.2.1") for _ in range(5)]
        return [*told, await begin(app, path, "192.0.2.2")]

    assert in_a_loop_of_its_own(run()) == [200] * 4 + [503, 200]


# -- what the settings make of it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "believed"), [({"CMP_MODE": "space"}, False), ({"SPACE_ID": "ann/cmp"}, True), ({"SYSTEM": "spaces"}, True)]
)
def test_who_asks_is_believed_of_the_proxy_of_a_space_alone(environ: dict[str, str], believed: bool) -> None:
    rules = rules_for(Settings.from_env(environ), "0.0.0.0")
    assert rules.strangers and rules.forwarded is believed


def test_a_token_that_can_be_guessed_is_refused_where_others_can_try(tmp_path: Path) -> None:
    short, named = Settings(tmp_path, token="elevenchars"), Settings(tmp_path, token="elevenchars", hosts=("cmp.example.org",))
    for settings, host, share in (
        (short, "0.0.0.0", False),
        (short, "192.0.2.1", False),
        (short, "127.0.0.1", True),
        (named, "127.0.0.1", False),
    ):
        with pytest.raises(Refused, match="11 characters") as told:
            rules_for(settings, host, share=share)
        assert "--token auto" in told.value.hint and "elevenchars" not in json.dumps(told.value.as_json())
    assert rules_for(short, "127.0.0.1").token == "elevenchars"
    assert rules_for(replace(short, token="twelve chars"), "0.0.0.0").token and rules_for(replace(short, token="auto"), "0.0.0.0").token


def test_a_named_host_is_an_origin_and_the_address_that_is_listened_on_is_none(tmp_path: Path) -> None:
    rules = rules_for(Settings(tmp_path, token="twelve chars", hosts=("cmp.example.org",)), "192.0.2.1")
    assert rules.takes("https://cmp.example.org", "192.0.2.1:7860", "http") and rules.takes(
        "http://192.0.2.1:7860", "192.0.2.1:7860", "http"
    )
    assert not rules.takes("http://192.0.2.1", "192.0.2.1:7860", "http") and rules.knows("cmp.example.org:1")
