"""Long work: all jobs, one of them, what comes of it as it comes, and an end to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from cmp.errors import BadInput, Busy, CmpError, NotFound, Refused
from cmp.rest.answers import LOOKING, WRITING, Asked, described, told
from cmp.workbench import FailedConversion, Workbench
from cmp.workbench.callers import Caller, caller
from cmp.workbench.curtain import Curtain
from cmp.workbench.storing import NotDone
from cmp.workbench.telling import job_json

MOST_STREAMS, MOST_OF_ONE = 100, 4  # of all, and of one visitor's address
_LOOK_EVERY = 0.25  # seconds
_SIGN_OF_LIFE = 60  # looks without news after which a line is sent all the same
_OVER = "end"  # the last event's id: a client that comes back with it has seen everything


def add_following(router: APIRouter, bench: Workbench) -> None:
    """Adds the routes that look."""
    answers: dict[str, Any] = {"responses": described(LOOKING), "response_model": dict[str, Any]}
    followed: list[str] = []  # who follows, once for each open stream; all of them are served by one thread

    @router.get("/api/v1/jobs", **answers)
    def jobs() -> JSONResponse:
        """The jobs of all processes that share this one's CMP_HOME."""
        return told(bench, {"jobs": [record.as_json() for record in bench.jobs.records()]})

    @router.get("/api/v1/jobs/{job}", **answers)
    def job(job: str) -> JSONResponse:
        """How one stands, and what came of it so far where this process does it."""
        return told(bench, job_json(bench, job) | {"items": items_of(bench, job)})

    @router.get("/api/v1/jobs/{job}/events", responses=described(LOOKING) | _STREAM, response_class=Response)
    async def events(job: str, request: Request) -> Response:
        """Server-sent events: `item` for each thing that came of it, numbered by id, `progress` between, `end` at last.

        With Last-Event-ID the items after that one are sent.
        """
        before = request.headers.get("last-event-id", "0").strip()
        await run_in_threadpool(bench.jobs.record, job)  # raises NotFound
        if before == _OVER:
            return Response(status_code=204)  # by which a client knows that it need not come back
        if not (before.isascii() and before.isdigit() and len(before) < 10):
            raise BadInput(f"Last-Event-ID is {before[:40]!r}", "It is the number of an event that was sent.")
        who = caller()
        _require_room(followed, who)
        curtain = None if who.owner else Curtain(bench)
        told_of = _events(bench, job, int(before), curtain, request)
        return StreamingResponse(
            _counted(told_of, followed, who.address), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )


class JobRequest(Asked):
    """What a job is to do: stand still after the item in hand, go on, or end."""

    ask: Literal["pause", "resume", "cancel"]


def add_asking(router: APIRouter, bench: Workbench) -> None:
    """Adds the routes that change something."""

    @router.post("/api/v1/jobs/{job}", responses=described(WRITING), response_model=dict[str, Any])
    def ask(job: str, asked: JobRequest = Body()) -> JSONResponse:
        """Pauses it, goes on with it, here where no process has it in hand, or asks it to stop, wherever it runs."""
        bench.require_writing()
        here = bench.jobs.known(job)
        elsewhere = here is None or here.over
        record = bench.jobs.ask(job, asked.ask)
        if asked.ask == "pause" and record.over:
            raise Refused(f"{job} is over already ({record.state})", "There is nothing to pause.")
        if asked.ask == "resume" and record.asked != "resume" and elsewhere:  # no process has it in hand
            record = bench.jobs.resume(job).record()
        return told(bench, record.as_json())

    @router.delete("/api/v1/jobs/{job}", responses=described(WRITING), response_model=dict[str, Any])
    def cancel(job: str) -> JSONResponse:
        """Asks it to stop, wherever it runs."""
        bench.require_writing()
        return told(bench, bench.jobs.ask(job, "cancel").as_json())


def _require_room(followed: Sequence[str], who: Caller) -> None:
    if len(followed) >= MOST_STREAMS:
        raise Busy(f"{MOST_STREAMS} jobs are being followed already", "Ask GET /api/v1/jobs/ID now and then.")
    if not who.owner and followed.count(who.address) >= MOST_OF_ONE:
        raise Busy(f"you follow {MOST_OF_ONE} jobs already", "Close one of them, or ask GET /api/v1/jobs/ID now and then.")


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "The events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "The job is over and all of it was sent."},
}


def items_of(bench: Workbench, job_id: str, after: int = 0) -> list[dict[str, Any]]:
    """What came of a job, as the verb that does it tells it; nothing of a job that another process does."""
    try:
        return [item_json(item) for item in bench.jobs.find(job_id).items[after:]]
    except NotFound:
        return []


def item_json(item: Any) -> dict[str, Any]:
    if isinstance(item, FailedConversion):
        return {"checkpoint": item.checkpoint, **item.error.as_json()}
    if isinstance(item, NotDone):
        return {**item.item.as_json(), **item.error.as_json()}
    return dict(item.as_json()) if hasattr(item, "as_json") else {"told": str(item)}


async def _events(bench: Workbench, job: str, after: int, curtain: Curtain | None, request: Request) -> AsyncIterator[str]:
    last, quiet = "", 0

    def line(kind: str, value: dict[str, Any], number: str | None = None) -> str:
        text = json.dumps(curtain.public(value) if curtain else value, allow_nan=False)
        return f"event: {kind}\n{f'id: {number}{chr(10)}' if number else ''}data: {text}\n\n"

    def look() -> tuple[dict[str, Any], bool, list[dict[str, Any]]]:
        record = bench.jobs.record(job)  # before the items: what is over has all of them
        return record.as_json(), record.over, items_of(bench, job, after)

    while not await request.is_disconnected():
        try:
            told, over, items = await run_in_threadpool(look)
        except CmpError as fault:  # forgotten meanwhile
            yield line(_OVER, fault.as_json(), _OVER)
            return
        for item in items:
            after += 1
            yield line("item", item, str(after))
        if (text := json.dumps(told)) != last:
            yield line(_OVER, told, _OVER) if over else line("progress", told)
            last, quiet = text, 0
        if over:
            return
        quiet += 1
        if quiet % _SIGN_OF_LIFE == 0:
            yield ": still here\n\n"
        await asyncio.sleep(_LOOK_EVERY)


async def _counted(events: AsyncIterator[str], followed: list[str], who: str) -> AsyncIterator[str]:
    """Counts from the first event on: a stream whose client has gone before is never begun."""
    followed.append(who)
    try:
        async for text in events:
            yield text
    finally:
        followed.remove(who)
