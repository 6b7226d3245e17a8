"""A small server that speaks what of the Hub is used for uploads, and notes what comes."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_" + "TheTokenThatNobodyMaySee"
HEAD = "0" * 39 + "1"


class Hub(ThreadingHTTPServer):
    """`there` are the files of the repository, None while there is none; `failing` is what every answer is then."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.there: dict[str, str] | None = None
        self.failing: int | None = None
        self.asked: list[tuple[str, str]] = []
        self.made: dict[str, Any] = {}
        self.large: dict[str, bytes] = {}
        self.commit: list[dict[str, Any]] = []
        self.tokens: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._note()
        if self.server.failing:
            self._answer(self.server.failing, {"error": f"your token is {self.headers.get('authorization')}"})
        elif self.server.there is None:
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif self.path.startswith("/api/"):
            files = [{"rfilename": name} for name in self.server.there]
            self._answer(200, {"id": "me/shoes", "sha": HEAD, "siblings": files, "private": True, "tags": [], "likes": 0, "downloads": 0})
        else:
            self._raw(200, self.server.there[self.path.rpartition("/main/")[2]].encode(), "text/plain")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._note()
        if self.path == "/api/repos/create":
            self.server.made, self.server.there = json.loads(body), {".gitattributes": ""}
            self._answer(200, {"url": f"{self.server.address}/me/shoes"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [one["path"] for one in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            self._answer(200, {"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{self.server.address}/large/{one['oid']}"}}} for one in json.loads(body)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self.server.commit = [json.loads(line) for line in body.splitlines()]
            self._answer(200, {"success": True, "commitOid": "0" * 39 + "2", "commitUrl": f"{self.server.address}/me/shoes/commit/2"})
        else:
            self._answer(404, {})

    def do_PUT(self) -> None:
        self.server.large[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, {})

    def _note(self) -> None:
        self.server.asked.append((self.command, self.path))
        self.server.tokens.add(self.headers.get("authorization", ""))

    def _answer(self, status: int, told: object, headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(told).encode(), "application/json", headers)

    def _raw(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The server, and around it what has the library ask it, with a token."""
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # no login of whoever runs this
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as this program sets it for itself
    monkeypatch.setenv("HF_DEBUG", "1")
    yield server
    server.shutdown()
    server.server_close()


def committed(hub: Hub) -> dict[str, str]:
    return {one["value"]["path"]: base64.b64decode(one["value"]["content"]).decode() for one in hub.commit if one["key"] == "file"}
