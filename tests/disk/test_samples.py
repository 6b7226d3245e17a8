"""Trainers' pictures as they lie on disk: found by name, read safely."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cmp.core.runs import Run, Setting
from cmp.core.samples import Sample, Within
from cmp.disk import samples
from cmp.disk.folders import list_folder
from cmp.errors import NotFound, Unreadable
from tests.support import at_most


def found(folder: Path, series: str | None = None, **settings: object) -> list[Sample]:
    told = {name: Setting(value, "x") for name, value in settings.items()}
    return sorted(samples.read_samples(list_folder(folder), series, (), told), key=lambda s: (s.step or 0, s.prompt, s.variant, s.image))


def put(folder: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def places(told: list[Sample]) -> list[tuple[int | None, int, int]]:
    return [(s.step, s.prompt, s.image) for s in told]


def test_each_trainers_names_tell_step_prompt_and_picture(tmp_path: Path) -> None:
    names = {
        "validation/epoch003_step00500_prompt1_img2.png": (500, 1, 2),
        "sample/cat_000500_01_20261123115343_7.png": (500, 1, 0),
        "samples/1763900000000__000000500_1.jpg": (500, 1, 0),
        "samples/rank01_sample002_1763900000000__000000500_0.jpg": (500, 2, 0),
        "samples/3 - a cat/2026-11-23_12-04-00-training-sample-500-1-0.jpg": (500, 3, 0),
        "validation_images/step_500_toy_2_512x512.png": (500, 0, 2),
        "validation_images/step_500_toy_1024x768.png": (500, 0, 0),
    }
    for i, (name, place) in enumerate(names.items()):
        put(tmp_path / str(i), name)
        assert places(found(tmp_path / str(i))) == [place], name


def test_a_name_of_nobodys_counts_if_it_tells_a_step_or_an_epoch(tmp_path: Path) -> None:
    put(
        tmp_path,
        "validation/img_3-step=1500.PNG",
        "validation/epoch 4.webp",
        "validation/cat.png",
        "validation/step_9.txt",
        "validation/.step_9.png",
    )
    told = {s.path.name: (s.step, s.epoch, s.image) for s in found(tmp_path)}
    assert told == {"img_3-step=1500.PNG": (1500, None, 3), "epoch 4.webp": (None, 4, 0), "cat.png": (None, None, 0)}


def test_digits_that_are_not_ascii_and_steps_that_no_reader_takes_are_no_steps(tmp_path: Path) -> None:
    put(tmp_path, "validation/step٣_prompt0_img0.png", f"validation/step{'9' * 19}_prompt0_img0.png")
    assert [s.step for s in found(tmp_path)] == [None, None]


def test_of_several_series_in_one_folder_each_has_its_own_pictures(tmp_path: Path) -> None:
    put(tmp_path, "sample/cat_000004_00_20261123115343.png", "sample/dog_000004_00_20261123115343.png", "validation/step4_prompt0_img0.png")
    assert [s.path.name for s in found(tmp_path, "dog")] == ["dog_000004_00_20261123115343.png"]


def test_kohyas_prompts_are_counted_as_its_script_counts_them(tmp_path: Path) -> None:
    put(tmp_path, *(f"sample/cat_000004_{i:02d}_20261123115343.png" for i in range(4)))
    (tmp_path / "sample" / "prompt.txt").write_text("# a remark\n\na cat --n bad --d 7\na cat\n  a dog --unknown 3\n")
    assert [s.text for s in found(tmp_path)] == ["a cat", "a cat", "a dog", None]
    (tmp_path / "sample" / "prompt.txt").unlink()
    (tmp_path / "sample_prompts.json").write_text(json.dumps([{"prompt": "one"}, {"prompt": "two"}]))
    assert [s.text for s in found(tmp_path)] == ["one", "two", None, None]


def test_onetrainers_prompts_are_whole_where_a_backup_has_them_and_those_without_average_stand_apart(tmp_path: Path) -> None:
    file = "2026-11-23_12-04-00-training-sample-4-1-0.jpg"
    put(
        tmp_path,
        f"samples/0 - a cat on/{file}",
        f"samples/0 - a cat on - no-ema/{file}",
        f"samples/1 - gone/{file}",
        f"samples/custom/{file}",
    )
    put(tmp_path, "samples/not ours/x.png", f"samples/{file}")
    config = tmp_path / "backup" / "2026-11-23_12-04-00-backup-4-1-0" / "onetrainer_config"
    config.mkdir(parents=True)
    (config / "samples.json").write_text(json.dumps([{"prompt": "a cat: on, the roof?"}, {"prompt": "another"}]))
    told = [(s.prompt, s.text, s.variant) for s in found(tmp_path) if s.path.parent.name != "samples"]
    assert told == [
        (0, "a cat: on, the roof?", ""),
        (0, "a cat: on, the roof?", "without EMA"),
        (1, "gone", ""),
        (2, "asked for by hand", ""),
    ]


def test_links_lead_nowhere(tmp_path: Path) -> None:
    put(tmp_path / "outside", "step5_prompt0_img0.png", content=b"secret")
    put(tmp_path / "run" / "validation", "step4_prompt0_img0.png")
    (tmp_path / "run" / "validation" / "step5_prompt0_img0.png").symlink_to(tmp_path / "outside" / "step5_prompt0_img0.png")
    (tmp_path / "run" / "samples").symlink_to(tmp_path / "outside")
    assert [s.step for s in found(tmp_path / "run")] == [4]
    with pytest.raises(Unreadable):
        samples.read_bytes(tmp_path / "run" / "validation" / "step5_prompt0_img0.png")


def test_what_is_no_file_or_far_too_large_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    with at_most(5), pytest.raises(Unreadable, match="not a regular file"):
        samples.read_bytes(tmp_path / "fifo.png")
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(samples.LARGEST + 1)
    with pytest.raises(Unreadable, match="bytes"):
        samples.read_bytes(tmp_path / "large.png")
    with pytest.raises(NotFound):
        samples.read_bytes(tmp_path / "gone.png")
    put(tmp_path, "log", content=b"..PNG..")
    assert samples.read_bytes(tmp_path / "log", Within(2, 3)) == b"PNG"


def test_the_stamp_changes_with_every_picture_and_with_nothing_else(tmp_path: Path) -> None:
    run = Run("run", tmp_path, tmp_path.parent, "t")
    seen = [samples.stamp_of(run)]
    put(tmp_path, "checkpoint-4/model.safetensors", "notes.txt")
    assert samples.stamp_of(run) == seen[0]
    for name, content in (("validation/a.png", b""), ("validation/a.png", b"more"), ("samples/0 - a cat/b.jpg", b"")):
        put(tmp_path, name, content=content)
        assert samples.stamp_of(run) not in seen
        seen.append(samples.stamp_of(run))


def test_a_picture_that_is_written_anew_has_another_name_and_one_that_has_gone_none(tmp_path: Path) -> None:
    put(tmp_path, "a.png", content=b"half")
    sample = Sample(tmp_path / "a.png", 4)
    first = samples.digest_of(sample)
    put(tmp_path, "a.png", content=b"whole picture")
    assert samples.digest_of(sample) not in (first, None)
    (tmp_path / "a.png").unlink()
    assert samples.digest_of(sample) is None
