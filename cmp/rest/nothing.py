"""What no route answers, told in the contract's form."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from cmp.errors import BadInput, CmpError, NotFound
from cmp.guard import WHAT_THERE_IS, refusal


class Nothing:
    """Answers what no route does: that there is no such path, or which methods it has."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = (route for route in self.routes if route.matches(scope)[0] is not Match.NONE)
        allowed = sorted({method for route in found for method in getattr(route, "methods", None) or ()})
        path, status = scope["path"][:100], 405 if allowed else 404
        if allowed:
            fault: CmpError = BadInput(f"{path!r} does not take {scope['method'][:20]}", f"Use {' or '.join(allowed)}.")
        else:
            fault = NotFound(f"there is no {path!r}", WHAT_THERE_IS)
        answer = refusal(fault, status)
        if allowed:
            answer.headers["Allow"] = ", ".join(allowed)
        await answer(scope, receive, send)
