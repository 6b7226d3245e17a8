"""A Space to which a card is lent: each row of a grid in an event of its own, in the name of whoever sent that. See `tests.lent_card`."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lent_card import HEADER, Platform, lending_cards, token, variables

from .conftest import Server, start_server
from .watched import Watched

pytestmark = [pytest.mark.browser, pytest.mark.model]
STARTED = "from tests.lent_card import without_card; without_card(); import runpy; runpy.run_path('app.py', run_name='__main__')"


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with lending_cards() as lent:
        yield lent


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, platform: Platform) -> Iterator[Server]:
    around = {"CMP_MODE": "space", "CMP_PORT": "0", "CMP_DEVICE": "auto", **variables(platform)}
    yield from start_server(tmp_path_factory.mktemp("space"), program=("-c", STARTED), **around)


@pytest.fixture
def visitor(browser: Any, space: Server) -> Iterator[Watched]:
    """A page behind the platform's proxy, which says of every request anew who sent it."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)
    sent = 0

    def name(route: Any) -> None:
        nonlocal sent
        sent += 1
        kind = "event" if "/queue/join" in route.request.url else "other"
        route.continue_(headers=route.request.headers | {HEADER: token(f"{kind} {sent}")})

    context.route("**/*", name)
    watched = Watched(context.new_page(), space)
    yield watched
    context.close()
    assert watched.complaints == []


def test_each_row_is_lent_to_an_event_of_its_own(visitor: Watched, platform: Platform, space: Server) -> None:
    assert len(platform.told("startup-report")) == 1, "the platform stops a Space that does not say that it wants a card"
    visitor.tab("Compare")
    page = visitor.page
    page.locator("#compare-checkpoints input").first.wait_for()
    page.locator("#compare-prompts textarea").fill("a red shoe\na blue shoe\na green shoe")
    before = len(platform.names)
    page.click("#compare-draw")
    told = visitor.status("compare-status", "done: ", 120)
    names = platform.names[before:]
    assert "cannot" not in told and page.locator("#grid td[data-state=fault]").count() == 0
    assert page.locator("#grid td[data-state=done]").count() % 3 == 0
    assert len(names) == len(set(names)) == 3 and all(name.startswith("event ") for name in names), names
    visitor.picture("lent-card")
    told = space.get("/health")
    assert told[0] == 200 and told[1]["device"] == "cuda", "as the library says of a card that is not lent yet"


def test_a_grid_that_nobody_watches_is_drawn_in_the_name_of_who_asked_for_it(platform: Platform, space: Server) -> None:
    before = len(platform.names)
    checkpoint = space.get("/api/v1/list")[1]["runs"][0]["checkpoints"][0]["id"]
    asked = {"targets": [checkpoint], "prompts": ["a brown shoe", "a grey shoe"], "steps": "1"}
    status, told, _ = space.post("/api/v1/grid", asked, **{HEADER: token("by REST")})
    assert status == 202, told
    job = wait(space, told["job"])
    assert (job["state"], job["done"], job["faults"]) == ("done", 2, 0)
    assert platform.names[before:] == ["by REST", "by REST"]


def test_the_origins_route_draws_in_the_name_of_who_asks(platform: Platform, space: Server) -> None:
    before = len(platform.names)
    asked = {"model_name": "base", "prompt": "a white shoe", "num_inference_steps": 1}
    status, told, _ = space.post("/api/generate", asked, **{HEADER: token("a script")})
    assert status == 200, told
    assert base64.b64decode(told["images"][0]["image_data"]).startswith(b"\x89PNG") and platform.names[before:] == ["a script"]


def wait(space: Server, job: str) -> dict[str, Any]:
    for _ in range(600):
        told: dict[str, Any] = space.get(f"/api/v1/jobs/{job}")[1]
        if told["state"] in ("done", "failed", "cancelled"):
            return told
        time.sleep(0.1)
    raise AssertionError(told)
