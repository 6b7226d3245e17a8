"""What a server tells of itself: one line per event, of which no name can make two, and nothing that is secret."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cmp.errors import Unreadable
from cmp.journal import REQUEST, Line, Requests, Seldom, open_journal


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A journal in JSON, closed afterwards."""
    before = list(logging.getLogger().handlers)
    yield tmp_path / "cmp.log"
    for handler in [one for one in logging.getLogger().handlers if one not in before]:
        logging.getLogger().removeHandler(handler)
        handler.close()
    logging.getLogger("cmp").setLevel(logging.NOTSET)


def told(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def record(name: str, **about: object) -> logging.LogRecord:
    made = logging.LogRecord("cmp.jobs", logging.INFO, "", 0, name, None, None)
    made.about = about
    return made


def test_an_event_is_one_json_object_with_its_fields(file: Path) -> None:
    open_journal("json", file)
    logging.getLogger("cmp.jobs").info("job ends", extra={"about": {"job": "grid-1", "done": 6}})
    logging.getLogger("somebody.else").warning("a library's %s", "word")
    logging.getLogger("somebody.else").info("not asked for")
    first, second = told(file)
    assert (first["event"], first["job"], first["done"], first["level"]) == ("job ends", "grid-1", 6, "info") and "logger" not in first
    assert (second["event"], second["logger"]) == ("a library's word", "somebody.else")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_name_makes_no_second_line_and_steers_no_terminal(form: str) -> None:
    line = Line(form).format(record("alert", about="x\n2026 info forged=1\x1b[2J", event="forged"))
    assert "\n" not in line and "\x1b" not in line and '"event": "forged"' not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_struck_out_also_in_tracebacks(form: str) -> None:
    try:
        raise ValueError("asked with tok-12345")
    except ValueError:
        made = logging.LogRecord("cmp", logging.ERROR, "", 0, "failed for tok-12345", None, sys.exc_info())
    line = Line(form, ["tok-12345", ""]).format(made)
    assert "tok-12345" not in line and "***" in line and "ValueError" in line


def test_a_file_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="cannot write the log"):
        open_journal("json", tmp_path / "none" / "cmp.log")


def ask(path: str, status: int, *headers: tuple[bytes, bytes]) -> tuple[dict[bytes, bytes], str]:
    """The headers of the answer, and the id that was seen while it was made."""
    answers: list[Any] = []
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(REQUEST.get())
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"token=secret", "headers": list(headers)}
    with ThreadPoolExecutor(1) as aside:  # a browser's test may have left a loop in this thread
        aside.submit(lambda: asyncio.run(Requests(app)(scope, None, send))).result()
    return dict(answers[0]["headers"]), seen[0]


def test_each_request_has_an_id_its_own_if_it_brings_a_plain_one(file: Path) -> None:
    headers, seen = ask("/api/models", 200, (b"x-request-id", b"abc-1"))
    assert headers[b"x-request-id"] == b"abc-1" and seen == "abc-1"
    headers, seen = ask("/api/models", 200, (b"x-request-id", b"forged\r\nset-cookie: x"))
    assert headers[b"x-request-id"].decode() == seen and len(seen) == 16


def test_requests_to_the_api_and_those_that_fail_are_told_without_their_query(file: Path) -> None:
    open_journal("json", file)
    for path, status in (("/api/models", 200), ("/gradio_api/queue/join", 200), ("/anything", 404), ("/api/generate", 500)):
        ask(path, status)
    found = told(file)
    assert [(event["path"], event["status"], event["level"]) for event in found] == [
        ("/api/models", 200, "info"), ("/anything", 404, "warning"), ("/api/generate", 500, "error"),
    ]  # fmt: skip
    assert "secret" not in file.read_text() and all(event["request"] for event in found)


def test_connections_that_cannot_be_taken_are_told_once_a_second_without_a_traceback() -> None:
    clock = iter([0.0, 0.1, 0.9, 1.5, 1.6])
    seldom = Seldom(lambda: next(clock))

    def tells(text: str) -> str | None:
        try:
            raise OSError(24, "Too many open files")
        except OSError:
            made = logging.LogRecord("asyncio", logging.ERROR, "", 0, text, None, sys.exc_info())
        return Line("text").format(made) if seldom.filter(made) else None

    told = [tells("socket.accept() out of system resource\nsocket: <TransportSocket fd=6>") for _ in range(5)]
    assert [line is not None for line in told] == [True, False, False, True, False]
    assert "Too many open files" in str(told[0]) and "Traceback" not in str(told[0]) and "\n" not in str(told[0])
    assert "Traceback" in str(tells("Task exception was never retrieved")), "anything else is told whole"


def test_what_asyncio_cannot_take_goes_through_the_journal_seldom(file: Path) -> None:
    open_journal("json", file)
    for _ in range(50):
        logging.getLogger("asyncio").error("socket.accept() out of system resource\nsocket: <x>")
    assert 1 <= len(told(file)) < 50
