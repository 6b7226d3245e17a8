"""What is at the target already, and what a conversion may do with it: nothing is lost, nothing foreign is taken for ours."""

from __future__ import annotations

import shutil
from collections import namedtuple
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cmp.core.conversion import Conversion, Writing
from cmp.core.progress import run_through
from cmp.disk.ready import Answers
from cmp.disk.replaced import make_way
from cmp.errors import BadInput, CmpError, NoSpace, Refused
from cmp.workbench import FailedConversion
from tests.support import (
    MODULES,
    Training,
    adapter_tensors,
    base_tensors,
    bench_of,
    convert,
    left_in,
    origin_run,
    save,
    spoil,
    wrapped_tensors,
)

RUN = "lora_casual_shoes"


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return origin_run(tmp_path, (500,), final=False)


def test_a_file_of_ours_is_not_made_again_and_is_listed(made: Training) -> None:
    first = convert(made)
    bench = bench_of(made)
    assert "already converted" in str(bench.plan_conversion(f"{RUN}@500", "lora").done)
    checkpoint = bench.find(f"{RUN}@500")[1]
    assert checkpoint is not None and dict(checkpoint.converted) == {"lora": first.output}


def test_a_file_of_ours_made_of_other_weights_or_at_another_scale_is_made_again(made: Training) -> None:
    target = convert(made).output
    assert "already" in str(bench_of(made).plan_conversion(f"{RUN}@500", "lora", Answers(alpha=16.0)).done)
    assert bench_of(made).plan_conversion(f"{RUN}@500", "lora", Answers(alpha=8.0)).done is None
    save(made.checkpoint(500) / "model.safetensors", wrapped_tensors(501))
    assert convert(made).output == target
    name = f"{MODULES[0]}.lora_A.weight"
    assert np.array_equal(load_file(target)[f"unet.{name}"], adapter_tensors(501)[name])
    assert len(list((made.run / ".cmp-trash").glob("[!.]*"))) == 1


@pytest.mark.parametrize("foreign", ["safetensors", "bytes", "link"])
def test_a_foreign_file_is_not_ours_and_goes_to_the_trash_only_by_force(made: Training, foreign: str) -> None:
    target = made.run / "converted" / "lora" / f"{RUN}-500.safetensors"
    target.parent.mkdir(parents=True)
    if foreign == "link":
        target.symlink_to(save(made.outputs.parent / "elsewhere.safetensors", base_tensors()))
    elif foreign == "bytes":
        target.write_bytes(b"not ours")
    else:
        save(target, base_tensors(), {"generator": "another program"})
    assert dict(bench_of(made).library().runs[0].checkpoints[0].converted) == {}
    with pytest.raises(Refused, match="not made by this program"):
        convert(made)
    before = target.read_bytes()
    assert convert(made, force=True).output == target and not target.is_symlink()
    (trashed,) = (made.run / ".cmp-trash").glob("[!.]*")
    assert trashed.read_bytes() == before


def test_both_forms_replaced_in_one_second_are_both_in_the_trash(made: Training) -> None:
    for form in ("lora", "webui"):
        convert(made, form)
        convert(made, form, force=True)
    assert len(list((made.run / ".cmp-trash").glob("[!.]*"))) == 2


def test_a_conversion_that_fails_by_force_puts_back_what_was_there(made: Training) -> None:
    target = convert(made).output
    before = target.read_bytes()
    bench = bench_of(made)
    plan = bench.plan_conversion(f"{RUN}@500", "lora", force=True)
    spoil(made, lambda tensors: tensors[f"base_model.model.{MODULES[0]}.lora_A.default.weight"].fill(np.nan))
    with pytest.raises(CmpError):
        run_through(bench.convert(plan))
    assert target.read_bytes() == before


def test_a_file_that_appeared_after_planning_is_not_overwritten(made: Training) -> None:
    bench = bench_of(made)
    plan = bench.plan_conversion(f"{RUN}@500", "lora")
    plan.target.parent.mkdir(parents=True)
    plan.target.write_bytes(b"someone else's")
    (failed,) = [item for item in bench.convert_all([plan]) if isinstance(item, FailedConversion)]
    assert failed.error.exit_code == 5 and plan.target.read_bytes() == b"someone else's"


