"""REST: the origin's four routes and `/api/v1`, over the same verbs as page and command line. JSON in, JSON out, ids only.

- `origin`: what people already call: models, generate, examples, health
- `looking`: `GET` for the verbs that look
- `making`, `marking`, `storing`: `POST` for those that change or draw; a server that may only be looked at has none of them
- `measuring`: what was measured, and measuring
- `errands`: cells that another instance has drawn here
- `following`: jobs, their events, and what they are asked to do
- `beside`: what is told of the addresses of files
- `answers`: how errors and values are told
- `nothing`: what no route answers
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cmp import __version__
from cmp.rest.answers import contract_route
from cmp.rest.beside import files_told
from cmp.rest.errands import add_errands
from cmp.rest.following import add_asking, add_following
from cmp.rest.looking import add_looking
from cmp.rest.making import add_drawing, add_making
from cmp.rest.marking import add_marking
from cmp.rest.measuring import add_measures, add_measuring
from cmp.rest.nothing import Nothing
from cmp.rest.origin import add_origin
from cmp.rest.storing import add_storing
from cmp.workbench import Workbench

__all__ = ["Nothing", "api_routes", "openapi_of"]

ABOUT = (
    "Runs and checkpoints are named by their ids as `GET /api/v1/list` tells them, never by paths. Writing needs a JSON body, and where "
    "the server has a token also that, as `Authorization: Bearer` or `X-CMP-Token`. Errors are `{detail: {error, hint, code}}`."
)


def api_routes(bench: Workbench) -> list[BaseRoute]:
    """The routes, to be handed to the server."""
    router = APIRouter(route_class=contract_route(bench))
    add_origin(router, bench)
    add_looking(router, bench)
    add_measures(router, bench)
    add_following(router, bench)
    if not bench.settings.read_only:
        add_asking(router, bench)
        add_making(router, bench)
        add_marking(router, bench)
        add_storing(router, bench)
        add_measuring(router, bench)
        add_errands(router, bench)
    if bench.settings.draws:
        add_drawing(router, bench)
    described = openapi_of(list(router.routes), shares=not bench.settings.read_only)

    def openapi(_: Request) -> Response:
        return JSONResponse(described)

    nothing = Nothing(list(router.routes))
    named = dict.fromkeys(str(getattr(route, "path", "")) for route in router.routes)
    outside = [Route(path, nothing) for path in named if not path.startswith("/api/")]  # asked with another method
    return [*router.routes, Route("/openapi.json", openapi), *outside, Route("/api/{path:path}", nothing)]


def openapi_of(routes: list[BaseRoute], *, shares: bool) -> dict[str, Any]:
    """What /openapi.json tells of these routes, and of the files beside them; see `files_told`."""
    told = get_openapi(title="cmp", version=__version__, description=ABOUT, routes=routes)
    return told | {"paths": {**told["paths"], **files_told(shares=shares)}}
