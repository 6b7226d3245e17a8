"""Measuring over REST: what is known as `GET`, and measuring as a job. Folders are named by their paths, and so by the owner alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from cmp.core.axes import parse_text_axis
from cmp.core.choosing import choose_checkpoints
from cmp.core.measured import LOSS, MeasureSpec
from cmp.core.measured_told import measures_json, only_asked
from cmp.core.runs import Checkpoint, Run
from cmp.core.score_asking import ScoreAnswers, parted
from cmp.errors import BadInput
from cmp.rest.answers import LOOKING, Asked, described, told
from cmp.rest.making import Target, Text, accepted, given_by, job_answers
from cmp.workbench import Workbench
from cmp.workbench.targets import in_full, run_at

Named = Annotated[str, Query(min_length=1, max_length=1000)]
Names = Annotated[str | None, Query(max_length=1000)]
Metrics = Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(min_length=1, max_length=20)]


class MeasureRequest(Asked):
    """As the options of `measure`; folders are absolute paths on the server. What is left out is as the run was measured last."""

    run: Target
    metrics: Metrics = (LOSS,)
    checkpoints: Annotated[str, Field(max_length=4000)] = "all"
    held_out: Text = None
    training: Text = None
    draws: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0)
    clip: Text = None
    encoder: Text = None
    preference: Text = None
    reference: Text = None
    subject: Text = None
    pictures: Literal["drawn", "trainer"] | None = None
    base: Text = None
    alpha: float | None = Field(None, gt=0, allow_inf_nan=False)
    dry_run: bool = False


def add_measures(router: APIRouter, bench: Workbench) -> None:
    """Adds the route that looks."""

    @router.get("/api/v1/measure", responses=described(LOOKING), response_model=dict[str, Any])
    def measures(
        run: Annotated[str, Query(min_length=1, max_length=1000)], metric: Annotated[str | None, Query(max_length=1000)] = None
    ) -> JSONResponse:
        """What was measured of a run, with what it says and what it is known not to say; all of it, or the metrics that are named."""
        found = run_at(bench, run, "what is known is told of a run")
        known = bench.measurements(found)
        if metric is not None:
            names = parse_text_axis(metric, "metric")
            parted(MeasureSpec(names))
            known = only_asked(known, names)
        return told(bench, measures_json(found, known, ()))


def add_measuring(router: APIRouter, bench: Workbench) -> None:
    """Adds the route that measures."""

    @router.post("/api/v1/measure", **job_answers())
    def measure(asked: MeasureRequest = Body()) -> JSONResponse:
        """Measures metrics of checkpoints, on the same items for all of them; with `dry_run` it is told what that would do."""
        bench.require_writing()  # before any path of a caller is looked at
        run, one = bench.find(asked.run)
        given = given_by(asked.alpha, asked.base)
        spec = _spec(asked, (one,) if one else _chosen(bench, run, asked.checkpoints))
        if asked.dry_run:
            return told(bench, {"run": run.id, "scores": [], **bench.plan_measure(run, spec, given).as_json()})
        return accepted(bench, bench.start_measure(run, spec, given).id, {"run": run.id, "metrics": list(spec.metrics)})


def _chosen(bench: Workbench, run: Run, axis: str) -> tuple[Checkpoint, ...]:
    return choose_checkpoints(axis, run.checkpoints, lambda count: bench.best_of(run, run.checkpoints, count)[0])


def _spec(asked: MeasureRequest, checkpoints: tuple[Checkpoint, ...]) -> MeasureSpec:
    held, training, reference = (_folder(name, getattr(asked, name)) for name in ("held_out", "training", "reference"))
    clip, encoder, preference = (in_full(name) for name in (asked.clip, asked.encoder, asked.preference))
    said = ScoreAnswers(clip, encoder, preference, str(reference or ""), asked.subject or "", asked.pictures or "")
    return MeasureSpec(tuple(dict.fromkeys(asked.metrics)), checkpoints, held, training, asked.draws, asked.seed, said.pairs)


def _folder(name: str, text: str | None) -> Path | None:
    """A folder of the server; who asks does not know from where it was started."""
    if not text:
        return None
    folder = Path(text).expanduser()
    if not folder.is_absolute():
        raise BadInput(f"{name} is {text[:100]!r}", "Give its whole path on the server.")
    return folder
