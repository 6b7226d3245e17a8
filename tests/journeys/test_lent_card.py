"""A Space to which a card is lent: each row of a grid in an event of its own, in the name of whoever sent that. See `tests.lent_card`."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.lent_card import HEADER, Platform, lending_cards, token, variables

from .conftest import FULL, Server, start_server
from .events import STEP
from .watched import Watched

pytestmark = [pytest.mark.browser, pytest.mark.model]
NAME = "ann-cmp.hf.space"
# what the platform sets around a program
SPACE = {"SYSTEM": "spaces", "SPACE_ID": "ann/cmp", "SPACE_HOST": NAME, "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "0"}
STARTED = "from tests.lent_card import without_card; without_card(); import runpy; runpy.run_path('app.py', run_name='__main__')"


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with lending_cards() as lent:
        yield lent


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, platform: Platform) -> Iterator[Server]:
    around = {"CMP_DEVICE": "auto", **SPACE, **variables(platform)}
    for server in start_server(tmp_path_factory.mktemp("space"), program=("-c", STARTED), **around):
        yield replace(server, url=server.url.replace("0.0.0.0", "127.0.0.1"))


@contextmanager
def visiting(browser: Any, space: Server, who: str) -> Iterator[Watched]:
    """A page behind the platform's proxy, which says of every request anew who sent it."""
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        context.set_default_timeout(60_000)
        sent = 0

        def name(route: Any) -> None:
            nonlocal sent
            if not route.request.url.startswith(space.url):
                return route.abort()
            sent += 1
            kind = "event" if "/queue/join" in route.request.url else "other"
            told = {HEADER: token(f"{who} {kind} {sent}"), "x-forwarded-for": f"198.51.100.{len(who)}"}
            route.continue_(headers=route.request.headers | told)

        context.route("**/*", name)
        watched = Watched(context.new_page(), space)
        yield watched
        context.unroute_all(behavior="ignoreErrors")
    # on a Space gradio itself asks the platform what it knows of the Space, and for its fonts
    assert watched.asked - {urlsplit(space.url).netloc, ""} <= {"huggingface.co", "fonts.googleapis.com"}
    assert [told for told in watched.complaints if "ERR_FAILED" not in told and told != "Space not found"] == []


def test_each_row_is_lent_to_an_event_of_its_own_of_the_page_that_began_the_grid(browser: Any, platform: Platform, space: Server) -> None:
    assert len(platform.told("startup-report")) == 1, "the platform stops a Space that does not say that it wants a card"
    with visiting(browser, space, "ann") as ann:
        ann.tab("Compare")
        page = ann.page
        page.locator("#compare-checkpoints input").first.wait_for()
        page.locator("#compare-prompts textarea").fill("a red shoe\na blue shoe\na green shoe")
        before = len(platform.names)
        platform.first = before + 1
        page.click("#compare-draw")
        ann.status("compare-status", "asking for a graphics card", 120)
        with visiting(browser, space, "somebody else") as other:  # whose page shows the newest grid, and asks for it as often
            other.tab("Compare")
            other.page.locator("#grid td.cmp-cell").first.wait_for()
            other.status("compare-status", "asking for a graphics card", 120)
            platform.more.set()
            told = ann.status("compare-status", "done: ", 120)
        names = platform.names[before:]
        assert "cannot" not in told and page.locator("#grid td[data-state=fault]").count() == 0
        assert page.locator("#grid td[data-state=done]").count() % 3 == 0
        assert len(names) == len(set(names)) == 3 and all(name.startswith("ann event ") for name in names), names
        ann.picture("lent-card")
    told = space.get("/health")
    assert told[0] == 200 and told[1]["device"] == "cuda", "as the library says of a card that is not lent yet"


def test_a_space_goes_by_its_public_name_and_tells_its_proxys_callers_apart(space: Server) -> None:
    assert [run["id"] for run in space.get("/api/v1/list")[1]["runs"]] == ["casual_shoes_lr_5e-4", FULL], "as they are anywhere else"
    assert space.get("/api/models", Host=NAME, Origin=f"https://{NAME}")[0] == 200
    assert space.get("/api/models", Host="evil.hf.space")[0] == 400
    assert space.get("/api/models", Host=NAME, Origin="https://evil.hf.space")[0] == 403
    assert space.post("/api/v1/star", {"target": "x"}, Host=NAME)[0] in (401, 404)
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--x--\r\n'

    def upload(who: str) -> int:
        kind = {"Content-type": "multipart/form-data; boundary=x", "X-Forwarded-For": f"10.0.0.1, {who}"}
        return space.post("/gradio_api/upload", form, **kind)[0]

    assert {upload("203.0.113.7") for _ in range(40)} == {200, 429} and upload("203.0.113.8") == 200


def test_a_grid_that_nobody_watches_is_drawn_in_the_name_of_who_asked_for_it(platform: Platform, space: Server) -> None:
    before = len(platform.names)
    asked = {"targets": [STEP], "prompts": ["a brown shoe", "a grey shoe"], "steps": "1"}
    status, told, _ = space.post("/api/v1/grid", asked, **{HEADER: token("by REST")})
    assert status == 202, told
    job = wait(space, told["job"])
    assert (job["state"], job["done"], job["faults"]) == ("done", 2, 0)
    assert platform.names[before:] == ["by REST", "by REST"]


def test_the_origins_route_draws_in_the_name_of_who_asks(platform: Platform, space: Server) -> None:
    before = len(platform.names)
    asked = {"model_name": f"{FULL}/checkpoint-500", "prompt": "a white shoe", "num_inference_steps": 1}
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
