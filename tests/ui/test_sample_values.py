"""The trainers' pictures as the matrix takes them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmp.core.runs import Checkpoint, Run, Setting
from cmp.core.sample_values import NONE, samples_value
from cmp.core.samples import Sample
from cmp.ui.curves_tab import first_value
from cmp.ui.glance import glances
from cmp.ui.runs_tab import tables
from cmp.ui.samples_view import choices_beside, stamp_of, value_of
from tests.support import Training, bench_of, origin_run

RUN = Run("r", Path("/r"), Path("/"), "t", settings={"validation_prompts": Setting("a cat | a dog", "hparams.yml")})


def value(*shown: tuple[Run, tuple[Sample, ...]]) -> dict[str, Any]:
    return samples_value(shown, lambda item: item.id, lambda sample: f"key{sample.step}")


def labels(told: dict[str, Any], axis: str) -> list[str]:
    return next(([head["label"] for head in each["values"]] for each in told["axes"] if each["key"] == axis), [])


def sample(step: int | None, prompt: int = 0, image: int = 0, **more: Any) -> Sample:
    return Sample(Path(f"/r/validation/{step}_{prompt}_{image}.png"), step, prompt, image, **more)


def with_pictures(made: Training, *steps: int, content: bytes = b"") -> None:
    (made.run / "validation").mkdir(exist_ok=True)
    for step in steps:
        (made.run / "validation" / f"step{step}_prompt0_img0.png").write_bytes(content)


def test_every_cell_stands_where_its_step_prompt_and_picture_say() -> None:
    its = tuple(sample(step, prompt, image) for step in (1000, 500) for prompt in (0, 1) for image in (0, 1))
    told = value((RUN, its))
    assert (labels(told, "step"), labels(told, "prompt")) == (["step 500", "step 1000"], ["a cat", "a dog"])
    axes = [axis["key"] for axis in told["axes"]]
    seen = {tuple(head["values"][i]["label"] for head, i in zip(told["axes"], cell["at"], strict=True)) for cell in told["cells"]}
    assert axes == ["step", "prompt", "picture"] and len(seen) == len(its)
    assert ("step 1000", "a dog", "picture 2") in seen


def test_runs_share_a_row_where_they_share_a_prompt_and_nowhere_else() -> None:
    other = replace(RUN, id="s", settings={"validation_prompts": Setting("a dog | a horse", "hparams.yml")})
    told = value((RUN, (sample(1), sample(1, 1))), (other, (sample(1), sample(1, 1))))
    assert labels(told, "run") == ["r", "s"] and set(labels(told, "prompt")) == {"a cat", "a dog", "a horse"}
    prompts = labels(told, "prompt")
    at = [(cell["at"][0], prompts[cell["at"][2]]) for cell in told["cells"]]
    assert at == [(0, "a cat"), (0, "a dog"), (1, "a dog"), (1, "a horse")]


def test_many_pictures_of_a_prompt_are_shown_one_at_a_time() -> None:
    assert value((RUN, tuple(sample(1, p, i) for p in (0, 1) for i in range(3))))["place"]["picture"] == "y"
    assert value((RUN, tuple(sample(1, p, i) for p in (0, 1) for i in range(4))))["place"]["picture"] == ""


def test_a_step_that_nothing_tells_is_said_to_be_unknown_and_comes_last() -> None:
    told = value((RUN, (sample(None, epoch=3), sample(500, step_source="the checkpoint of epoch 1", epoch=1))))
    assert labels(told, "step") == ["step 500", "epoch 3"]
    assert told["axes"][0]["values"][1]["sub"] == "step not known"
    assert ["step told by", "the checkpoint of epoch 1"] in told["cells"][1]["details"]


def test_what_was_drawn_at_the_end_stands_in_the_column_of_its_step() -> None:
    alone = value((RUN, (sample(500), sample(1000, variant="final"))))
    assert labels(alone, "step") == ["step 500", "step 1000"] and labels(alone, "picture") == ["picture 1"]
    both = value((RUN, (sample(500), sample(1000), sample(1000, variant="final"))))
    assert labels(both, "step") == ["step 500", "step 1000"], "one step is one column"
    assert labels(both, "picture") == ["picture 1", "picture 1 · drawn at the end"]
    assert len({tuple(cell["at"]) for cell in both["cells"]}) == 3, "no picture hides another"
    assert both["place"]["picture"] == "", "the columns before have no such picture"


def test_hostile_prompts_have_short_keys_and_arrive_as_they_are() -> None:
    hostile = ["</script><img src=x onerror=alert(1)>", "${alert(1)}", "{key}", "x" * 5000, "\udcff"]
    told = value((RUN, tuple(sample(1, i, text=text) for i, text in enumerate(hostile))))
    assert labels(told, "prompt") == hostile
    assert all(len(head["key"]) == 10 and head["key"].isalnum() for head in told["axes"][1]["values"])


def test_an_empty_matrix_says_what_to_do() -> None:
    assert value((RUN, ()))["note"] == NONE and value((RUN, ()))["axes"] == []


def test_a_column_tells_loss_forms_and_flaw_of_its_checkpoint(tmp_path: Path) -> None:
    made = origin_run(tmp_path, steps=(10, 50))
    with_pictures(made, 10, 50, 90)
    bench = bench_of(made)
    library = bench.library()
    (run,) = library.runs
    converted = replace(run.checkpoints[0], converted=(("lora", Path("/x")), ("webui", Path("/y"))))
    flawed = replace(run.checkpoints[1], flaw="it is cut")
    library = replace(library, runs=(replace(run, checkpoints=(converted, flawed)),))
    marks = value_of(bench, library, [run.id])["marks"]
    assert [mark["at"] for mark in marks] == [{"step": 0}, {"step": 1}], "nothing was logged near step 90"
    assert marks[0]["converted"] == "lora, webui" and "flaw" not in marks[0] and marks[1]["flaw"] == "it is cut"
    assert 1 / 11 < marks[0]["loss"] < 1 / 2, "the smoothed loss"
    assert marks[1]["details"] == [["checkpoint", flawed.id]]


def test_a_new_picture_is_seen_without_another_scan(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    with_pictures(made, 500)
    bench = bench_of(made)
    library = bench.library()
    ids = [library.runs[0].id]
    first, before = value_of(bench, library, ids), stamp_of(bench, library, ids)
    assert stamp_of(bench, library, ids) == before
    with_pictures(made, 1000)
    assert stamp_of(bench, library, ids) != before, "the same library tells it"
    assert len(value_of(bench, library, ids)["cells"]) == len(first["cells"]) + 1


def test_a_file_that_is_finished_after_it_was_seen_gets_another_address(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    with_pictures(made, 500, content=b"half")
    bench = bench_of(made)
    library = bench.library()
    ids = [library.runs[0].id]
    (half,), before = value_of(bench, library, ids)["cells"], stamp_of(bench, library, ids)
    with_pictures(made, 500, content=b"whole picture")
    (whole,) = value_of(bench, library, ids)["cells"]
    assert stamp_of(bench, library, ids) != before and whole["key"] != half["key"]


def test_only_runs_that_have_pictures_are_offered_beside_one_that_has(tmp_path: Path) -> None:
    made = [origin_run(tmp_path, name=name, logs=False) for name in ("a", "b", "c")]
    with_pictures(made[0], 500)
    with_pictures(made[1], 500)
    bench = bench_of(made[0])
    library = bench.library()
    assert [name for _, name in choices_beside(bench, library, "a")] == ["b"]
    assert choices_beside(bench, library, "c") == []
    assert labels(value_of(bench, library, ["a", "b", "c"]), "run") == ["a", "b"]


def test_the_strip_shows_the_same_picture_over_the_steps_and_always_the_last(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    with_pictures(made, *range(100, 2100, 100))
    bench = bench_of(made)
    seen = glances(bench, bench.library())[made.run.name]
    steps = [int(picture["label"]) for picture in seen.strip]
    assert (len(steps), steps[0], steps[-1], seen.count) == (6, 100, 2000, 20) and steps == sorted(steps)
    assert seen.line and seen.line[0] == (0.0, 1.0) and seen.line[-1] == (1.0, 0.0)
    shutil.rmtree(made.run / "validation")
    assert glances(bench, bench.library())[made.run.name].strip == ()


def test_thousands_of_pictures_are_one_value_of_small_size(tmp_path: Path) -> None:
    its = tuple(sample(step, prompt) for step in range(500) for prompt in range(10))
    checkpoints = tuple(Checkpoint("r", str(step), Path("/r"), "lora", "lora", step=step) for step in range(500))
    told = value((replace(RUN, checkpoints=checkpoints), its))
    assert len(told["cells"]) == 5000 and len(str(told)) < 5000 * 200


def test_runs_of_one_name_are_told_apart_above_pictures_and_checkpoints(tmp_path: Path) -> None:
    for project in ("a", "b"):
        with_pictures(made := origin_run(tmp_path / "outputs" / project, name="run1", logs=False, base=False), 500)
    bench = bench_of(replace(made, outputs=tmp_path / "outputs"))
    library = bench.library()
    ids = [run.id for run in library.runs]
    assert len(ids) == 2 and {bench.name_of(run) for run in library.runs} == {"run1"}
    for name in ids:
        assert value_of(bench, library, [name])["title"] == f"run1 ({name}): drawn by the trainer"
        assert tables(bench, library, name, "")[1]["title"] == f"run1 ({name})"


def test_curves_begin_with_the_run_that_the_other_tabs_begin_with(tmp_path: Path) -> None:
    origin_run(tmp_path, name="a bare one")
    with_pictures(made := origin_run(tmp_path, name="b drawn"), 500)
    bench = bench_of(made)
    library = bench.library()
    assert first_value(bench, library, "")["usual"] == first_value(bench, library, "gone")["usual"] == "b drawn"
    assert tables(bench, library, "", "")[2] == "b drawn"
    assert first_value(bench, library, "a bare one")["usual"] == "a bare one"
