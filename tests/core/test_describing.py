"""What is known about a checkpoint in lines for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.core.describing import checkpoint_facts, kind_text, run_facts
from cmp.disk.ready import Answers
from tests.support import bench_of, diffusers_run, origin_run


@pytest.mark.parametrize(
    ("layout", "holds", "folder", "dora", "words"),
    [
        ("accelerate-peft", "lora", "checkpoint-5", False, "Accelerate dump of a PEFT LoRA"),
        ("accelerate-peft", "lora", "checkpoint-5", True, "Accelerate dump of a PEFT DoRA"),
        ("kohya", "lora", "out", False, "kohya LoRA"),
        ("kohya", "lokr", "out", False, "LyCORIS LoKr"),
        ("full", "full", "unet_ema", False, "EMA weights of a full fine-tune"),
        ("full", "full", "unet_non_ema", False, "full fine-tune"),
        ("embedding", "embedding", "out", False, "learned word"),
        ("of tomorrow", "unknown", "out", False, "not read"),
    ],
)
def test_a_checkpoint_is_called_what_people_call_it(layout: str, holds: str, folder: str, dora: bool, words: str) -> None:
    assert kind_text(layout, holds, folder, dora) == words


def lines_of(told: dict[str, object]) -> dict[str, str]:
    facts = checkpoint_facts(told) if "layout" in told else run_facts(told)
    return {fact.label: "\n".join(fact.lines) for fact in facts}


def test_a_dump_tells_rank_scale_proof_counts_and_forms(tmp_path: Path) -> None:
    told = lines_of(bench_of(origin_run(tmp_path)).show("lora_casual_shoes@500"))
    assert told["what it is"] == "Accelerate dump of a PEFT LoRA, of the unet"
    assert "6 modules, rank 8" in told["adapted"] and told["scale"].startswith("2 = alpha 16 / rank 8\nsource: lora_weights/")
    assert "all 11 frozen tensors equal" in told["base model"] and "23 in all (F32): 12 adapter, 11 frozen" in told["tensors"]
    assert told["can become"].startswith("✓ lora") and "✗ single: " in told["can become"]


def test_an_unknown_alpha_is_asked_for_with_what_each_answer_would_mean_and_the_answer_is_taken(tmp_path: Path) -> None:
    made = diffusers_run(tmp_path)
    for file in (made.outputs / "sd-lora").rglob("*tfevents*"):
        file.unlink()
    for file in (made.outputs / "sd-lora").rglob("hparams.yml"):
        file.unlink()
    bench = bench_of(made)
    asked = bench.show("sd-lora@2")
    assert asked["question"]["rank"] == 4  # type: ignore[index]
    assert "alpha = 4, equal to the rank, means scale 1" in lines_of(asked)["scale"]
    answered = bench.show("sd-lora@2", Answers(alpha=8.0))
    assert answered.get("question") is None and lines_of(answered)["scale"].startswith("2 = alpha 8 / rank 4")


def test_a_run_tells_its_settings_by_the_file_that_says_them(tmp_path: Path) -> None:
    told = lines_of(bench_of(origin_run(tmp_path)).show("lora_casual_shoes"))
    assert "hparams.yml: " in told["settings"] and "lora_alpha = 16" in told["settings"]
    assert "500: Accelerate dump of a PEFT LoRA" in told["checkpoints"]
