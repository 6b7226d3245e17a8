"""A page's events as anybody may send them, without a page: each with values that it would take from its owner."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from .conftest import FULL, Server

STEP = f"{FULL}@500"
STAR = {"what": "star", "id": STEP, "on": True}

# What changes something and what draws, by the names of their handlers; all others look.
CHANGING = (
    "rename", "add_folder", "remove_folder", "add_folder_1", "remove_folder_1", "answer", "watch_2", "pause",
    "cancel", "cancel_1", "cancel_2", "cancel_3", "carry_out", "carry_out_1", "begin_measuring", "follow_measuring",
)  # fmt: skip
DRAWING = ("newest", "start", "start_1")
STARRING = ("edit", "act", "act_1", "reroll", "undo")  # stars, or else looks; the last brings back

# Values of fields by their id, of all hidden ones by the event, and what a click tells; else a field's own value is sent, or a run's name.
FIELDS: dict[str, Any] = {
    "display-name": "x", "answer-alpha": "4", "compare-runs": [FULL], "compare-checkpoints": [STEP], "compare-prompts": "a shoe",
    "compare-steps": "1", "compare-watch": True, "compare-axis": "500", "cells-most": "0", "cells-days": "",
}  # fmt: skip
HIDDEN: dict[str, list[str]] = {
    "start": [FULL, "500"],
    "answer": [STEP],
    "look_1": [STEP],
    "look_2": [STEP],
    "follow_2": [""] * 3,
    "look_in": [""] * 3,
}
CLICKS: dict[str, dict[str, Any]] = {
    "edit": STAR, "act": STAR, "act_1": STAR | {"on": False}, "reroll": STAR, "undo": {"key": STEP, "kind": "trash"},
    "compare_mark": {"run": FULL, "step": 500}, "compare_ends": {"run": FULL, "ids": [STEP]},
}  # fmt: skip


def described(server: Server) -> tuple[dict[int, Any], list[dict[str, Any]]]:
    """The page's fields by number, and its events."""
    told = server.get("/config")[1]
    return {one["id"]: one["props"] for one in told["components"]}, [event for event in told["dependencies"] if event["backend_fn"]]


def send_event(
    server: Server, event: dict[str, Any], fields: dict[int, Any], own: dict[str, Any], way: str = "join", **headers: str
) -> str:
    """All that comes of an event that is sent as a page does ("join"), at once ("run"), or as a script does ("call"). `own` are further
    values of fields, and of its hidden ones as `hidden`.
    """
    name = event["api_name"]
    kind = "compare_mark" if name.startswith("compare_mark") else name
    hidden = iter(own["hidden"] if "hidden" in own else HIDDEN.get(name, []))

    def value(number: int) -> Any:
        mark, held = fields[number].get("elem_id"), fields[number].get("value")
        return next(hidden, FULL) if mark is None else (FIELDS | own).get(mark, "" if held is None else held)

    click = CLICKS.get(kind, {"run": FULL, "ticked": [FULL], "what": "look", "id": STEP, "key": STEP})
    page = f"somebody{event['id']}"
    asked = {"data": [value(number) for number in event["inputs"]], "fn_index": event["id"], "session_hash": page, "event_data": click}
    if way == "run":
        return json.dumps(server.post("/gradio_api/run/predict", asked, **headers)[1])
    if way == "call":
        return _called(server, name, asked["data"], headers)
    status, told, _ = server.post("/gradio_api/queue/join", asked, **headers)
    if status != 200:
        return json.dumps(told)
    stream = urllib.request.Request(f"{server.url}/gradio_api/queue/data?session_hash={page}", headers=headers)
    with urllib.request.urlopen(stream, timeout=60) as lines:
        return "".join(_until_done(lines))


def _called(server: Server, name: str, data: list[Any], headers: dict[str, str]) -> str:
    status, told, _ = server.post(f"/gradio_api/call/{name}", {"data": data}, **headers)
    if status != 200:
        return json.dumps(told)
    return str(server.get(f"/gradio_api/call/{name}/{told['event_id']}", **headers)[1])


def _until_done(lines: Any) -> Iterator[str]:
    for line in lines:
        yield line.decode()
        if b"process_completed" in line or b"close_stream" in line:
            return


def state_of(home: Path) -> dict[str, str]:
    """Every file of the demo's runs, and the names of all drawn pictures."""
    runs = {str(p.relative_to(home)): hashlib.sha256(p.read_bytes()).hexdigest() for p in (home / "demo").rglob("*") if p.is_file()}
    cells = {str(p.relative_to(home)): "" for p in (home / "cells").rglob("*")} if (home / "cells").is_dir() else {}
    return runs | cells


# What somebody has said, of all that is remembered; the rest is worked out, and looking may add to it.
SAID = ("star", "name", "answers", "folder", "base-folder", "logs", "trash", "alert")


def said(home: Path) -> list[tuple[str, str, str]]:
    """All that somebody has said, and all votes, as they are kept."""
    with closing(sqlite3.connect(f"file:{home / 'state.db'}?mode=ro", uri=True)) as state:
        facts = state.execute("SELECT kind, subject, value FROM facts ORDER BY kind, subject").fetchall()
        tables = {name for (name,) in state.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        votes = [("vote", "", str(row)) for row in state.execute("SELECT * FROM votes ORDER BY number")] if "votes" in tables else []
    return [fact for fact in facts if fact[0] in SAID] + votes


def remembered(server: Server, **headers: str) -> Any:
    """Jobs, which checkpoints have a star or a note, and all else that somebody has said."""
    jobs = server.get("/api/v1/jobs", **headers)[1]["jobs"]
    runs = server.get("/api/v1/list", **headers)[1]["runs"]
    stars = [c["id"] for run in runs for c in run["checkpoints"] if c["star"] or c["note"]]
    return [(job["job"], job["state"]) for job in jobs], stars, said(server.home)
