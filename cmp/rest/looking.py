"""The verbs that look, as `GET`; the same JSON as the command line gives."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from cmp.core.storage import parse_rules
from cmp.errors import Refused
from cmp.rest.answers import LOOKING, described, told
from cmp.workbench import Workbench
from cmp.workbench.callers import caller
from cmp.workbench.storing import Asked as AskedOfStorage
from cmp.workbench.targets import run_at, runs_at
from cmp.workbench.telling import best_json, cells_json, curves_json, list_json, votes_json

Named = Annotated[str, Query(min_length=1, max_length=1000)]
Text = Annotated[str | None, Query(max_length=1000)]


def add_looking(router: APIRouter, bench: Workbench) -> None:
    """Adds the routes."""
    answers: dict[str, Any] = {"responses": described(LOOKING), "response_model": dict[str, Any]}

    @router.get("/api/v1/list", **answers)
    def list_runs() -> JSONResponse:
        """Every run and checkpoint."""
        return told(bench, list_json(bench))

    @router.get("/api/v1/show", **answers)
    def show(target: Named) -> JSONResponse:
        """One run or checkpoint: settings, tensors by kind, scale and where it was found, what it can become."""
        return told(bench, bench.show(target))

    @router.get("/api/v1/curves", **answers)
    def curves(run: Named, tag: Annotated[list[str] | None, Query()] = None, abandoned: bool = False) -> JSONResponse:
        """What was logged; without tags all of it."""
        found, logged = bench.curves_at(run, tag or ())
        return told(bench, curves_json(found, logged, abandoned=abandoned))

    @router.get("/api/v1/best", **answers)
    def best(
        run: Named,
        by: Text = None,
        gate: Text = None,
        margin: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.0,
        higher: bool | None = None,
    ) -> JSONResponse:
        """Which checkpoint is the best, which cannot be told from it, and by what."""
        return told(bench, best_json(bench, run_at(bench, run), by, higher, gate, margin))

    _add_more(router, bench, answers)


def _add_more(router: APIRouter, bench: Workbench, answers: dict[str, Any]) -> None:
    @router.get("/api/v1/vote", **answers)
    def vote(run: Named) -> JSONResponse:
        """The tally of blind votes."""
        return told(bench, votes_json(bench, run_at(bench, run)))

    @router.get("/api/v1/pair", **answers)
    def pair(run: Named, voter: Named, job: Text = None) -> JSONResponse:
        """Two pictures to vote on, by the keys under which /cmp/cell has them."""
        left, right = bench.next_pair(run_at(bench, run), voter, job)
        return told(bench, {"left": left, "right": right})

    @router.get("/api/v1/storage", **answers)
    def storage(run: Annotated[list[str] | None, Query()] = None) -> JSONResponse:
        """What runs occupy and what could be freed."""
        plan = bench.plan_cleanup(runs_at(bench, run, "room is made in runs"), parse_rules(), AskedOfStorage())
        return told(bench, plan.as_json(done=False))

    @router.get("/api/v1/cells", **answers)
    def cells() -> JSONResponse:
        """How much room the drawn pictures take."""
        return told(bench, cells_json(bench))

    @router.get("/api/v1/doctor", **answers)
    def doctor() -> JSONResponse:
        """What this machine can do: device, memory, disk, versions, base models found."""
        if not caller().owner:
            raise Refused("what this machine is like is told to its owner alone", "Show the token.")
        return told(bench, bench.doctor())
