"""Measuring over REST: what is known as `GET`, and measuring as a job. Folders are named by their paths, by the owner alone; only those are
opened that whoever runs the server has named before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
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
from cmp.errors import BadInput, Refused
from cmp.rest.answers import LOOKING, Asked, described, told
from cmp.rest.making import Target, Text, accepted, check_model_id, given_by, job_answers
from cmp.workbench import Workbench
from cmp.workbench.targets import run_at

Named = Annotated[str, Query(min_length=1, max_length=1000)]
Names = Annotated[str | None, Query(max_length=1000)]
Metrics = Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(min_length=1, max_length=20)]


class MeasureRequest(Asked):
    """As the options of `measure`; folders are absolute paths on the server, in what it was told of before: below `--runs` or `--bases`,
    the run's own images, or what it was measured on from the page or the command line. What is left out is as the run was measured last.
    """

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
        spec = _spec(asked, (one,) if one else _chosen(bench, run, asked.checkpoints), bench.measured_on(run))
        if asked.dry_run:
            return told(bench, {"run": run.id, "scores": [], **bench.plan_measure(run, spec, given).as_json()})
        return accepted(bench, bench.start_measure(run, spec, given).id, {"run": run.id, "metrics": list(spec.metrics)})


def _chosen(bench: Workbench, run: Run, axis: str) -> tuple[Checkpoint, ...]:
    return choose_checkpoints(axis, run.checkpoints, lambda count: bench.best_of(run, run.checkpoints, count)[0])


def _spec(asked: MeasureRequest, checkpoints: tuple[Checkpoint, ...], known: Sequence[Path]) -> MeasureSpec:
    held, training, reference = (_folder(name, getattr(asked, name), known) for name in ("held_out", "training", "reference"))
    clip, encoder, preference = (_model(name, getattr(asked, name), known) for name in ("clip", "encoder", "preference"))
    said = ScoreAnswers(clip, encoder, preference, str(reference or ""), asked.subject or "", asked.pictures or "")
    return MeasureSpec(tuple(dict.fromkeys(asked.metrics)), checkpoints, held, training, asked.draws, asked.seed, said.pairs)


def _folder(name: str, text: str | None, known: Sequence[Path]) -> Path | None:
    """A folder of the server that lies in a known one; who asks does not know from where it was started."""
    if not text:
        return None
    if not os.path.isabs(text) or "\x00" in text:
        raise BadInput(f"{name} is {text[:100]!r}", "Give its whole path on the server.")
    places = [named for place in known for named in (os.path.normpath(place), os.path.realpath(place))]
    within = [place for place in places if Path(os.path.normpath(text)).is_relative_to(place)]
    real = os.path.realpath(text) if within else ""  # of others not even links are followed
    if not any(Path(real).is_relative_to(place) for place in places):
        told = "Only what this server was told of before is opened: measure on it once from the page or the command line."
        raise Refused(f"{name} is {text[:100]!r}, outside of --runs, --bases and what {name} was before", told)
    return Path(real)


def _model(name: str, text: str | None, known: Sequence[Path]) -> str:
    """A model's id, or the path of a folder as above."""
    if not text:
        return ""
    if text.startswith(("/", "~", ".")):
        return str(_folder(name, text, known))
    check_model_id(name, text)
    return text
