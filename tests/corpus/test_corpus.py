"""Every checkpoint of the corpus comes out as it was trained, or is refused by name; none comes out as something else."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.journeys.conftest import run_command

from .cases import CASES, Case
from .judging import Judge, Verdict, id_of

pytestmark = pytest.mark.model

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_every_case_of_the_folder_is_judged(judge: Judge) -> None:
    assert {file.parent.name for file in judge.corpus.glob("*/EXPECT.json")} == {case.name for case in CASES}


@each_case
def test_the_run_is_found_with_its_trainer_and_each_checkpoint_at_its_step(judge: Judge, case: Case) -> None:
    judged = judge(case)
    assert judged.runs, "no run was found"
    assert {run["trainer"].lower() for run in judged.runs} <= set(case.trainers)
    assert [item.tag for item in judged.items if item.tag not in judged.rows] == [], "not listed"
    steps = {item.tag: (judged.rows[item.tag]["step"], item.step) for item in judged.items if item.step is not None}
    assert {tag: both for tag, both in steps.items() if both[0] != both[1]} == {}, "listed at another step"


@each_case
def test_rank_and_scale_are_known_and_say_where_from(judge: Judge, case: Case) -> None:
    for tag, shown in judge(case).shown.items():
        if tag in case.refused:
            continue
        assert not case.rank or tuple(sorted(shown["rank"])) == case.rank, f"{tag}: {shown}"
        scale = shown.get("scale")
        assert not case.rank or (scale and scale["source"]), f"{tag}: {shown}"
        assert case.scale is None or scale["value"] == pytest.approx(case.scale, rel=1e-6), f"{tag}: {scale}"


@each_case
def test_what_was_converted_is_what_was_trained(judge: Judge, case: Case) -> None:
    verdicts = judge(case).converted.values()
    _require_right((verdict for verdict in verdicts if not (case.drawn_only and verdict.became == "refused")), case)


@each_case
def test_what_was_drawn_is_what_was_trained(judge: Judge, case: Case) -> None:
    _require_right(judge(case).drawn.values(), case)


def _require_right(verdicts: Iterable[Verdict], case: Case) -> None:
    for verdict in verdicts:
        words = case.refused.get(verdict.tag)
        assert verdict.became == ("refused" if words else "right"), str(verdict)
        assert all(word in verdict.seen for word in words or ()), f"refused without one of the words {words}: {verdict}"


@pytest.mark.parametrize("form", ["webui", "pipeline", "single"])
@each_case
def test_no_other_form_of_it_is_wrong(judge: Judge, case: Case, form: str) -> None:
    judged = judge(case)
    item = next((item for item in judged.items if item.tag in judged.rows), None)
    if item is None:
        pytest.skip("the run was not found, which another test tells")
    verdict, _ = judge.convert(judged, item, form)
    assert verdict.became != "wrong", str(verdict)
    assert form != "pipeline" or verdict.became == "right" or case.drawn_only or case.refused, str(verdict)


def test_a_process_of_its_own_writes_the_same_file(judge: Judge) -> None:
    case = next(case for case in CASES if case.name == "acc_peft_r8_a16")
    judged = judge(case)
    (item,) = [item for item in judged.items if item.tag == "checkpoint-4"]
    target = id_of(judged.rows[item.tag], item)
    folders = ("--runs", str(judge.place / case.name / "outputs"), "--bases", str(judge.corpus / "bases"))
    output = judge.place / "again.safetensors"
    said = run_command(judge.place / "home", *folders, "convert", target, "--to", "lora", "--output", str(output), "--json")
    assert said.code == 0 and said.json["converted"][0]["scale"]["value"] == 2, said.err
    made = judge.place / "made" / case.name / "checkpoint-4" / "lora.safetensors"
    bodies = [hashlib.sha256(_tensors(file.read_bytes())).hexdigest() for file in (made, output)]
    assert bodies[0] == bodies[1]


def _tensors(content: bytes) -> bytes:
    """A safetensors file without its header, which tells the time of making."""
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_nine_in_ten_come_out_right_and_none_wrong(judge: Judge) -> None:
    if set(judge.judged) != {case.name for case in CASES}:
        pytest.skip("only some of the cases were judged")
    became: Counter[str] = Counter()
    for judged in judge.judged.values():
        for item in judged.items:
            converted, drawn = judged.converted.get(item.tag), judged.drawn.get(item.tag)
            needless = judged.case.drawn_only and converted and converted.became == "refused"
            became[_worst(drawn if needless else converted, drawn)] += 1
    assert became["wrong"] == 0, became
    assert became["right"] >= 0.9 * became.total(), became


def _worst(*verdicts: Verdict | None) -> str:
    """A checkpoint is right if all that was made of it is."""
    seen = {verdict.became if verdict else "missing" for verdict in verdicts}
    return next(kind for kind in ("wrong", "missing", "refused", "right") if kind in seen)
