"""What a Space of Hugging Face needs of this repository: its front matter, and requirements that resolve with what a build adds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
# pip's words where there is no index, and where a package is in none
OUT_OF_REACH = re.compile(r"NewConnectionError|Name or service not known|from versions: none|Max retries|Read timed out")


def front_matter() -> str:
    found = re.match(r"---\n(.*?)\n---\n", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert found, "the README has no front matter"
    return found[1]


def required(name: str) -> SpecifierSet:
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    return next(SpecifierSet(line.removeprefix(name)) for line in lines if re.match(rf"{name}\b", line))


def test_the_front_matter_is_one_that_a_space_takes() -> None:
    told = yaml.safe_load(front_matter())
    assert told["sdk"] == "gradio" and (ROOT / told["app_file"]).is_file()
    assert told["sdk_version"] in required("gradio")
    assert told["python_version"] in ("3.10", "3.12"), "ZeroGPU has these two"
    assert len(told["short_description"]) <= 60 and {told["colorFrom"], told["colorTo"]} <= COLOURS


def test_the_requirements_resolve_together_with_what_a_space_adds(tmp_path: Path) -> None:
    sdk = yaml.safe_load(front_matter())["sdk_version"]
    build = ["-r", str(ROOT / "requirements.txt"), "torch<=2.13.0", f"gradio[oauth,mcp]=={sdk}", "uvicorn>=0.14.0", "websockets>=10.4"]
    build.append("spaces")
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-input", "--retries", "0", "--timeout", "15"]
    try:
        tried = subprocess.run([*pip, *build], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("NOT CHECKED whether the requirements resolve on a Space: the package index took over ten minutes")
    if tried.returncode and OUT_OF_REACH.search(tried.stderr) and "ResolutionImpossible" not in tried.stderr:
        pytest.skip(f"NOT CHECKED whether the requirements resolve on a Space: {tried.stderr.strip().splitlines()[-1]}")
    assert tried.returncode == 0, tried.stderr[-3000:]
    told = tried.stdout.splitlines()[-1]
    assert "Would install" in told and "spaces-" in told and "mcp-" in told
