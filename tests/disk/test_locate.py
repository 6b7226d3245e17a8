"""Targets that are paths: to a run, a checkpoint, a file in one, also outside of every known folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cmp.core.progress import run_through
from cmp.disk.locate import locate
from cmp.disk.ready import Answers
from cmp.disk.scan import scan
from cmp.errors import NotFound, Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import (
    BASE_NAME,
    Training,
    adapter_tensors,
    as_nobody,
    base_pipeline,
    base_tensors,
    bench_of,
    diffusers_run,
    origin_run,
    save,
)


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return origin_run(tmp_path)


@pytest.mark.parametrize(
    ("inside", "key"),
    [
        ("", None),
        ("checkpoints/checkpoint-500", "500"),
        ("checkpoints/checkpoint-1000/", "1000"),
        ("checkpoints/checkpoint-500/model.safetensors", "500"),
        ("checkpoints/checkpoint-500/../checkpoint-1000", "1000"),
        ("lora_weights", "final"),
        ("lora_weights/adapter_model.safetensors", "final"),
    ],
)
def test_a_path_in_the_origins_layout_means_its_run_and_checkpoint(made: Training, inside: str, key: str | None) -> None:
    located = locate(f"{made.run}/{inside}")
    assert located is not None
    run, found = located
    assert (run.id, found) == (made.run.name, key) and len(run.checkpoints) == 3


@pytest.mark.parametrize(
    ("inside", "key"),
    [
        ("", None),
        ("checkpoint-2", "2"),
        ("checkpoint-4/pytorch_lora_weights.safetensors", "4"),
        ("pytorch_lora_weights.safetensors", "final"),
    ],
)
def test_a_path_in_diffusers_layout_means_its_run_and_checkpoint(tmp_path: Path, inside: str, key: str | None) -> None:
    located = locate(str(diffusers_run(tmp_path).run / inside))
    assert located is not None and (located[0].id, located[1]) == ("sd-lora", key)


# one weights file that belongs to no run


def loose_file(folder: Path, name: str, step: int = 1) -> Path:
    return save(folder / name, {f"unet.{n}": v for n, v in adapter_tensors(step).items()})


@pytest.mark.parametrize("name", ["style.safetensors", "my style: v2@home~.safetensors"])
def test_an_adapter_of_any_name_is_the_run_of_its_folder(tmp_path: Path, name: str) -> None:
    file = loose_file(tmp_path / "loras", name)
    located = locate(str(file))
    assert located is not None
    (run, key), listed = located, scan([tmp_path]).runs[0]
    assert (run.id, run.folder, key) == (listed.id, listed.folder, listed.checkpoints[0].key) == ("loras", file.parent, "final")
    (checkpoint,) = run.checkpoints
    assert (checkpoint.id, checkpoint.file, checkpoint.layout, checkpoint.holds) == (f"loras@{key}", file, "diffusers-lora", "lora")
    assert checkpoint.flaw is None and run.bytes == checkpoint.bytes == file.stat().st_size


@pytest.mark.parametrize(("name", "key"), [("v1-5.safetensors", "v1-5"), ("my base: v2@home~.safetensors", "my base%3A v2%40home%7E")])
def test_a_whole_model_that_no_scan_lists_is_found_by_its_path(tmp_path: Path, name: str, key: str) -> None:
    file = save(tmp_path / "models" / name, base_tensors())
    assert not scan([tmp_path]).runs
    located = locate(str(file))
    assert located is not None and (located[0].id, located[1]) == ("models", key)
    (checkpoint,) = located[0].checkpoints
    assert (checkpoint.id, checkpoint.file, checkpoint.holds, checkpoint.flaw) == (f"models@{key}", file, "full", None)


def test_a_weights_file_that_is_damaged_is_found_with_its_flaw_and_what_is_none_is_not(tmp_path: Path) -> None:
    (tmp_path / "half.safetensors").write_bytes(b"\x10")
    located = locate(str(tmp_path / "half.safetensors"))
    assert located is not None and "not a safetensors file" in str(located[0].checkpoints[0].flaw)
    (tmp_path / "notes.txt").write_text("no weights")
    (tmp_path / "folder.safetensors").mkdir()
    for wrong in ("notes.txt", "folder.safetensors", "none.safetensors"):
        with pytest.raises(NotFound):
            locate(str(tmp_path / wrong))


def test_a_weights_file_of_a_known_run_stays_that_runs(made: Training) -> None:
    located = locate(str(made.run / "lora_weights" / "adapter_model.safetensors"))
    assert located is not None and (located[0].id, located[1], len(located[0].checkpoints)) == ("lora_casual_shoes", "final", 3)


def test_what_was_answered_for_one_loose_file_is_not_taken_for_the_next(tmp_path: Path) -> None:
    """Both lie in one folder, and an alpha of the one would draw the other at a wrong strength."""
    first, second = loose_file(tmp_path / "loras", "a.safetensors", 1), loose_file(tmp_path / "loras", "b.safetensors", 2)
    base_pipeline(tmp_path / "bases")
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "loras",), (tmp_path / "bases",)))
    bench.answer(bench.find(str(first))[0], Answers(alpha=16.0))
    assert bench.plan_conversion(str(first), "lora").scale.value == 2  # type: ignore[union-attr]
    with pytest.raises(Refused, match="alpha"):
        bench.plan_conversion(str(second), "lora")


def test_a_loose_file_is_converted_beside_itself_and_known_as_converted(tmp_path: Path) -> None:
    file = loose_file(tmp_path / "loras", "style.safetensors")
    base_pipeline(tmp_path / "bases")
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "loras",), (tmp_path / "bases",)))
    made = run_through(bench.convert(bench.plan_conversion(str(file), "webui", Answers(8.0, BASE_NAME))))
    assert made.output == tmp_path / "loras" / "converted" / "webui" / "loras-final.safetensors"
    assert dict(bench.find(str(file))[1].converted) == {"webui": made.output}  # type: ignore[union-attr]


def test_a_located_run_keeps_its_logs_beside_the_outputs(made: Training) -> None:
    located = locate(str(made.checkpoint(500)))
    assert located is not None and located[0].settings["lora_alpha"].value == 16


def test_relative_paths_and_the_home_folder_are_paths(made: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.run)
    monkeypatch.setenv("HOME", str(made.outputs))
    for target in (".", "./checkpoints/checkpoint-500", "checkpoints/checkpoint-500", f"../{made.run.name}", f"~/{made.run.name}"):
        located = locate(target)
        assert located is not None and located[0].folder.samefile(made.run), target


@pytest.mark.parametrize(
    "target", ["lora_casual_shoes", "lora_casual_shoes@500", "", "no such thing", "x" * 5000, "a\0b", "checkpoint-500"]
)
def test_a_text_that_is_no_path_is_left_to_the_ids(made: Training, target: str) -> None:
    assert locate(target) is None


@pytest.mark.parametrize("inside", ["none", "checkpoints/checkpoint-9", "../../logs", "lora_weights/none.safetensors"])
def test_a_path_that_leads_to_nothing_usable_is_not_found(made: Training, inside: str) -> None:
    with pytest.raises(NotFound):
        locate(f"{made.run}/{inside}")


@pytest.mark.parametrize("target", ["/", "/none", "~nobody-of-this-name/x", "./" + "x" * 5000, "/a\0b", "/etc/passwd"])
def test_paths_that_no_run_can_have_are_not_found_soon(target: str) -> None:
    with pytest.raises(NotFound):
        locate(target)


def test_nothing_below_the_folders_above_a_path_is_searched(made: Training) -> None:
    """A scan of everything above a stray file would take minutes."""
    stray = made.outputs.parent / "stray"
    stray.mkdir()
    with pytest.raises(NotFound):
        locate(str(stray))


def test_a_path_without_permission_is_not_found_and_no_traceback(open_path: Path) -> None:
    made = origin_run(open_path)
    made.run.chmod(0)

    def told() -> str:
        try:
            locate(str(made.checkpoint(500)))
        except NotFound as fault:
            return fault.title
        return "found"

    assert as_nobody(told) == "Not found"


# through the workbench


def test_a_path_outside_every_root_is_found_with_its_final_as_alias(made: Training, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "empty",)))
    run, checkpoint = bench.find(str(made.run / "lora_weights"))
    assert checkpoint is not None and (run.id, checkpoint.key) == (made.run.name, "1000")
    with pytest.raises(NotFound):
        bench.find(str(made.run), only_ids=True)


def test_an_id_goes_to_the_library_and_an_alias_leads_to_its_row(made: Training, tmp_path: Path) -> None:
    bench = Workbench(Settings(tmp_path / "home", (made.outputs,)))
    checkpoint = bench.find("lora_casual_shoes@final")[1]
    assert checkpoint is not None and checkpoint.step == 1000 and checkpoint.path == made.checkpoint(1000)
    assert bench.find("lora_casual_shoes")[1] is None
    for target in ("lora_casual_shoes@7", "other", "other@500", ""):
        with pytest.raises(NotFound):
            bench.find(target)


def test_a_name_is_given_to_a_run_and_taken_away_again(made: Training, tmp_path: Path) -> None:
    bench = Workbench(Settings(tmp_path / "home", (made.outputs,)))
    assert bench.name_of(bench.find("lora_casual_shoes")[0]) == "lora_casual_shoes"
    bench.rename("lora_casual_shoes", "  My shoes ")
    assert bench.name_of(bench.find("lora_casual_shoes")[0]) == "My shoes"
    bench.rename("lora_casual_shoes", "")
    assert bench.name_of(bench.find("lora_casual_shoes")[0]) == "lora_casual_shoes"


def test_a_folder_is_added_listed_and_removed_and_stays_on_disk(made: Training, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bench = Workbench(Settings(tmp_path / "home", (tmp_path / "empty",)))
    assert bench.library().runs == ()
    bench.serves = True
    folder = bench.add_folder(f" {made.outputs} ")
    assert [run.id for run in bench.library().runs] == ["lora_casual_shoes"]
    bench.remove_folder(str(folder))
    assert bench.library().runs == () and os.path.isdir(made.run)
    for wrong in ("~nobody-of-this-name", "x" * 5000, str(tmp_path / "none"), "a\0b"):
        with pytest.raises(NotFound):
            bench.add_folder(wrong)


def test_a_lora_of_the_hugging_face_cache_is_found_by_its_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--someone--shoe-lora"
    blob = repository / "blobs" / ("a" * 64)
    save(repository / "blobs" / "new.safetensors", {f"unet.{name}": values for name, values in adapter_tensors(5).items()}).rename(blob)
    snapshot = repository / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "pytorch_lora_weights.safetensors").symlink_to(f"../../blobs/{blob.name}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    bench = bench_of(origin_run(tmp_path / "training"))
    run, checkpoint = bench.find("someone/shoe-lora")
    assert checkpoint and (run.id, checkpoint.layout, checkpoint.flaw) == ("someone/shoe-lora", "diffusers-lora", None)
    with pytest.raises(NotFound, match="someone/other"):
        bench.find("someone/other")
    with pytest.raises(NotFound):
        bench.find("someone/shoe-lora", only_ids=True)
