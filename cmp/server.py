"""Serves page, REST and pictures on one port, behind one guard."""

from __future__ import annotations

import atexit
import gzip
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cmp.connections import Connections, bounded, is_spared, raise_open_files, room_for
from cmp.core.server_names import is_address
from cmp.ending import Ending
from cmp.errors import BadInput, Refused
from cmp.guard import LARGEST_UPLOAD, LOOPBACK, Guard, Rules, or_refusal
from cmp.journal import Requests, adopt_libraries, open_journal
from cmp.settings import Settings, read_port
from cmp.viewer import HEAD, asset
from cmp.workbench import Workbench
from cmp.workbench.alerting import Alerting
from cmp.workbench.callers import BY_CALLER, Caller, acting_for, caller
from cmp.workbench.curtain import Curtain
from cmp.workbench.sending import targets_of

FOR_EVER = "private, max-age=31536000, immutable"
MOST_PAGES = 300  # whose state is kept, of 0.4 MB each; one that was forgotten begins anew with its next event
SHORTEST_TOKEN = 12  # characters, where others can try
EVERYWHERE = ("0.0.0.0", "::", "")
_TYPES = {"css": "text/css", "js": "text/javascript"}


def file_routes(bench: Workbench) -> list[BaseRoute]:
    """Viewer files and pictures. No path ever comes from a caller: cells and samples are named by digests."""

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "plotly.min.js":
            content = files("plotly").joinpath("package_data", name).read_bytes()
            return Response(content, media_type=_TYPES["js"], headers={"Cache-Control": FOR_EVER})
        return or_refusal(
            bench, lambda: Response(asset(name), media_type=_TYPES[name.rpartition(".")[2]], headers={"Cache-Control": FOR_EVER})
        )

    def picture(kind: str) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            def read() -> Response:
                content, media_type = bench.picture(kind, request.path_params["name"])
                if not caller().owner:
                    content = Curtain(bench).picture(content, media_type)
                headers = {"Cache-Control": FOR_EVER, "X-Content-Type-Options": "nosniff", "Vary": BY_CALLER}
                return Response(content, media_type=media_type, headers=headers)

            return or_refusal(bench, read)

        return answer

    return [
        Route("/cmp/static/{name}", static),
        Route("/cmp/cell/{name}", picture("cell")),
        Route("/cmp/sample/{name}", picture("sample")),
        curve_route(bench),
    ]


def curve_route(bench: Workbench) -> BaseRoute:
    """What the chart of curves asks for; runs are named by their ids."""
    from cmp.ui.curve_answers import FILES, CurveAnswers

    curves = CurveAnswers(bench)

    def curve(request: Request) -> Response:
        def answer() -> Response:
            told = curves.answer(request.path_params["name"], request.query_params.multi_items())
            if not caller().owner and told.media_type != FILES["png"]:
                told = replace(told, body=Curtain(bench).hide(told.body.decode()).encode())
            headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} | told.headers
            if "gzip" not in request.headers.get("accept-encoding", "") or len(told.body) < 1000:
                return Response(told.body, media_type=told.media_type, headers=headers)
            packed = gzip.compress(told.body, 5, mtime=0)
            return Response(packed, media_type=told.media_type, headers=headers | {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})

        return or_refusal(bench, answer)

    return Route("/cmp/curve/{name}", curve)


def routes_of(bench: Workbench) -> list[BaseRoute]:
    """All that is asked for beside the page itself; below `/cmp/` and `/api/` nothing else is there."""
    from cmp.ballots import ballot_routes
    from cmp.exports import export_routes
    from cmp.notices import notice_routes
    from cmp.rest import Nothing, api_routes

    beside = [*file_routes(bench), *notice_routes(bench), *ballot_routes(bench), *export_routes(bench)]
    return [*beside, *api_routes(bench), Route("/cmp/{path:path}", Nothing(beside))]


