"""The one guard before page events, REST and files: who is let in, from where, with what, and how often.

What it lets through it marks with the caller's rights, see `cmp.workbench.callers`; the verbs refuse what these do not allow.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from cmp.core.errands import ROUTE as ERRANDS
from cmp.core.page_events import check_event
from cmp.core.server_names import client_of, split_host
from cmp.errors import BadInput, CmpError, NotFound, Refused, TooOften
from cmp.rules import LOOPBACK, Rules
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for, caller
from cmp.workbench.curtain import Curtain

COOKIE = "cmp_token"
CALLER = "cmp.caller"  # where in a request's scope it stands who asks; page events are carried out later, in other threads
LARGEST_API_BODY = 100_000  # bytes; a request is a prompt and a few numbers
LARGEST_ERRAND = 150_000_000  # a LoRA in base64, and of the owner alone
LARGEST_EVENT = 4_000_000  # what a page sends of its fields
LARGEST_UPLOAD = 5_000_000
MULTIPART_AROUND = 10_000  # what the form around a file takes
_WITHIN = 30.0  # seconds in which a body has to begin, and each next part of it to come
_SLOWEST = 20_000  # bytes a second that a body has to come at after that

__all__ = ["COOKIE", "LARGEST_UPLOAD", "LOOPBACK", "Guard", "Rules", "or_refusal", "refusal"]

UPLOAD = "/gradio_api/upload"
# Of gradio's own routes those that the page and gradio_client need. All others are answered as if they were not there: those that hand out
# files, copy them, ask other servers, keep histories, or tell what was called how often.
_GRADIO = re.compile(
    r"/(gradio_api/(app_id|startup-events|heartbeat/\w+|queue/(join|data|status)|run/\w+|call/(?!v2/)\w+(/\w+)?|cancel|reset|info"
    r"|upload_progress|upload|theme\.css)|config|theme\.css|(assets|static|svelte)/.+|favicon\.ico|manifest\.json|pwa_icon(/\d+)?|robots\.txt)?/?",
    re.ASCII,
)
_OURS = re.compile(r"/(health|openapi\.json|api/.*|cmp/.*)")
# Page events: visitors may send them too, since most of them only look. Each is carried out with its caller's rights.
_EVENTS = re.compile(r"/gradio_api/(queue/join|run/\w+|call/\w+|cancel|reset)/?", re.ASCII)
# What a mere GET has this server work for: a browser that says it was sent here by another site gets it not even by a link.
_WORKS = ("/cmp/share/", "/cmp/export/")
# What costs nothing or is fetched by the dozen when a page opens; everything else of visitors is counted.
_CHEAP = re.compile(
    r"/health|/(cmp/(static|cell|sample)|assets|static|svelte|pwa_icon)/.+|/(gradio_api/)?(theme\.css|startup-events|heartbeat/\w+)"
    r"|/(favicon\.ico|manifest\.json|pwa_icon|robots\.txt)"
)
WHAT_THERE_IS = "The dashboard is at / and its REST API is described in /openapi.json."
_NO_TOKEN = Refused("this dashboard needs its token", "Open the address with ?token=… that was printed where it was started.")
_NOBODY = Refused("nobody changes anything here", "Whoever started it can, on one that is not read-only.")
STARTUP = "/gradio_api/startup-events"  # gradio asks its own server for it once when it starts; it tells nothing

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class Guard:
    """Refuses requests for another name, from another site, without the token, in another form than JSON, too large or too often.

    The token is taken from `Authorization: Bearer`, from `X-CMP-Token`, or from a cookie that is set once by `?token=`.
    """

    def __init__(self, app: App, rules: Rules) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":  # nothing here speaks so
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self._forget_foreign_names(scope)
        request = Request(scope, receive)
        try:
            if answer := self._token_in_address(request):
                await answer(scope, receive, send)
                return
            caller = self._let_in(request)
            receive = await self._body(request, receive, caller)
        except CmpError as fault:
            await refusal(fault)(scope, receive, send)
            return
        except _NotLetIn as fault:
            await refusal(fault.error, fault.status)(scope, receive, send)
            return
        scope[CALLER] = caller
        with acting_for(caller):
            await self.app(scope, receive, self._unframed(send))

    def _unframed(self, send: Any) -> Any:
        """Sends answers so that no other site shows them as a part of itself, but for a Space, which is shown so."""
        own = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
        own += [] if self.rules.framed else [(b"x-frame-options", b"SAMEORIGIN")]

        async def send_on(message: Any) -> None:
            if message["type"] == "http.response.start":
                told = {name.lower() for name, _ in message.get("headers", ())}
                message = message | {"headers": [*message.get("headers", ()), *(pair for pair in own if pair[0] not in told)]}
            await send(message)

        return send_on

    # -- who, and from where -------------------------------------------------------------------------------------------

    def _token_in_address(self, request: Request) -> Response | None:
        given = parse_qs(request.scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not given or request.method != "GET":
            return None
        self._check_names(request)
        # by links another site could use up what its visitor may try, and lock the owner out: those are counted for themselves
        if not self._is_token(self._address(request) + (" by a link" if _is_foreign(request) else ""), given):
            return None
        last = quote(request.scope["path"].rpartition("/")[2])  # the id of a run may hold any sign
        answer = RedirectResponse(f"./{last}", 303)  # relative: a proxy may have put something in front
        framed = self.rules.framed  # within a page of another site a cookie is sent only if it says all of this
        secure = framed or request.url.scheme == "https"
        answer.set_cookie(COOKIE, given, httponly=True, samesite="none" if framed else "lax", secure=secure)
        if framed:
            answer.headers["set-cookie"] += "; Partitioned"
        return answer

    def _let_in(self, request: Request) -> Caller:
        """Who asks; raises what stands against it."""
        self._check_names(request)
        path = request.scope["path"]
        caller = Caller(self._is_owner(request), self._address(request), by_id=path.startswith("/api/"))
        if not caller.owner and path != STARTUP:
            looks = request.method in ("GET", "HEAD", "OPTIONS") or (request.method == "POST" and self._may_send(path))
            if not (self.rules.open_reading and looks):
                raise _NotLetIn(401, _NO_TOKEN if self.rules.token else _NOBODY)
        gradios = _GRADIO.fullmatch(path) and all(len(part) < 200 for part in path.split("/"))  # it fails at names that no file can have
        if not (_OURS.fullmatch(path) or gradios) or (path.startswith(UPLOAD) and not self.rules.uploads):
            raise NotFound("there is nothing at this address", WHAT_THERE_IS)
        if not caller.owner and not _CHEAP.fullmatch(path) and (wait := self.rules.visits.take(caller.address, time.monotonic())):
            raise TooOften("this dashboard was asked too much at once", f"Try again in {max(1, wait):.0f} s.", wait)
        return caller

    def _may_send(self, path: str) -> bool:
        return bool(_EVENTS.fullmatch(path)) or (self.rules.strangers and path in (UPLOAD, "/api/generate", "/api/v1/grid"))

    def _check_names(self, request: Request) -> None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not self.rules.knows(host):
            name, _ = split_host(host)
            hint = f"Start it with CMP_HOSTS={name[:100]} if that is its name." if name else "Send a Host header: a name, or name:port."
            raise _NotLetIn(400, Refused(f"this server does not go by the name {host[:100]!r}", hint))
        if origin is not None and not self.rules.takes(origin, host, request.url.scheme):
            hint = "Use the dashboard's own address; where a proxy serves it at another port, start it with CMP_HOSTS=NAME:PORT."
            raise _NotLetIn(403, Refused(f"the request comes from {origin[:100]!r}, another site", hint))
        # a picture or a script within a foreign page is asked for without Origin; browsers say so in these, which no page can set
        foreign = origin is None and _is_foreign(request)
        if foreign and (request.headers.get("sec-fetch-mode") != "navigate" or request.scope["path"].startswith(_WORKS)):
            raise _NotLetIn(403, Refused("the request comes from another site", "Open the dashboard itself and ask for it there."))

    def _forget_foreign_names(self, scope: Scope) -> None:
        """Takes out what gradio would build its addresses from, unless it is a name that this server goes by."""

        def stays(name: bytes, value: bytes) -> bool:
            first = value.decode("latin-1").partition(",")[0].strip()
            return name != b"x-gradio-server" and (name != b"x-forwarded-host" or self.rules.is_named(first))

        scope["headers"] = [pair for pair in scope["headers"] if stays(*pair)]

    def _is_owner(self, request: Request) -> bool:
        if not self.rules.token:
            return not self.rules.strangers
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        shown = bearer if kind.lower() == "bearer" else ""  # another kind is for the proxy in front
        return self._is_token(self._address(request), shown, request.headers.get("x-cmp-token", ""), request.cookies.get(COOKIE, ""))

    def _is_token(self, client: str, *given: str) -> bool:
        return bool(self.rules.token) and self.rules.guesses.find(given, str(self.rules.token), client)

    def _address(self, request: Request) -> str:
        told = request.headers.getlist("x-forwarded-for") if self.rules.forwarded else []
        last = told[-1].rpartition(",")[2].strip() if told else ""  # the proxy's own word; whoever asks may have sent those before it
        return client_of(last or (request.client.host if request.client else "unknown"))

    # -- with what -----------------------------------------------------------------------------------------------------

    async def _body(self, request: Request, receive: Any, caller: Caller) -> Any:
        """What the application is given to receive the body with, checked before anything is done with it."""
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return receive
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        told = request.headers.get("content-length", "")
        if request.scope["path"].rstrip("/") == UPLOAD:
            if kind != "multipart/form-data":
                raise _NotLetIn(415, BadInput(f"a file was sent as {kind[:60]!r}", "Send it as multipart/form-data."))
            self._check_size(int(told) if told.isdigit() else LARGEST_UPLOAD * 2, LARGEST_UPLOAD + MULTIPART_AROUND)
            if wait := self.rules.rates.take(caller.address, time.monotonic()):
                raise TooOften("files were sent too often", f"Try again in {wait:.0f} s.", wait)
            return await _received(receive, LARGEST_UPLOAD + MULTIPART_AROUND)
        if kind != "application/json" and not (request.method == "DELETE" and told in ("", "0")):
            raise _NotLetIn(415, BadInput(f"the body is {kind[:60]!r}", "Send JSON with Content-Type: application/json."))
        most = LARGEST_API_BODY if request.scope["path"].startswith("/api/") else LARGEST_EVENT
        if request.scope["path"] == ERRANDS and caller.owner:
            most = LARGEST_ERRAND
        self._check_size(int(told) if told.isdigit() else 0, most)
        is_event = _EVENTS.fullmatch(request.scope["path"])
        return await _received(receive, most, (lambda body: check_event(body, self.rules.knows, *_called(request))) if is_event else None)

    def _check_size(self, size: int, most: int) -> None:
        if size > most:
            raise _NotLetIn(413, BadInput("the request is too large", f"At most {most:,} bytes are read; say how many there are."))


class _NotLetIn(Exception):
    """A refusal with a status of its own."""

    def __init__(self, status: int, error: CmpError) -> None:
        super().__init__(error.message)
        self.status, self.error = status, error


async def _received(receive: Any, most: int, check: Callable[[bytes], None] | None = None) -> Any:
    """Reads the whole body, at most so many bytes of it and none that hardly comes, has it checked, and gives what hands it on."""
    parts, size, more, began = [], 0, True, time.monotonic()
    while more:
        left = began + _WITHIN + size / _SLOWEST - time.monotonic()
        try:
            message = await asyncio.wait_for(receive(), min(left, _WITHIN))
        except TimeoutError:
            raise _NotLetIn(408, BadInput("the request was not sent to its end", "Send it at once.")) from None
        if message["type"] != "http.request":  # the client has gone, and nothing is done with the part that came
            raise _NotLetIn(408, BadInput("the request was not sent to its end", "Send all of it."))
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _NotLetIn(413, BadInput("the request is too large", f"At most {most:,} bytes are read."))
        more = message.get("more_body", False)
    body = b"".join(parts)
    if check:
        check(body)
    given = iter(({"type": "http.request", "body": body, "more_body": False},))

    async def hand_on() -> Any:
        for message in given:
            return message
        return await receive()

    return hand_on


def _is_foreign(request: Request) -> bool:
    """Whether a browser says that a page of another site has it ask."""
    return request.headers.get("sec-fetch-site") in ("cross-site", "same-site")


def _called(request: Request) -> tuple[str | None, Mapping[int, str] | None]:
    """The name by which a request calls one of the page's events, None where its body has to say which; and the events there are."""
    page = getattr(request.scope.get("app"), "blocks", None)
    kind, _, name = request.scope["path"].removeprefix("/gradio_api/").rstrip("/").partition("/")
    if page is None or kind in ("cancel", "reset"):
        return None, None
    return None if kind == "queue" else name, {number: str(event.api_name) for number, event in page.fns.items()}


def refusal(fault: CmpError, status: int | None = None, *, hide: Callable[[Any], Any] | None = None) -> Response:
    """An error in the contract's form, with its own status unless another is given; `hide` takes out what its reader should not see."""
    wait = getattr(fault, "retry_after", None)
    headers = {"Retry-After": str(max(1, round(wait)))} if wait is not None else None
    told = hide(fault.as_json()) if hide else fault.as_json()
    return JSONResponse({"detail": told}, status or fault.http_status, headers)


def or_refusal(bench: Workbench, make: Callable[[], Response]) -> Response:
    """An answer, or in its place what stands against it; visitors are not told where things lie."""
    try:
        return make()
    except CmpError as fault:
        return refusal(fault, hide=None if caller().owner else Curtain(bench).hide)
