"""What makes room, brings back, and hands over, as `POST`. Without `yes` a plan is told, and nothing is changed."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse
from pydantic import Field

from cmp.core.progress import run_through
from cmp.core.publishing import Wanted
from cmp.core.storage import parse_age, parse_rules, parse_size
from cmp.errors import BadInput
from cmp.rest.answers import Asked, told
from cmp.rest.making import Target, Text, accepted, given_by, job_answers
from cmp.workbench import Workbench
from cmp.workbench.storing import Asked as AskedOfStorage
from cmp.workbench.targets import runs_at


class StorageRequest(Asked):
    """Rules as on the command line. Without `yes` the plan is told and nothing is changed."""

    runs: Annotated[tuple[Target, ...], Field(max_length=1000)] = ()
    keep: Text = None
    max_count: int | None = Field(None, ge=1, le=10**9)
    max_size: Text = None
    min_age: Text = None
    compact: bool = False
    drop: Annotated[tuple[Literal["converted", "optimizer"], ...], Field(max_length=2)] = ()
    share: Literal["reflink", "hardlink"] | None = None
    empty_trash: bool = False
    yes: bool = False


class PruneRequest(Asked):
    """What of the drawn pictures may stay: so much, as `2GB`, and what was used within so long, as `30d`."""

    max_size: Text = None
    min_age: Text = None
    yes: bool = False


class ShareRequest(Asked):
    """A run as a static Space, or its best LoRA, or that of a checkpoint, as a model: OWNER/NAME on the Hugging Face Hub."""

    target: Target
    space: Text = None
    model: Text = None
    license: Text = None
    png: bool = False
    public: bool = False
    force: bool = False
    base: Text = None
    alpha: float | None = Field(None, gt=0, allow_inf_nan=False)
    yes: bool = False


class RestoreRequest(Asked):
    """A compacted run or checkpoint, or the id of a thing in the trash."""

    target: Target


def add_storing(router: APIRouter, bench: Workbench) -> None:
    """Adds the routes."""

    @router.post("/api/v1/storage", **job_answers())
    def storage(asked: StorageRequest = Body()) -> JSONResponse:
        """What would go and what stays; with `yes` it is carried out."""
        return _clean_up(bench, asked)

    @router.post("/api/v1/restore", **job_answers())
    def restore(asked: RestoreRequest = Body()) -> JSONResponse:
        """Brings back what was compacted, to the last byte, or what was moved to the trash."""
        return _restore(bench, asked)

    @router.post("/api/v1/prune", **job_answers())
    def prune(asked: PruneRequest = Body()) -> JSONResponse:
        """Which drawn pictures would go to make room; with `yes` they do. Each can be drawn again."""
        return _prune(bench, asked)

    @router.post("/api/v1/share", **job_answers())
    def share(asked: ShareRequest = Body()) -> JSONResponse:
        """Every file that would be uploaded; with `yes` it is done, with the token that this server has for the Hub."""
        return _share(bench, asked)


def _clean_up(bench: Workbench, asked: StorageRequest) -> JSONResponse:
    bench.require_writing()
    rules = parse_rules(asked.keep, asked.max_count, asked.max_size, asked.min_age)
    older = parse_age(asked.min_age, "min_age") if asked.min_age and asked.empty_trash else None
    wanted = AskedOfStorage(asked.compact, frozenset(asked.drop), asked.empty_trash, older, asked.share)
    preview = run_through(bench.previewing(runs_at(bench, asked.runs, "room is made in runs"), rules, wanted))
    said = preview.plan.as_json(done=False)
    if not asked.yes:
        return told(bench, said)
    return accepted(bench, bench.start_cleanup(preview).id, said)


def _restore(bench: Workbench, asked: RestoreRequest) -> JSONResponse:
    bench.require_writing()
    return accepted(bench, bench.start_restore(asked.target, by_id=True).id, {})


def _prune(bench: Workbench, asked: PruneRequest) -> JSONResponse:
    bench.require_writing()
    size = None if asked.max_size is None else parse_size(asked.max_size, "max_size")
    age = None if asked.min_age is None else parse_age(asked.min_age, "min_age")
    if size is None and age is None:
        raise BadInput("it was not said what may stay", "Give max_size or min_age.")
    plan = bench.plan_prune(most_bytes=size, unused_for=age)
    freed = bench.prune(plan) if asked.yes else 0
    return told(bench, plan.as_json() | {"done": asked.yes, "freed_bytes": freed})


def _share(bench: Workbench, asked: ShareRequest) -> JSONResponse:
    if not (asked.space or asked.model):
        raise BadInput("it was not said where to", "Give space or model, each OWNER/NAME.")
    wanted = Wanted(None, asked.space, asked.model, asked.png, asked.license, asked.force, asked.public)
    given = given_by(asked.alpha, asked.base)
    if asked.yes:
        return accepted(bench, bench.start_share(asked.target, wanted, given).id, {})
    with bench.shared(asked.target, wanted, given, only_ids=True) as planning:
        return told(bench, run_through(planning).as_json(None))
