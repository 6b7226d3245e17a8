"""The images of a run are found where its command line meant, counted, and digested by what they hold."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cmp.core.run_settings import lineage, side_by_side
from cmp.core.runs import Run, Setting
from cmp.disk.datasets import read_data_set
from cmp.disk.scan import scan
from tests.support import adapter_tensors, save


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
    assert (found.folder, found.images, found.captions, found.repeats, found.whole) == (str(data), 3, 1, (10,), True)


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
    assert rows(run_with(tmp_path, train_data_dir="/nowhere/data")) == {"folder": "data"}, "where it lay is told to nobody"
    assert read_data_set(run_with(tmp_path)) is None


def test_a_link_among_the_images_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    data = images(tmp_path / "data", 1)
    (data / "link.png").symlink_to(secret)
    found = read_data_set(run_with(tmp_path, train_data_dir=str(data)))
    assert found is not None and found.images == 1


# what trainers record

SECRET_TAG = "a very private caption"


def kohya(folder: Path, **metadata: object) -> Run:
    """A run of sd-scripts with these keys in its header."""
    told = {"ss_network_module": "networks.lora", "ss_network_dim": "8"} | {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()
    }
    save(folder / "run" / "sks.safetensors", adapter_tensors(1), told)
    (run,) = scan([folder]).runs
    assert run.trainer == "kohya"
    return run


def rows(run: Run) -> dict[str, str]:
    data = read_data_set(run)
    found = side_by_side([run], {run.id: data} if data else {})
    return {row.name.removeprefix("data: "): row.values[0] for row in found if row.name.startswith("data: ")}


DIRS = {"2_sks cat": {"n_repeats": 2, "img_count": 3}, "10_dog": {"n_repeats": 10, "img_count": 4}}
TAGS = {"2_sks cat": {SECRET_TAG: 3, "red": 1}, "10_dog": {"red": 4}}


def test_kohyas_header_tells_folders_counts_and_repeats_and_no_tag(tmp_path: Path) -> None:
    told = rows(kohya(tmp_path, ss_dataset_dirs=DIRS, ss_tag_frequency=TAGS))
    assert told == {"folder": "2_sks cat, 10_dog", "images": "7", "tags": "2", "repeats": "2, 10"}


def test_kohyas_images_are_digested_where_folder_and_count_are_those_of_the_header(tmp_path: Path) -> None:
    cats, dogs = images(tmp_path / "img" / "2_sks cat", 3), images(tmp_path / "img" / "10_dog", 4, b"dog")
    (cats / "0.txt").write_text("a cat")
    run = kohya(tmp_path / "model", ss_dataset_dirs=DIRS)
    found = read_data_set(run)
    assert found is not None and found.digest and (found.images, found.captions, found.repeats) == (7, 1, (2, 10))
    (dogs / "one more.png").write_bytes(b"later")
    changed = read_data_set(run)
    assert changed is not None and (changed.images, changed.digest, changed.captions) == (7, None, None), "these are other images"


def test_subsets_in_kohyas_header_go_before_folders_and_those_for_regularisation_do_not_count(tmp_path: Path) -> None:
    subsets = [
        {"img_count": 8, "num_repeats": 5, "image_dir": "shoes", "class_tokens": "sks shoe", "is_reg": False},
        {"img_count": 99, "num_repeats": 1, "image_dir": "reg", "is_reg": True},
    ]
    run = kohya(tmp_path, ss_datasets=[{"resolution": [512, 768], "subsets": subsets}], ss_dataset_dirs=DIRS)
    assert rows(run) == {"folder": "shoes", "images": "8", "repeats": "5", "resolution": "512 × 768"}


TOML = """
[general]
caption_extension = ".txt"
num_repeats = 3
[[datasets]]
resolution = 1024
[[datasets.subsets]]
image_dir = '%s'
class_tokens = "%s"
[[datasets.subsets]]
image_dir = "/far/away/dogs"
num_repeats = 7
[[datasets.subsets]]
image_dir = "/far/away/reg"
is_reg = true
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python reads TOML from 3.11 on")
def test_a_dataset_config_beside_the_weights_leads_to_the_images(tmp_path: Path) -> None:
    cats = images(tmp_path / "elsewhere" / "cats")
    (cats / "1.txt").write_text("a cat")
    (cats / "2.caption").write_text("not this one")
    run = kohya(tmp_path / "out")
    (run.folder / "data.toml").write_text(TOML % (cats, SECRET_TAG))
    assert rows(run) == {"folder": "cats, dogs", "repeats": "3, 7", "resolution": "1024"}
    counted = kohya(tmp_path / "two", ss_datasets=[{"subsets": [{"img_count": 3, "num_repeats": 3, "image_dir": "cats"}]}])
    (counted.folder / "data.toml").write_text(TOML % (cats, SECRET_TAG))
    found = read_data_set(counted)
    assert found is not None and (found.images, found.captions, found.repeats) == (3, 1, (3,)) and found.digest


