"""What scoring needs to be told, and what is said where it was not."""

from __future__ import annotations

import pytest

from cmp.core.image_scores import KINDS
from cmp.core.measured import LOSS, UPDATE, MeasurePlan, MeasureSpec
from cmp.core.score_asking import ScoreAnswers, both_plans, needs_pictures, parted
from cmp.errors import BadInput


def test_an_encoder_goes_before_clip_where_either_will_do_and_clip_alone_reads_prompts() -> None:
    both = ScoreAnswers(clip="c", encoder="e", preference="p")
    looking = {metric: both.model_of(metric) for metric in KINDS if metric != UPDATE}
    assert looking == {
        "clip": "c", "cmmd": "c", "nearest": "e", "diversity": "e", "leak": "e", "identity": "e", "preference": "p",
    }  # fmt: skip
    assert ScoreAnswers(clip="c").model_of("identity") == "c"


@pytest.mark.parametrize(
    ("metric", "option"), [("clip", "--clip"), ("cmmd", "--clip"), ("preference", "--preference"), ("leak", "--encoder")]
)
def test_a_model_that_was_not_given_is_asked_for_by_its_option(metric: str, option: str) -> None:
    with pytest.raises(BadInput) as raised:
        ScoreAnswers(encoder="" if metric == "leak" else "e").model_of(metric)
    assert metric in raised.value.message and option in raised.value.hint


def test_references_that_were_not_given_are_asked_for() -> None:
    with pytest.raises(BadInput, match="cmmd"):
        ScoreAnswers(clip="c").reference_of("cmmd")


def test_answers_survive_the_way_through_a_spec() -> None:
    asked = ScoreAnswers(clip="c", reference="/r", subject="sks, a dog ", pictures="trainer")
    assert ScoreAnswers.of(asked.pairs) == asked and asked.words == ("sks", "a dog")


def test_whose_pictures_is_one_of_two() -> None:
    with pytest.raises(BadInput, match="'both'"):
        ScoreAnswers(pictures="both")


def test_losses_and_other_metrics_part_and_a_metric_that_there_is_not_is_quoted() -> None:
    losses, others = parted(MeasureSpec(("clip", LOSS, UPDATE, "clip")))
    assert losses and losses.metrics == (LOSS,) and others and others.metrics == ("clip", UPDATE)
    assert parted(MeasureSpec((LOSS,)))[1] is None and parted(MeasureSpec((UPDATE,)))[0] is None
    with pytest.raises(BadInput, match="'fid'"):
        parted(MeasureSpec(("clip", "fid")))
    assert needs_pictures(("clip", UPDATE, LOSS)) == ("clip",)


def test_two_plans_as_one_do_not_claim_a_time_that_one_of_them_lacks() -> None:
    one, other = MeasurePlan(("loss",), 7, 3, draws=16, seconds=4.0, smallest=0.1), MeasurePlan(("clip",), 6, 6, seconds=1.0)
    both = both_plans(one, other)
    assert (both.metrics, both.total, both.new, both.seconds, both.draws, both.smallest) == (("loss", "clip"), 13, 9, 5.0, 16, 0.1)
    assert both_plans(one, MeasurePlan(("clip",), 6, 6)).seconds is None