@pytest.mark.parametrize("form", ["lora", "pipeline"])
def test_of_two_that_convert_the_same_the_later_finds_it_made_and_one_that_wants_it_otherwise_is_refused(made: Training, form: str) -> None:
    bench, other = bench_of(made), bench_of(made)
    later, otherwise = other.plan_conversion(f"{RUN}@500", form), replace(bench.plan_conversion(f"{RUN}@500", form), writing=Writing("F16"))
    first = run_through(bench.convert(bench.plan_conversion(f"{RUN}@500", form)))
    before = first.output.stat().st_mtime_ns
    (found,) = [item for item in other.convert_all([later]) if isinstance(item, Conversion)]
    assert found.output == first.output and "another process" in found.checks[0] and first.output.stat().st_mtime_ns == before
    (failed,) = [item for item in bench.convert_all([otherwise]) if isinstance(item, FailedConversion)]
    assert failed.error.exit_code == 5 and "has appeared" in failed.error.message and first.output.stat().st_mtime_ns == before


def test_a_pipeline_that_appears_while_another_is_made_is_the_result_of_both(made: Training) -> None:
    plan, bench = bench_of(made).plan_conversion(f"{RUN}@500", "pipeline"), bench_of(made)
    with closing(bench_of(made).convert(plan)) as slow:
        next(slow)
        first = run_through(bench.convert(bench.plan_conversion(f"{RUN}@500", "pipeline")))
        assert run_through(slow).output == first.output
    assert not [*first.output.parent.glob(".tmp-*")]


@pytest.mark.parametrize("form", ["lora", "webui"])
def test_a_plan_tells_the_base_s_proof_and_nearly_the_size_of_the_file(made: Training, form: str) -> None:
    bench = bench_of(made)
    run, checkpoint = bench.find(f"{RUN}@500")
    before = bench.plan_checkpoint(run, checkpoint, form)
    assert before.base and before.base.proof == "user", "its tensors were never looked at"
    assert (proven := bench.prove(before).base) and proven.proof == "tensors" and "frozen tensors equal" in proven.source
    plan = bench.plan_checkpoint(run, checkpoint, form)
    assert plan.base == proven and bench.prove(plan).base == proven
    assert abs(run_through(bench.convert(plan)).bytes / plan.bytes - 1) < 0.2


@pytest.mark.parametrize("force", [False, True])
def test_a_users_folder_is_never_moved_away_for_a_file(made: Training, tmp_path: Path, force: bool) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for form in ("lora", "webui", "pipeline"):
        with pytest.raises(BadInput, match="is a folder"):
            convert(made, form, output=tmp_path / "mine", force=force)
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_nothing_is_written_through_a_link_in_the_run(made: Training, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (made.run / "converted").symlink_to(tmp_path / "outside")
    with pytest.raises(Refused, match="link"):
        convert(made)
    assert list((tmp_path / "outside").iterdir()) == []


def test_without_space_nothing_is_written_at_all(made: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(made)
    plan = bench.plan_conversion(f"{RUN}@500", "lora")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(NoSpace, match="1,000 free"):
        next(bench.convert(plan))
    with pytest.raises(NoSpace):
        next(iter(bench.convert_all([plan])))
    assert left_in(made) == []


def test_what_is_moved_away_can_be_found_and_nothing_is_moved_for_nothing(tmp_path: Path) -> None:
    assert make_way(tmp_path / "none", tmp_path) is None
    (tmp_path / "x").write_bytes(b"1")
    moved = make_way(tmp_path / "x", tmp_path / "elsewhere")
    assert moved is not None and moved.parent == tmp_path / ".cmp-trash" and moved.read_bytes() == b"1"


def test_one_conversion_that_fails_does_not_stop_the_rest(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500, 1000), final=False)
    bench = bench_of(made)
    plans = [bench.plan_conversion(f"{RUN}@{step}", "lora") for step in (500, 1000)]
    (made.checkpoint(500) / "model.safetensors").unlink()
    done = list(bench.convert_all(plans))
    assert [type(item).__name__ for item in done if not hasattr(item, "what")] == ["FailedConversion", "Conversion"]
