"""`grid --at URL`: another instance draws the same pictures, and what it sends is kept only if it is what was asked for."""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cmp.core.errands import instance_address
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.engine.elsewhere import Elsewhere
from cmp.errors import BadInput
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.journeys.conftest import Server, environment, start_server
from tests.support import tiles_of

from .conftest import FULL, pixels

pytestmark = pytest.mark.model
TOKEN = "a-token-for-tests"
SMALL = Sampling(2, 3.0)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from start_server(tmp_path_factory.mktemp("there"), "serve", "--port", "0", CMP_TOKEN=TOKEN, CMP_DEVICE="cpu")


@pytest.fixture
def here(tmp_path: Path) -> Workbench:
    """A store of its own, which has drawn nothing."""
    return Workbench(Settings(home=tmp_path / "here", device="cpu", at_token=TOKEN))


def asked(bench: Workbench, **axes: Any) -> tuple[GridSpec, list[Any]]:
    run, _ = bench.find(FULL)
    columns = {"checkpoints": (None, *run.checkpoints[:2]), "prompts": (Prompt("a red casual shoe"),), "samplings": (SMALL,)}
    return GridSpec(**(columns | axes)), [run]


def drawn(bench: Workbench, server: Server, **axes: Any) -> list[Tile]:
    spec, runs = asked(bench, **axes)
    return tiles_of(bench.draw_grid(spec, runs, ray=server.url))


def test_pictures_drawn_elsewhere_are_those_drawn_here_under_the_same_keys_and_are_found_again(
    here: Workbench, there: Server, tmp_path: Path
) -> None:
    far = drawn(here, there)
    assert [tile.fault for tile in far] == [None] * 3 and not any(tile.reused for tile in far)
    again = drawn(here, there)
    assert [tile.reused for tile in again] == [True] * 3 and [tile.key for tile in again] == [tile.key for tile in far]
    alone = Workbench(Settings(home=tmp_path / "alone", device="cpu"))
    spec, runs = asked(alone)
    near = {tile.cell.checkpoint and tile.cell.checkpoint.key: tile for tile in tiles_of(alone.draw_grid(spec, runs))}
    for tile in far:
        mine = near[tile.cell.checkpoint and tile.cell.checkpoint.key]
        assert mine.key == tile.key and np.array_equal(pixels(mine.path), pixels(tile.path))
        assert tile.cell.checkpoint is None or (tile.base or {})["proof"] == "tensors"
    assert len({pixels(tile.path).tobytes() for tile in far}) == 3
    assert not list((there.home / "received").iterdir())


