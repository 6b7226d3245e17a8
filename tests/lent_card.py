"""The platform that lends cards, for tests: its own library is used as it is, and asks a server on this machine for them.

There is no card here: what the library would do with one, in the process that it forks, is left out by `without_card`. All else is its own:
how it forks, what it pickles, how long it asks for, in whose name, and what it makes of refusals.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HEADER = "x-ip-token"  # who asks, as the platform's proxy says


def without_card() -> None:
    """Makes the library run with a torch that was built without CUDA. Called before anything imports it."""
    import torch

    torch.version.cuda = "13.0"  # type: ignore[attr-defined]
    torch._C._cuda_init = lambda: None  # type: ignore[attr-defined]
    torch.cuda._is_in_bad_fork = bool  # type: ignore[attr-defined]
    import spaces.zero.torch as lent  # type: ignore[import-not-found]

    lent.init = lent.move = lambda *_, **__: None


def token(who: str) -> str:
    """A token in the form that the library reads."""
    told = base64.urlsafe_b64encode(json.dumps({"user": who}).encode()).decode().rstrip("=")
    return f"e30.{told}.e30"


def who_of(shown: str) -> str:
    payload = shown.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(f"{payload}=="))["user"])


@dataclass
class Platform:
    """What was asked of it. `refusing` is what it answers to whoever wants a card: a status and a body. It lends `first` cards, and more
    only once `more` is set.
    """

    url: str = ""
    first: int = 10**9
    more: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    refusing: tuple[int, bytes] | None = None

    def told(self, what: str) -> list[dict[str, str]]:
        """The parameters of every call of this kind."""
        return [parameters for path, parameters in list(self.asked) if path == f"/{what}"]

    @property
    def seconds(self) -> list[int]:
        """How long a card was wanted each time."""
        return [int(call["durationSeconds"]) for call in self.told("schedule")]

    @property
    def names(self) -> list[str]:
        """In whose name a card was wanted each time, "" for nobody's."""
        return [who_of(call["token"]) if "token" in call else "" for call in self.told("schedule")]

    def answer(self, what: str) -> tuple[int, bytes]:
        if what != "schedule":
            return 200, b""
        if len(self.told("schedule")) > self.first:
            self.more.wait(120)
        if self.refusing:
            return self.refusing
        return 200, json.dumps({"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "allowed"}).encode()


@contextmanager
def lending_cards() -> Iterator[Platform]:
    """A platform that has one card, free at any time."""
    platform = Platform()

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            platform.asked.append((parts.path, dict(parse_qsl(parts.query))))
            status, body = platform.answer(parts.path.removeprefix("/"))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    platform.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield platform
    finally:
        server.shutdown()
        server.server_close()


def variables(platform: Platform) -> dict[str, str]:
    """What the platform sets where it runs a program."""
    return {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": platform.url}
