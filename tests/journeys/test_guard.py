"""The guard of a real server: what is refused to whom, and that nothing has changed then."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support import origin_run, write_log

from .conftest import FULL, ROOT, Server, environment, start_server
from .events import CHANGING, DRAWING, STEP, described, remembered, state_of
from .watched import Watched

pytestmark = pytest.mark.model

TOKEN = "open sesame"
KEY = "0" * 64
WRITING: dict[str, tuple[str, dict[str, Any] | None]] = {
    "/api/generate": ("POST", {"model_name": "base", "prompt": "x", "num_inference_steps": 1}),
    "/api/v1/grid": ("POST", {"targets": [STEP], "prompts": ["x"], "steps": "1"}),
    "/api/v1/cells": ("POST", {"version": "0", "base": KEY, "mode": "fast"}),
    "/api/v1/convert": ("POST", {"targets": [STEP], "to": "lora"}),
    "/api/v1/star": ("POST", {"target": STEP, "note": "mine"}),
    "/api/v1/vote": ("POST", {"run": FULL, "voter": "ann", "left": KEY, "right": KEY, "outcome": "tie"}),
    "/api/v1/measure": ("POST", {"run": FULL, "held_out": "/etc"}),
    "/api/v1/storage": ("POST", {"keep": "last", "min_age": "0s", "yes": True}),
    "/api/v1/restore": ("POST", {"target": STEP}),
    "/api/v1/watch": ("POST", {"run": FULL}),
    "/api/v1/vote/back": ("POST", {"run": FULL, "voter": "ann"}),
    "/api/v1/name": ("POST", {"target": STEP, "name": "mine"}),
    "/api/v1/answer": ("POST", {"target": STEP, "alpha": 4}),
    "/api/v1/prune": ("POST", {"max_size": "0", "yes": True}),
    "/api/v1/share": ("POST", {"target": FULL, "space": "me/shoes", "yes": True}),
    "/api/v1/jobs/grid-1": ("DELETE", None),
    "/api/v1/jobs/grid-2": ("POST", {"ask": "pause"}),
}


def ask(server: Server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """A request as it is written here, which no library has made better."""
    line = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        line.putrequest(method, path, skip_host="Host" in given, skip_accept_encoding=True)
        for name, value in given.items():
            line.putheader(name, value)
        if body or method == "POST":
            line.putheader("Content-Length", str(len(body)))
        line.endheaders(body)
        answer = line.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        line.close()


def send(server: Server, path: str, **headers: str) -> int:
    method, value = WRITING[path]
    body = b"" if value is None else json.dumps(value).encode()
    kind = {} if value is None or "Content_Type" in headers else {"Content_Type": "application/json"}
    return ask(server, method, path, body, **kind, **headers)[0]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from start_server(tmp_path_factory.mktemp("closed"), "serve", "--port", "0", "--token", TOKEN)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from start_server(tmp_path_factory.mktemp("opened"), "serve", "--port", "0", "--token", TOKEN, "--open-reading")


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from start_server(tmp_path_factory.mktemp("looked"), "serve", "--port", "0", "--no-drawing")


LIMITED = {"a Space": ((), {"CMP_MODE": "space"}), "read-only": (("--read-only", "--open-reading"), {})}


@pytest.fixture(scope="module", params=LIMITED)
def limited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Where everybody may look and draw a little."""
    arguments, around = LIMITED[request.param]
    yield from start_server(tmp_path_factory.mktemp("limited"), "serve", "--port", "0", *arguments, **around)


# -- what is refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WRITING)
def test_every_writing_route_needs_token_own_site_own_name_and_json_and_changes_nothing_without(opened: Server, path: str) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    before = state_of(opened.home), remembered(opened, **bearer)
    assert send(opened, path) == 401
    assert send(opened, path, Authorization="Bearer wrong") == 401
    assert send(opened, path, Origin="http://evil.test", **bearer) == 403
    assert send(opened, path, Origin="null", **bearer) == 403
    assert send(opened, path, Host="evil.test", **bearer) == 400
    assert send(opened, path, Host="evil.test", Origin="http://evil.test", **bearer) == 400
    if WRITING[path][0] == "POST":
        for form in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""):
            assert send(opened, path, Content_Type=form, **bearer) == 415, form
        assert ask(opened, "POST", path, b"", **bearer)[0] == 415, "a POST without a body is what a foreign form sends most easily"
    assert (state_of(opened.home), remembered(opened, **bearer)) == before