def launch_options(bench: Workbench, host: str, *, share: bool = False) -> dict[str, Any]:
    """What gradio's `launch` needs so that routes, guard and limits hold however it is started; raises Refused, see `rules_for`."""
    from cmp.ui.page import CSS

    rules = rules_for(bench.settings, host, share=share)
    return {
        "server_name": host,
        "app_kwargs": {
            "routes": routes_of(bench),
            "middleware": [Middleware(Requests), Middleware(Guard, rules=rules)],
            "lifespan": without_foreign_readers,
            "title": "cmp",
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,  # our own is among the routes
        },
        "head": HEAD,
        "css": CSS,
        "run_history": False,
        "ssr_mode": False,  # with it a Node process stands in front and hides our routes
        "enable_monitoring": False,
        "mcp_server": False,
        "share": share,
        "max_file_size": LARGEST_UPLOAD,
        "state_session_capacity": MOST_PAGES,
        "_frontend": False,  # it only has gradio ask its own server for the page, and give up where that takes over 3 s
        "footer_links": [],
        "quiet": True,
    }


def rules_for(settings: Settings, host: str, *, share: bool = False) -> Rules:
    """Whom a server at this address lets in. Raises Refused where others would reach what only a token may guard, and there is none."""
    alone = host in LOOPBACK and not share
    guarded = settings.token or (settings.read_only and settings.open_reading)
    if not guarded and (not alone or settings.mode == "token"):
        where = "--share" if share else f"--host {host}" if not alone else "CMP_MODE=token"
        raise Refused(
            f"{where} lets others reach this dashboard, and there is no token",
            "Give --token auto to have one made, or --read-only --open-reading: all look and draw a little, nobody changes anything.",
        )
    if settings.token and not settings.makes_token and len(settings.token) < SHORTEST_TOKEN and (not alone or settings.hosts):
        told = f"the token has {len(settings.token)} characters, and others can try it"
        raise Refused(told, f"Give --token auto to have one made, or one of at least {SHORTEST_TOKEN} characters that nobody guesses.")
    named = {socket.gethostname().lower()} if host in EVERYWHERE else {host.lower()}
    shared = {"*.gradio.live"} if share else set()
    in_space = settings.mode == "space"
    return Rules(
        token=settings.token,
        open_reading=settings.open_reading,
        strangers=settings.for_strangers,
        hosts=frozenset({*LOOPBACK, *settings.hosts, *(set() if alone else named), *shared}),
        origins=frozenset(settings.hosts),
        any_address=not alone and (host in EVERYWHERE or is_address(host)),
        uploads=settings.draws,
        forwarded=settings.on_space,
        framed=in_space or settings.on_space,
    )


def check_sharing() -> None:
    """Raises Refused where sharing would have to fetch the program that makes the tunnel."""
    from gradio.tunneling import BINARY_PATH

    if not os.path.exists(BINARY_PATH):
        told = f"--share needs the program {BINARY_PATH}, which is not there"
        raise Refused(
            told, "Nothing is downloaded unasked. `ssh -L 7860:localhost:7860 HOST` or a reverse proxy with CMP_HOSTS=NAME do without."
        )


def prepare_environment(bench: Workbench, environ: MutableMapping[str, str]) -> None:
    """Gradio's own settings, before it is imported: no telemetry, nothing beside this server, and a temporary folder of its own.

    Raises BadInput for a port of gradio's that is none: its import would end with a traceback.
    """
    if "GRADIO_SERVER_PORT" in environ:
        read_port(environ["GRADIO_SERVER_PORT"], "GRADIO_SERVER_PORT")
    environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    for opens in ("GRADIO_NUM_WORKERS", "GRADIO_ALLOWED_PATHS"):  # servers of its own that no guard stands before, and folders
        environ.pop(opens, None)
    if bench.settings.for_strangers:  # who sends a file is told where it went: that must not be where the rest lies
        environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="cmp-")
        atexit.register(shutil.rmtree, environ["GRADIO_TEMP_DIR"], ignore_errors=True)
    environ.setdefault("GRADIO_TEMP_DIR", str(bench.settings.home / "gradio"))
    environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def dashboard(bench: Workbench) -> Any:
    """The page, which is served behind the guard whoever launches it: `app.py` is imported and launched by others too."""
    prepare_environment(bench, os.environ)
    if bench.settings.makes_token:
        bench.settings = replace(bench.settings, token=secrets.token_urlsafe(24))
    from cmp.ui.page import build_page

    with acting_for(Caller(owner=not bench.settings.open_reading)):  # what everybody gets to see before it is asked who they are
        page = build_page(bench)
    if bench.lending:
        bench.lending.page = page
    page.queue(max_size=64, default_concurrency_limit=8)
    page.prepare = lambda asked: _to_launch(bench, asked)
    return page


