"""The voting page: two pictures by names that tell nothing, an answer, the next two. Works on a shared address, on phones, by keys alone.

A pair's name is made for one voter and leads to its cells in this process alone: pictures come without their settings, keys or labels.
"""

from __future__ import annotations

import html
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from cmp.core.agreeing import sentence
from cmp.core.picking import candidates
from cmp.core.runs import Run
from cmp.core.votes import Pair, chances, check_vote
from cmp.errors import BadInput, CmpError, NotFound
from cmp.guard import or_refusal, refusal
from cmp.viewer import vote_page
from cmp.workbench import Workbench
from cmp.workbench.callers import caller

LARGEST_BODY = 10_000  # bytes
_MOST = 4000  # pairs that are remembered
_SIDE = "512.webp"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'"
)
_PRIVATE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_READ_ONLY = "This server is read-only: it shows what the votes came to, and takes none."
_FOR_OTHERS = "Votes are taken from those alone who have this dashboard&#39;s token: open the address with ?token=…"
Told = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ballot:
    """A pair before a voter."""

    run: str
    voter: str
    pair: Pair


class Ballots:
    """The pairs that voters have before them. Safe to use from several threads."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Ballot] = OrderedDict()

    def next(self, told: Mapping[str, str]) -> Told:
        """The next pair of a run for a voter, and how far the votes have come."""
        self.bench.require_writing()
        run = self._run(told["run"])
        return self._shown(run, told["voter"], self.bench.next_pair(run, told["voter"]))

    def cast(self, told: Mapping[str, str]) -> Told:
        """Keeps an answer, and gives the next pair. A pair is answered once: a key that is pressed twice is one vote."""
        check_vote(told["outcome"], told["voter"])
        self.bench.require_writing()
        with self._lock:
            ballot = self._open.get(told["pair"])
            if ballot is None or ballot.voter != told["voter"]:
                raise NotFound("this pair is not before this voter any more", "Answer to the next one.")
            del self._open[told["pair"]]
        run = self._run(ballot.run)
        self.bench.cast_vote(run, ballot.voter, *ballot.pair, told["outcome"])
        return self._shown(run, ballot.voter, self.bench.next_pair(run, ballot.voter))

    def take_back(self, told: Mapping[str, str]) -> Told:
        """Forgets the voter's last vote, and shows its pair again, as it was shown."""
        run, voter = self._run(told["run"]), told["voter"]
        check_vote("tie", voter)
        pair = self.bench.last_pair(run, voter)
        taken = self.bench.take_back_vote(run, voter)
        return self._shown(run, voter, pair or self.bench.next_pair(run, voter)) | {"taken": taken}

    def strengths(self, run_id: str) -> Told:
        """What all votes on a run come to, for those who ask."""
        run = self._run(run_id)
        tally = self.bench.tally(run)
        names = {c.id: self.bench.column_name(c) for c in run.checkpoints}
        rows = []
        for score in sorted(tally.verdict.scores, key=lambda score: -score.value):
            chance, low, high = chances(score)
            won, lost, tied = tally.results[score.checkpoint_id]
            inside = score.checkpoint_id in tally.verdict.window
            rows.append({"name": names[score.checkpoint_id], "chance": chance, "low": low, "high": high, "won": won, "lost": lost,
                         "tied": tied, "window": inside})  # fmt: skip
        return {"reason": sentence(tally.verdict.reason), "warnings": list(tally.verdict.warnings), "rows": rows}

    def picture(self, name: str, side: str) -> bytes:
        """One of a pair's pictures, without anything but its pixels; raises NotFound."""
        with self._lock:
            ballot = self._open.get(name)
        if ballot is None or side not in ("left", "right"):
            raise NotFound("there is no such picture", "Reload the page for the next pair.")
        return self.bench.picture("cell", f"{getattr(ballot.pair, side)}.{_SIDE}")[0]

    def _run(self, name: str) -> Run:
        return self.bench.find(name, only_ids=True)[0]

    def _shown(self, run: Run, voter: str, pair: Pair) -> Told:
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._open[name] = Ballot(run.id, voter, pair)
            while len(self._open) > _MOST:
                self._open.popitem(last=False)
        return {"pair": name, "prompt": self.bench.prompt_of(pair.left), "progress": self._progress(run, voter)}

    def _progress(self, run: Run, voter: str) -> Told:
        """How far it is, without a word on who is ahead: `pairs` of pictures, of which this voter has `left`, are there of so many
        `pictured` of all `checkpoints`.
        """
        pairs, left, pictured = self.bench.ahead(run, voter)
        told = {"pairs": pairs, "left": left, "pictured": pictured, "checkpoints": len(candidates(run))}
        try:
            tally = self.bench.tally(run)
        except NotFound:
            return told | {"mine": 0, "votes": 0, "voters": 0, "more": None}
        more = 0 if len(tally.verdict.window) == 1 else tally.more
        return told | {"mine": dict(tally.voters).get(voter, 0), "votes": tally.votes, "voters": len(tally.voters), "more": more}