def test_folders_of_kohya_in_a_named_folder_tell_their_repeats_by_their_names(tmp_path: Path) -> None:
    images(tmp_path / "data" / "2_sks cat", 3)
    images(tmp_path / "data" / "10_dog", 4, b"dog")
    images(tmp_path / "data" / "drafts", 2, b"no")
    run = replace(run_with(tmp_path / "run", train_data_dir=str(tmp_path / "data")), trainer="kohya")
    found = read_data_set(run)
    assert found is not None and (found.folder, found.images, found.repeats) == ("10_dog, 2_sks cat", 7, (10, 2)) and found.digest


def test_a_job_of_ai_toolkit_tells_its_folders_with_captions_beside_the_images(tmp_path: Path) -> None:
    data = images(tmp_path / "pictures" / "shoes", 4)
    for name in ("0.caption", "1.caption", "2.txt"):
        (data / name).write_text(SECRET_TAG)
    job = tmp_path / "out" / "job"
    save(job / "job_000000002.safetensors", adapter_tensors(1), {"software": json.dumps({"name": "ai-toolkit"})})
    shoes = {"folder_path": str(data), "num_repeats": 2, "caption_ext": "caption", "resolution": [512, 768], "default_caption": SECRET_TAG}
    config = {"process": [{"type": "sd_trainer", "datasets": [shoes], "model": {"name_or_path": "x/flux"}}]}
    (job / "config.yaml").write_text(yaml.safe_dump({"config": config}))
    (run,) = scan([tmp_path / "out"]).runs
    told = rows(run)
    assert told.pop("digest") and told == {"folder": "shoes", "images": "4", "captions": "2", "repeats": "2", "resolution": "512, 768"}
    assert str(tmp_path) not in json.dumps(told)
    same = read_data_set(run_with(tmp_path / "other", train_data_dir=str(data)))
    mine = read_data_set(run)
    assert same is not None and mine is not None and same.digest == mine.digest, "equal images are equal whichever trainer took them"


@pytest.mark.parametrize("text", ["[[datasets", "datasets = 3", "[[datasets]]\nsubsets = [1]", "\xff", "a = " + "[" * 3000, ""])
def test_a_config_that_is_none_says_nothing(tmp_path: Path, text: str) -> None:
    run = kohya(tmp_path)
    (run.folder / "data.toml").write_bytes(text.encode("latin-1"))
    assert read_data_set(run) is None


def test_what_a_header_claims_is_only_ever_a_name_and_numbers(tmp_path: Path) -> None:
    hostile = {
        "/home/me/secret/2_cat": {"n_repeats": "hf_" + "x" * 20, "img_count": -3},
        "C:\\private\\dogs": {"n_repeats": True, "img_count": 1e9},
    }
    assert rows(kohya(tmp_path, ss_dataset_dirs=hostile)) == {"folder": "2_cat, dogs"}
    for broken in ([], "x", 3, {"a": 1}, [{"subsets": "x"}]):
        assert read_data_set(kohya(tmp_path / "other", ss_datasets=broken, ss_dataset_dirs=broken)) is None