def test_these_are_all_the_routes_that_are_described_as_writing(opened: Server) -> None:
    paths = opened.get("/openapi.json")[1]["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods if method != "get"}
    assert described == {(method, re.sub(r"/jobs/.*", "/jobs/{job}", path)) for path, (method, _) in WRITING.items()}


BALLOTS = {
    "next": {"run": FULL, "voter": "ann"},
    "cast": {"pair": "x", "voter": "ann", "outcome": "tie"},
    "back": {"run": FULL, "voter": "ann"},
}


@pytest.mark.parametrize("what", BALLOTS)
def test_votes_on_their_page_need_the_same(opened: Server, what: str) -> None:
    bearer, path, body = {"Authorization": f"Bearer {TOKEN}"}, f"/cmp/ballot/{what}", json.dumps(BALLOTS[what]).encode()
    kind, before = {"Content_Type": "application/json"}, (state_of(opened.home), remembered(opened, **bearer))
    assert ask(opened, "POST", path, body, **kind)[0] == 401
    assert ask(opened, "POST", path, body, Authorization="Bearer wrong", **kind)[0] == 401
    assert ask(opened, "POST", path, body, Origin="http://evil.test", **kind, **bearer)[0] == 403
    assert ask(opened, "POST", path, body, Host="evil.test", **kind, **bearer)[0] == 400
    for form in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""):
        assert ask(opened, "POST", path, body, Content_Type=form, **bearer)[0] == 415, form
    assert ask(opened, "GET", path, **bearer)[0] == 405
    assert (state_of(opened.home), remembered(opened, **bearer)) == before


@pytest.mark.parametrize("path", [f"/cmp/share/{FULL}/page.zip", f"/cmp/export/samples/{FULL}/grid.html"])
def test_files_that_are_made_for_whoever_asks_are_not_made_for_another_site(opened: Server, path: str) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(opened, "GET", path, Origin="http://evil.test", **bearer)[0] == 403
    assert ask(opened, "GET", path, Host="evil.test", **bearer)[0] == 400
    for site in ("cross-site", "same-site"):
        assert ask(opened, "GET", path, Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", **bearer)[0] == 403, site
    if "share" in path:
        assert ask(opened, "GET", path)[0] in (401, 409), "visitors share nothing"


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/call/start", "/gradio_api/cancel"])
def test_page_events_from_another_site_or_name_or_as_a_form_are_refused(opened: Server, path: str) -> None:
    event = json.dumps({"data": [], "fn_index": 0, "session_hash": "x"}).encode()
    kind = {"Content_Type": "application/json"}
    assert ask(opened, "POST", path, event, Origin="http://evil.test", **kind)[0] == 403
    assert ask(opened, "POST", path, event, Host="evil.test", **kind)[0] == 400
    assert ask(opened, "POST", path, event, Content_Type="application/x-www-form-urlencoded")[0] == 415


def dependencies(server: Server) -> dict[str, int]:
    """The page's events by the names of their handlers."""
    return {event["api_name"]: event["id"] for event in described(server)[1]}


def test_a_read_only_page_has_no_event_that_changes_or_draws(looked_at: Server, server: Server) -> None:
    there, here = set(dependencies(looked_at)), set(dependencies(server))
    drawing = {"reroll", *DRAWING}
    assert {*CHANGING, *drawing, "take"} <= here, "what this test looks for has other names by now"
    assert not there & {*CHANGING, *drawing, "take"}, "a file is taken by `take`"
    for path in WRITING:
        assert send(looked_at, path) in ((409,) if path == "/api/generate" else (404, 405)), path
    for path in ("/cmp/ballot/next", "/cmp/ballot/cast", "/cmp/ballot/back", "/gradio_api/call/v2/show"):
        assert ask(looked_at, "POST", path, b"{}", Content_Type="application/json")[0] in (404, 405), path
    assert ask(looked_at, "GET", f"/cmp/share/{FULL}/page.json")[0] == 404


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=/etc/passwd", "/gradio_api/file/etc/passwd", "/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/deep_link",
     "/monitoring", "/monitoring/summary", "/gradio_api/component_server", "/gradio_api/runs", "/gradio_api/run-history/records",
     "/gradio_api/vibe-code", "/gradio_api/profiling/traces", "/custom_component/a/b/c/d", "/gradio_api/dev/reload", "/docs", "/login",
     "/gradio_api/openapi.json", "/gradio_api/stream/a/b/1/playlist.m3u8", "/gradio_api/token", "/mcp", "/gradio_api/mcp/sse"],
)  # fmt: skip
def test_gradios_other_routes_are_not_there(server: Server, path: str) -> None:
    status, told, _ = server.get(path)
    assert status == 404 and told["detail"]["code"] == 3


