"""What `show` and `doctor` tell: what is known and by whom, what a checkpoint can become, and why a folder is not listed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cmp.core.describing import checkpoint_facts, run_facts
from cmp.disk.describe import why_not_listed
from cmp.disk.ready import Answers
from cmp.errors import NotFound, Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import adapter_tensors, bench_of, diffusers_run, origin_run, save, spoil


def test_a_run_tells_each_setting_with_the_file_that_says_so_and_what_was_answered(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    bench.answer(bench.find("lora_casual_shoes")[0], Answers(alpha=4.0))
    told = bench.show("lora_casual_shoes")
    assert told["settings"]["lora_alpha"]["value"] == 16 and told["settings"]["lora_alpha"]["source"].endswith("hparams.yml")  # type: ignore[index]
    assert told["answers"] == {"alpha": 4.0, "base": None}


def test_an_answer_to_one_question_does_not_take_back_the_other(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    run = bench.find("lora_casual_shoes")[0]
    bench.answer(run, Answers(alpha=4.0))
    bench.answer(run, Answers(base="tiny-sd"))
    assert bench.answers(run) == Answers(4.0, "tiny-sd")


def test_a_checkpoint_tells_its_tensors_its_scale_its_base_and_what_it_can_become(tmp_path: Path) -> None:
    told = bench_of(origin_run(tmp_path)).show("lora_casual_shoes@500")
    tensors: dict[str, object] = told["tensors"]  # type: ignore[assignment]
    assert [tensors[key] for key in ("total", "pairs", "adapted", "frozen", "whole")] == [23, 6, 12, 11, 0]
    assert (told["rank"], told["component"], told["scale"]["value"], told["base"]["proof"]) == ([8], "unet", 2.0, "tensors")  # type: ignore[index]
    forms: dict[str, str] = told["forms"]  # type: ignore[assignment]
    assert [forms[form] for form in ("lora", "webui", "pipeline")] == ["can be made"] * 3 and "text_encoder" in forms["single"]


def test_a_checkpoint_that_can_only_become_some_forms_says_why_not_the_others(tmp_path: Path) -> None:
    told = bench_of(diffusers_run(tmp_path)).show("sd-lora@2")
    assert told["forms"]["lora"] == "can be made" and "no base model" in told["forms"]["pipeline"]  # type: ignore[index]


def test_a_checkpoint_that_cannot_be_used_says_why_and_raises_nothing(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    (made.checkpoint(500) / "model.safetensors").write_bytes(b"")
    spoil(made, lambda tensors: tensors.pop(next(name for name in tensors if "lora_A" in name)), step=1000)
    bench = bench_of(made)
    told = [bench.show(f"lora_casual_shoes@{step}") for step in (500, 1000)]
    assert [t["usable"] for t in told] == [False, False]
    assert "empty" in str(told[0]["why"]) and "half a LoRA pair" in str(told[1]["why"])


@pytest.mark.parametrize("name", ["plain", os.fsdecode(b"caf\xe9")])
def test_a_folder_that_is_no_run_is_told_with_what_lies_in_it(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "photo.png").write_bytes(b"")
    (folder / "linked").symlink_to(tmp_path)
    told = why_not_listed(folder)
    assert any("photo.png" in line for line in told) and any("linked is a link" in line for line in told)
    assert any("checkpoint-N" in line for line in told) and json.dumps(told, ensure_ascii=False).encode()


def test_a_folder_that_is_a_run_is_told_with_the_flaws_in_it(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    (made.checkpoint(500) / "model.safetensors").write_bytes(b"")
    told = why_not_listed(made.outputs)
    assert "3 checkpoints" in told[0] and "empty" in told[1] and len(told) == 2


def test_what_is_not_there_or_is_no_folder_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing at"):
        why_not_listed(tmp_path / "none")
    (tmp_path / "style.safetensors").write_bytes(b"")
    (told,) = why_not_listed(tmp_path / "style.safetensors")
    assert "is a file" in told and "cmp show" in told


def test_an_error_about_a_name_that_is_no_text_can_be_told_as_json() -> None:
    fault = Refused(os.fsdecode(b"/r/caf\xe9 differs"), "half \ud83d")
    assert json.dumps(fault.as_json(), ensure_ascii=False).encode() and fault.message == str(fault) == "/r/caf%E9 differs"


def test_doctor_counts_the_checkpoints_that_a_list_has(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    bench = bench_of(made)
    (run,) = bench.library().runs
    told = " ".join(bench.doctor(made.outputs)["why"])  # type: ignore[arg-type]
    assert len(run.checkpoints) == 2 and ", 2 checkpoints" in told and "the same weights as final, so that they count once" in told


def test_the_words_that_call_up_what_was_trained_are_shown(tmp_path: Path) -> None:
    save(tmp_path / "outputs" / "word" / "learned_embeds-steps-2.safetensors", {"<sks>": np.zeros((1, 32), "f4")})
    lora = {f"unet.{name}": values for name, values in adapter_tensors(1).items()}
    frequency = json.dumps({"10_ohwx shoe": {"a": 1}})
    save(tmp_path / "outputs" / "kohya" / "k.safetensors", lora, {"ss_network_module": "networks.lora", "ss_tag_frequency": frequency})
    job = tmp_path / "outputs" / "job"
    save(job / "job_000000500.safetensors", lora)
    (job / "config.yaml").write_text("config:\n  process:\n  - trigger_word: p3rs0n\n    network: {type: lora, linear: 8}\n")
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",)))
    for run, key, word in (("word", "2", "<sks>"), ("kohya", "final", "ohwx shoe"), ("job", "500", "p3rs0n")):
        for told, facts in ((bench.show(run), run_facts), (bench.show(f"{run}@{key}"), checkpoint_facts)):
            assert told["trigger_words"] == [word] and told["trigger_source"]
            (fact,) = (fact for fact in facts(told) if fact.label == "trigger words")
            assert fact.lines[0] == word
    plain = bench_of(origin_run(tmp_path / "other")).show("lora_casual_shoes@500")
    assert plain["trigger_words"] == [] and all(fact.label != "trigger words" for fact in checkpoint_facts(plain))
