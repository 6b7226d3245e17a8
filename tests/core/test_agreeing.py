"""What several rules come to together: agreement is said only where none rules out what another chose."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cmp.core.agreeing import (
    agreement,
    every_evidence,
    leading,
    scores_table,
    sentence,
    steps_text,
    told_by,
    verdicts_json,
)
from cmp.core.curves import LossCurve
from cmp.core.evidence import Evidence
from cmp.core.picking import BASE, Verdict, judge
from tests.core.test_picking import RUN, STEPS, curve, held, run_of, training, verdict


def verdicts(*curves: LossCurve) -> list[Verdict]:
    return [replace(judge(RUN, one), base=base) for one, base in every_evidence(RUN, curves)]


def voted(**strengths: float) -> Verdict:
    """Votes that know these steps, to ±0.2."""
    ids = tuple(f"r@{name[1:]}" for name in strengths)
    found = Evidence("votes", "strength in votes", False, ids, np.array(list(strengths.values())), 0.01 * np.eye(len(ids)), (9,) * len(ids))
    return judge(run_of(*STEPS, "final"), found)


# -- verdicts --------------------------------------------------------------------------------------------------------------


def test_every_rule_has_its_own_verdict_and_says_what_best_says() -> None:
    curves = [training(fall=0.5), held(), curve("eval/fid", range(0, 3001, 500), [9, 5, 3, 3, 3, 3, 3]), curve("lr", [1, 3000], [1, 1])]
    found = {one.rule: one for one in verdicts(*curves)}
    assert list(found) == ["held-out", "training", "eval/fid"]
    assert replace(found["held-out"], base=None) == verdict(*curves)
    assert found["training"] == verdict(training(fall=0.5))
    assert replace(found["eval/fid"], base=None) == verdict(*curves, by="eval/fid")


def test_training_loss_decides_nothing_and_other_losses_are_no_metrics() -> None:
    found = verdicts(training(fall=0.5), training(tag="loss_epoch", fall=0.5))
    assert [one.rule for one in found] == ["training"] and not found[0].decides
    assert leading(found) is None and "No verdict yet" in agreement(RUN, found).told


def test_the_base_model_stands_beside_the_verdict_and_never_in_it() -> None:
    (with_base,), (without,) = verdicts(held()), verdicts(held(first=50))
    assert with_base.base == pytest.approx(0.3, abs=0.01) and without.base is None
    assert [score.checkpoint_id for score in with_base.scores] == [f"r@{step}" for step in STEPS]
    # a base model that is better than all checkpoints rules none of them out
    best_at_zero = held(bottom=0)
    (worse,) = verdicts(best_at_zero)
    assert worse.base is not None and worse.base < worse.scores[0].value and BASE not in worse.window and worse.best == "r@500"


# -- agreement -------------------------------------------------------------------------------------------------------------


def test_rules_agree_on_what_none_of_them_rules_out() -> None:
    found = [*verdicts(held(bottom=1500)), voted(s1500=1.0, s2000=0.95, s500=-1.0)]
    both = agreement(RUN, found)
    assert (both.told, both.agree, both.common) == ("All rules agree on step 1500.", True, ("r@1500",))


def test_rules_that_rule_out_what_another_chose_disagree_and_that_is_said_plainly() -> None:
    both = agreement(RUN, [*verdicts(held(bottom=1500)), voted(s500=1.0, s1500=-1.0, s2500=-1.0)])
    assert (both.agree, both.common) == (False, ())
    assert both.told == "Held-out loss says step 1500, votes say step 500: they disagree."


def test_rules_neither_agree_nor_disagree_on_what_one_of_them_does_not_know() -> None:
    held_out = verdicts(held(bottom=1500))
    assert agreement(RUN, [*held_out, voted(s500=1.0, s2500=-1.0)]).agree is False, "the held-out loss rules out what the votes chose"
    run = run_of(*STEPS, "final")
    unknown = voted(s500=-1.0, sfinal=1.0)
    both = agreement(run, [*held_out, unknown])
    assert both.agree is None and both.common == ()
    assert both.told == "Held-out loss says step 1500, votes say final: they judged different checkpoints."


def test_a_rule_that_tells_nothing_apart_is_said_to_and_makes_no_agreement() -> None:
    both = agreement(RUN, [*verdicts(held(bottom=1500)), voted(s500=0.0, s1500=0.01)])
    assert both.agree is None and both.told == "Held-out loss says step 1500. Votes cannot tell any apart."
    none = agreement(RUN, [voted(s500=0.0, s1500=0.01)])
    assert none.agree is None and none.told == "Votes cannot tell any checkpoint from another."
    assert agreement(RUN, []).told == "No verdict yet: nothing that was logged or measured decides."


def test_the_one_to_go_by_is_the_first_that_tells_apart() -> None:
    silent, telling = voted(s500=0.0, s1500=0.01), verdicts(held())[0]
    assert leading([silent, telling]) is telling and leading([silent]) is silent and leading([]) is None
    assert told_by(telling) == f"Held-out loss: {telling.reason}."


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("500",), "step 500"),
        (("1000", "500", "1500"), "steps 500–1500"),
        (("500", "1500"), "steps 500, 1500"),
        (("2000", "final"), "step 2000, final"),
    ],
)
def test_a_span_is_written_only_where_all_between_are_meant(keys: tuple[str, ...], text: str) -> None:
    order = [c.id for c in run_of(500, 1000, 1500, 2000, "final").checkpoints]
    assert steps_text([f"r@{key}" for key in keys], order) == text


# -- files -----------------------------------------------------------------------------------------------------------------


def test_files_hold_every_score_and_nothing_that_a_spreadsheet_runs() -> None:
    found = verdicts(held(), curve("=cmd()/fid", range(0, 3001, 500), [9, 5, 3, 3, 3, 3, 3]))
    rows = scores_table(RUN, found)
    assert len(rows) == 1 + 2 * len(STEPS) and rows[0][:5] == ["rule", "metric", "checkpoint", "step", "value"]
    assert all(len(row) == len(rows[0]) and not any(text.startswith("=") for text in row) for row in rows)
    told = json.loads(json.dumps(verdicts_json(RUN, found), allow_nan=False))
    assert [one["reason"] for one in told["verdicts"]] == [one.reason for one in found] and told["agree"] == agreement(RUN, found).agree


def test_no_other_score_is_gone_by_alone() -> None:
    found = verdicts(training(fall=0.5), curve("eval/fid", range(0, 3001, 500), [9, 5, 3, 3, 3, 3, 3]))
    assert "eval/fid" in {one.rule for one in found} and leading(found) is None


def test_a_reason_begins_with_a_capital_where_it_begins_with_a_checkpoint_and_a_tag_stays_as_it_is() -> None:
    for key in ("final", "epoch-3", "save-2", "500"):
        told = sentence(judge(run_of(int(key) if key.isdigit() else key), None).reason)
        assert told.startswith(f"{'Step 500' if key == '500' else key.capitalize()} is the only checkpoint") and told.endswith(".")
    assert sentence("finetune/loss has no finite value") == "finetune/loss has no finite value."