def test_nothing_opens_a_file_that_a_client_names(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(b"the secret")
    link = server.home / "demo" / "training" / "outputs" / "linked"
    link.symlink_to(tmp_path)
    names = [str(secret), f"..%2f..%2f{secret}", "../../../../etc/passwd", f"file://{secret}", f"linked/{secret.name}", "%00", f"{FULL}%00",
             f"{FULL}@500%00", "~", "./", "%2e%2e%2f", "\u202e", "@", "a" * 900]  # fmt: skip
    try:
        for name in names:
            for path in (
                f"/api/v1/show?target={name}",
                f"/api/v1/curves?run={name}",
                f"/api/v1/best?run={name}",
                f"/api/v1/storage?run={name}",
            ):
                status, body, _ = ask(server, "GET", path.replace("\u202e", "%E2%80%AE"))
                assert status in (404, 422) and b"the secret" not in body and b"root:" not in body, (path, status, body[:200])
            for path in ("/cmp/cell/", "/cmp/sample/", "/cmp/static/", "/cmp/curve/", "/static/", "/assets/", "/api/v1/jobs/"):
                status, body, _ = ask(server, "GET", path + name.replace("\u202e", "%E2%80%AE"))
                assert status in (404, 422, 403, 307) and b"the secret" not in body and b"root:" not in body, (path + name, status)
            for before, behind in (("/cmp/export/", "/sheet.png"), ("/cmp/export/samples/", "/grid.html"), ("/cmp/scores/", "/scores.csv"),
                                   ("/cmp/share/", "/page.json"), ("/cmp/share/", "/model.zip"), ("/cmp/vote/", ""),
                                   ("/cmp/ballot/", "/left.webp"), ("/cmp/ballot/strengths?run=", "")):  # fmt: skip
                status, body, _ = ask(server, "GET", before + name.replace("\u202e", "%E2%80%AE") + behind)
                assert status in (404, 405, 422) and b"the secret" not in body and b"root:" not in body, (before + name + behind, status)
        for route, field in (("convert", "targets"), ("grid", "targets")):
            for target in (str(secret), str(tmp_path), "../linked", f"{FULL}\x00", "./"):
                more = {"to": "lora"} if route == "convert" else {"prompts": ["x"]}
                assert server.post(f"/api/v1/{route}", {field: [target], **more})[0] in (404, 422), target
        for base in (str(tmp_path), "../bases", "~/x", "/etc"):
            told = server.post("/api/v1/convert", {"targets": [STEP], "to": "pipeline", "base": base})
            assert told[0] == 422 and "id" in told[1]["detail"]["hint"]
        assert server.post("/api/v1/restore", {"target": str(tmp_path)})[0] == 404
    finally:
        link.unlink()


def test_bodies_that_are_too_large_or_no_json_are_refused_in_the_contracts_form(server: Server) -> None:
    asked = {"model_name": "base", "prompt": "x" * 200_000}
    for body, status in (
        (json.dumps(asked).encode(), 413),
        (b"{", 422),
        (b"[" * 50_000, 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b"null", 422),
    ):
        told = server.post("/api/generate", body)
        assert told[0] in (status, 422) and set(told[1]["detail"]) == {"error", "hint", "code"}, (body[:20], told)
    line = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    parts = (b"x" * 60_000 for _ in range(20))
    try:
        line.request(
            "POST", "/api/v1/star", parts, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}, encode_chunked=True
        )
        assert line.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has hung up at the limit
    finally:
        line.close()


def test_a_file_is_taken_of_the_owner_alone(opened: Server, closed: Server) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--b--\r\n'
    for server in (opened, closed):
        before = sorted((server.home / "gradio").rglob("*"))
        for bearer in ({}, {"Authorization": "Bearer wrong"}):
            assert ask(server, "POST", "/gradio_api/upload", form, Content_Type="multipart/form-data; boundary=b", **bearer)[0] == 401
        assert sorted((server.home / "gradio").rglob("*")) == before


