"""Each misfit is found where it is, is not where it is not, and says what to type."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cmp.core import misfits as judge
from cmp.core.describing import checkpoint_facts
from cmp.core.misfits import Misfit
from cmp.disk import misfits
from cmp.disk.machine import Version
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import Training, as_nobody, base_pipeline, bench_of, diffusers_run, origin_run

GB = 10**9


def kinds(found: object) -> list[str]:
    return [one["kind"] for one in found]  # type: ignore[attr-defined]


def of_machine(bench: Workbench, *, wanted: str = "cpu", works: bool | None = None) -> list[dict[str, str]]:
    found = misfits.machine_misfits(bench.library(), bench.roots, bench.bases, bench.store, wanted, works)
    return [one.as_json() for one in found]


# -- this machine ----------------------------------------------------------------------------------------------------------


def test_a_machine_on_which_all_fits_has_no_misfit_but_its_disks(tmp_path: Path) -> None:
    assert set(kinds(of_machine(bench_of(origin_run(tmp_path))))) <= {"disk-nearly-full"}


def test_a_card_that_this_torch_was_not_built_for_is_told_with_the_build() -> None:
    found = judge.device_misfit(["NVIDIA H100"], "cpu", False)
    assert found and found.kind == "no-cuda" and "built for cpu" in found.why and "pip install" in found.do


def test_a_card_that_the_right_torch_does_not_find_points_at_the_driver() -> None:
    found = judge.device_misfit(["NVIDIA H100"], "cuda 12.8", False)
    assert found and found.kind == "no-cuda" and "driver" in found.why and found.do.startswith("nvidia-smi")


def test_a_machine_without_a_card_is_told_that_the_processor_draws() -> None:
    found = judge.device_misfit([], "cpu", False)
    assert found and found.kind == "cpu-only" and "--preview" in found.do


def test_a_card_that_works_or_is_not_wanted_is_no_misfit() -> None:
    assert judge.device_misfit(["NVIDIA H100"], "cuda 12.8", True) is None
    assert judge.device_misfit(["NVIDIA H100"], "cpu", False, "cpu") is None


def test_a_base_larger_than_memory_is_told_with_both_sizes() -> None:
    sd15 = 1_066_000_000
    found = judge.memory_misfit("sd-15", sd15, 4 * GB, 3 * GB)
    assert found and found.kind == "out-of-memory" and "5.3 GB" in found.what and "4.0 GB" in found.what
    busy = judge.memory_misfit("sd-15", sd15, 16 * GB, 3 * GB)
    assert busy and busy.kind == "little-memory" and "3.0 GB are free" in busy.what
    assert judge.memory_misfit("sd-15", sd15, 16 * GB, 12 * GB) is None is judge.memory_misfit("sd-15", sd15, None, None)
    assert judge.memory_misfit("sd-15", sd15, 4 * GB, 3 * GB, card=24 * GB) is None, "half precision, on its way to the card"


def test_the_numbers_of_a_base_are_counted_by_its_headers(tmp_path: Path) -> None:
    from tests.support import base_tensors

    assert misfits.parameters_of(origin_run(tmp_path).base) == sum(values.size for values in base_tensors().values())


def missing_base(tmp_path: Path, base: str | None) -> list[dict[str, str]]:
    made = diffusers_run(tmp_path)
    for file in made.outputs.rglob("hparams.yml"):
        text = file.read_text()
        kept = [line for line in text.splitlines() if not line.startswith("pretrained_model_name_or_path")]
        file.write_text("\n".join([*kept, *([f"pretrained_model_name_or_path: {base}"] if base else [])]))
    for file in made.outputs.rglob("*tfevents*"):
        file.touch()
    return [one for one in of_machine(bench_of(made)) if one["kind"].startswith("base")]


def test_a_base_that_is_recorded_by_its_name_on_the_hub_is_told_with_how_to_fetch_it(tmp_path: Path) -> None:
    (found,) = missing_base(tmp_path, "some-org/never-cached-sd")
    assert found["kind"] == "base-not-in-cache" and found["type"] == "HF_HUB_OFFLINE=0 hf download some-org/never-cached-sd"
    assert "offline" in found["why"] and "sd-lora" in found["what"]


@pytest.mark.parametrize("offline", ["1", "0"])
def test_runs_on_the_hub_that_cannot_be_had_are_told_with_how_to_fetch_them(tmp_path: Path, offline: str) -> None:
    around = os.environ | {"CMP_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": offline}

    def doctor(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "cmp", "--runs", "hf://ann/shoes", "doctor", *arguments, "--json"]
        told = subprocess.run(command, env=around, capture_output=True, text=True, timeout=120, check=False)
        assert told.returncode == 0, told.stderr
        return dict(json.loads(told.stdout))

    (found,) = (one for one in doctor()["misfits"] if one["kind"].startswith("hub"))
    assert found["kind"] == ("hub-offline" if offline == "1" else "hub-unreachable") and "hf://ann/shoes is not here" in found["what"]
    assert found["type"].endswith("python -m cmp --runs hf://ann/shoes list") and ("HF_HUB_OFFLINE=0" in found["type"]) is (offline == "1")
    assert doctor(str(tmp_path))["why"], "what lies here is judged all the same"


def test_a_base_that_was_a_folder_elsewhere_is_asked_for(tmp_path: Path) -> None:
    (found,) = missing_base(tmp_path, "/mnt/gone/sd15")
    assert found["kind"] == "base-missing" and "/mnt/gone/sd15" in found["what"]
    assert "--base ID_OR_DIR" in found["type"] and "--bases DIR" in found["type"]


def test_a_base_that_lies_below_the_runs_folder_is_named_with_its_place(tmp_path: Path) -> None:
    below = diffusers_run(tmp_path).outputs / "models"
    below.mkdir()
    base_pipeline(below).rename(below / "sd15")
    (found,) = missing_base(tmp_path, "/mnt/gone/sd15")
    assert found["kind"] == "base-missing" and f"found at {below / 'sd15'}, below your runs folder" in found["what"]
    assert f"--bases {below} show" in found["type"]


def test_a_base_that_nobody_recorded_but_a_dump_proves_is_not_missing(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    for file in tmp_path.rglob("hparams.yml"):
        file.write_text("lora_alpha: 16\n")
    assert not [one for one in of_machine(bench_of(made)) if one["kind"].startswith("base")]


def test_a_home_that_cannot_be_written_is_told_with_another(tmp_path: Path, open_path: Path) -> None:
    home = open_path / "home"
    home.mkdir()
    home.chmod(0o555)
    settings = Settings(home, (open_path,))
    found = as_nobody(lambda: of_machine(Workbench(settings)))
    (told,) = [one for one in found if one["kind"] == "home-unwritable"]
    assert str(home) in told["what"] and "CMP_HOME=" in told["type"]


def test_a_home_on_another_machine_is_told_with_what_may_happen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misfits, "file_system", lambda path: "nfs4")
    (told,) = [one for one in of_machine(Workbench(Settings(tmp_path / "home", (tmp_path,)))) if one["kind"] == "home-on-network"]
    assert "nfs4" in told["what"] and "damaged" in told["why"] and "CMP_HOME=" in told["type"]


def test_a_folder_of_runs_that_cannot_be_looked_at_is_told_with_why(tmp_path: Path, open_path: Path) -> None:
    gone = Workbench(Settings(tmp_path / "home", (tmp_path / "gone",)))
    (told,) = [one for one in of_machine(gone) if one["kind"] == "runs-unreadable"]
    assert "No such file" in told["what"]
    closed = open_path / "closed"
    closed.mkdir()
    closed.chmod(0o000)
    settings = Settings(open_path / "home", (closed,))
    (told,) = [one for one in as_nobody(lambda: of_machine(Workbench(settings))) if one["kind"] == "runs-unreadable"]
    assert "Permission denied" in told["what"]
    closed.chmod(0o755)


def test_a_disk_without_room_for_two_checkpoints_is_told() -> None:
    found = judge.disk_misfit("/runs", 6 * GB, 3_400_000_000)
    assert found and found.kind == "disk-nearly-full" and "6.0 GB free" in found.what and "storage" in found.do
    assert judge.disk_misfit("/runs", 7 * GB, 3_400_000_000) is None is judge.disk_misfit("/runs", GB, 0)


def test_a_package_outside_its_range_is_told_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misfits, "versions_beside", lambda _: (Version("peft", ">=0.21,<0.22", "0.22.0"), Version("x", ">=1", None)))
    told = [one for one in of_machine(Workbench(Settings(tmp_path / "home", (tmp_path,)))) if one["kind"] == "version"]
    assert [one["what"] for one in told] == [
        "peft 0.22.0 is installed, and >=0.21,<0.22 is wanted",
        "x is not installed, and >=1 is wanted",
    ]
    assert "requirements.txt" in told[0]["type"]


def test_the_requirements_that_are_compared_are_there() -> None:
    assert misfits.REQUIREMENTS.is_file() and len(misfits.versions_beside(misfits.REQUIREMENTS)) > 10


# -- one folder ------------------------------------------------------------------------------------------------------------


def of_folder(made: Training, place: Path | None = None) -> list[dict[str, str]]:
    return bench_of(made).doctor(place or made.run)["misfits"]  # type: ignore[return-value]


def test_missing_and_unexpected_keys_are_explained_with_the_checkpoints_own_numbers(tmp_path: Path) -> None:
    (told,) = of_folder(origin_run(tmp_path))
    assert told["kind"] == "missing-keys" and "Missing keys: 11, Unexpected keys: 23" in told["what"]
    assert "byte for byte" in told["why"] and told["type"] == "python -m cmp convert lora_casual_shoes --to lora"


def test_a_pipeline_that_another_converter_made_of_nothing_is_told_to_be_the_base(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    other = made.run / "checkpoint_pipelines" / "checkpoint-500"
    shutil.copytree(made.base, other)
    (told,) = [one for one in of_folder(made) if one["kind"] == "is-the-base"]
    assert str(other) in told["what"] and "all 11 tensors" in told["what"] and "--force" in told["type"]
    from tests.support import base_tensors, save

    changed = base_tensors()
    changed["conv_in.weight"] += 1
    save(other / "unet" / "diffusion_pytorch_model.safetensors", changed, {"format": "pt"})
    assert "is-the-base" not in kinds(of_folder(made))


def moved(tmp_path: Path) -> Training:
    """A run that records no base, with a copy of its base under a checkpoint's name."""
    made = origin_run(tmp_path)
    for file in tmp_path.rglob("hparams.yml"):
        file.write_text("lora_alpha: 16\n")
    shutil.copytree(made.base, made.run / "checkpoint_pipelines" / "checkpoint-500")
    return made