def _to_launch(bench: Workbench, asked: Mapping[str, Any]) -> dict[str, Any]:
    """How gradio is launched; says where the page is to be found. What was asked for otherwise holds where no promise hangs on it."""
    host = str(asked.get("server_name") or os.environ.get("GRADIO_SERVER_NAME") or LOOPBACK[0])
    share = bool(asked.get("share"))
    options = dict(asked) | launch_options(bench, host, share=share)
    if share:
        check_sharing()
    port = free_port(host, wanted_port(bench.settings, asked, os.environ))
    settings = bench.settings
    bench.alerting = Alerting(bench, targets_of(settings.alert_webhook, settings.alert_command))
    open_journal(settings.log_format, settings.log_file, filter(None, (settings.token, settings.alert_webhook)))
    if settings.on_space:
        bench.library()  # its reloader goes through all objects when gradio launches: what is read meanwhile in another thread may fail
    bench.serves = True
    if not bench.settings.read_only:
        bench.jobs.resume_interrupted()
    bench.alerting.start()
    bench.follow_hub()
    query = f"?token={quote(bench.settings.token, safe='')}" if bench.settings.token else ""
    print(f"cmp serves {', '.join(map(str, bench.roots))}\nOpen http://{f'[{host}]' if ':' in host else host}:{port}/{query}", flush=True)
    return options | {"server_port": port}


def serve_forever(bench: Workbench, host: str = LOOPBACK[0], *, share: bool = False) -> int:
    """Serves until it is interrupted, and gives the exit code.

    Raises BadInput if the port is taken or no alert could ever be sent where it was said, and Refused as `rules_for` does.
    """
    rules_for(bench.settings, host, share=share)  # before what takes long
    targets_of(bench.settings.alert_webhook, bench.settings.alert_command)
    return serve_page(bench, dashboard(bench), server_name=host, share=share)


@asynccontextmanager
async def without_foreign_readers(app: Any) -> AsyncIterator[None]:
    """Takes out what gradio puts around the guard when an app starts: it tells browsers that pages of any site may read what is here."""
    from gradio.route_utils import CustomCORSMiddleware

    app.user_middleware = [one for one in app.user_middleware if one.cls is not CustomCORSMiddleware]
    app.middleware_stack = None  # it is built anew for the first request
    yield


def bound_connections(server: Any, *, proxied: bool) -> None:
    """Keeps the connections of a running web server within bounds, from the next on; all are counted together where they are `proxied`."""
    proxies = "*" if proxied else server.config.forwarded_allow_ips
    kept = Connections(room_for(raise_open_files()), spared=lambda address: is_spared(address, proxies))
    server.config.http_protocol_class = bounded(server.config.http_protocol_class, kept)


def serve_page(bench: Workbench, page: Any, **asked: Any) -> int:
    """Launches the page, and ends in order when a signal asks for that; gives the exit code."""
    with Ending(bench) as ending:
        page.launch(prevent_thread_lock=True, **asked)
        bound_connections(page.server, proxied=bench.settings.on_space)
        adopt_libraries()
        return ending.wait(page)


def wanted_port(settings: Settings, asked: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    """The port that was asked for where the page is launched, or else in gradio's own way, or else in ours; raises BadInput."""
    if (wanted := asked.get("server_port")) is not None:
        return read_port(str(wanted), "server_port")
    return read_port(environ["GRADIO_SERVER_PORT"], "GRADIO_SERVER_PORT") if "GRADIO_SERVER_PORT" in environ else settings.port


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