def test_a_file_that_is_too_large_is_not_taken(server: Server) -> None:
    around = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%s\r\n--b--\r\n'
    kind = "multipart/form-data; boundary=b"
    assert ask(server, "POST", "/gradio_api/upload", around % (b"x" * 6_000_000), Content_Type=kind)[0] == 413
    assert ask(server, "POST", "/gradio_api/upload", around % b"x", Content_Type=kind, Origin="http://evil.test")[0] == 403
    assert ask(server, "POST", "/gradio_api/upload", around % b"x", Content_Type=kind, Host="evil.test")[0] == 400
    for other in ("application/json", "text/plain", "application/x-www-form-urlencoded", ""):
        assert ask(server, "POST", "/gradio_api/upload", around % b"x", Content_Type=other)[0] == 415, other
    statuses = {ask(server, "POST", "/gradio_api/upload", around % b"x", Content_Type=kind)[0] for _ in range(40)}
    assert statuses == {200, 429}


# -- who sees what ---------------------------------------------------------------------------------------------------------


def test_where_reading_is_open_everybody_looks_and_learns_no_place(opened: Server) -> None:
    places = [str(opened.home), str(Path.home()), os.path.realpath(opened.home)]
    for path in ("/", "/config", "/health", "/api/models", "/api/v1/list", f"/api/v1/show?target={STEP}", f"/api/v1/show?target={FULL}",
                 f"/api/v1/curves?run={FULL}", f"/api/v1/best?run={FULL}", "/api/v1/storage", "/api/v1/cells", "/api/v1/jobs",
                 f"/cmp/curve/{FULL}", f"/cmp/export/samples/{FULL}/grid.html"):  # fmt: skip
        status, body, _ = ask(opened, "GET", path)
        assert status in (200, 404), path
        assert not [place for place in places if place.encode() in body], (
            path,
            [body[max(0, body.find(p.encode()) - 80) :][:200] for p in places],
        )
    listed = opened.get("/api/v1/list")[1]["runs"][0]
    assert "folder" not in listed and "logs" not in listed and "path" not in listed["checkpoints"][0]
    assert set(listed["checkpoints"][0]["converted"].values()) <= {True, False}
    owned = opened.get("/api/v1/list", Authorization=f"Bearer {TOKEN}")[1]["runs"][0]
    assert owned["folder"].startswith("/") and owned["checkpoints"][0]["path"].startswith("/")
    assert opened.get("/api/v1/doctor")[0] in (401, 409) and opened.get("/api/v1/doctor", Authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.fixture(scope="module", params=["a token", *LIMITED])
def flawed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over a run with a broken checkpoint, whose base is given by a path."""
    arguments, around = LIMITED.get(request.param, (("--token", TOKEN, "--open-reading"), {}))
    training = tmp_path_factory.mktemp("flawed") / 'jane\'s "secret" (x)'
    made = origin_run(training, (500,), logs=False)
    told = {"output_dir": str(made.run), "pretrained_model_name_or_path": str(made.base), "train_data_dir": f"{training}/my images"}
    write_log(training / "logs" / f"train_{made.run.name}", [(1, 0.5)], **told)
    made.checkpoint(750).mkdir()
    (made.checkpoint(750) / "model.safetensors").write_text("junk")
    yield from start_server(training / "home", "--runs", str(made.outputs), "serve", "--port", "0", *arguments, **around)


def test_visitors_of_a_server_whose_runs_have_flaws_are_told_these_and_no_place(flawed: Server) -> None:
    run = "lora_casual_shoes"
    for path in ("/", "/config", "/health", "/api/models", "/api/v1/list", f"/api/v1/show?target={run}", f"/api/v1/show?target={run}@500",
                 f"/api/v1/show?target={run}@750", f"/api/v1/curves?run={run}", f"/cmp/curve/settings?run={run}",
                 "/api/v1/storage"):  # fmt: skip
        status, body, _ = ask(flawed, "GET", path)
        assert status == 200 and b"jane" not in body, (path, body[max(0, body.find(b"jane") - 80) :][:200])
    flaws = [model["flaw"] for model in flawed.get("/api/models")[1]["models"] if model["flaw"]]
    assert flaws and all("is not a safetensors file" in flaw for flaw in flaws)
    events = dependencies(flawed)
    for name, given in (("show", [run, [], ""]), ("look", [run, [], ""]), ("look_1", [f"{run}@750"]), ("refresh", ["", "", ""])):
        told = flawed.post("/gradio_api/run/predict", {"data": given, "fn_index": events[name], "session_hash": "x"})
        assert told[0] == 200 and "jane" not in json.dumps(told[1]), (name, told)


def test_the_token_comes_by_header_or_once_by_the_address_and_is_then_a_cookie_that_no_script_reads(closed: Server) -> None:
    assert ask(closed, "GET", "/")[0] == 401
    status, _, headers = ask(closed, "GET", f"/?token={TOKEN.replace(' ', '%20')}")
    cookie = headers["set-cookie"]
    assert status == 303 and headers["location"] == "./" and "HttpOnly" in cookie and "samesite=lax" in cookie.lower()
    assert ask(closed, "GET", "/", Cookie=cookie.partition(";")[0])[0] == 200
    assert ask(closed, "GET", "/?token=wrong")[0] == 401
    assert ask(closed, "GET", f"/?token={TOKEN.replace(' ', '%20')}", Host="evil.test")[0] == 400


def test_no_other_site_reads_or_frames_the_page(server: Server) -> None:
    assert ask(server, "GET", "/api/models", Origin="http://localhost:9999")[0] == 403
    assert (
        ask(
            server,
            "GET",
            "/",
        )[2]["x-frame-options"]
        == "SAMEORIGIN"
    )
    host = urlsplit(server.url).netloc
    assert ask(server, "GET", "/health", Origin=f"http://{host}")[0] == 200
    assert "access-control-allow-origin" not in ask(server, "GET", "/api/models", Origin="http://evil.test")[2]


def test_gradios_variables_open_no_server_and_no_folder_and_who_sends_a_file_is_told_no_place(tmp_path: Path) -> None:
    opening = {"GRADIO_NUM_WORKERS": "2", "GRADIO_ALLOWED_PATHS": "/"}
    for server in start_server(tmp_path / "home", "serve", "--port", "0", "--read-only", "--open-reading", **opening):
        listening = {c.laddr.port for c in psutil.Process(server.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert listening == {urlsplit(server.url).port}
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--x--\r\n'
        status, told, _ = server.post("/gradio_api/upload", form, **{"Content-type": "multipart/form-data; boundary=x"})
        assert status == 200 and str(tmp_path) not in str(told), told
        place = Path(told[0]).parents[1]
        assert place.is_dir()
    assert not place.exists(), "it goes with the server"


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(("--host", "0.0.0.0"), {}), (("--host", "::"), {}), (("--share",), {}), ((), {"CMP_MODE": "token"}),
     (("--host", "0.0.0.0", "--read-only"), {}), (("--host", "0.0.0.0", "--open-reading"), {})],
)  # fmt: skip
def test_nobody_else_is_let_in_without_a_token(demo_home: Path, arguments: tuple[str, ...], variables: dict[str, str]) -> None:
    command = [sys.executable, "-m", "cmp", "serve", "--port", "0", *arguments]
    told = subprocess.run(
        command, cwd=ROOT, env=environment(demo_home) | variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert told.returncode == 5 and "no token" in told.stderr and "--token auto" in told.stderr, told.stderr
    assert "Open http" not in told.stdout


def test_sharing_downloads_nothing(demo_home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cmp", "serve", "--port", "0", "--share", "--token", "auto"]
    around = environment(demo_home) | {"HF_HOME": str(tmp_path)}
    told = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 5 and "not there" in told.stderr and not list(tmp_path.rglob("frpc*")), told.stderr


def test_the_address_that_is_told_opens_the_page_whatever_signs_the_token_has(demo_home: Path) -> None:
    for server in start_server(demo_home, "serve", "--port", "0", "--token", "a&b=#c d%/ü"):
        address = next(line for line in server.log if "Open http" in line).partition("Open ")[2].strip()
        opened = urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(address, timeout=60)
        assert opened.status == 200 and "token" not in opened.url


def test_a_token_is_made_and_told_once_where_that_is_asked_for(demo_home: Path) -> None:
    for server in start_server(demo_home, "serve", "--port", "0", "--host", "0.0.0.0", "--token", "auto"):
        line = next(line for line in server.log if "Open http" in line)
        token = line.strip().partition("?token=")[2]
        assert len(token) >= 30
        port = urlsplit(server.url).port
        here = Server(f"http://127.0.0.1:{port}", server.home, server.log)
        assert here.get("/health")[0] == 401 and here.get("/health", Authorization=f"Bearer {token}")[0] == 200
        assert here.get("/health", Authorization=f"Bearer {token}", Host="192.168.7.7:1")[0] == 200, "a number is nobody's foreign name"
        assert here.get("/health", Authorization=f"Bearer {token}", Host="evil.test")[0] == 400
        assert ask(here, "GET", f"/?token={token}")[0] == 303 and here.get("/api/v1/doctor", Authorization=f"Bearer {token}")[0] == 200
    assert "".join(server.log).count(token) == 1, "not when it is shown, and not at the end"


# -- a space ---------------------------------------------------------------------------------------------------------------


def test_everybody_draws_a_little_and_changes_nothing(limited: Server) -> None:
    asked = {"model_name": f"{FULL}/checkpoint-500", "prompt": "x", "num_inference_steps": 1, "seed": 3}
    before = {name: digest for name, digest in state_of(limited.home).items() if not name.startswith("cells")}
    assert limited.post("/api/generate", asked)[0] == 200
    assert limited.post("/api/generate", asked | {"num_inference_steps": 50})[0] == 422
    told = limited.post("/api/generate", {name: value for name, value in asked.items() if name != "num_inference_steps"})
    assert told[0] == 200 and told[1]["metadata"]["num_inference_steps"] == 30
    grid = {"targets": [FULL], "prompts": ["x"], "steps": "1", "seeds": "1-200"}
    assert limited.post("/api/v1/grid", grid)[0] == 422
    assert limited.post("/api/v1/grid", grid | {"seeds": "1", "base": "a/b"})[0] == 409
    for path in WRITING:
        if path not in ("/api/generate", "/api/v1/grid"):
            assert send(limited, path) in (401, 404, 405), path
    events = set(dependencies(limited))
    assert not events & {*CHANGING, "start"} and "start_1" in events, "conversions start by the first of these names, grids by the second"
    body, kind = json.dumps(asked).encode(), {"Content_Type": "application/json"}
    answers = [ask(limited, "POST", "/api/generate", body, **kind) for _ in range(8)]
    refused = [(json.loads(told)["detail"], headers) for status, told, headers in answers if status == 429]
    assert refused and refused[0][0]["code"] == 75 and 0 < int(refused[0][1]["retry-after"]) <= 20
    assert {name: digest for name, digest in state_of(limited.home).items() if not name.startswith("cells")} == before


# -- in a browser ----------------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_a_read_only_page_shows_everything_and_offers_nothing_that_it_would_refuse(browser: Any, looked_at: Server) -> None:
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        context.set_default_timeout(60_000)
        watched = Watched(context.new_page(), looked_at)
        page = watched.page
        page.locator(f'#runs-table tr[data-key="{FULL}"]').click()
        page.locator("#checkpoints-table tbody img").first.wait_for()
        assert page.get_by_role("button", name="Compare the ticked ones").is_visible()
        for name in ("#convert", "#save-name", "#folder-add", "#convert-selected"):
            assert not page.locator(name).is_visible(), name
        watched.picture("read-only-runs")
        page.get_by_role("tab", name="Compare").click()
        page.wait_for_function("document.querySelectorAll('#grid td img.is-loaded').length > 3")
        assert page.get_by_role("radio", name="drawn by the trainer").is_checked()
        for name in ("form", "draw", "pause", "cancel", "plan", "checkpoints", "prompts", "seeds", "drop", "watching"):
            assert not page.locator(f"#compare-{name}").is_visible(), name
        assert not page.locator("#cells-prune").is_visible() and not page.get_by_text("looking which were drawn").is_visible()
        page.get_by_role("radio", name="drawn here").click()
        page.get_by_text("This server only shows pictures").first.wait_for()
        page.get_by_role("radio", name="drawn by the trainer").click()
        page.wait_for_function("document.querySelectorAll('#grid td img.is-loaded').length > 3")
        watched.picture("read-only-compare")
        assert watched.complaints == [], [print(line, end="") for line in looked_at.log[-80:]]


@pytest.mark.browser
def test_a_visitor_is_told_why_nothing_is_drawn_and_the_owner_draws(browser: Any, opened: Server) -> None:
    for address, heard in (("", "only the owner"), (f"/?token={TOKEN.replace(' ', '%20')}", None)):
        with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
            context.set_default_timeout(60_000)
            page = context.new_page()
            page.goto(opened.url + address)
            page.locator(f'#runs-table tr[data-key="{FULL}"]').click()
            page.locator("#checkpoints-table tbody img").first.wait_for()
            page.get_by_role("tab", name="Compare").click()
            page.locator("#compare-checkpoints input:checked").first.wait_for()
            page.locator("#compare-draw").click()
            if heard:
                page.get_by_text(heard).first.wait_for()
                assert opened.get("/api/v1/jobs")[1]["jobs"] == []
            else:
                page.wait_for_function("document.querySelectorAll('#grid td img.is-loaded').length > 0")
