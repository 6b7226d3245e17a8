"""REST of all verbs against a real server: the same values as the command line, jobs that are followed, and what OpenAPI promises."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmp.cli import VERBS

from .conftest import FULL, ROOT, Said, Server, environment, run_command, start_server

pytestmark = pytest.mark.model

STEP = f"{FULL}@500"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    for server in start_server(tmp_path_factory.mktemp("v1"), "serve", "--port", "0"):
        pause = threading.Event()
        while server.get("/api/v1/list")[1] != run_command(server.home, "list", "--json").json:  # weights are compared in the background
            pause.wait(0.2)
        yield server


@pytest.fixture
def said(served: Server) -> Callable[..., Said]:
    """What the command line says over the same home."""
    return lambda *arguments: run_command(served.home, *arguments)


def events(server: Server, job: str, last: str | None = None) -> list[tuple[str, str, Any]]:
    """Every event of a job: its kind, id and value."""
    request = urllib.request.Request(f"{server.url}/api/v1/jobs/{job}/events", headers={"Last-Event-ID": last} if last else {})
    found = []
    with urllib.request.urlopen(request, timeout=120) as answer:
        for block in answer.read().decode().split("\n\n"):
            told = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if told:
                found.append((told["event"], told.get("id", ""), json.loads(told["data"])))
    return found


def finished(server: Server, job: str) -> dict[str, Any]:
    pause = threading.Event()
    while (told := server.get(f"/api/v1/jobs/{job}")[1])["state"] in ("waiting", "running"):
        pause.wait(0.1)
    return dict(told)


@pytest.mark.parametrize(
    ("path", "command"),
    [("list", ("list",)), (f"show?target={STEP}", ("show", STEP)), (f"show?target={FULL}", ("show", FULL)),
     (f"best?run={FULL}", ("best", FULL)), (f"curves?run={FULL}&tag=loss", ("curves", FULL, "--tag", "loss")),
     ("cells", ("cells",)), ("jobs", ("jobs",))],
)  # fmt: skip
def test_a_verb_tells_what_the_command_line_tells(served: Server, said: Callable[..., Said], path: str, command: tuple[str, ...]) -> None:
    status, told, _ = served.get(f"/api/v1/{path}")
    assert status == 200 and told == said(*command, "--json").json


def test_a_star_is_what_the_command_line_shows(served: Server, said: Callable[..., Said]) -> None:
    assert served.post("/api/v1/star", {"target": STEP, "note": "the one"})[:2] == (
        200,
        {"checkpoint": STEP, "star": True, "note": "the one"},
    )
    assert said("show", STEP, "--json").json["note"] == "the one"
    assert served.post("/api/v1/star", {"target": STEP, "on": False, "note": ""})[1]["star"] is False
    assert served.post("/api/v1/star", {"target": FULL})[0] == 422 and served.post("/api/v1/star", {"target": "nobody@1"})[0] == 404


def test_a_conversion_is_a_job_whose_events_can_be_taken_up_again(served: Server, said: Callable[..., Said]) -> None:
    asked = {"targets": [STEP, f"{FULL}@1000"], "to": "lora"}
    status, planned, _ = served.post("/api/v1/convert", asked | {"dry_run": True})
    assert status == 200 and [one["checkpoint"] for one in planned["planned"]] == asked["targets"]
    assert not Path(planned["planned"][0]["output"]).exists()
    status, told, _ = served.post("/api/v1/convert", asked)
    assert status == 202 and told["job"].startswith("convert-")
    seen = events(served, told["job"])
    items = [(number, value) for kind, number, value in seen if kind == "item"]
    assert [number for number, _ in items] == ["1", "2"] and [value["checkpoint"] for _, value in items] == asked["targets"]
    assert seen[-1][0] == "end" and seen[-1][2]["state"] == "done" and seen[-1][1] == "end"
    assert all(Path(value["output"]).is_file() and value["checks"] for _, value in items)
    again = events(served, told["job"], last="1")
    assert [(kind, number) for kind, number, _ in again] == [("item", "2"), ("end", "end")]
    assert events(served, told["job"], last="end") == []
    assert served.get(f"/api/v1/jobs/{told['job']}/events", **{"Last-Event-ID": "x"})[0] == 422
    assert finished(served, told["job"])["items"] == [value for _, value in items]
    assert len(served.post("/api/v1/convert", asked)[1]["skipped"]) == 2, "what is there is not made again"
    assert said("jobs", told["job"], "--json").json["state"] == "done"


def test_a_grid_is_drawn_voted_on_and_cancelled(served: Server) -> None:
    asked = {"targets": [FULL], "prompts": ["a red casual shoe"], "checkpoints": "500, 1000", "steps": "1", "seeds": "1-2"}
    assert served.post("/api/v1/grid", asked | {"dry_run": True})[1]["cells"] == 4
    job = served.post("/api/v1/grid", asked)[1]["job"]
    told = finished(served, job)
    assert told["state"] == "done" and len(told["items"]) == 4 and told["grid"]["seeds"] == [1, 2]
    assert served.get(f"/cmp/cell/{told['items'][0]['key']}.png")[0] == 200
    pair = served.get(f"/api/v1/pair?run={FULL}&voter=ann")[1]
    assert served.post("/api/v1/vote", {"run": FULL, "voter": "ann", **pair, "outcome": "left"})[1]["votes"] == 1
    tally = served.get(f"/api/v1/vote?run={FULL}")[1]
    assert tally["votes"] == 1 and tally["ballots"][0]["voter"] == "ann"
    assert served.post("/api/v1/vote", {"run": FULL, "voter": "ann", "left": "0" * 64, "right": "1" * 64, "outcome": "left"})[0] == 422
    long = served.post("/api/v1/grid", asked | {"seeds": "100-160", "steps": "60", "mode": "exact"})[1]["job"]
    request = urllib.request.Request(f"{served.url}/api/v1/jobs/{long}", method="DELETE")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.loads(answer.read())["job"] == long
    assert finished(served, long)["state"] == "cancelled"
    assert served.get("/api/v1/jobs/grid-999")[0] == 404


def test_room_is_made_and_given_back(served: Server) -> None:
    asked = {"runs": [FULL], "keep": "last", "min_age": "0s", "max_count": 5}
    plan = served.post("/api/v1/storage", asked)[1]
    going = [Path(item["path"]) for item in plan["items"] if item["action"] == "trash"]
    assert going and not plan["done"] and all(path.exists() for path in going)
    status, told, _ = served.post("/api/v1/storage", asked | {"yes": True})
    assert status == 202
    ended = finished(served, told["job"])
    assert ended["state"] == "done" and not any(path.exists() for path in going), ended
    for trashed in [item["trash_id"] for item in ended["items"]]:
        back = served.post("/api/v1/restore", {"target": trashed})
        assert back[0] == 202 and finished(served, back[1]["job"])["state"] == "done"
    assert all(path.exists() for path in going)
    for nothing in ("../x", "nope", str(going[0])):
        assert served.post("/api/v1/restore", {"target": nothing})[0] == 404


def test_more_than_eight_pictures_at_once_wait_for_nothing_and_none_of_the_eight_is_lost(served: Server) -> None:
    asked = {"model_name": f"{FULL}/checkpoint-500", "prompt": "a blue casual shoe", "num_inference_steps": 12}
    answers: list[tuple[int, Any, str]] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(served.post("/api/generate", asked | {"seed": n}))) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = [status for status, _, _ in answers]
    assert statuses.count(200) >= 8 and set(statuses) <= {200, 503} and len(statuses) == 24, statuses
    for status, told, _ in answers:
        assert status == 200 or told["detail"]["code"] == 75


def test_the_list_of_models_is_packed_and_not_sent_again_while_nothing_changes(served: Server) -> None:
    def ask(**headers: str) -> Any:
        return urllib.request.urlopen(urllib.request.Request(f"{served.url}/api/models", headers=headers), timeout=60)

    with ask(**{"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip" and "json" in answer.headers["content-type"]
        tag = answer.headers["etag"]
    with pytest.raises(urllib.error.HTTPError) as told:
        ask(**{"If-None-Match": tag})
    assert told.value.code == 304
    told.value.close()


def test_gradio_client_can_call_the_page(served: Server) -> None:
    from gradio_client import Client

    client = Client(served.url, verbose=False, analytics_enabled=False)
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert "/measure" in named
    assert "picture" in str(client.predict(api_name="/measure"))


def test_gradio_client_shows_its_token_and_is_answered(tmp_path: Path) -> None:
    from gradio_client import Client

    for server in start_server(tmp_path / "home", "serve", "--port", "0", "--token", "open sesame"):
        with pytest.raises(Exception, match="credentials"):
            Client(server.url, verbose=False, analytics_enabled=False)
        client = Client(server.url, verbose=False, analytics_enabled=False, headers={"X-CMP-Token": "open sesame"})
        told = client.predict(STEP, api_name="/look_1")
        assert STEP in str(told) and "rank" in str(told)


def test_what_is_measured_is_a_job_and_told_as_the_command_line_tells_it(served: Server, said: Callable[..., Said]) -> None:
    held = served.home / "demo" / "data" / "held_out"
    asked = {"run": FULL, "held_out": str(held), "draws": 1, "checkpoints": "500, 3000", "metrics": ["loss", "update"]}
    assert served.post("/api/v1/measure", asked | {"dry_run": True})[1]["new"] == 5
    assert served.post("/api/v1/measure", asked | {"held_out": "held_out"})[0] == 422, "nobody knows from where the server was started"
    assert served.post("/api/v1/measure", asked | {"held_out": str(held / "none")})[0] == 404
    assert served.post("/api/v1/measure", asked | {"metrics": ["beauty"]})[0] == 422
    assert served.post("/api/v1/measure", asked | {"base": "/etc"})[0] == 422
    status, told, _ = served.post("/api/v1/measure", asked)
    assert status == 202 and finished(served, told["job"])["state"] == "done"
    found = served.get(f"/api/v1/measure?run={FULL}&metric=loss")[1]
    assert [(one["checkpoint"], one["metric"], one["n"]) for one in found["scores"]] == [
        (f"{FULL}@{step}", "loss", 24) for step in (500, 3000)
    ]
    again = said("measure", FULL, "--checkpoints", "500, 3000", "--json")
    assert again.json == found and again.err.count(", known") == 3, "what was measured over REST is known to the command line"
    assert {one["metric"] for one in served.get(f"/api/v1/measure?run={FULL}")[1]["scores"]} == {"loss", "update", "update-relative"}
    assert served.get(f"/api/v1/measure?run={STEP}")[0] == 422 and served.get("/api/v1/measure?run=nobody")[0] == 404


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.json", "a.txt"])
def test_nothing_of_the_texts_in_a_folder_that_the_owner_names_comes_into_an_answer(served: Server, tmp_path: Path, name: str) -> None:
    folder = served.home / "demo" / "data" / f"with {name}"
    folder.mkdir()
    shutil.copy(next((served.home / "demo" / "data" / "held_out").rglob("*.png")), folder / "a.png")
    (tmp_path / "secret").write_text("the-password-is-hunter2\n")
    (folder / name).symlink_to(tmp_path / "secret")
    status, told, _ = served.post("/api/v1/measure", {"run": FULL, "held_out": str(folder), "draws": 1, "dry_run": True})
    assert status == (200 if name == "a.txt" else 422) and "hunter2" not in json.dumps(told), told


def test_measuring_opens_only_what_the_server_was_told_of_before(served: Server, said: Callable[..., Said], tmp_path: Path) -> None:
    held = served.home / "demo" / "data" / "held_out"
    other = tmp_path / "other"
    shutil.copytree(held, other)
    link = served.home / "demo" / "data" / "link"
    link.symlink_to(tmp_path)
    asked: dict[str, Any] = {"run": FULL, "draws": 1, "checkpoints": "500", "dry_run": True}
    for path in (str(other), "/etc", "/", str(link / "other"), f"{held}/../../../..{other}", f"{held}/\x00", "//etc"):
        for name in ("held_out", "training", "reference", "clip", "encoder", "preference"):
            status, told, _ = served.post("/api/v1/measure", asked | {name: path})
            assert status in (409, 422) and set(told["detail"]) == {"error", "hint", "code"}, (name, path, told)
    for name in ("clip", "encoder", "preference"):
        assert served.post("/api/v1/measure", asked | {name: "a/b/c"})[0] == 422, "this is no model's id"
    assert served.post("/api/v1/measure", asked | {"held_out": str(held)})[0] == 200
    link.unlink()
    done = said("measure", FULL, "--held-out", str(other), "--draws", "1", "--checkpoints", "500")
    assert done.code == 0, done.err
    assert served.post("/api/v1/measure", asked | {"held_out": str(other)})[0] == 200, "it was measured on from the command line"


def test_a_run_is_watched_paused_gone_on_with_and_left(served: Server) -> None:
    drawn = served.post("/api/v1/grid", {"targets": [STEP], "prompts": ["a shoe to watch"], "steps": "1"})[1]["job"]
    assert finished(served, drawn)["state"] == "done"
    status, told, _ = served.post("/api/v1/watch", {"run": FULL, "grid": drawn})
    assert status == 202 and told["run"] == FULL
    at, pause = f"/api/v1/jobs/{told['job']}", threading.Event()

    def until(*states: str) -> None:
        for _ in range(600):
            if (now := served.get(at)[1])["state"] in states:
                return
            pause.wait(0.1)
        raise AssertionError(now)

    for _ in range(600):
        if len(served.get(at)[1]["items"]) >= 6:
            break
        pause.wait(0.1)
    assert {item["prompt"] for item in served.get(at)[1]["items"]} == {"a shoe to watch"}
    assert served.post(at, {"ask": "pause"})[0] == 200
    until("paused")
    assert served.post(at, {"ask": "resume"})[0] == 200
    until("waiting", "running")
    assert served.post(at, {"ask": "cancel"})[0] == 200
    until("cancelled")
    assert served.post(at, {"ask": "resume"})[1]["state"] in ("waiting", "running"), "what was cancelled can be taken up again"
    assert served.post(at, {"ask": "cancel"})[0] == 200
    until("cancelled")
    assert served.post(f"/api/v1/jobs/{drawn}", {"ask": "resume"})[0] == 422, "it is done"
    for body in ({"run": FULL, "grid": "/etc/passwd"}, {"run": FULL, "grid": "grid-999999"}, {"run": STEP}, {"run": "/etc"}):
        assert served.post("/api/v1/watch", body)[0] in (404, 422), body
    assert served.post(at, {"ask": "explode"})[0] == 422 and served.post("/api/v1/jobs/grid-999999", {"ask": "pause"})[0] == 404


# -- what OpenAPI promises -------------------------------------------------------------------------------------------------


V1 = """list show curves best measure vote vote/back pair storage cells jobs jobs/{job} jobs/{job}/events doctor
convert grid watch star name answer prune share restore"""
FILES = "cell/{name} sample/{name} curve/{name} export/{source}/{name} scores/{run}/{name} share/{target}/{name} alerts"
ORIGINS = {"/api/models", "/api/generate", "/api/prompts/examples", "/health"}


def test_openapi_describes_every_route_and_every_error(served: Server) -> None:
    described = served.get("/openapi.json")[1]
    paths = described["paths"]
    assert {f"/api/v1/{name}" for name in V1.split()} | {f"/cmp/{name}" for name in FILES.split()} | ORIGINS == set(paths)
    assert set(VERBS) - {"serve", "mcp"} <= set(V1.split()), "every verb but those that serve"
    for path, methods in paths.items():
        for method, told in methods.items():
            errors = {"400", "401", "403"} | ({"409", "413", "415", "422", "429", "503", "507"} if method == "post" else set())
            assert errors <= set(told["responses"]), (path, method)
            assert told["responses"]["401"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorAnswer")


# -- app.py ----------------------------------------------------------------------------------------------------------------

LAUNCHED = """
import os, runpy, sys, threading, time, urllib.request, urllib.error
sys.path.insert(0, {root!r})
import app
if {refused}:
    try:
        app.demo.launch(server_name="0.0.0.0", server_port=0, prevent_thread_lock=True)
    except Exception as fault:
        print("REFUSED", fault, flush=True)
    os._exit(0)
