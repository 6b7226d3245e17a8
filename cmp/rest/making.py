"""The verbs that make something, as `POST`: conversions and pictures. Long ones answer 202 with a job, see `following`."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse
from pydantic import Field

from cmp.core.asking import Asked as Axes
from cmp.core.asking import combine_stacks, to_spec
from cmp.core.conversion import ConversionPlan, parse_writing
from cmp.core.grids import USUAL_MODE
from cmp.core.labels import values_of, varying
from cmp.core.prompts import parse_prompt_line
from cmp.core.scale import parse_alpha
from cmp.disk.ready import Answers
from cmp.errors import BadInput, CmpError
from cmp.rest.answers import WRITING, Asked, described, told
from cmp.workbench import Workbench
from cmp.workbench.targets import choose_columns, expand_targets, find_stacked, keep_best, run_at

Target = Annotated[str, Field(min_length=1, max_length=1000)]
Targets = Annotated[list[Target], Field(min_length=1, max_length=1000)]
Text = Annotated[str | None, Field(max_length=4000)]
_BASE = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


class ConvertRequest(Asked):
    targets: Targets
    to: Literal["lora", "webui", "pipeline", "single"]
    base: Text = None
    alpha: float | None = Field(None, gt=0, allow_inf_nan=False)
    dtype: Literal["fp32", "fp16", "bf16"] | None = None
    strength: float = Field(1.0, ge=-10, le=10)
    best: int | None = Field(None, ge=1, le=10_000)
    every: int | None = Field(None, ge=1, le=10**9)
    force: bool = False
    dry_run: bool = False


class GridRequest(Asked):
    """Axes are texts as on the command line: `500, 1000`, `1-5`, `all`, `last 4`."""

    targets: Targets
    prompts: Annotated[list[Annotated[str, Field(min_length=1, max_length=4000)]], Field(min_length=1, max_length=1000)]
    negative: Annotated[tuple[Annotated[str, Field(max_length=4000)], ...], Field(max_length=100)] = ()
    search_replace: Annotated[tuple[Annotated[str, Field(max_length=4000)], ...], Field(max_length=20)] = ()
    checkpoints: Annotated[str, Field(max_length=4000)] = "all"
    seeds: Text = None
    strengths: Text = None
    steps: Text = None
    guidance: Text = None
    size: Text = None
    scheduler: Text = None
    clip_skip: Text = None
    stack: Annotated[tuple[Target, ...], Field(max_length=20)] = ()
    base_column: bool = False
    title: Annotated[str, Field(max_length=200)] = ""
    mode: Literal["exact", "fast"] | None = None
    preview: bool = False
    base: Text = None
    alpha: float | None = Field(None, gt=0, allow_inf_nan=False)
    dry_run: bool = False


class WatchRequest(Asked):
    """`grid` is an earlier job, whose prompts, seeds and sampling are used again; else those last used with the run, or its trainer's."""

    run: Target
    grid: Annotated[str | None, Field(pattern=r"^(grid|watch)-[0-9]{1,18}$")] = None
    measure: bool = False
    base: Text = None
    alpha: float | None = Field(None, gt=0, allow_inf_nan=False)


def add_making(router: APIRouter, bench: Workbench) -> None:
    """Adds the routes."""

    @router.post("/api/v1/convert", **job_answers())
    def convert(asked: ConvertRequest = Body()) -> JSONResponse:
        """Converts checkpoints; a run stands for all of its own."""
        return _convert(bench, asked)

    @router.post("/api/v1/watch", **job_answers())
    def watch(asked: WatchRequest = Body()) -> JSONResponse:
        """Draws each checkpoint of a run, and each that lands from now on, until the job is cancelled."""
        return _watch(bench, asked)


def add_drawing(router: APIRouter, bench: Workbench) -> None:
    """Adds the route of what everybody may do where drawing is open to all."""

    @router.post("/api/v1/grid", **job_answers())
    def grid(asked: GridRequest = Body()) -> JSONResponse:
        """Draws the same prompts and seeds with every chosen checkpoint."""
        return _grid(bench, asked)


