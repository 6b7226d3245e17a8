"""How REST answers: values without what is only the owner's, and every error in the contract's form with a documented status."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cmp.errors import BadInput, CmpError
from cmp.guard import refusal
from cmp.workbench import Workbench
from cmp.workbench.callers import caller
from cmp.workbench.curtain import Curtain

STATUSES = {
    400: "The server does not go by the name in the Host header, or the body is no JSON.",
    401: "The token is missing or wrong.",
    403: "The request comes from another site.",
    404: "What was named is not there.",
    405: "The path has other methods; Allow names them.",
    408: "The body did not come.",
    409: "It would lose something, or show something false; or another process is at it.",
    413: "The body is too large.",
    415: "The body is not sent as application/json.",
    422: "A value that was given cannot be used, or a file cannot be read.",
    429: "Too often; Retry-After tells when to ask again.",
    503: "There is too much to do already; Retry-After tells when to ask again.",
    507: "The disk cannot hold the result.",
}
LOOKING = (400, 401, 403, 404, 409, 422, 429, 503)
WRITING = tuple(status for status in STATUSES if status != 405)  # which none of the routes answers that are described


class ErrorDetail(BaseModel):
    """What happened, what to do, and the exit code that the command line has for it."""

    error: str
    hint: str
    code: int


class ErrorAnswer(BaseModel):
    detail: ErrorDetail


class Asked(BaseModel):
    """The body of a request; fields that there are not are refused, since a misspelt one would be ignored in silence."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def contract_route(bench: Workbench) -> type[APIRoute]:
    """The kind of route that answers errors in the contract's form, FastAPI's own of validation too."""
    curtain = Curtain(bench)

    class ContractRoute(APIRoute):
        def get_route_handler(self) -> Any:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                if bench.lending:
                    bench.lending.in_name_of(request)
                try:
                    return await handle(request)
                except CmpError as fault:
                    return refusal(fault, hide=None if caller().owner else curtain.hide)
                except RequestValidationError as fault:
                    return refusal(_told(fault))
                except HTTPException as fault:  # a body that is no JSON at all
                    return refusal(BadInput(str(fault.detail)[:200], "Send JSON as /openapi.json describes it."), fault.status_code)

            return answer

    return ContractRoute


def _told(fault: RequestValidationError) -> BadInput:
    """The first thing that is wrong, and where; the value itself may be long and is not repeated."""
    first = fault.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])[:100]
    return BadInput(f"{place or 'the body'}: {str(first['msg'])[:200]}", "/openapi.json describes what is taken.")


def described(statuses: Iterable[int]) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI tells of these errors."""
    return {status: {"description": STATUSES[status], "model": ErrorAnswer} for status in statuses}


def told(bench: Workbench, value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    """A value as whoever asks may see it: without owner's rights no places on this machine."""
    return JSONResponse(value if caller().owner else Curtain(bench).public(value), status, headers)