app.demo.launch(server_port=0, prevent_thread_lock=True, ssr_mode=True, enable_monitoring=True, allowed_paths=["/"])
print("UP", flush=True)
sys.stdin.read()
os._exit(0)
"""


def launched(home: Path, code: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    around = environment(home) | {"PYTHONUNBUFFERED": "1", "CMP_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, *code], cwd=ROOT, env=around, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"Open (http://\S+)", line):
                yield process, found[1].rstrip("/")
                return
        raise AssertionError("".join(lines))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("way", ["imported and launched by somebody else", "run"])
def test_app_py_is_guarded_whoever_launches_it(demo_home: Path, way: str) -> None:
    code = ["app.py"] if way == "run" else ["-c", LAUNCHED.format(root=str(ROOT), refused=False)]
    for _, url in launched(demo_home, code):
        server = Server(url, demo_home, [])
        for _ in range(100):
            try:
                status, told, kind = server.get("/api/models")
                break
            except (urllib.error.URLError, ConnectionError):
                threading.Event().wait(0.1)
        assert status == 200 and kind.startswith("application/json") and told["models"], "with SSR a Node process would answer with a page"
        assert server.get("/health", Host="evil.test")[0] == 400
        assert server.get("/gradio_api/file=/etc/passwd")[0] == 404 and server.get("/monitoring/summary")[0] == 404
        assert server.get("/")[0] == 200


def test_app_py_is_not_launched_for_others_without_a_token(demo_home: Path) -> None:
    code = ["-c", LAUNCHED.format(root=str(ROOT), refused=True)]
    told = subprocess.run(
        [sys.executable, *code],
        cwd=ROOT,
        env=environment(demo_home),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert "REFUSED" in told.stdout and "no token" in told.stdout, told.stderr
