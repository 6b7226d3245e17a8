"""Base models that lie among the runs: no runs where they are named as base models, and otherwise told as what they are."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cmp.core.stages import UNREAD
from cmp.disk.scan import Scanner, scan
from cmp.errors import NotFound
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import Training, base_pipeline, bench_of, origin_run, save, wrapped_tensors, write_log

RUN = "lora_casual_shoes"


@pytest.fixture
def made(tmp_path: Path) -> Training:
    """A run, with its base model in `models/` beside it, below the folder of runs."""
    made = origin_run(tmp_path)
    shutil.copytree(made.bases, made.outputs / "models" / "org")
    return made


def listed(made: Training, *bases: Path, root: Path | None = None) -> list[str]:
    return [run.id for run in scan([root or made.outputs], bases).runs]


def test_a_base_model_among_the_runs_is_told_as_a_pipeline(made: Training) -> None:
    found = {run.id: run for run in scan([made.outputs]).runs}
    assert list(found) == [RUN, "models/org/tiny-sd"] and not found[RUN].warnings
    (warning,) = found["models/org/tiny-sd"].warnings
    assert "whole diffusers pipeline" in warning and "--bases" in warning
    assert str(bench_of(made).show("models/org/tiny-sd@final")["kind"]).startswith("whole diffusers pipeline")


@pytest.mark.parametrize("named", ["models", "models/org", "models/org/tiny-sd", ".", ".."])
def test_it_is_no_run_where_its_folder_is_named_as_one_of_base_models(made: Training, named: str) -> None:
    assert listed(made, made.outputs / named) == [RUN]


def test_a_folder_of_bases_that_is_named_through_a_link_is_the_same_folder(made: Training, tmp_path: Path) -> None:
    os.symlink(made.outputs / "models", tmp_path / "link")
    os.symlink(made.outputs, tmp_path / "runs")
    assert listed(made, tmp_path / "link") == [RUN] == listed(made, made.outputs / "models", root=tmp_path / "runs")
    assert listed(made, tmp_path / "elsewhere", made.bases) == [RUN, "models/org/tiny-sd"]


def test_a_training_in_a_folder_of_base_models_stays_a_run(made: Training) -> None:
    models = made.outputs / "models"
    save(models / "trained" / "checkpoint-5" / "model.safetensors", wrapped_tensors(5))
    shutil.copytree(made.base, models / "logged")
    write_log(models / "logged" / "logs", [(1, 0.5)])
    assert listed(made, models) == [RUN, "models/logged", "models/trained"]
    assert [warning for run in scan([models]).runs for warning in run.warnings if run.id != "org/tiny-sd"] == []


def test_what_is_named_as_bases_later_is_no_longer_listed_and_comes_back(made: Training) -> None:
    scanner = Scanner()
    counts = [len(scanner.scan([made.outputs], bases=bases).runs) for bases in ((), (made.outputs / "models",), ())]
    assert counts == [2, 1, 2]


def test_a_pipeline_that_was_converted_is_not_taken_for_a_base_model(made: Training) -> None:
    record = {"generator": "cmp", "checkpoint": "lora_casual_shoes@500"}
    folder = base_pipeline(made.outputs / "merged")
    (folder / "checkpoint_metadata.json").write_text(json.dumps(record))
    found = {run.id: run for run in scan([made.outputs]).runs}
    (warning,) = found["merged/tiny-sd"].warnings
    assert "made of lora_casual_shoes@500" in warning and "--bases" not in warning


def test_the_workbench_and_doctor_know_the_bases(made: Training, tmp_path: Path) -> None:
    bench = Workbench(Settings(tmp_path / "home", (made.outputs,), (made.outputs / "models",)))
    assert [run.id for run in bench.library().runs] == [RUN]
    bench.serves = True
    assert {c.layout for run in bench.library().runs for c in run.checkpoints} != {UNREAD}
    assert [run.id for run in bench.library().runs] == [RUN]
    with pytest.raises(NotFound):
        bench.find("models/org/tiny-sd", only_ids=True)
    for place in (made.outputs / "models", made.outputs / "models" / "org" / "tiny-sd"):
        assert "is a base model and no run" in " ".join(bench.doctor(place)["why"])  # type: ignore[arg-type]
