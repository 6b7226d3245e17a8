"""The route by which another instance of this program has cells drawn here: for whoever may write, with a LoRA in the body."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from fastapi.responses import Response, StreamingResponse
from pydantic import Field

from cmp.core.errands import MOST_BYTES, MOST_CELLS, ROUTE, Errand
from cmp.errors import BadInput, CmpError
from cmp.rest.answers import WRITING, Asked, described
from cmp.workbench import Workbench
from cmp.workbench.errands import run_errand


class SamplingSent(Asked):
    steps: int
    guidance: float = Field(allow_inf_nan=False)
    width: int | None = None
    height: int | None = None
    scheduler: Annotated[str, Field(max_length=100)]
    clip_skip: int = 1
    vae: None = None


class CellSent(Asked):
    worn: bool
    prompt: Annotated[str, Field(max_length=4000)]
    negative: Annotated[str, Field(max_length=4000)] = ""
    seed: int
    strength: float = Field(ge=-10, le=10)
    sampling: SamplingSent


class CellsRequest(Asked):
    """`base` is the digest of a base model that must be here; `weights` a LoRA's safetensors file in base64, which cells wear."""

    version: Annotated[str, Field(max_length=100)]
    base: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    mode: Literal["exact", "fast"]
    cells: Annotated[tuple[CellSent, ...], Field(max_length=MOST_CELLS)] = ()
    weights: Annotated[str, Field(max_length=MOST_BYTES * 4 // 3 + 4)] = ""
    alpha: float | None = Field(None, gt=0, allow_inf_nan=False)


def add_errands(router: APIRouter, bench: Workbench) -> None:
    """Adds the route."""
    stream: dict[int | str, dict[str, Any]] = {
        200: {"description": "A JSON value on each line.", "content": {"application/x-ndjson": {"schema": {"type": "string"}}}}
    }

    @router.post(ROUTE, responses=described(WRITING) | stream, response_class=Response)
    def cells(asked: CellsRequest = Body()) -> Response:
        """Draws cells with a LoRA that is sent along: what pictures depend on here, then progress and a picture for each cell."""
        items = run_errand(bench, _errand(asked))
        first = next(items)  # what stands against all of it is answered with its status
        return StreamingResponse(_lines(chain([first], items)), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})


def _errand(asked: CellsRequest) -> Errand:
    try:
        weights = base64.b64decode(asked.weights, validate=True)
    except ValueError as fault:
        raise BadInput("weights is not base64", "Send the bytes of a safetensors file in base64.") from fault
    cells = tuple(cell.model_dump() for cell in asked.cells)
    return Errand(asked.version, asked.base, asked.mode, cells, weights, asked.alpha)


def _lines(items: Iterator[dict[str, Any]]) -> Iterator[str]:
    try:
        for item in items:
            yield json.dumps(item, allow_nan=False) + "\n"
    except CmpError as fault:  # the answer has begun: its status cannot be changed
        yield json.dumps(fault.as_json()) + "\n"
