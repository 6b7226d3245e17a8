"""Where the page asks for alerts."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from cmp.workbench import Workbench
from cmp.workbench.callers import caller
from cmp.workbench.curtain import Curtain


def notice_routes(bench: Workbench) -> list[BaseRoute]:
    """The newest alerts first; empty where nothing looks out for any."""

    def alerts(request: Request) -> Response:
        shown = bench.alerting.shown() if bench.alerting else ()
        # whose jobs they are is nobody else's business; runs stand on the page in any case
        told = [alert.as_json() for alert in shown if caller().owner or not alert.kind.startswith("job-")]
        value = {"alerts": told}
        return JSONResponse(
            value if caller().owner else Curtain(bench).public(value),
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )

    return [Route("/cmp/alerts", alerts)]