def job_answers() -> dict[str, Any]:
    accepted: dict[int | str, dict[str, Any]] = {202: {"description": "It is done as the job that is named.", "model": dict[str, Any]}}
    return {"responses": described(WRITING) | accepted, "response_model": dict[str, Any]}


def accepted(bench: Workbench, job: str, more: dict[str, Any]) -> JSONResponse:
    return told(bench, {"job": job} | more, 202, {"Location": f"/api/v1/jobs/{job}"})


def given_by(alpha: float | None, base: str | None) -> Answers:
    """What is said of scale and base. Here a base is named by its id, since no path of a caller is opened."""
    check_model_id("the base model", base)
    return Answers(parse_alpha(alpha), base)


def check_model_id(what: str, name: str | None) -> None:
    """Raises BadInput for what is no model's id."""
    if name is not None and not _BASE.fullmatch(name):
        raise BadInput(f"{what} is {name[:100]!r}", "Name it by its id, such as stable-diffusion-v1-5/stable-diffusion-v1-5.")


def _convert(bench: Workbench, asked: ConvertRequest) -> JSONResponse:
    bench.require_writing()
    given, writing = given_by(asked.alpha, asked.base), parse_writing(asked.to, asked.dtype, asked.strength)
    wanted, words = expand_targets(bench, asked.targets, asked.every), list[str]()
    if asked.best is not None:
        wanted, words = keep_best(bench, wanted, asked.best)
    plans: list[ConversionPlan] = []
    failed: list[dict[str, Any]] = []
    for run, checkpoint in wanted:
        try:
            plans.append(bench.plan_checkpoint(run, checkpoint, asked.to, given, force=asked.force, writing=writing))
        except CmpError as fault:
            if len(wanted) == 1:
                raise
            failed.append({"checkpoint": checkpoint.id, **fault.as_json()})
    due = [plan for plan in plans if not plan.done]
    bench.check_space(due)
    said: dict[str, Any] = {"planned": [plan.as_json() for plan in due], "failed": failed, "notes": words}
    said["skipped"] = [plan.as_json() for plan in plans if plan.done]
    if asked.dry_run or not due:
        return told(bench, said)
    return accepted(bench, bench.start_conversions(due, given).id, said)


def _grid(bench: Workbench, asked: GridRequest) -> JSONResponse:
    given = given_by(asked.alpha, asked.base)
    columns = choose_columns(bench, asked.targets, asked.checkpoints, only_ids=True)
    worn = [find_stacked(bench, text) for text in asked.stack]
    names = ("seeds", "strengths", "steps", "guidance", "size", "scheduler", "clip_skip")
    axes = Axes(
        prompts=tuple(dict.fromkeys(map(parse_prompt_line, asked.prompts))), negatives=tuple(asked.negative),
        search_replace=tuple(asked.search_replace), **{name: getattr(asked, name) for name in names},
    )  # fmt: skip
    runs = [*columns.runs, *(run for run, _, _ in worn)]
    spec = to_spec(
        axes, (*((None,) if asked.base_column else ()), *columns.checkpoints), combine_stacks([(one, values) for _, one, values in worn]),
        draw=lambda: secrets.randbelow(2**32), usual=bench.usual_sampling(runs), title=asked.title, preview=asked.preview,
        mode=asked.mode or USUAL_MODE,
    )  # fmt: skip
    said: dict[str, Any] = {"passed_over": [{"checkpoint": c.id, "why": c.flaw} for c in columns.flawed], "notes": list(columns.told)}
    if asked.dry_run:
        bench.require_planning(spec)
        plan, cells = bench.plan_grid(spec, runs, given), spec.cells()
        return told(bench, {**plan.as_json(), "axes": {axis.name: list(values_of(axis, cells)) for axis in varying(cells)}, **said})
    return accepted(bench, bench.start_grid(spec, runs, given).id, {"cells": spec.size} | said)


def _watch(bench: Workbench, asked: WatchRequest) -> JSONResponse:
    bench.require_writing()
    run, given = run_at(bench, asked.run), given_by(asked.alpha, asked.base)
    pattern = bench.pattern(asked.grid, run, only_ids=True)
    return accepted(bench, bench.start_watch(run.id, pattern, given, measure=asked.measure).id, {"run": run.id})