def ballot_routes(bench: Workbench) -> list[BaseRoute]:
    """`GET cmp/vote/RUN` is the page; what it asks for lies below `cmp/ballot/`. Whatever changes anything takes a JSON body alone.

    A read-only server tells what the votes came to, and has nothing to vote with.
    """
    ballots = Ballots(bench)

    def picture(request: Request) -> Response:
        def make() -> Response:
            content = ballots.picture(request.path_params["pair"], request.path_params["side"])
            return Response(content, media_type="image/webp", headers=_PRIVATE)

        return or_refusal(bench, make)

    def strengths(request: Request) -> Response:
        return or_refusal(bench, lambda: JSONResponse(ballots.strengths(request.query_params.get("run", "")), headers=_PRIVATE))

    posts = {
        "next": _asking(ballots.next, "run", "voter"),
        "cast": _asking(ballots.cast, "pair", "voter", "outcome"),
        "back": _asking(ballots.take_back, "run", "voter"),
    }
    voting = [
        *(Route(f"/cmp/ballot/{name}", reply, methods=["POST"]) for name, reply in posts.items()),
        Route("/cmp/ballot/{pair}/{side}.webp", picture),
    ]
    return [
        *([] if bench.settings.read_only else voting),
        Route("/cmp/ballot/strengths", strengths),
        Route("/cmp/vote/{run:path}", lambda request: or_refusal(bench, lambda: _page(bench, request.path_params["run"]))),
    ]


def _page(bench: Workbench, run_id: str) -> Response:
    run, _ = bench.find(run_id, only_ids=True)
    up = "../" * (run_id.count("/") + 2)  # relative, since the page may lie below another address than /
    closed = _READ_ONLY if bench.settings.read_only else "" if caller().owner else _FOR_OTHERS
    text = vote_page(up, html.escape(run.id), html.escape(bench.name_of(run)), closed)
    return HTMLResponse(text, headers=_PRIVATE | {"Content-Security-Policy": _POLICY, "X-Frame-Options": "SAMEORIGIN"})


def _asking(answer: Callable[[Mapping[str, str]], Told], *wanted: str) -> Callable[[Request], Any]:
    async def reply(request: Request) -> Response:
        try:
            told = await _body(request, wanted)
            return JSONResponse(await run_in_threadpool(answer, told), headers=_PRIVATE)
        except CmpError as fault:
            return refusal(fault)

    return reply


async def _body(request: Request, wanted: tuple[str, ...]) -> dict[str, str]:
    """The wanted texts of a JSON body; a form of another site has none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadInput("the request has no JSON body", "Send application/json.")
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST_BODY:
            raise BadInput("the request is too large", f"At most {LARGEST_BODY} bytes are read.")
    try:
        told = json.loads(content)
    except (ValueError, RecursionError) as fault:
        raise BadInput("the request is no JSON", f"Send an object with {', '.join(wanted)}.") from fault
    if not isinstance(told, dict) or not all(isinstance(told.get(name), str) for name in wanted):
        raise BadInput("the request lacks something", f"Send an object with {', '.join(wanted)}, each a text.")
    return {name: told[name] for name in wanted}
