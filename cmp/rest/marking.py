"""What is said of runs and checkpoints, as `POST`: stars, names, answers, votes. All of it is kept in CMP_HOME."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse
from pydantic import Field

from cmp.disk.ready import Answers
from cmp.errors import BadInput
from cmp.rest.answers import Asked, told
from cmp.rest.making import Target, Text, given_by, job_answers
from cmp.workbench import Workbench
from cmp.workbench.targets import run_at, take_answer


class StarRequest(Asked):
    target: Target
    on: bool = True
    note: Text = None


class VoteRequest(Asked):
    """An answer to a pair of `GET /api/v1/pair`."""

    run: Target
    voter: Target
    left: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    right: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    outcome: Literal["left", "right", "tie", "bad"]
    job: Text = None


class VoteBackRequest(Asked):
    run: Target
    voter: Target


class NameRequest(Asked):
    """A run's or a checkpoint's display name; an empty one takes it away. Ids do not change."""

    target: Target
    name: Annotated[str, Field(max_length=200)]


class AnswerRequest(Asked):
    """What nothing on disk says of a checkpoint's run: the LoRA's alpha, and the base model by its id."""

    target: Target
    base: Text = None
    alpha: float | None = Field(None, gt=0, allow_inf_nan=False)


def add_marking(router: APIRouter, bench: Workbench) -> None:
    """Adds the routes."""

    @router.post("/api/v1/star", **job_answers())
    def star(asked: StarRequest = Body()) -> JSONResponse:
        """Marks a checkpoint with a star and a note, or takes the star away."""
        name, mark = bench.star(asked.target, asked.on, asked.note, only_ids=True)
        return told(bench, {"checkpoint": name, "star": mark.star, "note": mark.note})

    @router.post("/api/v1/vote", **job_answers())
    def vote(asked: VoteRequest = Body()) -> JSONResponse:
        """Keeps one blind vote."""
        run = run_at(bench, asked.run)
        bench.cast_vote(run, asked.voter, asked.left, asked.right, asked.outcome, asked.job)
        return told(bench, {"run": run.id, "votes": len(bench.votes(run))})

    @router.post("/api/v1/vote/back", **job_answers())
    def vote_back(asked: VoteBackRequest = Body()) -> JSONResponse:
        """Forgets a voter's last vote on a run."""
        run = run_at(bench, asked.run)
        taken = bench.take_back_vote(run, asked.voter)
        return told(bench, {"run": run.id, "taken": taken, "votes": len(bench.votes(run))})

    @router.post("/api/v1/name", **job_answers())
    def name(asked: NameRequest = Body()) -> JSONResponse:
        """Gives a run or a checkpoint a display name."""
        bench.rename(asked.target, asked.name)
        run, checkpoint = bench.find(asked.target, only_ids=True)
        return told(bench, {"target": (checkpoint or run).id, "name": asked.name.strip() or None})

    @router.post("/api/v1/answer", **job_answers())
    def answer(asked: AnswerRequest = Body()) -> JSONResponse:
        """Remembers alpha or base for the run of a checkpoint, once that can be read with it."""
        bench.require_writing()
        given = given_by(asked.alpha, asked.base)
        if given == Answers():
            raise BadInput("nothing was answered", "Give alpha, or base.")
        run = take_answer(bench, asked.target, given)
        known = bench.answers(run)
        return told(bench, {"run": run.id, "answers": {"alpha": known.alpha, "base": known.base}})
