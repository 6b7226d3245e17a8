"""The contract's JSON values, and figures as people read them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cmp.core.present import alias_text, iso_time, library_json, loss_text, path_text, shortened, size_text, steps_text
from cmp.core.runs import Checkpoint, Library, Problem, Run, Setting
from cmp.core.samples import Sample

ODD = os.fsdecode(b"/r/caf\xe9")
CHECKPOINT = Checkpoint(
    "r", "500", Path(ODD), "accelerate-peft", "lora", step=500, bytes=9, written_at=1795430000.5,
    flaw=f"cannot read {ODD}", aliases=("r@final",), converted=(("lora", Path(ODD)),),
)  # fmt: skip
RUN = Run(
    "r", Path(ODD), Path("/"), "accelerate", "tiny", {"steps": Setting((1, 2), ODD), "prompt": Setting("half \ud83d", ODD)}, (CHECKPOINT,),
    logs=(Path("/l"),), samples=(Sample(Path("/p"), 500),), bytes=10, last_loss=0.25, last_logged=100.0, warnings=(ODD,),
)  # fmt: skip
RUN_FIELDS = "id folder trainer base_model settings bytes state checkpoints last_loss logs images"
CHECKPOINT_FIELDS = "id step epoch step_source path layout holds bytes written_at compacted flaw aliases converted star note name"


def test_a_library_has_the_contracts_fields() -> None:
    told = library_json(Library((RUN,), (Problem(Path(ODD), f"cannot read {ODD}"),)), 200.0)
    assert set(told) == {"runs", "problems"} and set(told["problems"][0]) == {"path", "reason"}  # type: ignore[index]
    run = told["runs"][0]  # type: ignore[index]
    assert set(RUN_FIELDS.split()) <= set(run) and set(run["checkpoints"][0]) == set(CHECKPOINT_FIELDS.split())
    assert (run["state"], run["images"], run["last_loss"]) == ("training", 1, 0.25)
    assert run["checkpoints"][0]["converted"] == {"lora": "/r/caf%E9", "webui": None, "pipeline": None, "single": None}
    assert run["checkpoints"][0]["written_at"] == "2026-11-23T10:33:20Z"


def test_names_that_are_no_text_do_not_keep_the_json_from_being_written() -> None:
    told = library_json(Library((RUN,), (Problem(Path(ODD), f"cannot read {ODD}"),)), 200.0)
    assert json.dumps(told, ensure_ascii=False, allow_nan=False).encode().count(b"caf%E9") >= 5


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), None])
def test_a_loss_that_is_no_number_is_null(loss: float | None) -> None:
    told = library_json(Library((replace(RUN, last_loss=loss),)), 200.0)
    assert told["runs"][0]["last_loss"] is None  # type: ignore[index]


@pytest.mark.parametrize("seconds", [0.0, 1e20, -1e20, float("nan"), float("inf")])
def test_a_time_that_no_calendar_has_is_null(seconds: float) -> None:
    assert iso_time(seconds) is None


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1500, "1.5 kB"), (99_940, "99.9 kB"), (99_960, "100 kB"), (999_400, "999 kB"),
        (999_960, "1.0 MB"), (6_400_000, "6.4 MB"), (3_441_000_000, "3.4 GB"), (40.2e9, "40.2 GB"), (5e15, "5000 TB"),
    ],
)  # fmt: skip
def test_sizes_are_told_in_thousands_and_never_as_a_thousand_of_the_smaller_unit(size: float, text: str) -> None:
    assert size_text(size) == text


def test_a_loss_and_a_span_of_steps_are_told_shortly() -> None:
    assert (loss_text(0.123456), loss_text(None), steps_text(RUN)) == ("0.1235", "–", "500")
    more = (*RUN.checkpoints, replace(CHECKPOINT, key="3000", step=3000), replace(CHECKPOINT, key="final", step=None))
    assert steps_text(replace(RUN, checkpoints=more)) == "500–3000"
    assert steps_text(replace(RUN, checkpoints=())) == "–"


def test_a_path_is_told_as_it_is_but_for_bytes_that_are_no_text() -> None:
    assert path_text(Path("/r/ü ~@%")) == "/r/ü ~@%"
    assert path_text(Path(ODD)) == "/r/caf%E9"


def test_equal_weights_are_named_by_what_tells_them_apart() -> None:
    aliases = ("r@final", "r@final~final_pipeline", "r@final~lora%40weights")
    told = [alias_text(replace(CHECKPOINT, aliases=aliases[:count])) for count in range(4)]
    assert told == ["", "final", "final and final_pipeline", "final, final_pipeline and lora%40weights"]


def test_a_text_is_cut_only_where_it_is_too_long() -> None:
    assert [shortened(text, 6) for text in ("", "seeing", "seeing is")] == ["", "seeing", "seein…"]
    assert shortened("see it all", 5) == "see…"
