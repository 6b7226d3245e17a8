"""Every event of the page, sent by a visitor with values that it would take from its owner: what changes something is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .conftest import Server, start_server
from .events import CHANGING, DRAWING, STARRING, STEP, described, remembered, send_event, state_of

pytestmark = pytest.mark.model

TOKEN = "open sesame"
OWNER = {"X-Cmp-Token": TOKEN}
REFUSED, DONE = "only the owner of this dashboard", '"success":true'


@dataclass(frozen=True, slots=True)
class Page:
    """A page that everybody may open, of a server whose owner has drawn a grid."""

    server: Server
    job: str
    fields: dict[int, Any]
    events: dict[str, dict[str, Any]]

    def send(self, name: str, way: str = "join", **headers: str) -> str:
        own: dict[str, Any] = {
            "folder": str(self.server.home),
            "base-folder": str(self.server.home),
            "measure-held-out": str(self.server.home),
        }
        if name in ("pause", "reroll") or name.startswith("cancel"):
            own["hidden"] = [self.job]
        return send_event(self.server, self.events[name], self.fields, own, way, **headers)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    for server in start_server(tmp_path_factory.mktemp("opened"), "serve", "--port", "0", "--token", TOKEN, "--open-reading"):
        told = server.post("/api/v1/grid", {"targets": [STEP], "prompts": ["a shoe"], "steps": "1"}, **OWNER)[1]
        fields, events = described(server)
        for _ in range(600):
            if (state := server.get(f"/api/v1/jobs/{told['job']}", **OWNER)[1]["state"]) not in ("waiting", "running"):
                break
            time.sleep(0.2)
        assert state == "done"
        yield Page(server, told["job"], fields, {event["api_name"]: event for event in events})


def settled(page: Page) -> Any:
    return state_of(page.server.home), remembered(page.server, **OWNER)


@pytest.mark.parametrize("way", ["run", "call"])
def test_the_same_is_refused_by_whichever_way_it_is_sent(opened: Page, way: str) -> None:
    before = settled(opened)
    told = {name: opened.send(name, way) for name in (*CHANGING, *DRAWING, *(STARRING if way == "run" else ()))}  # a script tells no click
    assert not {name: said[-300:] for name, said in told.items() if REFUSED not in said}
    assert settled(opened) == before


FOREIGN = {"another site": {"Origin": "http://evil.test"}, "no site": {"Origin": "null"}, "another name": {"Host": "evil.test"}}


@pytest.mark.parametrize("where", FOREIGN)
@pytest.mark.parametrize("way", ["join", "run", "call"])
def test_no_event_is_taken_from_another_site_or_by_another_name_not_even_of_the_owner(opened: Page, way: str, where: str) -> None:
    before = settled(opened)
    refusal = "does not go by the name" if where == "another name" else "another site"
    told = {name: opened.send(name, way, **FOREIGN[where], **OWNER) for name in opened.events}
    assert len(told) > 60 and not {name: said[-300:] for name, said in told.items() if refusal not in said}
    assert settled(opened) == before


@pytest.mark.parametrize("name", [*CHANGING, *DRAWING, *STARRING])
def test_what_changes_something_or_draws_is_refused_to_visitors(opened: Page, name: str) -> None:
    before = settled(opened)
    told = opened.send(name)
    assert REFUSED in told, f"a visitor's {name} was answered: {told[-600:]}"
    assert settled(opened) == before


def test_every_other_event_looks_works_for_visitors_and_changes_nothing(opened: Page) -> None:
    looking = sorted(set(opened.events) - {*CHANGING, *DRAWING, *STARRING})
    assert len(looking) > 40
    before, told = settled(opened), {}
    for name in looking:
        told[name] = opened.send(name)
    del told["take"]  # which wants a file
    assert not [name for name, said in told.items() if REFUSED in said], "list these among what changes something"
    failed = {name: said[-300:] for name, said in told.items() if DONE not in said.replace(" ", "")}
    assert not failed, failed
    assert settled(opened) == before


@pytest.mark.parametrize("way", ["join", "run", "call"])
@pytest.mark.parametrize("who", ["the owner", "a visitor"])
def test_no_event_reads_a_file_that_was_not_uploaded(opened: Page, tmp_path: Path, way: str, who: str) -> None:
    secret, link = tmp_path / "secret.txt", opened.server.home / "gradio" / "linked"
    secret.write_text("a secret prompt")
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path)
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\na prompt of mine\r\n--x--\r\n'
    (uploaded,) = opened.server.post("/gradio_api/upload", form, **{"Content-type": "multipart/form-data; boundary=x"} | OWNER)[1]
    headers = OWNER if who == "the owner" else {}
    event = opened.events["take"]
    for path in (
        secret,
        link / secret.name,
        f"{uploaded}/../../../../{secret}",
        f"{uploaded}\x00",
        "/etc/passwd",
        "../../etc/passwd",
        "\x00",
        "",
    ):
        file = {"path": str(path), "orig_name": "a.txt", "meta": {"_type": "gradio.FileData"}}
        told = send_event(opened.server, event, opened.fields, {"compare-drop": file}, way, **headers)
        assert "secret prompt" not in told and "root:" not in told, (path, told[-300:])
        assert DONE not in told.replace(" ", "") or way != "join", (path, told[-300:])
    if who == "the owner":
        file = {"path": uploaded, "orig_name": "a.txt", "meta": {"_type": "gradio.FileData"}}
        assert "a prompt of mine" in send_event(opened.server, event, opened.fields, {"compare-drop": file}, way, **headers)
    link.unlink()


@pytest.mark.parametrize("name", ["rename", "answer", "add_folder", "remove_folder", "add_folder_1", "newest"])
def test_the_same_event_is_carried_out_for_the_owner(opened: Page, name: str) -> None:
    """Which shows that it is its sender and not its values that the others are refused for."""
    told = opened.send(name, **OWNER)
    assert DONE in told.replace(" ", "") and REFUSED not in told, told[-600:]


@pytest.mark.parametrize("name", ["edit", "act", "act_1"])
def test_the_same_star_is_given_for_the_owner(opened: Page, name: str) -> None:
    opened.server.post("/api/v1/star", {"target": STEP, "on": False}, **OWNER)
    assert STEP not in remembered(opened.server, **OWNER)[1]
    opened.send(name, **OWNER)
    assert STEP in remembered(opened.server, **OWNER)[1]
