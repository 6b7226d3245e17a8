"""Where the page asks for alerts."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from cmp.workbench import Workbench


def notice_routes(bench: Workbench) -> list[BaseRoute]:
    """The newest alerts first; empty where nothing looks out for any."""

    def alerts(request: Request) -> Response:
        told = [alert.as_json() for alert in bench.alerting.shown()] if bench.alerting else []
        return JSONResponse({"alerts": told}, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

    return [Route("/cmp/alerts", alerts)]
