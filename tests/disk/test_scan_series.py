"""Weights files side by side: which are runs, which runs they are, and what they are called."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cmp.core.runs import Library, Run
from cmp.disk.alias import merge_same_weights
from cmp.disk.converted import default_target
from cmp.disk.locate import locate
from cmp.disk.ready import Answers, remember_answers, remembered_answers
from cmp.disk.scan import scan
from cmp.disk.store import Store
from cmp.errors import NotFound
from tests.disk.test_log_matching import log
from tests.support import Tensors, adapter_tensors, base_tensors, diffusers_run, origin_run, save

NOW = 1795430000
KOHYA = {"ss_network_module": "networks.lora", "ss_network_dim": "8"}


def lora(step: int = 1) -> Tensors:
    return {f"unet.{name}": values for name, values in adapter_tensors(step).items()}


def keys(run: Run) -> list[str]:
    return [c.key for c in run.checkpoints]


def listed(library: Library) -> dict[str, list[str]]:
    return {run.id: keys(run) for run in library.runs}


def kohya_folder(folder: Path, *names: str, **metadata: str) -> Path:
    for count, name in enumerate(names):
        save(folder / f"{name}.safetensors", lora(count), KOHYA | metadata)
    return folder


# what a run is called


def test_one_name_in_a_folder_is_the_folders_run_and_several_are_runs_below_it(tmp_path: Path) -> None:
    kohya_folder(tmp_path / "loras", "cat", "cat-000001", "cat-step00000500")
    assert listed(scan([tmp_path])) == {"loras": ["500", "epoch-1", "final"]}
    kohya_folder(tmp_path / "loras", "dog", "dog-000001")
    library = scan([tmp_path])
    assert listed(library) == {"loras/cat": ["500", "epoch-1", "final"], "loras/dog": ["epoch-1", "final"]}
    assert {run.folder for run in library.runs} == {tmp_path / "loras"} and [run.name for run in library.runs] == ["cat", "dog"]
    assert [c.id for c in library.runs[1].checkpoints] == ["loras/dog@epoch-1", "loras/dog@final"]


def test_several_names_directly_in_the_root_are_called_by_their_names_alone(tmp_path: Path) -> None:
    kohya_folder(tmp_path, "cat", "a@b~c")
    assert listed(scan([tmp_path])) == {"a%40b%7Ec": ["final"], "cat": ["final"]}


def test_a_folder_of_a_files_name_and_the_file_have_different_ids(tmp_path: Path) -> None:
    kohya_folder(tmp_path, "cat", "dog")
    diffusers_run(tmp_path / "made", (5,), final=False).run.rename(tmp_path / "cat")
    shutil.rmtree(tmp_path / "made")
    assert listed(scan([tmp_path])) == {"cat~files": ["final"], "dog": ["final"], "cat": ["5"]}


def test_the_same_names_in_two_roots_have_different_ids(tmp_path: Path) -> None:
    roots = [kohya_folder(tmp_path / name, "cat", "dog") for name in ("a", "b")]
    assert list(listed(scan(roots))) == ["a:cat", "a:dog", "b:cat", "b:dog"]


def test_runs_below_a_folder_of_weights_files_are_found_too(tmp_path: Path) -> None:
    made = origin_run(tmp_path, logs=False)
    kohya_folder(made.outputs, "cat", "dog")
    assert sorted(listed(scan([made.outputs]))) == ["cat", "dog", "lora_casual_shoes"]


def test_a_folder_of_weights_files_given_twice_is_listed_once(tmp_path: Path) -> None:
    kohya_folder(tmp_path / "loras", "cat", "dog")
    assert len(scan([tmp_path, tmp_path / "loras"]).runs) == 2


def test_a_number_that_is_part_of_the_name_makes_no_series(tmp_path: Path) -> None:
    save(tmp_path / "l" / "style-020315.safetensors", lora(), KOHYA | {"ss_output_name": "style-020315", "ss_steps": "7"})
    (run,) = scan([tmp_path]).runs
    assert [(c.key, c.step) for c in run.checkpoints] == [("final", 7)]


def test_names_with_anything_in_them_survive(tmp_path: Path) -> None:
    odd = ["größe ${HOME} 'x' \"y\"", "\u202eabc", "🙂", os.fsdecode(b"caf\xe9"), "%41"]
    kohya_folder(tmp_path / "l", "cat")
    for name in odd:  # the library that writes them takes no such names
        for stem in (name, f"{name}-step00000005"):
            shutil.copy(tmp_path / "l" / "cat.safetensors", os.path.join(tmp_path, "l", f"{stem}.safetensors"))
    library = scan([tmp_path])
    assert sorted(map(keys, library.runs)) == [["5", "final"]] * len(odd) + [["final"]]
    assert {run.series for run in library.runs} == {*odd, "cat"} and len({run.id for run in library.runs}) == 6
    assert all(library.find(c.id) == (run, c) for run in library.runs for c in run.checkpoints)


# what is a run


@pytest.mark.parametrize("name", ["anything", "final", "style-64", "v1-5"])
def test_a_single_adapter_without_a_number_is_a_run_of_one_final(tmp_path: Path, name: str) -> None:
    save(tmp_path / "one" / f"{name}.safetensors", lora())
    (run,) = scan([tmp_path]).runs
    assert (run.id, run.trainer, keys(run)) == ("one", "unknown", ["final"])


def test_a_whole_model_without_a_number_is_no_run_and_is_told(tmp_path: Path) -> None:
    save(tmp_path / "models" / "v1-5-pruned.safetensors", {"model.diffusion_model.out.2.weight": lora()[next(iter(lora()))]})
    library = scan([tmp_path])
    assert not library.runs and "v1-5-pruned.safetensors" in library.problems[0].reason


def test_a_component_of_a_model_is_no_run(tmp_path: Path) -> None:
    save(tmp_path / "vae" / "vae_adapter.safetensors", lora())
    (tmp_path / "vae" / "config.json").write_text("{}")
    assert not scan([tmp_path]).runs


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "model.safetensors"])
def test_a_downloaded_component_is_no_run(tmp_path: Path, name: str) -> None:
    save(tmp_path / "sd-unet" / name, base_tensors())
    (tmp_path / "sd-unet" / "config.json").write_text("{}")
    assert not scan([tmp_path]).runs


@pytest.mark.parametrize("name", ["unet", "text_encoder", "controlnet"])
def test_a_run_in_a_folder_called_like_a_component_is_the_run_and_not_its_parent(tmp_path: Path, name: str) -> None:
    diffusers_run(tmp_path / "made", (5,)).run.rename(tmp_path / name)
    shutil.rmtree(tmp_path / "made")
    assert listed(scan([tmp_path])) == {name: ["5", "final"]}


@pytest.mark.parametrize(
    "name",
    [
        "model-00001-of-00002.safetensors",
        "optimizer_step_5.pt",
        "scheduler-step-5.pt",
        "optimizer.pt",
        "rng_state_0.pth",
        ".tmp-step00000005.safetensors",
    ],
)
def test_parts_of_a_model_and_what_is_saved_beside_weights_are_no_series(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / name).write_bytes(b"")
    assert not scan([tmp_path]).runs


def test_files_of_a_series_that_are_no_safetensors_are_listed_with_it(tmp_path: Path) -> None:
    folder = kohya_folder(tmp_path / "l", "cat-000002")
    for name in ("cat-000001.ckpt", "cat.pt", "vae.pt", "optimizer.pt"):
        (folder / name).write_bytes(b"PK\x03\x04 not looked into here")
    assert listed(scan([tmp_path])) == {"l": ["epoch-1", "epoch-2", "final"]}


@pytest.mark.parametrize("inside", ["", "checkpoints"])
def test_hand_made_files_are_a_run_with_what_their_names_say(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "mine"
    (folder / inside).mkdir(parents=True, exist_ok=True)
    for name in ("checkpoint-500.pt", "step_1000.safetensors", "epoch_3.pth", "checkpoint-٣.pt"):
        (folder / inside / name).write_bytes(b"")
    save(folder / "final.safetensors", lora())
    (run,) = scan([tmp_path]).runs
    assert (run.id, run.folder) == ("mine", folder)
    assert keys(run) == ["500", "1000", "epoch-3", "final"]


def test_raw_and_averaged_files_are_two_runs(tmp_path: Path) -> None:
    for name in ("unet_step_5", "unet_step_10", "ema_step_5", "ema_step_10"):
        save(tmp_path / "both" / f"{name}.safetensors", lora())
    assert listed(scan([tmp_path])) == {"both/ema": ["5", "10"], "both/unet": ["5", "10"]}


def test_a_half_written_file_of_a_series_is_listed_with_its_flaw(tmp_path: Path) -> None:
    folder = kohya_folder(tmp_path / "l", "cat-000001", "cat-000002")
    whole = (folder / "cat-000002.safetensors").read_bytes()
    (folder / "cat-000002.safetensors").write_bytes(whole[: len(whole) // 2])
    (run,) = scan([tmp_path]).runs
    assert keys(run) == ["epoch-1", "epoch-2"] and "incomplete" in str(run.checkpoints[1].flaw)


def test_other_forms_beside_a_run_of_checkpoint_folders_are_no_runs_but_anothers_series_is(tmp_path: Path) -> None:
    made = diffusers_run(tmp_path)
    save(made.run / "pytorch_lora_weights_kohya.safetensors", lora())
    assert list(listed(scan([made.outputs]))) == ["sd-lora"]
    kohya_folder(made.run, "cat")
    assert list(listed(scan([made.outputs]))) == ["sd-lora", "sd-lora/cat"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ss_steps", "many"), ("ss_steps", "-1"), ("ss_steps", "1e400"), ("ss_steps", "٣"), ("ss_steps", "9" * 5000),
        ("ss_epoch", "null"), ("ss_tag_frequency", "[" * 100_000), ("ss_tag_frequency", "[1]"), ("ss_tag_frequency", '{"1_x": 3}'),
        ("ss_dataset_dirs", '{"a": [1]}'), ("ss_network_args", '"x"'), ("ss_training_started_at", "nan"),
        ("ss_training_started_at", "soon"), ("ss_training_finished_at", "{}"), ("ss_datasets", '[{"subsets": {"class_tokens": 5}}]'),
        ("software", "{"), ("software", '{"name": "ai-toolkit"}'), ("training_info", "3"), ("ot_config", "[[]]"),
        ("ot_config", '{"additional_embeddings": [1, {"placeholder": 2}]}'), ("lora_adapter_metadata", "{"),
    ],
)  # fmt: skip
def test_no_header_makes_the_scan_fail(tmp_path: Path, key: str, value: str) -> None:
    save(tmp_path / "l" / "cat-000001.safetensors", lora(), KOHYA | {key: value})
    (run,) = scan([tmp_path]).runs
    assert run.checkpoints[0].epoch == 1 and run.checkpoints[0].step is None
    json.dumps({name: setting.value for name, setting in run.settings.items()})


# finding them, and what is made of them


def test_a_path_to_a_file_means_its_own_run_and_the_folder_names_those_it_holds(tmp_path: Path) -> None:
    folder = kohya_folder(tmp_path / "loras", "cat", "dog-000001", "dog")
    located = locate(str(folder / "dog-000001.safetensors"))
    assert located is not None and (located[0].name, located[1]) == ("dog", "epoch-1")
    located = locate(str(folder / "dog"))
    assert located is not None and (located[0].name, located[1], keys(located[0])) == ("dog", None, ["epoch-1", "final"])
    with pytest.raises(NotFound, match="holds 2 runs") as fault:
        locate(str(folder))
    assert str(folder / "cat") in fault.value.hint


def test_converted_forms_of_runs_in_one_folder_lie_apart(tmp_path: Path) -> None:
    kohya_folder(tmp_path / "loras", "cat", "dog")
    runs = scan([tmp_path]).runs
    for form in ("lora", "webui", "pipeline"):
        assert len({default_target(run, run.checkpoints[0], form) for run in runs}) == 2


def test_what_was_answered_for_one_run_of_a_folder_is_not_answered_for_the_others(tmp_path: Path) -> None:
    kohya_folder(tmp_path / "loras", "cat", "dog")
    cat, dog = scan([tmp_path]).runs
    store = Store(tmp_path / "home")
    remember_answers(cat, store, Answers(alpha=4.0))
    assert (remembered_answers(cat, store).alpha, remembered_answers(dog, store).alpha) == (4.0, None)


def test_weights_saved_twice_at_one_step_are_one_row(tmp_path: Path) -> None:
    told = {"lora_adapter_metadata": json.dumps({"unet.r": 8, "unet.lora_alpha": 8})}
    folder = tmp_path / "l"
    saved = [("cat-step00000005", 5, 0, 1), ("cat-000001", 5, 1, 1), ("cat-000002", 9, 2, 2), ("cat", 9, 2, 2), ("cat-000003", 11, 3, 2)]
    for name, step, epoch, weights in saved:
        save(folder / f"{name}.safetensors", lora(weights), KOHYA | told | {"ss_steps": str(step), "ss_epoch": str(epoch)})
    run = merge_same_weights(scan([tmp_path]).runs[0], Store(tmp_path / "home"))
    assert [(c.key, c.aliases) for c in run.checkpoints] == [("5", ("l@5~cat-000001.safetensors",)), ("9", ("l@final",)), ("11", ())]
    assert run.checkpoint("final").step == 9


# their logs


def trained(folder: Path, name: str, started: float, minutes: float = 10) -> Path:
    times = {"ss_training_started_at": str(started), "ss_training_finished_at": str(started + 60 * minutes)}
    return kohya_folder(folder, name, **times)


def test_each_run_of_a_folder_gets_the_logs_of_its_own_training(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        trained(tmp_path / "loras", name, NOW + 3600 * number + 0.5)
        log(tmp_path / "logs" / f"x{number}20261123115342" / "network_train", NOW + 3600 * number + 3)
    log(tmp_path / "logs" / "20261123190000" / "network_train", NOW + 9000)
    runs = scan([tmp_path]).runs
    assert {run.id: [file.parent.parent.name for file in run.logs] for run in runs if run.checkpoints} == {
        "loras/cat": ["x020261123115342"],
        "loras/dog": ["x120261123115342"],
    }
    assert [run.id for run in runs if not run.checkpoints] == ["logs/20261123190000/network_train"]


@pytest.mark.parametrize("place", ["logs", "log", "tensorboard", "loras/logs", "loras/tensorboard"])
def test_logs_lie_beside_the_files_or_beside_their_folder(tmp_path: Path, place: str) -> None:
    trained(tmp_path / "loras", "cat", NOW)
    trained(tmp_path / "loras", "dog", NOW + 7200)
    log(tmp_path / place / "20261123115342" / "network_train", NOW + 5)
    assert [len(run.logs) for run in scan([tmp_path / "loras"]).runs if run.checkpoints] == [1, 0]


def test_a_training_that_prepares_its_images_for_long_still_has_its_log(tmp_path: Path) -> None:
    trained(tmp_path / "loras", "cat", NOW, minutes=300)
    log(tmp_path / "logs" / "a" / "network_train", NOW + 7200)
    assert [len(run.logs) for run in scan([tmp_path / "loras"]).runs] == [1]


def test_two_logs_equally_likely_belong_to_nobody(tmp_path: Path) -> None:
    trained(tmp_path / "loras", "cat", NOW, minutes=300)
    for name in "ab":
        log(tmp_path / "logs" / name / "network_train", NOW + 7200)
    assert [len(run.logs) for run in scan([tmp_path / "loras"]).runs] == [0]


def test_a_run_trained_in_two_sessions_has_both_logs(tmp_path: Path) -> None:
    for name, started in (("cat-000001", NOW), ("cat-000002", NOW + 7200)):
        trained(tmp_path / "loras", name, started)
        log(tmp_path / "logs" / name / "network_train", started + 3)
    (run,) = scan([tmp_path / "loras"]).runs
    assert len(run.logs) == 2
