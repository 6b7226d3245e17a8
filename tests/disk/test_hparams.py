from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from cmp.disk.logs.hparams import read_hparams, read_output_dir


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "hparams.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_the_settings_of_a_run_are_read_with_their_types(tmp_path: Path) -> None:
    settings = {
        "lora_rank": 8,
        "lora_alpha": 16,
        "learning_rate": 1e-05,
        "output_dir": "outputs/lora_casual_shoes_3000steps_full",
        "use_dora": False,
        "validation_prompts": ["a shoe", "two shoes"],
        "snr_gamma": None,
    }
    found = read_hparams(write(tmp_path, yaml.dump(settings)))
    assert found.flaw is None
    assert found.values == {**settings, "validation_prompts": ("a shoe", "two shoes")}


@pytest.mark.parametrize(
    "key",
    [
        "hub_token",
        "HUB_TOKEN",
        "wandb_api_key",
        "client_secret",
        "password",
        "hf_token_rank",
        "anything_new",
        "tracker_key",
        "report_to",
    ],
)
def test_a_key_that_is_not_known_to_be_harmless_never_leaves_the_file(tmp_path: Path, key: str) -> None:
    found = read_hparams(write(tmp_path, f"rank: 4\n{key}: hf_THIS_IS_A_SECRET\n"))
    assert found.values == {"rank": 4}
    assert "SECRET" not in repr(found)


@pytest.mark.parametrize("secret", ["hf_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz012345"])
def test_an_access_token_under_a_harmless_key_is_left_out(tmp_path: Path, secret: str) -> None:
    content = f"rank: 4\noutput_dir: https://user:{secret}@host/run\nvalidation_prompts: [a, '{secret}']\n"
    assert read_hparams(write(tmp_path, content)).values == {"rank": 4}


@pytest.mark.parametrize(
    "line",
    [
        "x: !!python/object/apply:builtins.open ['{marker}', 'w']",
        "rank: !!python/object/apply:os.system ['touch {marker}']",
        "x: !!python/object/new:subprocess.Popen [['touch', '{marker}']]",
        "x: !!python/name:os.system",
        "!!python/object/apply:os.system ['touch {marker}']",
    ],
)
def test_a_file_that_would_run_code_is_not_run_and_none_of_it_is_used(tmp_path: Path, line: str) -> None:
    marker = tmp_path / "executed"
    path = write(tmp_path, "rank: 4\n" * (not line.startswith("!!")) + line.format(marker=marker) + "\n")
    found = read_hparams(path)
    assert not marker.exists()
    assert found.values == {} and found.flaw is not None and "only running code" in found.flaw


@pytest.mark.parametrize(
    "content",
    [
        'rank: !!int ""',
        "rank: !!bool maybe",
        'lr: !!float ""',
        "rank: !!timestamp x",
        "seed: 2001-99-99",
        "rank: " + "9" * 5000,
        "[" * 20000,
        "- " * 10000,
        "? [a]\n: b",
        "rank: 'open",
        b"\xff\xfe\x00rank",
        b"rank: \x00",
        "just text",
        "[1, 2]",
        "",
        "rank: 4\n" * 5000,
        "a: &a {x: 1}\nb: {<<: [*a, *a]}",
    ],
)
def test_what_is_no_settings_file_has_a_flaw_and_raises_nothing(tmp_path: Path, content: str | bytes) -> None:
    found = read_hparams(write(tmp_path, content))
    assert found.values == {} and found.flaw


@pytest.mark.parametrize(
    "value", [".nan", ".inf", "{a: 1}", "[[1]]", "0x" + "f" * 40, "a" * 3000, "2001-01-01", "!!binary aGk=", "!!set {a}"]
)
def test_a_value_that_cannot_be_shown_is_left_out_and_the_rest_stays(tmp_path: Path, value: str) -> None:
    found = read_hparams(write(tmp_path, f"rank: 4\nlora_alpha: {value}\n"))
    assert found.values == {"rank": 4} and found.flaw is None


def test_what_cannot_be_opened_has_a_flaw(tmp_path: Path) -> None:
    assert read_hparams(tmp_path / "gone").flaw and read_hparams(tmp_path).flaw
    assert read_output_dir(tmp_path / "gone") is None
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "hparams.yml")
        assert "not a regular file" in (read_hparams(tmp_path / "hparams.yml").flaw or "")


@pytest.mark.parametrize("folder", ["outputs/run1", "/srv/a b/run 1", "C:\\runs\\run1", "größe/läufe", "x " * 60 + "end", "it's", "a: b"])
def test_the_output_folder_alone_is_what_the_whole_file_says(tmp_path: Path, folder: str) -> None:
    path = write(tmp_path, yaml.dump({"a": 1, "output_dir": folder, "rank": 4, "z": None}))
    assert read_output_dir(path) == read_hparams(path).values["output_dir"] == folder


@pytest.mark.parametrize(
    "content", ["rank: 4", "output_dir: null", "output_dir: [a]", "output_dir: ''", "output_dir: !!python/name:os.system", ""]
)
def test_no_output_folder_is_made_up(tmp_path: Path, content: str) -> None:
    assert read_output_dir(write(tmp_path, content)) is None
