"""The one guard before page events, REST and files: who is let in, from where, with what, and how often.

What it lets through it marks with the caller's rights, see `cmp.workbench.callers`; the verbs refuse what these do not allow.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from cmp.core.errands import ROUTE as ERRANDS
from cmp.core.event_files import check_event_files
from cmp.core.limits import Rates
from cmp.errors import BadInput, CmpError, NotFound, Refused, TooOften
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for, caller
from cmp.workbench.curtain import Curtain

COOKIE = "cmp_token"
CALLER = "cmp.caller"  # where in a request's scope it stands who asks; page events are carried out later, in other threads
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LARGEST_API_BODY = 100_000  # bytes; a request is a prompt and a few numbers
LARGEST_ERRAND = 150_000_000  # a LoRA in base64, and of the owner alone
LARGEST_EVENT = 4_000_000  # what a page sends of its fields
LARGEST_UPLOAD = 5_000_000
MULTIPART_AROUND = 10_000  # what the form around a file takes
_UPLOADS = (20, 3.0)  # at once, and after them one in so many seconds

UPLOAD = "/gradio_api/upload"
# Of gradio's own routes those that the page and gradio_client need. All others are answered as if they were not there: those that hand out
# files, copy them, ask other servers, keep histories, or tell what was called how often.
_GRADIO = re.compile(
    r"/(gradio_api/(app_id|startup-events|heartbeat/\w+|queue/(join|data|status)|run/\w+|call/\w+(/\w+)?|cancel|reset|info|openapi\.json"
    r"|upload_progress|upload|theme\.css)|config|theme\.css|(assets|static|svelte)/.+|favicon\.ico|manifest\.json|pwa_icon(/\d+)?|robots\.txt)?/?",
    re.ASCII,
)
_OURS = re.compile(r"/(health|openapi\.json|api/.*|cmp/.*)")
# Page events: visitors may send them too, since most of them only look. Each is carried out with its caller's rights.
_EVENTS = re.compile(r"/gradio_api/(queue/join|run/\w+|call/\w+|cancel|reset)/?", re.ASCII)
# What a mere GET has this server work for: a browser that says it was sent here by another site gets it not even by a link.
_WORKS = ("/cmp/share/", "/cmp/export/")
STARTUP = "/gradio_api/startup-events"  # gradio asks its own server for it once when it starts; it tells nothing

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Rules:
    """Whom a server lets in. Without a `token` everybody who reaches it is its owner, unless `strangers` come.

    `open_reading`: looking needs no token. `hosts` are the names that it goes by; `any_address` takes it by any number too, which no
    foreign page can make its own name. `uploads`: whether files may be sent. `forwarded`: all comes through a proxy, which says who
    asks; of one that some come through, uvicorn is told by FORWARDED_ALLOW_IPS. `framed`: other sites may show it as a part of theirs.
    """

    token: str | None = None
    open_reading: bool = False
    strangers: bool = False
    hosts: frozenset[str] = frozenset(LOOPBACK)
    any_address: bool = False
    uploads: bool = True
    forwarded: bool = False
    framed: bool = False
    rates: Rates = field(default_factory=lambda: Rates(*_UPLOADS), compare=False)

    def knows(self, host: str) -> bool:
        """Whether this server goes by the name in a Host or Origin header, whatever the port."""
        name = host_name(host)
        return name in self.hosts or any(name.endswith(own[1:]) for own in self.hosts if own.startswith("*.")) or (
            self.any_address and is_address(name)
        )  # fmt: skip


def host_name(host: str) -> str:
    """The name or number in a Host header, without port and brackets."""
    return host.partition("]")[0].lstrip("[").lower() if host.startswith("[") else host.partition(":")[0].lower()


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


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
        if not self.rules.token or request.method != "GET" or not _same(given, self.rules.token):
            return None
        self._check_names(request)
        last = quote(request.scope["path"].rpartition("/")[2])  # the id of a run may hold any sign
        answer = RedirectResponse(f"./{last}", 303)  # relative: a proxy may have put something in front
        framed = self.rules.framed  # within a page of another site a cookie is sent only if it says all of this
        secure = framed or request.url.scheme == "https"
        answer.set_cookie(COOKIE, self.rules.token, httponly=True, samesite="none" if framed else "lax", secure=secure)
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
                hint = "Open the address with ?token=… that was printed where it was started."
                raise _NotLetIn(401, Refused("this dashboard needs its token", hint))
        gradios = _GRADIO.fullmatch(path) and all(len(part) < 200 for part in path.split("/"))  # it fails at names that no file can have
        if not (_OURS.fullmatch(path) or gradios) or (path.startswith(UPLOAD) and not self.rules.uploads):
            raise NotFound("there is nothing at this address", "The dashboard is at / and its REST API is described in /openapi.json.")
        return caller

    def _may_send(self, path: str) -> bool:
        return bool(_EVENTS.fullmatch(path)) or (self.rules.strangers and path in (UPLOAD, "/api/generate", "/api/v1/grid"))

    def _check_names(self, request: Request) -> None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not self.rules.knows(host):
            hint = f"Start it with CMP_HOSTS={host_name(host)[:100]} if that is its name." if host else "Send a Host header."
            raise _NotLetIn(400, Refused(f"this server does not go by the name {host[:100]!r}", hint))
        if origin is not None and not _is_same(origin, host) and _origin_name(origin) not in self.rules.hosts - set(LOOPBACK):
            raise _NotLetIn(403, Refused(f"the request comes from {origin[:100]!r}, another site", "Use the dashboard's own address."))
        # a picture or a script within a foreign page is asked for without Origin; browsers say so in these, which no page can set
        foreign = origin is None and request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign and (request.headers.get("sec-fetch-mode") != "navigate" or request.scope["path"].startswith(_WORKS)):
            raise _NotLetIn(403, Refused("the request comes from another site", "Open the dashboard itself and ask for it there."))

    def _is_owner(self, request: Request) -> bool:
        if not self.rules.token:
            return not self.rules.strangers
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        shown = (bearer, request.headers.get("x-cmp-token", ""), request.cookies.get(COOKIE, ""))
        return any(_same(given, self.rules.token) for given in shown)

    def _address(self, request: Request) -> str:
        told = request.headers.getlist("x-forwarded-for") if self.rules.forwarded else []
        last = told[-1].rpartition(",")[2].strip() if told else ""  # the proxy's own word; whoever asks may have sent those before it
        return last[:100] or (request.client.host if request.client else "unknown")

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
            if wait := self.rules.rates.take(self._address(request), time.monotonic()):
                raise TooOften("files were sent too often", f"Try again in {wait:.0f} s.", wait)
            return receive
        if kind != "application/json" and not (request.method == "DELETE" and told in ("", "0")):
            raise _NotLetIn(415, BadInput(f"the body is {kind[:60]!r}", "Send JSON with Content-Type: application/json."))
        most = LARGEST_API_BODY if request.scope["path"].startswith("/api/") else LARGEST_EVENT
        if request.scope["path"] == ERRANDS and caller.owner:
            most = LARGEST_ERRAND
        self._check_size(int(told) if told.isdigit() else 0, most)
        is_event = _EVENTS.fullmatch(request.scope["path"])
        return await _received(receive, most, (lambda body: check_event_files(body, self.rules.knows)) if is_event else None)

    def _check_size(self, size: int, most: int) -> None:
        if size > most:
            raise _NotLetIn(413, BadInput("the request is too large", f"At most {most:,} bytes are read; say how many there are."))


class _NotLetIn(Exception):
    """A refusal with a status of its own."""

    def __init__(self, status: int, error: CmpError) -> None:
        super().__init__(error.message)
        self.status, self.error = status, error


async def _received(receive: Any, most: int, check: Callable[[bytes], None] | None = None) -> Any:
    """Reads the whole body, at most so many bytes of it, has it checked, and gives what hands it on."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":  # the client has gone
            break
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


def _is_same(origin: str, host: str) -> bool:
    scheme, _, name = origin.partition("://")
    return scheme in ("http", "https") and name.lower() == host.lower()


def _origin_name(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


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
