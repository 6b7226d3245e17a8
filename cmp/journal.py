"""What the program tells of itself while it runs: one line per event, for people or as JSON. Tokens are struck out, prompts are not told.

Events are logged through the standard library under "cmp", with their fields as `extra={"about": {…}}`.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from cmp.errors import Unreadable, why_not

REQUEST: ContextVar[str] = ContextVar("request", default="")  # the id of the request that is being answered
HEADER = b"x-request-id"
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")
_STRUCK_OUT = "***"
_LOG = logging.getLogger("cmp.requests")
_QUIET = ("uvicorn.access", "httpx", "httpcore")

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class Line(logging.Formatter):
    """One event as one line; `secrets` are struck out wherever they stand, tracebacks included."""

    def __init__(self, form: str, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self.form = form
        self.secrets = tuple(sorted(filter(None, secrets), key=len, reverse=True))

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {"time": _time(record.created), "level": record.levelname.lower(), "event": record.getMessage()}
        if not record.name.startswith("cmp"):
            told["logger"] = record.name
        if request := REQUEST.get():
            told["request"] = request
        told |= {name: value for name, value in getattr(record, "about", {}).items() if name not in told}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        text = _as_json(told) if self.form == "json" else _as_text(told)
        for secret in self.secrets:
            text = text.replace(secret, _STRUCK_OUT)
        return text


def _time(seconds: float) -> str:
    whole, part = divmod(seconds, 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int(part * 1000):03d}Z"


def _as_json(told: dict[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=True, default=str)


def _as_text(told: dict[str, Any]) -> str:
    rest = [f"{name}={_word(value)}" for name, value in told.items() if name not in ("time", "level", "event", "traceback")]
    line = f"{told['time']} {told['level']:<7} {_printable(told['event'])}{': ' if rest else ''}{' '.join(rest)}"
    return f"{line}\n{told['traceback']}" if "traceback" in told else line


def _word(value: object) -> str:
    text = _printable(str(value))
    return json.dumps(text) if not text or set(text) & set(' "=') else text


def _printable(text: str) -> str:
    """Without line breaks, with which a name could make up events, and without what would steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_journal(form: str = "text", file: Path | None = None, secrets: Iterable[str] = ()) -> logging.Handler:
    """Tells events from now on, at the end of `file`, else on standard error. Other libraries' warnings come in the same form.

    `form` is "text" or "json". Raises Unreadable for a file that cannot be written.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        try:
            handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8")  # opened anew where it was moved away
        except OSError as fault:
            raise Unreadable(
                f"cannot write the log {file}: {why_not(fault)}", "Give --log-file a file in a folder that is there."
            ) from fault
    handler.setFormatter(Line(form, secrets))
    logging.getLogger().addHandler(handler)
    logging.getLogger("asyncio").addFilter(Seldom())
    logging.getLogger("cmp").setLevel(logging.INFO)
    return handler


def adopt_libraries() -> None:
    """Has the web server's own words come in the same form, to be called once it runs; its list of requests stays off."""
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in ("uvicorn", "gradio")]:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class Seldom(logging.Filter):
    """Tells once a second, and without a traceback, that no connection could be taken: asyncio says so for each of thousands."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now, self._told = now, float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith("socket.accept()"):
            return True
        if (now := self._now()) - self._told < 1:
            return False
        self._told = now
        fault = record.exc_info[1] if record.exc_info else None
        record.msg, record.args, record.exc_info, record.exc_text = f"a connection could not be taken: {fault}", None, None, None
        return True


class Requests:
    """Gives each request an id, its own if it brings one, and tells of those to the API and of those that failed."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        request = given.decode() if _GIVEN.match(given) else secrets.token_hex(8)
        REQUEST.set(request)
        began, status = time.monotonic(), [500]

        async def tell(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, request.encode())]
            await send(message)

        try:
            await self.app(scope, receive, tell)
        finally:
            _log_request(scope, status[0], time.monotonic() - began)


def _log_request(scope: Scope, status: int, seconds: float) -> None:
    """The path without its query, in which a token or a prompt may stand."""
    level = logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
    if level > logging.INFO or scope["path"].startswith("/api/"):
        about = {"method": scope["method"], "path": scope["path"], "status": status, "seconds": round(seconds, 3)}
        _LOG.log(level, "request", extra={"about": about})
