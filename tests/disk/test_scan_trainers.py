"""Scanning the runs of each trainer, as it wrote them: steps, epochs, base, settings with their sources, and curves."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cmp.core.present import library_json
from cmp.core.runs import Run
from cmp.disk.locate import locate
from cmp.disk.logs.curves import read_curves
from cmp.disk.scan import scan
from tests.support import adapter_tensors, diffusers_run, save, wrapped_tensors, write_log

RUNS = Path(__file__).resolve().parents[1] / "data" / "runs"


def only_run(root: Path) -> Run:
    (run,) = scan([root]).runs
    return run


def rows(run: Run) -> list[tuple[str, int | None, int | None]]:
    return [(c.key, c.step, c.epoch) for c in run.checkpoints]


def losses(run: Run) -> list[float]:
    return [round(value, 3) for value in read_curves(run.id, run.logs)[0][0].values.tolist()]


def copied(case: str, to: Path) -> Path:
    return Path(shutil.copytree(RUNS / case, to / case))


# kohya


def test_a_run_of_kohya_has_the_steps_of_its_names_and_headers() -> None:
    run = only_run(RUNS / "kohya_lora" / "outputs")
    assert (run.id, run.trainer, run.base_model, run.series) == ("run1", "kohya", "sd_nano", None)
    assert rows(run) == [("4", 4, 0), ("8", 8, 0), ("8~sks_cat-000001.safetensors", 8, 1), ("12", 12, 1), ("final", 12, 2)]
    told = {c.path.name: c.step_source for c in run.checkpoints}
    assert told["sks_cat-000001.safetensors"] == told["sks_cat.safetensors"] == "ss_steps in its header"
    assert told["sks_cat-step00000008.safetensors"] is None


def test_the_settings_in_kohyas_headers_name_their_source() -> None:
    run = only_run(RUNS / "kohya_lora" / "outputs")
    assert [run.settings[key].value for key in ("rank", "alpha", "learning_rate", "seed")] == [4, 2.0, 0.02, 1]
    assert run.settings["trigger_words"].value == ("sks cat",)
    assert all("sks_cat.safetensors" in s.source for key, s in run.settings.items() if key != "resume_folders")


def test_paths_and_tags_in_headers_are_in_nothing_that_is_told() -> None:
    told = json.dumps(library_json(scan([RUNS / "kohya_lora", RUNS / "lycoris_lokr"]), 0.0))
    assert "lokr" in told
    assert not any(secret in told for secret in ("lyco.toml", "a red cat", "img_count", "/srv/"))


def test_the_words_that_most_images_have_are_trigger_words(tmp_path: Path) -> None:
    tags = {"10_sks dog": {"sks dog": 20, "outdoors": 17, "grass": 4}, "reg": {"dog": 9}}
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_tag_frequency": json.dumps(tags),
        "ss_dataset_dirs": json.dumps({"10_sks dog": {"n_repeats": 10, "img_count": 20}, "reg": {"img_count": "many"}}),
        "ss_datasets": json.dumps([{"subsets": [{"class_tokens": "a toy", "image_dir": "/home/me/toys"}, None]}, 3]),
    }
    save(tmp_path / "dog" / "dog.safetensors", adapter_tensors(1), metadata)
    assert only_run(tmp_path).settings["trigger_words"].value == ("sks dog", "a toy", "outdoors")


def test_a_lycoris_network_is_a_single_last_file_with_its_algorithm_and_logs() -> None:
    run = only_run(RUNS / "lycoris_lokr" / "outputs")
    assert rows(run) == [("final", 4, 1)] and run.trainer == "kohya"
    assert (run.settings["network_module"].value, run.settings["network_args.algo"].value) == ("lycoris.kohya", "lokr")
    assert losses(run) == [1.147, 0.996, 1.046, 0.997]


def test_a_folder_to_resume_from_is_no_run_and_no_second_row() -> None:
    run = only_run(RUNS / "kohya_lora" / "outputs")
    assert run.settings["resume_folders"].value == ("sks_cat-state",)
    assert not any("state" in c.path.name for c in run.checkpoints)


def test_a_folder_to_resume_from_is_listed_where_its_file_is_gone(tmp_path: Path) -> None:
    outputs = copied("kohya_lora", tmp_path) / "outputs"
    for name in ("sks_cat.safetensors", "sks_cat-step00000012.safetensors"):
        (outputs / "run1" / name).unlink()
    assert rows(only_run(outputs))[-1][:2] == ("12", 12)
    for file in (outputs / "run1").glob("*.safetensors"):
        file.unlink()
    run = only_run(outputs)
    assert (run.id, run.trainer, rows(run)) == ("run1", "kohya", [("12", 12, None)])
    assert run.checkpoints[0].step_source == "train_state.json in sks_cat-state"


def test_kohyas_pictures_are_joined_to_steps_those_of_an_epoch_by_its_file(tmp_path: Path) -> None:
    run_folder = copied("kohya_lora", tmp_path) / "outputs" / "run1"
    (run_folder / "sample").mkdir()
    names = [
        "sks_cat_000004_01_20261123115343_7.png",
        "sks_cat_e000001_00_20261123115344.png",
        "sks_cat_e000009_00_20261123115344.png",
        "x.png",
    ]
    for name in names:
        (run_folder / "sample" / name).write_bytes(b"")
    run = only_run(tmp_path / "kohya_lora" / "outputs")
    assert [(s.step, s.prompt) for s in run.samples] == [(4, 1), (8, 0), (72, 0)]
    sources = [None, "the checkpoint of epoch 1", "8 steps an epoch, by num_batches_per_epoch"]
    assert [s.step_source for s in run.samples] == sources
    assert run.checkpoints[0].image == run_folder / "sample" / names[0]


def test_a_name_and_a_header_that_disagree_are_told(tmp_path: Path) -> None:
    run_folder = copied("kohya_lora", tmp_path) / "outputs" / "run1"
    (run_folder / "sks_cat-step00000004.safetensors").rename(run_folder / "sks_cat-step00000006.safetensors")
    run = only_run(tmp_path / "kohya_lora" / "outputs")
    assert run.warnings == ("sks_cat-step00000006.safetensors: by its name it is step 6, by ss_steps in its header step 4",)


# ai-toolkit


def test_a_job_of_ai_toolkit_has_its_settings_steps_and_curves() -> None:
    run = only_run(RUNS / "aitoolkit_flux" / "outputs")
    assert (run.id, run.trainer, run.base_model) == ("my_flux_lora", "ai-toolkit", "/srv/corpus/bases/flux_tiny")
    assert rows(run) == [("2", 2, 0), ("final", 4, 0)]
    assert run.checkpoints[-1].step_source == "training_info in its header"
    assert (run.settings["rank"].value, run.settings["max_train_steps"].value) == (4, 4)
    assert run.settings["rank"].source.endswith("config.yaml")
    assert losses(run) == [1.545, 1.507, 1.615, 1.317] and run.last_loss == pytest.approx(1.317, abs=1e-3)
    assert run.state(1795436000.1) == "training"


def test_the_alpha_that_ai_toolkit_may_ignore_is_not_told_as_the_alpha() -> None:
    run = only_run(RUNS / "aitoolkit_flux" / "outputs")
    assert "alpha" not in run.settings and run.settings["linear_alpha"].value == 4
    assert run.starts == ({},)


def test_a_job_that_has_only_begun_is_a_run(tmp_path: Path) -> None:
    folder = copied("aitoolkit_flux", tmp_path) / "outputs" / "my_flux_lora"
    for file in folder.glob("*.safetensors"):
        file.unlink()
    run = only_run(tmp_path / "aitoolkit_flux" / "outputs")
    assert (run.id, run.trainer, rows(run)) == ("my_flux_lora", "ai-toolkit", []) and run.last_loss is not None


def test_the_pictures_and_the_trigger_word_of_a_job_are_read(tmp_path: Path) -> None:
    folder = copied("aitoolkit_flux", tmp_path) / "outputs" / "my_flux_lora"
    (folder / "samples").mkdir()
    for name in ("1718000000000__000000002_0.jpg", "1718000000000__000000002_1.jpg", "1718000000000__٠٠_1.jpg", "notes.txt"):
        (folder / "samples" / name).write_bytes(b"")
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("    training_folder", "    trigger_word: p3rs0n\n    training_folder"))
    run = only_run(tmp_path / "aitoolkit_flux" / "outputs")
    assert [(s.step, s.prompt) for s in run.samples] == [(2, 0), (2, 1)] and run.checkpoints[0].image == run.samples[0].path
    assert run.settings["trigger_words"].value == ("p3rs0n",)


def test_files_of_ai_toolkit_without_their_job_are_known_by_their_headers(tmp_path: Path) -> None:
    flat = tmp_path / "loras"
    flat.mkdir()
    for file in (RUNS / "aitoolkit_flux" / "outputs" / "my_flux_lora").glob("*.safetensors"):
        shutil.copy(file, flat)
    run = only_run(tmp_path)
    assert (run.id, run.trainer, rows(run)) == ("loras", "ai-toolkit", [("2", 2, 0), ("final", 4, 0)])


def test_a_full_fine_tune_of_ai_toolkit_lies_in_folders(tmp_path: Path) -> None:
    folder = copied("aitoolkit_flux", tmp_path) / "outputs" / "my_flux_lora"
    save(folder / "my_flux_lora_000000003" / "transformer" / "diffusion_pytorch_model.safetensors", adapter_tensors(3))
    run = only_run(tmp_path / "aitoolkit_flux" / "outputs")
    assert [c.key for c in run.checkpoints] == ["2", "3", "final"]


# OneTrainer


def test_a_workspace_of_onetrainer_is_one_run_with_its_saves_backups_and_curves() -> None:
    run = only_run(RUNS / "onetrainer_lora" / "outputs")
    assert (run.id, run.trainer, run.base_model) == ("workspace/run", "onetrainer", "/srv/corpus/bases/sd_nano")
    assert rows(run) == [("4", 4, 1), ("4~2026-11-23_12-04-00-backup-4-1-0", 4, 1), ("8", 8, 1), ("9", 9, 1)]
    assert run.checkpoints[1].path.name == "2026-11-23_12-04-00-backup-4-1-0" and run.checkpoints[1].file is not None
    assert (run.settings["rank"].value, run.settings["alpha"].value) == (4, 2.0)
    assert run.settings["rank"].source.endswith("onetrainer_config/args.json")
    assert losses(run)[:3] == [1.08, 1.06, 1.04]


def test_the_alpha_that_onetrainer_may_have_folded_is_no_evidence_of_the_scale() -> None:
    assert only_run(RUNS / "onetrainer_lora" / "outputs").starts == ({},)


def test_onetrainers_pictures_lie_in_a_folder_for_each_prompt(tmp_path: Path) -> None:
    workspace = copied("onetrainer_lora", tmp_path) / "outputs" / "workspace" / "run"
    for prompt in ("0 - a cat", "1 - a dog, sitting"):
        (workspace / "samples" / prompt).mkdir(parents=True)
        (workspace / "samples" / prompt / "2026-11-23_12-04-00-training-sample-4-1-0.jpg").write_bytes(b"")
    run = only_run(tmp_path / "onetrainer_lora" / "outputs")
    assert [(s.step, s.prompt) for s in run.samples] == [(4, 0), (4, 1)]


def test_averaged_saves_beside_raw_backups_are_warned_of(tmp_path: Path) -> None:
    workspace = copied("onetrainer_lora", tmp_path) / "outputs" / "workspace" / "run"
    (config,) = workspace.rglob("args.json")
    config.write_text(json.dumps({"ema": "GPU", "base_model_name": "x", "embedding": {"placeholder": "<embedding>"}}))
    run = only_run(tmp_path / "onetrainer_lora" / "outputs")
    assert "EMA" in run.warnings[0] and "trigger_words" not in run.settings
    config.write_text(json.dumps({"ema": "OFF", "additional_embeddings": [{"placeholder": "<sks>"}]}))
    run = only_run(tmp_path / "onetrainer_lora" / "outputs")
    assert run.warnings == () and run.settings["trigger_words"].value == ("<sks>",)


# SimpleTuner


def simpletuner(tmp_path: Path) -> Path:
    made = diffusers_run(tmp_path, (500, 1000), final=False)
    shutil.rmtree(made.run / "logs")
    for step in (500, 1000):
        (made.run / f"checkpoint-{step}" / "training_state.json").write_text(json.dumps({"global_step": step, "epoch": step // 500}))
    (made.run / "checkpoint-1000").rename(made.run / "checkpoint-1000-rolling")
    shutil.copytree(made.run / "checkpoint-500", made.run / "checkpoint-1500-tmp")
    return made.run


def test_a_run_of_simpletuner_has_its_rolling_checkpoints_and_not_what_is_being_written(tmp_path: Path) -> None:
    folder = simpletuner(tmp_path)
    run = only_run(folder)
    assert (run.trainer, rows(run)) == ("simpletuner", [("500", 500, 1), ("1000", 1000, 2)])
    assert run.warnings == ("checkpoint-1500-tmp: SimpleTuner was writing it and has not finished",)


def test_simpletuners_network_averages_and_pictures_are_read(tmp_path: Path) -> None:
    folder = simpletuner(tmp_path)
    (folder / "checkpoint-500" / "lycoris_config.json").write_text('{"algo": "lokr", "linear_dim": 16, "linear_alpha": 1, "factor": 8}')
    shutil.copytree(folder / "checkpoint-500", folder / "checkpoint-500" / "ema")
    (folder / "validation_images").mkdir()
    for name in ("step_500_toy_0_512x512.png", "step_500_toy_1_512x512.png", "step_1000_person_at_sea_1024x768.png"):
        (folder / "validation_images" / name).write_bytes(b"")
    run = only_run(folder)
    assert [c.key for c in run.checkpoints] == ["500", "500~ema", "1000"]
    assert (run.settings["rank"].value, run.settings["network_args.algo"].value) == (16, "lokr")
    assert [(s.step, s.prompt, s.image) for s in run.samples] == [(1000, 0, 0), (500, 1, 0), (500, 1, 1)]


# diffusers


def test_raw_and_averaged_weights_are_two_series_and_the_final_is_said_to_be_averaged() -> None:
    run = only_run(RUNS / "t2i_full_ema" / "outputs")
    assert run.trainer == "diffusers" and [c.key for c in run.checkpoints] == ["2", "2~unet_ema", "4", "4~unet_ema", "final"]
    raw, averaged = run.checkpoints[:2]
    assert (averaged.path, averaged.step) == (raw.path / "unet_ema", 2) and averaged.file != raw.file
    assert raw.bytes + averaged.bytes == sum(file.stat().st_size for file in raw.path.rglob("*") if file.is_file())
    assert len(run.warnings) == 1 and "averaged weights (EMA)" in run.warnings[0]


def test_a_path_into_the_averaged_weights_means_them_and_not_the_raw_ones() -> None:
    folder = RUNS / "t2i_full_ema" / "outputs" / "run1" / "checkpoint-4"
    for inside, key in (
        ("unet_ema", "4~unet_ema"),
        ("unet_ema/diffusion_pytorch_model.safetensors", "4~unet_ema"),
        ("unet", "4"),
        ("", "4"),
    ):
        located = locate(str(folder / inside))
        assert located is not None and located[1] == key, inside


def test_textual_inversion_lists_its_embeddings_before_the_text_encoders_of_the_same_steps() -> None:
    run = only_run(RUNS / "textual_inversion" / "outputs")
    assert run.trainer == "diffusers" and losses(run) == [1.233, 1.073, 1.157, 1.322]
    assert [c.key for c in run.checkpoints] == ["2", "2~checkpoint-2", "4", "4~checkpoint-4", "final"]
    assert [c.path.name for c in run.checkpoints][::2] == [
        "learned_embeds-steps-2.safetensors",
        "learned_embeds-steps-4.safetensors",
        "learned_embeds.safetensors",
    ]
    assert run.settings["trigger_words"].value == ("<sks>",)


def test_a_controlnet_is_found_with_its_final_beside_its_steps(tmp_path: Path) -> None:
    run_folder = tmp_path / "controlnet"
    for place in ("checkpoint-500/controlnet", "."):
        save(run_folder / place / "diffusion_pytorch_model.safetensors", adapter_tensors(1))
        (run_folder / place / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    run = only_run(tmp_path)
    assert (run.id, run.trainer, [c.key for c in run.checkpoints]) == ("controlnet", "diffusers", ["500", "final"])


def test_the_base_is_what_diffusers_noted_in_a_components_configuration_where_nothing_else_says_it(tmp_path: Path) -> None:
    folder = tmp_path / "tuned" / "checkpoint-5" / "unet"
    save(folder / "diffusion_pytorch_model.safetensors", wrapped_tensors(1))
    (folder / "config.json").write_text('{"_name_or_path": "stabilityai/stable-diffusion-2-1"}')
    run = only_run(tmp_path)
    assert run.base_model == "stabilityai/stable-diffusion-2-1" and run.settings["base_model"].source == str(folder / "config.json")
    (folder / "config.json").write_text('{"_name_or_path": "/data/tuned/checkpoint-4/unet"}')
    assert only_run(tmp_path).base_model is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"base_model_name_or_path": ["x"]}', '{"r": {"a": 1}}', "[" * 100_000])
def test_a_configuration_that_is_none_is_no_source_and_no_fault(tmp_path: Path, content: str) -> None:
    save(tmp_path / "run" / "checkpoint-5" / "adapter_model.safetensors", adapter_tensors(1))
    (tmp_path / "run" / "checkpoint-5" / "adapter_config.json").write_text(content)
    run = only_run(tmp_path)
    assert run.base_model is None and "rank" not in run.settings


def test_a_configuration_behind_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text('{"r": 4, "base_model_name_or_path": "secret"}')
    save(tmp_path / "runs" / "run" / "checkpoint-5" / "adapter_model.safetensors", adapter_tensors(1))
    os.symlink(tmp_path / "outside.json", tmp_path / "runs" / "run" / "checkpoint-5" / "adapter_config.json")
    assert dict(only_run(tmp_path / "runs").settings) == {}


# Accelerate


@pytest.mark.parametrize("made", ["pytorch_model_fsdp_0/.metadata", "pytorch_model/mp_rank_00_model_states.pt", "pytorch_model_fsdp.bin"])
def test_fsdp_and_deepspeed_folders_are_checkpoints_of_accelerate_with_a_reason(tmp_path: Path, made: str) -> None:
    file = tmp_path / "run" / "checkpoint-5" / made
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\x80")
    save(tmp_path / "run" / "lora_weights" / "adapter_model.safetensors", adapter_tensors(1))
    run = only_run(tmp_path)
    assert (run.trainer, [c.key for c in run.checkpoints]) == ("accelerate", ["5", "final"]) and run.checkpoints[0].flaw


def test_counted_saves_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for count in (10, 9, 100):
        save(tmp_path / "run" / "checkpoints" / f"checkpoint_{count}" / "model.safetensors", wrapped_tensors(count))
    assert [c.key for c in only_run(tmp_path).checkpoints] == ["save-9", "save-10", "save-100"]


def test_the_six_digits_of_gligen_are_a_step(tmp_path: Path) -> None:
    save(tmp_path / "run" / "checkpoint-000500" / "model.safetensors", wrapped_tensors(1))
    assert rows(only_run(tmp_path)) == [("500", 500, None)]


def test_a_log_of_a_run_of_any_trainer_is_still_its_own(tmp_path: Path) -> None:
    folder = simpletuner(tmp_path)
    write_log(folder / "logs" / "simpletuner", [(1, 0.25)])
    assert only_run(folder).last_loss == 0.25
