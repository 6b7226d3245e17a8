"""`doctor` as it is typed."""

from __future__ import annotations

from pathlib import Path

from tests.in_process import command
from tests.support import origin_run


def test_doctor_ends_with_what_does_not_fit_and_what_to_type(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    folders = ("--runs", str(made.outputs), "--bases", str(made.bases))
    told = command(tmp_path / "home", *folders, "doctor", str(made.run))
    assert told.code == 0 and "misfits:\n  ✗ “Missing keys: 11, Unexpected keys: 23”" in told.out
    assert "    type: python -m cmp convert lora_casual_shoes --to lora" in told.out
    as_json = command(tmp_path / "home", *folders, "doctor", str(made.run), "--json").json
    assert as_json["why"] and [misfit["kind"] for misfit in as_json["misfits"]] == ["missing-keys"]


def test_doctor_of_the_machine_keeps_its_fields_and_adds_misfits(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    told = command(tmp_path / "home", "--runs", str(made.outputs), "doctor", "--json").json
    assert {"cmp", "python", "memory", "packages", "runs", "home", "disk_free", "bases", "device", "cells", "misfits"} <= set(told)
    assert all(set(misfit) == {"kind", "what", "why", "type"} and all(misfit.values()) for misfit in told["misfits"])
