"""What is typed under Measure, what it would do, and how far it has come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmp.core.evidence import BASE
from cmp.core.measured import LOSS, UPDATE, UPDATE_RELATIVE, Measured, MeasurePlan, MeasureSpec, NotMeasured
from cmp.core.progress import Progress
from cmp.disk.ready import Answers
from cmp.errors import BadInput, NotFound
from cmp.jobs import Job
from cmp.ui.measure_values import Fields, command_of, filled, job_text, needed, on_page, plan_text, read_fields, run_of
from tests.core.test_picking import RUN

EMPTY = Fields([LOSS], "", "", "", "", "", "", "", "", "", "")


def label(name: str) -> str:
    return name.rpartition("@")[2]


def test_what_was_typed_comes_back_as_it_was(tmp_path: Path) -> None:
    typed = Fields([LOSS, "clip", "cmmd"], str(tmp_path), "/train", "8", "openai/clip", "", "", str(tmp_path), "", "some/base", "4")
    spec, given = read_fields(typed)
    assert (spec.held_out, spec.training, spec.draws, given) == (tmp_path, Path("/train"), 8, Answers(4.0, "some/base"))
    assert filled(spec, given) == typed and spec.exactly


def test_a_field_that_nothing_ticked_has_a_use_for_says_nothing() -> None:
    spec, _ = read_fields(EMPTY._replace(metrics=[UPDATE], held_out="/images", training="not whole", clip="x", draws="many"))
    assert spec == MeasureSpec((UPDATE,), exactly=True)
    assert [name for name, used in needed([UPDATE]).items() if used] == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"metrics": []}, "nothing is ticked"), ({"held_out": "images"}, "whole path"), ({"draws": "-1"}, "“Noise draws per image”"),
     ({"draws": "²"}, "“Noise draws per image”"), ({"alpha": "x"}, "alpha")],
)  # fmt: skip
def test_what_cannot_be_meant_is_said(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput) as fault:
        read_fields(EMPTY._replace(**wrong))
    assert told in fault.value.told


def test_the_command_says_the_same_and_quotes_what_must_be() -> None:
    run = replace(RUN, id="a b; rm")
    typed = EMPTY._replace(metrics=[LOSS, "clip"], held_out="/my images", clip="x/y", encoder="unused", draws="16")
    assert command_of(run, typed) == "python -m cmp measure 'a b; rm' --metric loss,clip --held-out '/my images' --clip x/y"


def test_options_are_told_as_the_fields_of_the_page() -> None:
    assert on_page("Give it as --held-out, or --unknown.") == "Give it as “Held-out images”, or --unknown."


def test_a_plan_says_how_many_how_long_how_small_and_what_stands_against_it() -> None:
    fault = NotFound("no base model", "Name it as --base.")
    faults = tuple(NotMeasured(LOSS, f"r@{step}", fault) for step in (500, 1000))
    told = plan_text(MeasurePlan((LOSS,), 7, 3, ((LOSS, 24),), 16, 90.0, 0.012, faults, ("one image counts once",)), label)
    assert told.split("\n") == [
        "loss on 24 images, 16 draws each: 3 values to measure, 2 known, about 2 min",
        "Differences of about 1.2 % of the base's loss will be seen.",
        "One image counts once.",
        "500 (loss), 1000 (loss) cannot be measured: no base model. Name it as “Base model”.",
    ]


def value(name: str, metric: str = LOSS, *, reused: bool = False) -> Measured:
    return Measured(metric, name, "w", "b", "s", ("a",), np.ones((1, 1)), reused=reused)


def job(items: list[object], *metrics: str) -> Job:
    made = Job("measure-1", "measure", "measure", 3 * len(metrics), MeasureSpec(metrics, RUN.checkpoints[:2]))
    made.items.extend(items)
    return made


def test_progress_counts_checkpoints_once_whatever_else_comes() -> None:
    going = job(
        [value(BASE), value("r@500", reused=True), value("r@1000"), value("r@500", UPDATE), value("r@500", UPDATE_RELATIVE)], LOSS, UPDATE
    )
    going.state, going.started, going.progress = "running", 100.0, Progress(2, 6, "r@1000: measuring")
    assert (
        job_text(going, None, label, now=120.0)
        == "running · 3 of 4 values measured, 1 of them known before · about 10 s left · r@1000: measuring"
    )
    assert run_of(going) == RUN.checkpoints[0].run_id
    waits = job([], LOSS)
    assert job_text(waits, 2, label) == "waiting: number 2 in the queue · 0 of 2 values measured"
    lost = job([value("r@500"), NotMeasured(LOSS, "r@1000", BadInput("not finite", "Give --draws."))], LOSS)
    lost.state, lost.started, lost.ended = "done", 1.0, 13.0
    assert job_text(lost, None, label).split("\n") == [
        "done: 1 of 2 values measured, in 12 s",
        "1000 (loss) could not be measured: not finite. Give “Noise draws per image”.",
    ]


def test_what_is_not_finite_was_measured_and_is_told_not_to_be_judged() -> None:
    broken = replace(value("r@1000"), values=np.full((1, 1), np.nan))
    ended = job([value("r@500"), broken], LOSS)
    ended.state, ended.started, ended.ended = "done", 1.0, 13.0
    assert job_text(ended, None, label).split("\n")[1:] == ["1000 (loss): not finite, so that it is not judged"]
