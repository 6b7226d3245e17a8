"""The whole corpus of real checkpoints, where there is one: every case under its trainer, with its steps, settings and curves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cmp.disk.logs.curves import read_curves
from cmp.disk.scan import scan

CORPUS = Path(os.environ.get("CMP_CORPUS", "/nonexistent")).resolve()
CASES = sorted(file.parent.name for file in CORPUS.glob("*/EXPECT.json"))
# the beginnings of what EXPECT.json calls the tool → the trainer; its loops of Accelerate are told apart by what they save
TRAINERS = {
    "kohya-ss": "kohya",
    "HAND-MADE after ostris": "ai-toolkit",
    "HAND-MADE after Nerogar": "onetrainer",
    "huggingface": "diffusers",
}
SAVED = {"diffusers_lora": "diffusers", "peft_dir": "peft", "legacy_attn_procs": "diffusers"}

pytestmark = pytest.mark.skipif(not CASES, reason="CMP_CORPUS names no corpus")


def expected(case: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((CORPUS / case / "EXPECT.json").read_text())
    return read


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_one_run_of_its_trainer_with_every_checkpoint_at_its_step(case: str) -> None:
    told = expected(case)
    (run,) = scan([CORPUS / case / "outputs"]).runs
    by_tool = next((trainer for start, trainer in TRAINERS.items() if told["tool"].startswith(start)), None)
    assert run.trainer == (by_tool or SAVED.get(told["kind"], "accelerate"))
    found = {path: c.step for c in run.checkpoints for path in (c.path, c.file) if path}
    for checkpoint in told["checkpoints"]:
        path = CORPUS / case / checkpoint["path"]
        if path != run.folder:
            assert path in found and checkpoint["step"] in (None, found[path]), checkpoint["tag"]
        elif any(path.glob("*.safetensors")) or (path / "model_index.json").exists():  # a final in the run's own folder
            assert any(c.key == "final" for c in run.checkpoints)


@pytest.mark.parametrize("case", CASES)
def test_a_case_tells_its_base_rank_and_loss(case: str) -> None:
    told = expected(case)
    (run,) = scan([CORPUS / case / "outputs"]).runs
    if run.settings:
        assert run.base_model is not None and run.base_model.rpartition("/")[2] == told["base"]
        assert all(setting.source for setting in run.settings.values())
    ranks = [run.settings[key].value for key in ("rank", "lora_rank") if key in run.settings]
    if ranks and isinstance(told.get("rank"), int):
        assert ranks == [told["rank"]]
    if last := told.get("final_train_loss"):
        curves, _ = read_curves(run.id, run.logs)
        assert (curves[0].tag, int(curves[0].steps[-1])) == (last["tag"], last["step"])
        assert float(curves[0].values[-1]) == pytest.approx(last["value"], rel=1e-6)
