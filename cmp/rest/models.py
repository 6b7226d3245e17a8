"""`/api/models`: a list of thousands, kept ready as bytes for as long as nothing in it changes."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from cmp.core.runs import Checkpoint, Library, Run, origin_name, origin_title, plain_text
from cmp.workbench import Workbench
from cmp.workbench.callers import BY_CALLER, caller
from cmp.workbench.curtain import Curtain

_FRESH = 1.0  # seconds for which an answer is given without looking
_PATIENCE = 0.03  # seconds that a request waits for a newer answer, where there is one that is not old
_OLD = 30.0  # seconds after which it waits for as long as it takes


@dataclass(frozen=True, slots=True)
class Answer:
    """A list in the forms in which it is sent, and the tag by which a client asks whether it has changed."""

    plain: bytes
    packed: bytes
    tag: str


@dataclass(frozen=True, slots=True)
class Kept:
    """The owner's answer and the visitors', what they were made from, and when that was last looked at."""

    library: Library
    names: Mapping[str, object]
    owners: Answer
    visitors: Answer
    at: float


class Models:
    """The list, for any number of clients at once; all of it but the looking is done by the server's own thread."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._kept: Kept | None = None
        self._looking: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> Response:
        """The list, packed where the client takes that; or that it has not changed since the client asked."""
        kept = await self._newest()
        told = kept.owners if caller().owner else kept.visitors
        headers = {"ETag": told.tag, "Cache-Control": "private, no-cache", "Vary": f"Accept-Encoding, {BY_CALLER}"}
        if told.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(told.packed, media_type="application/json", headers=headers | {"Content-Encoding": "gzip"})
        return Response(told.plain, media_type="application/json", headers=headers)

    async def _newest(self) -> Kept:
        """What is there now. A scan of many runs takes a second or more: meanwhile the last answer is given, if it is not old."""
        age = time.monotonic() - self._kept.at if self._kept else float("inf")
        if age > _FRESH:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(run_in_threadpool(self._look))
            await asyncio.wait({self._looking}, timeout=_PATIENCE if age < _OLD else None)
            if self._looking.done():
                self._looking.result()  # raises what stands against it
        assert self._kept is not None
        return self._kept

    def _look(self) -> None:
        at = time.monotonic()
        library, names, kept = self._bench.library(fresh=False), self._bench.store.all("name"), self._kept
        if kept and kept.library is library and kept.names == names:
            self._kept = replace(kept, at=at)
            return
        value = {"models": list_models(library, names)}
        owners = visitors = packed(value)
        settings = self._bench.settings
        # elsewhere everybody who is let in is an owner
        if (settings.open_reading or settings.for_strangers) and (shown := Curtain(self._bench).public(value)) != value:
            visitors = packed(shown)
        self._kept = Kept(library, names, owners, visitors, at)


def packed(value: Mapping[str, Any]) -> Answer:
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    return Answer(plain, gzip.compress(plain, 5, mtime=0), f'"{hashlib.sha256(plain).hexdigest()[:32]}"')


def list_models(library: Library, names: Mapping[str, object]) -> list[dict[str, Any]]:
    """The origin's list, in its names: `base`, `RUN/checkpoint-500`, `RUN/final`; `names` are those that people gave to runs."""
    found = [_model("base", "Base model", "the model that the runs were fine-tuned from", bool(library.runs), None)]
    for run in library.runs:
        given = names.get(plain_text(run.id))
        title = given if isinstance(given, str) else origin_title(run.name)
        for checkpoint in run.checkpoints:
            found.append(_checkpoint_model(run, title, checkpoint, origin_name(checkpoint)))
            for alias in checkpoint.aliases:
                found.append(_checkpoint_model(run, title, checkpoint, f"{run.id}/{alias.rpartition('@')[2]}"))
    return found


def _checkpoint_model(run: Run, title: str, checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    stage = f"Step {checkpoint.step}" if checkpoint.step is not None else checkpoint.key.capitalize()
    label = "Final" if name.endswith("/final") else stage
    description = f"{run.trainer} run {run.id}, {stage.lower()}"
    return _model(name, f"{title} ({label})", description, checkpoint.flaw is None, checkpoint)


def _model(name: str, title: str, description: str, available: bool, checkpoint: Checkpoint | None) -> dict[str, Any]:
    return {
        "name": name,
        "display_name": title,
        "description": description,
        "available": available,
        "id": checkpoint.id if checkpoint else None,
        "step": checkpoint.step if checkpoint else None,
        "flaw": checkpoint.flaw if checkpoint else None,
    }