def test_a_pipeline_that_is_the_base_is_told_where_the_base_is_found_by_its_tensors(tmp_path: Path) -> None:
    made = moved(tmp_path)
    (told,) = [one for one in of_folder(made) if one["kind"] == "is-the-base"]
    assert str(made.base) in told["what"] and "checkpoint-500" in told["what"]


def test_a_checkpoint_that_is_the_base_is_told_by_doctor_and_show_and_from_then_on_by_lists(tmp_path: Path) -> None:
    made = moved(tmp_path)
    place = made.run / "checkpoint_pipelines"
    bench = Workbench(Settings(tmp_path / "home", (place,), (made.bases,)))
    told = bench.show("checkpoint_pipelines@500")
    assert told["is_base"] == {"base": str(made.base), "components": ["unet"], "tensors": 11}
    assert "its weights ARE the base model's" in str(checkpoint_facts(told)[0])
    (misfit,) = [one for one in bench.doctor(place)["misfits"] if one["kind"] == "is-the-base"]  # type: ignore[attr-defined]
    assert "checkpoint_pipelines@500: its weights ARE the base model's" in misfit["what"] and str(made.run) in misfit["type"]
    again = Workbench(Settings(tmp_path / "home", (place,), (made.bases,))).library().runs[0]
    assert again.warnings == (f"500: its weights ARE the base model's, {made.base}",)


