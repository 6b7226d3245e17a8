"""Several adapters in one dump: those whose values change nothing are put aside, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cmp.core.runs import Checkpoint, Run
from cmp.disk.checkpoint import open_weights
from cmp.disk.evidence import collect_evidence
from tests.support import MODULES, WIDTH, save, wrapped_tensors


def dumped(place: Path, default: float, older: float) -> Path:
    tensors = {name: values * np.float32(default) if ".lora_B." in name else values for name, values in wrapped_tensors(500).items()}
    for module in MODULES:
        tensors[f"base_model.model.{module}.lora_A.older.weight"] = np.ones((4, WIDTH), np.float32)
        tensors[f"base_model.model.{module}.lora_B.older.weight"] = np.full((WIDTH, 4), older, np.float32)
    return save(place / "model.safetensors", tensors)


@pytest.mark.parametrize(("default", "older", "chosen"), [(1, 0, "default"), (0, 1, "older"), (0, 0, "default")])
def test_the_adapter_that_is_left_is_the_one_that_changes_something(default: float, older: float, chosen: str, tmp_path: Path) -> None:
    weights = open_weights(dumped(tmp_path, default, older)).weights
    assert not weights.flaws and weights.chosen == chosen and len(weights.adapted) == len(MODULES)
    assert all(f".{chosen}." in stored for module in weights.adapted for stored in module.parts.values())
    assert len(weights.aside) == 2 * len(MODULES) and not any(f".{chosen}." in name for name in weights.aside)


@pytest.mark.parametrize("least", [1.0, 1e-38, np.nan])
def test_two_adapters_that_change_something_are_both_named(least: float, tmp_path: Path) -> None:
    weights = open_weights(dumped(tmp_path, 1, least)).weights
    assert "default, older" in "".join(weights.flaws) and not weights.aside and not weights.chosen


def test_the_settings_of_a_run_are_not_believed_of_an_adapter_that_they_do_not_name(tmp_path: Path) -> None:
    file = dumped(tmp_path, 0, 1)
    for folder in ("lora_weights", "lora_weights/older"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": len(folder)}))
    run = Run("run", tmp_path, tmp_path.parent, "accelerate")
    (evidence,) = collect_evidence(run, Checkpoint("run", "500", tmp_path, "accelerate-peft", "lora", file=file), open_weights(file))
    assert (evidence.alpha, evidence.source) == (len("lora_weights/older"), "lora_weights/older/adapter_config.json")
