"""The tools of the Model Context Protocol, spoken with by the protocol's own client through the real command."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cmp.errors import BadInput
from cmp.settings import AUTO, Settings
from cmp.tools import Tools
from cmp.workbench import Workbench
from tests.support import origin_run

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = importlib.util.find_spec("mcp") is not None
needs_mcp = pytest.mark.skipif(not INSTALLED, reason="NOT CHECKED: mcp is not installed; pip install -r requirements-mcp.txt")
FULL = "lora_casual_shoes_3000steps_full"


def spoken(around: dict[str, str], runs: Path | None, speak: Callable[[Any], Awaitable[Any]]) -> Any:
    """What a client gets that speaks with `python -m cmp mcp`."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    arguments = ["-m", "cmp", *(["--runs", str(runs)] if runs else []), "mcp"]
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
    server = StdioServerParameters(command=sys.executable, args=arguments, env=kept | {"HF_HUB_OFFLINE": "1"} | around, cwd=ROOT)

    async def connect() -> Any:
        async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            return await speak(session)

    with ThreadPoolExecutor(1) as pool:  # a thread of its own: in this one a browser's loop may be running
        return pool.submit(asyncio.run, asyncio.wait_for(connect(), 240)).result()


async def told(session: Any, tool: str, **arguments: object) -> Any:
    """A tool's JSON value, or the text of its error."""
    answer = await session.call_tool(tool, arguments)
    text = "".join(part.text for part in answer.content)
    return text if answer.isError else json.loads(text)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"CMP_HOME": str(tmp_path / "home"), "CMP_DEVICE": "cpu", "HOME": str(tmp_path)}


@needs_mcp
def test_a_client_lists_shows_reads_curves_and_is_told_errors_in_words(tmp_path: Path, home: dict[str, str]) -> None:
    made = origin_run(tmp_path / "training")

    async def speak(session: Any) -> None:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert set(tools) == {"list", "show", "curves", "best", "grid"}
        assert tools["list"].annotations.readOnlyHint and not tools["grid"].annotations.readOnlyHint
        assert [run["id"] for run in (await told(session, "list"))["runs"]] == ["lora_casual_shoes"]
        assert (await told(session, "show", target="lora_casual_shoes@500"))["step"] == 500
        curves = await told(session, "curves", run="lora_casual_shoes", points=20)
        assert len(curves["curves"][0]["steps"]) <= 20 < curves["points"]["loss"] == 50
        best = await told(session, "best", run="lora_casual_shoes")
        assert best["run"] == "lora_casual_shoes" and {"rule", "best", "window", "reason", "scores"} <= set(best)
        assert "there is no run 'nothing'" in await told(session, "best", run="nothing")
        assert "there is no run 'nothing'" in await told(session, "show", target="nothing")
        assert "there is no run" in await told(session, "show", target=str(made.run)), "a path is opened for nobody"
        assert "points is 1" in await told(session, "curves", run="lora_casual_shoes", points=1)

    spoken(home, made.outputs, speak)


@needs_mcp
def test_where_there_is_a_token_no_place_is_told_and_nothing_is_drawn_without_it(tmp_path: Path, home: dict[str, str]) -> None:
    made = origin_run(tmp_path / "training")

    async def speak(session: Any) -> None:
        assert str(tmp_path) not in json.dumps(await told(session, "list"))
        for token in ({}, {"token": "wrong"}, {"token": "\u00fc"}):
            refused = await told(session, "grid", targets=["lora_casual_shoes"], prompts=["a shoe"], **token)
            assert "needs this server's token" in refused and "secret" not in refused
        # with it the grid is begun, and what stands against these tiny weights is told of each cell
        tried = await told(session, "grid", targets=["lora_casual_shoes@500"], prompts=["a shoe"], token="secret")
        assert [tile["checkpoint"] for tile in tried["tiles"]] == ["lora_casual_shoes@500"] and tried["tiles"][0]["fault"]

    spoken(home | {"CMP_TOKEN": "secret"}, made.outputs, speak)


def test_a_token_that_is_to_be_made_is_none_that_a_caller_could_show(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="CMP_TOKEN is auto"):
        Tools(Workbench(Settings(tmp_path / "home", token=AUTO)))


@needs_mcp
def test_a_read_only_server_has_no_tool_that_draws(tmp_path: Path, home: dict[str, str]) -> None:
    made = origin_run(tmp_path / "training")

    async def speak(session: Any) -> set[str]:
        return {tool.name for tool in (await session.list_tools()).tools}

    assert spoken(home | {"CMP_MODE": "space"}, made.outputs, speak) == {"list", "show", "curves", "best"}


@needs_mcp
@pytest.mark.model
def test_a_grid_is_drawn_and_says_where_its_pictures_lie(demo_home: Path, home: dict[str, str]) -> None:
    async def speak(session: Any) -> None:
        asked = {"targets": [f"{FULL}@final"], "prompts": ["a red casual shoe"], "steps": "1", "base_column": True}
        first = await told(session, "grid", **asked)
        assert [tile["fault"] for tile in first["tiles"]] == [None, None] and all(Path(tile["path"]).is_file() for tile in first["tiles"])
        assert all(tile["reused"] for tile in (await told(session, "grid", **asked))["tiles"])
        assert "at most 64" in (await told(session, "grid", **asked | {"seeds": "1-100"})).lower()

    spoken(home | {"CMP_HOME": str(demo_home)}, None, speak)


def test_without_the_package_it_is_said_how_to_get_it(home: dict[str, str]) -> None:
    around = {name: value for name, value in os.environ.items() if not name.startswith("CMP_")} | home
    hidden = "import runpy, sys; sys.modules['mcp'] = None; sys.argv[1:] = ['mcp']; runpy.run_module('cmp', run_name='__main__')"
    ended = subprocess.run([sys.executable, "-c", hidden], cwd=ROOT, env=around, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2 and "requirements-mcp.txt" in ended.stderr and "Traceback" not in ended.stderr
