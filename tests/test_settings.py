"""What the environment says of how to serve."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cmp.errors import BadInput
from cmp.server import wanted_port
from cmp.settings import Settings


@pytest.mark.parametrize("sign", [{"SYSTEM": "spaces"}, {"SPACE_ID": "ann/cmp"}])
def test_on_a_space_everybody_looks_and_nothing_is_changed_unless_it_is_said_otherwise(sign: dict[str, str]) -> None:
    found = Settings.from_env(sign | {"SPACE_HOST": "ann-cmp.hf.space"})
    assert (found.mode, found.read_only, found.open_reading, found.hosts) == ("space", True, True, ("ann-cmp.hf.space",))
    told = Settings.from_env(sign | {"CMP_MODE": "token", "CMP_TOKEN": "x"})
    assert not told.read_only and not told.open_reading


def test_drawing_that_is_off_makes_it_read_only_and_is_limited_otherwise() -> None:
    off = Settings.from_env({"CMP_DRAWING": "off"})
    assert off.read_only and not off.draws
    assert Settings.from_env({"CMP_MODE": "space", "CMP_DRAWING": "limited"}).draws and Settings.from_env({}).draws


def test_here_nothing_is_open_and_no_other_name_is_taken() -> None:
    found = Settings.from_env({"SPACE_HOST": "evil.test"})
    assert (found.mode, found.read_only, found.open_reading, found.hosts) == ("local", False, False, ())
    assert Settings.from_env({"CMP_HOSTS": " CMP.example.org ,b", "CMP_READING": "open"}).hosts == ("cmp.example.org", "b")


@pytest.mark.parametrize("variable", ["CMP_MODE", "CMP_READING", "CMP_DRAWING"])
def test_a_misspelt_setting_is_refused_and_not_taken_for_the_open_one(variable: str) -> None:
    with pytest.raises(BadInput, match="opened"):
        Settings.from_env({variable: "opened"})


@pytest.mark.parametrize("text", ["70000", "-1", "abc", "", "7 860", "٧", "9" * 5000])
def test_what_is_no_port_is_refused_however_it_is_said(text: str) -> None:
    for name in ("CMP_PORT", "GRADIO_SERVER_PORT", "server_port"):
        with pytest.raises(BadInput, match=name):
            settings = Settings.from_env({"CMP_PORT": text} if name == "CMP_PORT" else {})
            asked = {"server_port": text} if name == "server_port" else {}
            wanted_port(settings, asked, {"GRADIO_SERVER_PORT": text})


def test_the_port_of_the_launch_goes_before_that_of_gradio_and_that_before_ours() -> None:
    settings, gradios = Settings.from_env({"CMP_PORT": "1"}), {"GRADIO_SERVER_PORT": "2"}
    assert wanted_port(settings, {"server_port": 3}, gradios) == 3 and wanted_port(settings, {"server_port": None}, gradios) == 2
    assert wanted_port(settings, {}, {}) == 1 and wanted_port(settings, {"server_port": 65535}, {}) == 65535


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_serve_refuses_a_port_that_cannot_be(tmp_path: Path, port: str) -> None:
    from typer.testing import CliRunner

    from cmp.cli import app

    said = CliRunner(env={"CMP_HOME": str(tmp_path)}).invoke(app, ["serve", "--port", port])
    assert isinstance(said.exception, BadInput) and said.exception.exit_code == 2 and f"--port is '{port}'" in said.exception.message


def test_app_py_ends_with_the_contracts_exit_code_for_a_port_that_is_none(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    around = os.environ | {"CMP_HOME": str(tmp_path), "GRADIO_SERVER_PORT": "abc"}
    ended = subprocess.run([sys.executable, "app.py"], cwd=root, env=around, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2 and "GRADIO_SERVER_PORT is 'abc'" in ended.stderr and "Traceback" not in ended.stderr
