"""Scanning: every layout recognised as what it is, from names and headers alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cmp.core.present import library_json
from cmp.core.runs import Run
from cmp.disk.alias import merge_same_weights
from cmp.disk.scan import scan
from cmp.disk.store import Store
from tests.support import (
    NOW,
    adapter_tensors,
    diffusers_run,
    origin_run,
    save,
    wrapped_tensors,
    write_config,
    write_log,
)


def only_run(root: Path) -> Run:
    (run,) = scan([root]).runs
    return run


def keys(run: Run) -> list[str]:
    return [c.key for c in run.checkpoints]


# layouts


def test_the_origins_run_is_found_with_its_logs_beside_the_outputs(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    library = scan([made.outputs])
    (run,) = library.runs
    assert not library.problems and not run.warnings
    assert (run.id, run.folder, run.trainer, run.base_model) == ("lora_casual_shoes", made.run, "accelerate", "tiny-sd")
    assert [(c.id, c.step, c.layout, c.holds, c.flaw) for c in run.checkpoints] == [
        ("lora_casual_shoes@500", 500, "accelerate-peft", "lora", None),
        ("lora_casual_shoes@1000", 1000, "accelerate-peft", "lora", None),
        ("lora_casual_shoes@final", None, "peft-adapter", "lora", None),
    ]
    assert run.last_loss == pytest.approx(1 / 51) and run.last_logged == NOW + 50
    assert (run.settings["lora_rank"].value, run.settings["lora_alpha"].value) == (8, 16)
    assert run.settings["lora_alpha"].source.endswith("hparams.yml")
    assert [file.parent for file in run.logs] == [tmp_path / "logs" / "train_lora_casual_shoes"]


def test_an_access_token_in_the_settings_is_in_nothing_that_is_told(tmp_path: Path) -> None:
    told = json.dumps(library_json(scan([origin_run(tmp_path).outputs]), 0.0))
    assert "hub_token" not in told and "hf_xxx" not in told


def test_a_checkpoints_size_and_time_are_those_of_its_files(tmp_path: Path) -> None:
    made = origin_run(tmp_path, (500,))
    os.utime(made.checkpoint(500) / "model.safetensors", (1000, 1000))
    checkpoint = only_run(made.outputs).checkpoints[0]
    assert checkpoint.bytes == sum(file.stat().st_size for file in made.checkpoint(500).iterdir())
    assert checkpoint.written_at == 1000 and checkpoint.file == made.checkpoint(500) / "model.safetensors"


def test_a_run_of_diffusers_script_is_found_with_its_final_file_and_its_own_logs(tmp_path: Path) -> None:
    made = diffusers_run(tmp_path)
    run = only_run(made.outputs)
    assert (run.id, run.trainer, run.base_model, keys(run)) == ("sd-lora", "diffusers", "tiny-sd", ["2", "4", "final"])
    assert {c.layout for c in run.checkpoints} == {"diffusers-lora"} and run.last_loss == pytest.approx(0.125)
    assert run.checkpoints[-1].path == made.run / "pytorch_lora_weights.safetensors"


def test_a_folder_of_peft_is_a_run_of_one_final(tmp_path: Path) -> None:
    save(tmp_path / "adapter" / "adapter_model.safetensors", {f"base_model.model.{n}": v for n, v in adapter_tensors(1).items()})
    write_config(tmp_path / "adapter")
    run = only_run(tmp_path)
    assert (run.id, run.trainer, keys(run)) == ("adapter", "peft", ["final"])
    assert run.checkpoints[0].layout == "peft-adapter" and run.checkpoints[0].flaw is None


def test_a_root_that_is_a_run_itself_is_called_by_its_own_name(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    assert only_run(made.run).id == "lora_casual_shoes"


def test_steps_ascend_as_numbers(tmp_path: Path) -> None:
    run = only_run(diffusers_run(tmp_path, (1000, 500, 2000, 90)).outputs)
    assert keys(run) == ["90", "500", "1000", "2000", "final"]


def test_accelerates_own_numbering_counts_saves_and_not_steps(tmp_path: Path) -> None:
    for count in (0, 1, 10):
        save(tmp_path / "run" / "checkpoints" / f"checkpoint_{count}" / "model.safetensors", wrapped_tensors(count))
    run = only_run(tmp_path)
    assert sorted(keys(run)) == ["save-0", "save-1", "save-10"] and all(c.step is None for c in run.checkpoints)


def test_the_final_adapter_that_is_the_last_step_is_one_row_with_it(tmp_path: Path) -> None:
    for made, last in ((origin_run(tmp_path / "a"), "1000"), (diffusers_run(tmp_path / "b"), "4")):
        run = merge_same_weights(only_run(made.outputs), Store(tmp_path / "home"))
        assert keys(run)[-1] == last and run.checkpoints[-1].aliases == (f"{run.id}@final",)
        assert run.checkpoint("final") is run.checkpoints[-1]


def test_a_final_adapter_of_other_weights_stays_a_row_of_its_own(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    save(made.run / "lora_weights" / "adapter_model.safetensors", {f"base_model.model.{n}": v for n, v in adapter_tensors(7).items()})
    run = merge_same_weights(only_run(made.outputs), Store(tmp_path / "home"))
    assert keys(run) == ["500", "1000", "final"] and not any(c.aliases for c in run.checkpoints)


def test_two_folders_for_one_step_are_both_kept(tmp_path: Path) -> None:
    made = diffusers_run(tmp_path, (7,), final=False)
    (made.run / "checkpoint-7").rename(made.run / "checkpoint-007")
    diffusers_run(tmp_path, (7,), final=False)
    run = only_run(made.outputs)
    assert [(c.key, c.step, c.path.name) for c in run.checkpoints] == [("7", 7, "checkpoint-007"), ("7~checkpoint-7", 7, "checkpoint-7")]


def test_the_trainers_pictures_are_joined_to_their_steps(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    (made.run / "validation").mkdir()
    for name in ("epoch003_step00500_prompt1_img2.png", "epoch003_step00500_prompt0_img0.png", "step٣_prompt0_img0.png", "notes.txt"):
        (made.run / "validation" / name).write_bytes(b"")
    run = only_run(made.outputs)
    assert [(s.step, s.prompt, s.image) for s in run.samples] == [(500, 0, 0), (500, 1, 2)]
    assert run.checkpoints[0].image == made.run / "validation" / "epoch003_step00500_prompt0_img0.png"


# half of a run


def test_logs_without_checkpoints_are_a_run_without_checkpoints(tmp_path: Path) -> None:
    write_log(tmp_path / "young" / "logs" / "tracker", [(1, 0.5)])
    run = only_run(tmp_path)
    assert (run.id, run.trainer, run.checkpoints, run.last_loss) == ("young", "unknown", (), 0.5)


def test_settings_without_a_single_logged_value_are_a_run(tmp_path: Path) -> None:
    write_log(tmp_path / "begun" / "logs" / "tracker", [], lora_rank=8).unlink()
    run = only_run(tmp_path)
    assert (run.id, run.logs, run.settings["lora_rank"].value) == ("begun", (), 8)


def test_checkpoints_without_logs_are_a_run_whose_settings_are_those_of_its_final_adapter(tmp_path: Path) -> None:
    run = only_run(origin_run(tmp_path, logs=False).outputs)
    assert keys(run) == ["500", "1000", "final"]
    assert (run.logs, run.base_model, run.last_loss, run.last_logged) == ((), None, None, None)
    assert {key: setting.value for key, setting in run.settings.items() if key != "targets"} == {
        "rank": 8,
        "alpha": 16,
        "peft_type": "LORA",
    }
    assert {setting.source for setting in run.settings.values()} == {str(run.folder / "lora_weights" / "adapter_config.json")}


def test_logs_that_belong_to_a_run_elsewhere_are_no_run_of_their_own(tmp_path: Path) -> None:
    origin_run(tmp_path, base=False)
    assert only_run(tmp_path).id == "outputs/lora_casual_shoes"


def test_an_empty_and_a_missing_root_are_problems_and_take_nothing_down(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    made = origin_run(tmp_path / "t")
    library = scan([tmp_path / "empty", tmp_path / "none", tmp_path / "file", made.outputs])
    assert [r.id for r in library.runs] == ["lora_casual_shoes"]
    assert [p.path.name for p in library.problems] == ["empty", "none", "file"]
    assert ["no training run" in library.problems[0].reason, "does not exist" in library.problems[1].reason] == [True, True]


def test_equal_ids_below_two_roots_get_their_roots_names(tmp_path: Path) -> None:
    roots = [origin_run(tmp_path / name, (500,), final=False).outputs for name in ("a", "b")]
    assert [r.id for r in scan([*roots, roots[0]]).runs] == ["outputs:lora_casual_shoes", "outputs~2:lora_casual_shoes"]


def test_a_run_below_two_roots_is_one_run(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    library = scan([made.outputs, made.run, made.run / ".." / "lora_casual_shoes", made.run / ".."])
    assert [run.id for run in library.runs] == ["lora_casual_shoes"] and not library.problems