def altered(monkeypatch: pytest.MonkeyPatch, alter: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    ask = Elsewhere._ask
    monkeypatch.setattr(Elsewhere, "_ask", lambda self, body: (alter(told) for told in ask(self, body)))


def rewritten(told: dict[str, Any], **record: object) -> dict[str, Any]:
    """A tile whose picture says something else of itself."""
    if "png" not in told:
        return told
    with Image.open(io.BytesIO(base64.b64decode(told["png"]))) as image:
        chunks, out = PngImagePlugin.PngInfo(), io.BytesIO()
        chunks.add_itxt("cmp", json.dumps(json.loads(image.info["cmp"]) | record))
        image.save(out, "PNG", pnginfo=chunks)
    return told | {"png": base64.b64encode(out.getvalue()).decode()}


@pytest.mark.parametrize(
    ("alter", "why"),
    [
        (lambda told: rewritten(told, weights="0" * 64), "another digest of the weights"),
        (lambda told: rewritten(told, key="0" * 64), "another key"),
        (lambda told: told | ({"base": "0" * 64} if "png" in told else {}), "another base model"),
        (lambda told: told | ({"png": "bm90IGEgcGljdHVyZQ=="} if "png" in told else {}), "no picture"),
        (lambda told: told | ({"mode": "near"} if "png" in told else {}), "another key"),
    ],
)
def test_a_picture_that_is_not_what_was_asked_for_is_never_kept(
    here: Workbench, there: Server, monkeypatch: pytest.MonkeyPatch, alter: Any, why: str
) -> None:
    altered(monkeypatch, alter)
    tiles = drawn(here, there, checkpoints=asked(here)[0].checkpoints[1:2], mode="fast")
    assert [tile.path for tile in tiles] == [None] and why in (tiles[0].fault.error if tiles[0].fault else "")
    assert not list(here.settings.home.rglob("cells/*/*.png"))


@pytest.mark.parametrize("number", [[0], {"0": 0}, None, "0"])
def test_a_tile_of_no_cell_that_was_sent_is_a_fault_of_the_cells_that_did_not_come(
    here: Workbench, there: Server, monkeypatch: pytest.MonkeyPatch, number: object
) -> None:
    altered(monkeypatch, lambda told: told | ({"cell": number} if "cell" in told else {}))
    tiles = drawn(here, there, checkpoints=asked(here)[0].checkpoints[1:2])
    assert [tile.path for tile in tiles] == [None] and "ended before its cells did" in (tiles[0].fault.error if tiles[0].fault else "")


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """The address of a server that sends these bytes, one after the other for each request, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                with listening.accept()[0] as taken:
                    taken.recv(1_000_000)
                    taken.sendall(answer)

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        serving.join(20)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"4000\r\n" + b"x" * 100,  # cut off within a chunk
        CHUNKED + b"not a number\r\n",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 500 Broken\r\nTransfer-Encoding: chunked\r\n\r\n4000\r\nx",
        b"HTTP/1.1 500 Broken\r\n\r\n" + b"[" * 90_000,
    ],
)
def test_an_instance_that_breaks_off_or_answers_nonsense_is_a_fault_of_each_cell(here: Workbench, answer: bytes) -> None:
    spec, runs = asked(here)
    with answering(*[answer] * len(spec.cells())) as address:
        tiles = tiles_of(here.draw_grid(spec, runs, ray=address))
    assert len(tiles) == len(spec.cells()) and all(tile.fault and address in tile.fault.error for tile in tiles)


@pytest.mark.parametrize("name", ["torch", "diffusers", "engine"])
def test_another_version_there_is_refused_and_nothing_is_drawn(
    here: Workbench, there: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def alter(told: dict[str, Any]) -> dict[str, Any]:
        return told | {"circumstances": told["circumstances"] | {name: "0.0"}} if "circumstances" in told else told

    altered(monkeypatch, alter)
    assert all(tile.fault and f"{name} 0.0 there" in tile.fault.error for tile in drawn(here, there))


def test_a_base_model_that_is_not_there_and_another_version_of_the_program_are_refused(there: Server) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    from cmp import __version__

    body = {"version": __version__, "base": "0" * 64, "mode": "fast"}
    assert there.post("/api/v1/cells", body, **bearer)[0] == 404
    assert there.post("/api/v1/cells", body | {"version": "0"}, **bearer)[0] == 409
    assert there.post("/api/v1/cells", body)[0] == 401
    assert there.post("/api/v1/cells", body | {"cells": [{"vae": "/etc"}]}, **bearer)[0] == 422


def test_without_its_token_nothing_is_drawn_there_and_it_is_said_where_it_goes(here: Workbench, there: Server) -> None:
    here.settings = replace(here.settings, at_token="wrong")
    assert all(tile.fault and "CMP_AT_TOKEN" in tile.fault.hint for tile in drawn(here, there))


def test_the_command_line_draws_at_an_address_and_keeps_its_token_out_of_what_is_remembered(there: Server, tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [
        sys.executable,
        "-m",
        "cmp",
        "grid",
        f"{FULL}@final",
        "--prompt",
        "a red casual shoe",
        "--steps",
        "2",
        "--json",
        "--at",
        there.url,
    ]
    around = environment(home) | {"CMP_AT_TOKEN": TOKEN, "CMP_DEVICE": "cpu"}
    ended = subprocess.run(command, env=around, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    (tile,) = json.loads(ended.stdout)["tiles"]
    assert Path(tile["path"]).is_file() and str(home) in tile["path"]
    assert not [file for file in home.rglob("state.db*") if TOKEN.encode() in file.read_bytes()]


@pytest.mark.parametrize("text", ["http://", "ftp://a", "http://a b", "http://a/?token=secret", "http://u:p@a", "http://[a"])
def test_what_is_no_address_of_an_instance_is_refused_without_repeating_a_token(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        instance_address(text)
    assert "secret" not in refused.value.message
