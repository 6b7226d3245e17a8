"""What was measured is kept by the weights, and belongs to a checkpoint only as long as its files are those that were measured."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmp.core.evidence import BASE
from cmp.core.measured import Measured
from cmp.core.runs import Checkpoint, Run
from cmp.disk.held import files_of
from cmp.disk.measures import Measures
from cmp.disk.store import Store
from cmp.errors import Refused


def measured(weights: str = "w1", metric: str = "loss", setup: str = "s1", name: str = "r@1", level: float = 1.0) -> Measured:
    values = level * np.arange(6, dtype=np.float64).reshape(3, 2) / 7
    return Measured(metric, name, weights, "b", setup, ("a.png", "b \ud800.png", "c.png"), values, ("125", "625"), True, True, ("a note",))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = []
    for step in (1, 2):
        file = tmp_path / "run" / f"{step}.safetensors"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * step)
        made.append(Checkpoint("r", str(step), file.parent, "x", "lora", step=step, file=file))
    return Run("r", tmp_path / "run", tmp_path, "x", checkpoints=tuple(made))


def test_values_come_back_to_the_bit_with_all_that_was_said_of_them(tmp_path: Path) -> None:
    one = replace(measured(), values=np.array([[np.nan, 1e-300], [np.inf, -0.0], [1 / 3, 5e-324]]))
    Measures(Store(tmp_path)).keep(one)
    found = Measures(Store(tmp_path)).find("w1", "b", "loss", "s1", "other@7")
    assert found is not None and found.values.tobytes() == one.values.tobytes() and found.values.dtype == np.float64
    assert (found.checkpoint_id, found.bands, found.told, found.relative, found.reused) == ("other@7", one.bands, one.told, True, True)
    assert found.items[0] == "a.png" and len(found.items) == 3


@pytest.mark.parametrize(
    "other", [("w2", "b", "loss", "s1"), ("w1", "c", "loss", "s1"), ("w1", "b", "clip", "s1"), ("w1", "b", "loss", "s2")]
)
def test_other_weights_base_metric_or_setup_are_not_known(tmp_path: Path, other: tuple[str, str, str, str]) -> None:
    Measures(Store(tmp_path)).keep(measured())
    assert Measures(Store(tmp_path)).find(*other) is None


def note(measures: Measures, run: Run, one: Measured, number: int | None, said: str = "") -> None:
    measures.keep(one)
    checkpoint = None if number is None else run.checkpoints[number]
    assert measures.note(run, one, checkpoint, files_of(checkpoint), said)


def test_a_run_has_what_its_checkpoints_and_its_base_were_measured_as_until_a_file_changes(tmp_path: Path, run: Run) -> None:
    measures = Measures(Store(tmp_path))
    before = measures.changed(run)
    for number, weights in ((None, ""), (0, "w1"), (1, "w2")):
        note(measures, run, measured(weights), number)
    assert [one.checkpoint_id for one in measures.of(run)["loss"]] == ["r@2", "r@1", BASE] and measures.changed(run) != before
    file = run.checkpoints[0].file
    assert file is not None
    os.utime(file, (1, 1))
    assert [one.checkpoint_id for one in measures.of(run)["loss"]] == ["r@2", BASE]
    file.unlink()
    assert [one.checkpoint_id for one in measures.of(run)["loss"]] == ["r@2", BASE]
    assert measures.of(replace(run, folder=tmp_path / "elsewhere")) == {}


def test_a_file_that_was_written_anew_since_its_weights_were_read_has_none_of_their_values(tmp_path: Path, run: Run) -> None:
    measures, checkpoint = Measures(Store(tmp_path)), run.checkpoints[0]
    assert checkpoint.file is not None
    files = files_of(checkpoint)
    measures.keep(measured("w1"))
    checkpoint.file.write_bytes(b"another")
    assert not measures.note(run, measured("w1"), checkpoint, files) and measures.of(run) == {}
    assert measures.find("w1", "b", "loss", "s1") is not None
    checkpoint.file.unlink()
    assert not measures.note(run, measured("w1"), checkpoint, files_of(checkpoint)) and measures.of(run) == {}


def test_only_what_was_measured_last_under_one_setup_and_alpha_is_compared(tmp_path: Path, run: Run) -> None:
    measures = Measures(Store(tmp_path))
    note(measures, run, measured("w1"), 0)
    note(measures, run, measured("w2"), 1)
    note(measures, run, measured("w2", setup="s2"), 1)
    assert [(one.checkpoint_id, one.setup) for one in measures.of(run)["loss"]] == [("r@2", "s2")]
    note(measures, run, measured("w1b", setup="s2"), 0, "8.0")
    assert [one.weights for one in measures.of(run)["loss"]] == ["w1b"]
    note(measures, run, measured("w1"), 0)  # what was known already, asked for again, is the newest
    assert {(one.checkpoint_id, one.setup) for one in measures.of(run)["loss"]} == {("r@1", "s1"), ("r@2", "s1")}


def test_where_nothing_can_be_kept_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(Refused, match="state"):
        Measures(Store(tmp_path / "home")).keep(measured())
