"""Serves page, REST and pictures on one port, behind one guard."""

from __future__ import annotations

import gzip
import hmac
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from cmp.ending import Ending
from cmp.errors import BadInput, CmpError
from cmp.journal import Requests, adopt_libraries, open_journal
from cmp.viewer import HEAD, asset
from cmp.workbench import Workbench
from cmp.workbench.alerting import Alerting
from cmp.workbench.sending import targets_of

COOKIE = "cmp_token"
STARTUP = "/gradio_api/startup-events"  # gradio asks its own server for it once when it starts; it tells nothing
FOR_EVER = "private, max-age=31536000, immutable"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TYPES = {"css": "text/css", "js": "text/javascript"}

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class Guard:
    """Lets nothing write from another site, and where a token is set lets nobody in without it.

    The token is taken from `Authorization: Bearer`, from `X-CMP-Token`, or from a cookie that is set once by `?token=`.
    """

    def __init__(self, app: App, token: str | None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        answer = self._foreign(request) or self._token_in_address(request) or self._unknown(request)
        await (answer or self.app)(scope, receive, send)

    def _foreign(self, request: Request) -> Response | None:
        origin = request.headers.get("origin")
        if request.method in ("GET", "HEAD", "OPTIONS") or not origin or urlsplit(origin).netloc == request.headers.get("host"):
            return None
        return refusal(403, f"the request comes from {origin!r}, another site", "Use the dashboard's own address.")

    def _token_in_address(self, request: Request) -> Response | None:
        given = parse_qs(request.scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not self.token or request.method != "GET" or not _same(given, self.token):
            return None
        last = quote(request.scope["path"].rpartition("/")[2])  # the id of a run may hold any sign
        answer = RedirectResponse(f"./{last}", 303)  # relative: a proxy may have put something in front
        answer.set_cookie(COOKIE, self.token, httponly=True, samesite="lax", secure=request.url.scheme == "https")
        return answer

    def _unknown(self, request: Request) -> Response | None:
        if not self.token or request.url.path == STARTUP:
            return None
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        shown = (bearer, request.headers.get("x-cmp-token", ""), request.cookies.get(COOKIE, ""))
        if any(_same(given, self.token) for given in shown):
            return None
        return refusal(401, "this dashboard needs its token", "Open the address with ?token=… that was printed where it was started.")


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def refusal(status: int, error: str, hint: str) -> Response:
    return JSONResponse({"detail": {"error": error, "hint": hint, "code": status}}, status)


def file_routes(bench: Workbench) -> list[BaseRoute]:
    """Viewer files and pictures. No path ever comes from a caller: cells and samples are named by digests."""

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "plotly.min.js":
            content = files("plotly").joinpath("package_data", name).read_bytes()
            return Response(content, media_type=_TYPES["js"], headers={"Cache-Control": FOR_EVER})
        return _or_refusal(lambda: Response(asset(name), media_type=_TYPES[name.rpartition(".")[2]], headers={"Cache-Control": FOR_EVER}))

    def picture(kind: str) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            def read() -> Response:
                content, media_type = bench.picture(kind, request.path_params["name"])
                return Response(content, media_type=media_type, headers={"Cache-Control": FOR_EVER, "X-Content-Type-Options": "nosniff"})

            return _or_refusal(read)

        return answer

    return [
        Route("/cmp/static/{name}", static),
        Route("/cmp/cell/{name}", picture("cell")),
        Route("/cmp/sample/{name}", picture("sample")),
        curve_route(bench),
    ]


def curve_route(bench: Workbench) -> BaseRoute:
    """What the chart of curves asks for; runs are named by their ids."""
    from cmp.ui.curve_answers import CurveAnswers

    curves = CurveAnswers(bench)

    def curve(request: Request) -> Response:
        def answer() -> Response:
            told = curves.answer(request.path_params["name"], request.query_params.multi_items())
            headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} | told.headers
            if "gzip" not in request.headers.get("accept-encoding", "") or len(told.body) < 1000:
                return Response(told.body, media_type=told.media_type, headers=headers)
            packed = gzip.compress(told.body, 5, mtime=0)
            return Response(packed, media_type=told.media_type, headers=headers | {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})

        return _or_refusal(answer)

    return Route("/cmp/curve/{name}", curve)


def _or_refusal(make: Callable[[], Response]) -> Response:
    try:
        return make()
    except CmpError as fault:
        return JSONResponse({"detail": fault.as_json()}, fault.http_status)


def launch_options(bench: Workbench, host: str) -> dict[str, Any]:
    """What gradio's `launch` needs so that routes, guard and limits hold however it is started."""
    from cmp.ballots import ballot_routes
    from cmp.exports import export_routes
    from cmp.notices import notice_routes
    from cmp.rest import api_routes
    from cmp.ui.page import CSS

    middleware = [Middleware(Guard, token=bench.settings.token)]
    if host in LOOPBACK:  # a page of another site must not reach this server through a name that it lets point here
        middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK)))
    return {
        "app_kwargs": {
            "routes": [
                *file_routes(bench),
                *notice_routes(bench),
                *ballot_routes(bench),
                *export_routes(bench),
                *api_routes(bench),
            ],
            "middleware": [Middleware(Requests), *middleware],
            "title": "cmp",
            "docs_url": None,
            "redoc_url": None,
        },
        "head": HEAD,
        "css": CSS,
        "run_history": False,
        "ssr_mode": False,  # with it a Node process stands in front and hides our routes
        "enable_monitoring": False,
        "share": False,
        "max_file_size": "5mb",
        "footer_links": [],
        "quiet": True,
    }


def prepare_environment(bench: Workbench, environ: MutableMapping[str, str]) -> None:
    """Gradio's own settings, before it is imported: no telemetry, and a temporary folder that no other program shares."""
    environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    environ.setdefault("GRADIO_TEMP_DIR", str(bench.settings.home / "gradio"))
    environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def serve_forever(bench: Workbench, host: str = "127.0.0.1") -> int:
    """Serves until it is interrupted, and gives the exit code; raises BadInput if the port is taken or an alert could never be told."""
    if host not in LOOPBACK and not bench.settings.token:
        from dataclasses import replace

        bench.settings = replace(bench.settings, token=secrets.token_urlsafe(24))
    port = free_port(host, bench.settings.port)
    settings = bench.settings
    alerting = Alerting(bench, targets_of(settings.alert_webhook, settings.alert_command))
    open_journal(settings.log_format, settings.log_file, filter(None, (settings.token, settings.alert_webhook)))
    bench.serves = True
    prepare_environment(bench, os.environ)
    from cmp.ui.page import build_page

    page = build_page(bench)
    with Ending(bench, alerting) as ending:
        if not bench.settings.read_only:
            bench.jobs.resume_interrupted()
        alerting.start()
        page.queue(max_size=64, default_concurrency_limit=8)
        query = f"?token={bench.settings.token}" if bench.settings.token else ""
        print(f"cmp serves {', '.join(map(str, bench.roots))}\nOpen http://{host}:{port}/{query}", flush=True)
        page.launch(server_name=host, server_port=port, prevent_thread_lock=True, **launch_options(bench, host))
        adopt_libraries()
        return ending.wait(page)


def free_port(host: str, port: int) -> int:
    """The port to listen on; 0 asks the system for a free one. Raises BadInput for one that is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            raise BadInput(
                f"cannot listen on {host}:{port}: {fault.strerror}", "Choose another with --port, or --port 0 for any free one."
            ) from fault
        return int(probe.getsockname()[1])