def test_weights_that_differ_from_the_base_in_one_tensor_are_not_told_to_be_it(tmp_path: Path) -> None:
    from tests.support import base_tensors, save

    made = moved(tmp_path)
    place = made.run / "checkpoint_pipelines"
    changed = base_tensors()
    changed[sorted(changed)[-1]] += 1
    save(place / "checkpoint-500" / "unet" / "diffusion_pytorch_model.safetensors", changed, {"format": "pt"})
    bench = Workbench(Settings(tmp_path / "home", (place,), (made.bases,)))
    assert bench.show("checkpoint_pipelines@500")["is_base"] is None and not bench.library().runs[0].warnings
    assert "is-the-base" not in kinds(bench.doctor(place)["misfits"]) and "is-the-base" not in kinds(of_folder(made))


def test_a_folder_that_is_not_looked_at_and_one_without_a_run_are_told_as_not_listed(tmp_path: Path) -> None:
    made = origin_run(tmp_path / "t")
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "elsewhere",), (made.bases,)))
    (told,) = [one for one in bench.doctor(made.outputs)["misfits"] if one["kind"] == "not-listed"]  # type: ignore[attr-defined]
    assert told["type"] == f"python -m cmp --runs {made.outputs} list"
    (tmp_path / "elsewhere" / "photos").mkdir(parents=True)
    (told,) = bench.doctor(tmp_path / "elsewhere")["misfits"]  # type: ignore[misc]
    assert told["kind"] == "not-listed" and "no run was recognised" in told["what"]


def test_pipelines_that_do_not_fit_on_the_disk_are_told_before_any_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = origin_run(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(misfits.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    (told,) = [one for one in of_folder(made) if one["kind"] == "no-space"]
    assert "2 pipelines" in told["what"] and "1.0 kB free" in told["what"] and "cmp storage lora_casual_shoes" in told["type"]


def test_a_run_whose_base_does_not_fit_into_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = origin_run(tmp_path)
    monkeypatch.setattr(misfits, "memory_total", lambda: 1000)
    (told,) = [one for one in of_folder(made) if one["kind"] == "out-of-memory"]
    assert str(made.base) in told["what"] and "1.0 kB" in told["what"]


def test_peft_adapters_that_other_loaders_pass_over_are_told() -> None:
    found = judge.silent_misfit("shoes", "shoes@final", "peft-adapter", 256, 256)
    assert found and found.kind == "no-lora-keys" and found.do == "python -m cmp convert shoes@final --to lora"
    assert judge.silent_misfit("shoes", "shoes@final", "diffusers-lora", 256, 256) is None


def test_what_is_to_be_typed_survives_a_shell_and_json() -> None:
    found = judge.base_misfit("org/name", ["a b"], "a b@500"), judge.base_misfit(None, ["a b"], "a b@500; rm -rf /")
    assert "'a b@500; rm -rf /'" in found[1].do and json.dumps([one.as_json() for one in found])
    assert isinstance(found[0], Misfit) and set(found[0].as_json()) == {"kind", "what", "why", "type"}
