"""The images of a run are found where its command line meant, counted, and digested by what they hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cmp.core.run_settings import lineage
from cmp.core.runs import Run, Setting
from cmp.disk.datasets import read_data_set


def run_with(folder: Path, **settings: object) -> Run:
    return Run("run", folder, folder.parent, "t", settings={key: Setting(value, "hparams.yml") for key, value in settings.items()})


def images(folder: Path, count: int = 3, text: bytes = b"pixels") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i}.png").write_bytes(text + bytes([i]))
    return folder


def test_a_folder_named_from_the_trainings_own_place_is_found_with_its_captions(tmp_path: Path) -> None:
    data = images(tmp_path / "data" / "shoes")
    (data / "0.txt").write_text("a shoe")
    run = tmp_path / "work" / "outputs" / "run"
    run.mkdir(parents=True)
    found = read_data_set(run_with(run, output_dir="../outputs/run", train_data_dir="../../data/shoes", dataset_repeats=10))
    assert found is not None
    assert (found.folder, found.images, found.captions, found.repeats, found.whole) == (str(data), 3, 1, 10, True)


def test_equal_images_have_one_digest_wherever_they_lie_and_a_changed_pixel_another(tmp_path: Path) -> None:
    one, two, three = images(tmp_path / "a"), images(tmp_path / "b"), images(tmp_path / "c", text=b"pixelz")
    found = [read_data_set(run_with(tmp_path / "run", train_data_dir=str(folder))) for folder in (one, two, three)]
    digests = [data.digest if data else None for data in found]
    assert digests[0] == digests[1] and None not in digests and digests[2] != digests[0]
    runs = [replace(run_with(tmp_path / "run"), id=name) for name in "abc"]
    told = lineage(runs, {name: data for name, data in zip("abc", found, strict=True) if data}, {})
    assert told == ("a: same images as b", "b: same images as a")


def test_images_that_are_not_here_are_named_and_nothing_else_is_claimed(tmp_path: Path) -> None:
    found = read_data_set(run_with(tmp_path, train_data_dir="/nowhere/data"))
    assert found is not None and (found.folder, found.images, found.digest) == ("/nowhere/data", None, None)
    assert read_data_set(run_with(tmp_path)) is None


def test_a_link_among_the_images_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    data = images(tmp_path / "data", 1)
    (data / "link.png").symlink_to(secret)
    found = read_data_set(run_with(tmp_path, train_data_dir=str(data)))
    assert found is not None and found.images == 1
