"""Exports over HTTP: the page's own matrix, made once however many ask, under a name that every system takes, behind the guard."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.testclient import TestClient

from cmp import exports
from cmp.core.picking import Score, Verdict
from cmp.core.runs import Library, Run
from cmp.errors import BadInput
from cmp.exports import FILES, _view_in, export_routes, value_of
from cmp.guard import Guard, Rules
from cmp.pictures import sheets
from cmp.pictures.layouts import Limits
from cmp.ui.samples_view import value_of as samples_of
from cmp.workbench import Workbench, exporting
from tests.disk.test_event_pictures import log, picture
from tests.exporting import STEPS, shown
from tests.sharing import RUN, Given, given_run
from tests.support import finished


def serving(bench: Workbench, token: str | None = None) -> TestClient:
    return TestClient(
        Starlette(routes=export_routes(bench), middleware=[Middleware(Guard, rules=Rules(token=token, hosts=frozenset({"testserver"})))])
    )


def drawn_job(bench: Workbench, spec: Any, tiles: list[Any]) -> str:
    return finished(bench.jobs.start("grid", "a grid", len(tiles), lambda: iter(tiles), spec)).id


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workbench, str]:
    grid = shown(tmp_path_factory.mktemp("grid"))
    return grid.bench, drawn_job(grid.bench, replace(grid.spec, title='Ünï/c:o"d\n<e>'), grid.tiles)


@pytest.fixture
def client(made: tuple[Workbench, str]) -> Iterator[TestClient]:
    with serving(made[0]) as client:
        yield client


@pytest.mark.parametrize("name", FILES)
def test_every_export_is_a_file_to_keep_with_a_safe_name(client: TestClient, made: tuple[Workbench, str], name: str) -> None:
    answer = client.get(f"/cmp/export/{made[1]}/{name}")
    assert answer.status_code == 200 and answer.headers["content-type"] == FILES[name][1]
    told = answer.headers["content-disposition"]
    assert told.startswith("attachment;") and quote("Ünï c o d e") in told and told.endswith(name.partition(".")[2])
    assert not set(told.partition("''")[2]) & set('/\\:<>"\n') and answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.content) > 1000


def test_the_view_arranges_what_is_exported_by_the_keys_of_the_page(client: TestClient, made: tuple[Workbench, str]) -> None:
    value = value_of(*made)
    seeds = next(axis for axis in value["axes"] if axis["key"] == "seed")["values"]
    view = {"hidden": {"seed": [seeds[0]["key"]]}, "place": {"checkpoint": "y"}, "size": 64, "nobody": 3}
    answer = client.get(f"/cmp/export/{made[1]}/cells.zip", params={"view": json.dumps(view)})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == 9


def test_a_sheet_that_no_picture_holds_comes_as_an_archive_of_its_parts_and_says_so(
    client: TestClient, made: tuple[Workbench, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "LIMITS", Limits(400, 160_000))
    answer = client.get(f"/cmp/export/{made[1]}/sheet.webp", params={"view": json.dumps({"place": {"seed": "x"}})})
    assert answer.headers["content-type"] == "application/zip" and answer.headers["content-disposition"].endswith(".zip")
    assert "parts" in answer.headers["x-cmp-notes"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == [f"sheet-{i}.webp" for i in range(1, len(archive.namelist()) + 1)]
        for name in archive.namelist():
            with Image.open(io.BytesIO(archive.read(name))) as part:
                assert max(part.size) <= 400


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("grid-nobody/sheet.png", 404), ("samples/nobody/sheet.png", 404), ("{job}/sheet.exe", 404), ("{job}/state.db", 404),
        ("..%2f..%2fetc/cells.zip", 404), ("samples/..%2f..%2f..%2fetc/grid.html", 404), ("samples//etc/sheet.png", 404),
        ("{job}/sheet.png?view=[]", 422), ("{job}/sheet.png?view={{", 422), ("{job}/sheet.png?view=" + "[" * 5000, 422),
        ("{job}/steps.gif?ms=1", 422), ("{job}/steps.gif?ms=-5", 422),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused_in_words(client: TestClient, made: tuple[Workbench, str], path: str, status: int) -> None:
    answer = client.get(f"/cmp/export/{path.format(job=made[1])}")
    assert answer.status_code == status, answer.text
    if "detail" in answer.text:
        assert answer.json()["detail"]["error"] and answer.json()["detail"]["hint"] and len(answer.text) < 2000


def test_a_view_that_is_too_large_is_not_even_read() -> None:
    scope = {"type": "http", "query_string": b'view="' + b"x" * 100_001 + b'"', "headers": []}
    with pytest.raises(BadInput, match="100003 characters"):
        _view_in(Request(scope))


def test_who_asks_for_what_is_being_made_waits_for_it_and_it_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = shown(tmp_path)
    job = drawn_job(grid.bench, grid.spec, grid.tiles)
    begun, go_on, calls = threading.Event(), threading.Event(), []
    really = exporting.write_export

    def slow(*given: Any, **more: Any) -> Any:
        calls.append(given[0])
        begun.set()
        assert go_on.wait(30)
        return really(*given, **more)

    monkeypatch.setattr(exporting, "write_export", slow)
    with serving(grid.bench) as client, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(client.get, f"/cmp/export/{job}/sheet.png") for _ in range(3)]
        assert begun.wait(30)
        go_on.set()
        answers = [one.result(60) for one in asked]
        later = client.get(f"/cmp/export/{job}/sheet.png")
    assert {answer.status_code for answer in (*answers, later)} == {200} and len({answer.content for answer in (*answers, later)}) == 1
    assert calls == ["sheet"]


def kept(bench: Workbench) -> dict[str, Path]:
    """The folder of every file that is kept, by the digest of what was asked for."""
    return {folder.name: folder for folder in (bench.settings.home / "exports").iterdir()}


@pytest.mark.parametrize("name", FILES)
def test_what_changes_nothing_in_a_file_makes_no_second_one(tmp_path: Path, name: str) -> None:
    grid = shown(tmp_path)
    job = drawn_job(grid.bench, grid.spec, grid.tiles)
    animated, page = name.startswith("steps"), name == "grid.html"
    keys = [head["key"] for head in next(axis for axis in value_of(grid.bench, job)["axes"] if axis["key"] == "seed")["values"]]
    same = [{"size": 64}, {"place": {"nobody": "x"}}, {"hidden": {"seed": ["nobody"], "n": ["1"]}}, {"order": {"seed": [*keys, *keys]}},
            {"pick": {"seed": "nobody"}}]  # fmt: skip
    with serving(grid.bench) as client:
        address = f"/cmp/export/{job}/{name}"
        first = client.get(address).content
        for view in same:
            assert client.get(address, params={"view": json.dumps(view)}).content == first
        assert len(kept(grid.bench)) == 1
        client.get(address, params={"ms": "700"})
        assert len(kept(grid.bench)) == 1 + animated
        client.get(address, params={"pictures": "png"})
        assert len(kept(grid.bench)) == 1 + animated + page
        client.get(address, params={"view": json.dumps({"hidden": {"seed": keys[:1]}})})
        assert len(kept(grid.bench)) == 2 + animated + page


def test_beyond_so_many_bytes_what_was_asked_for_longest_ago_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = shown(tmp_path)
    job = drawn_job(grid.bench, grid.spec, grid.tiles)
    with serving(grid.bench) as client:

        def ask(name: str) -> str:
            before = set(kept(grid.bench)) if (grid.bench.settings.home / "exports").is_dir() else set()
            assert client.get(f"/cmp/export/{job}/{name}").status_code == 200
            return next(iter(set(kept(grid.bench)) - before), "")

        old, older, newest = ask("sheet.png"), ask("sheet.webp"), ask("grid.html")
        for digest, age in ((old, 200), (older, 300), (newest, 100)):
            (kept(grid.bench)[digest] / "more").write_bytes(bytes(1_000_000))  # the next file is smaller than any of them
            os.utime(kept(grid.bench)[digest], (time.time() - age,) * 2)
        size = sum(file.stat().st_size for folder in kept(grid.bench).values() for file in folder.iterdir())
        monkeypatch.setattr(exports, "_MOST_BYTES", size)
        ask("steps.gif")
        assert older not in kept(grid.bench) and {old, newest} <= set(kept(grid.bench))
        monkeypatch.setattr(exports, "_MOST_BYTES", 1)
        last = ask("cells.zip")
        assert last in kept(grid.bench) and not {old, older, newest} & set(kept(grid.bench))


def test_no_more_than_a_few_requests_wait_and_those_beyond_are_told_to_ask_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = shown(tmp_path)
    job = drawn_job(grid.bench, grid.spec, grid.tiles)
    monkeypatch.setattr(exports, "_MOST_ASKING", 2)
    many, go_on = threading.Semaphore(0), threading.Event()
    made = exports.Exports._make

    def slow(*given: Any) -> None:
        many.release()
        assert go_on.wait(30)
        made(*given)

    monkeypatch.setattr(exports.Exports, "_make", slow)
    with serving(grid.bench) as client, ThreadPoolExecutor(3) as pool:
        try:
            asked = [pool.submit(client.get, f"/cmp/export/{job}/{name}") for name in ("sheet.png", "cells.zip")]
            assert many.acquire(timeout=30) and many.acquire(timeout=30)
            answer = pool.submit(client.get, f"/cmp/export/{job}/sheet.png").result(30)
        finally:
            go_on.set()
        assert answer.status_code == 503 and answer.json()["detail"]["code"] == 75 and int(answer.headers["retry-after"]) > 0
        assert {one.result(60).status_code for one in asked} == {200}
        assert client.get(f"/cmp/export/{job}/grid.html").status_code == 200


def test_a_failed_export_leaves_nothing_and_can_be_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = shown(tmp_path)
    job = drawn_job(grid.bench, grid.spec, grid.tiles)

    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with serving(grid.bench) as client, monkeypatch.context() as patched:
        patched.setattr(sheets, "save_picture", full)
        answer = client.get(f"/cmp/export/{job}/sheet.png")
        assert answer.status_code == 507 and answer.json()["detail"]["code"] == 6
    with serving(grid.bench) as client:
        assert client.get(f"/cmp/export/{job}/sheet.png").status_code == 200


def test_the_guard_stands_before_it(made: tuple[Workbench, str]) -> None:
    with serving(made[0], "open sesame") as client:
        assert client.get(f"/cmp/export/{made[1]}/sheet.png").status_code == 401
        assert client.get(f"/cmp/export/{made[1]}/sheet.png", headers={"X-CMP-Token": "open sesame"}).status_code == 200


def test_the_trainers_own_pictures_are_exported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = shown(tmp_path).bench
    (tmp_path / "sample").mkdir()
    for step in (500, 1000):
        Image.new("RGB", (32, 32), (step // 5, 9, 9)).save(tmp_path / "sample" / f"run_{step:06d}_00_20260101000000.png")
    run = Run("a/run", tmp_path, tmp_path, "kohya", checkpoints=STEPS)
    monkeypatch.setattr(bench, "library", lambda **more: Library((run,)))
    with serving(bench) as client:
        answer = client.get("/cmp/export/samples/a/run/cells.zip")
        assert answer.status_code == 200, answer.text
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert [name.partition("/")[0] for name in archive.namelist()] == ["001-step-500", "002-step-1000", "cells.csv"]
        assert client.get("/cmp/export/samples/a/run/steps.gif").status_code == 200


def test_runs_that_stand_beside_each_other_are_exported_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = shown(tmp_path).bench
    names = ("a/run", "b & c=d?", "bare")
    runs = [Run(name, tmp_path / str(n), tmp_path, "kohya", checkpoints=STEPS) for n, name in enumerate(names)]
    for n in (0, 1):
        (tmp_path / str(n) / "sample").mkdir(parents=True)
        for step in (500, 1000):
            Image.new("RGB", (32, 32), (step // 5, 9, n)).save(tmp_path / str(n) / "sample" / f"run_{step:06d}_00_20260101000000.png")
    monkeypatch.setattr(bench, "library", lambda **more: Library(tuple(runs)))
    address = samples_of(bench, bench.library(), names)["export"]
    assert address == "cmp/export/samples/a/run?beside=b%20%26%20c%3Dd%3F", "of a run without pictures there is nothing"
    path, asked = address.split("?")
    with serving(bench) as client:
        for name in FILES:
            assert client.get(f"/{path}/{name}?{asked}").status_code == 200, name
        with zipfile.ZipFile(io.BytesIO(client.get(f"/{path}/cells.zip?{asked}").content)) as archive:
            rows = list(csv.DictReader(io.StringIO(archive.read("cells.csv").decode())))
            assert {(row["Run"], row["Step"]) for row in rows} == {(name, step) for name in names[:2] for step in ("500", "1000")}
            assert len({archive.read(name) for name in archive.namelist() if name.endswith(".png")}) == 4
        assert client.get(f"/{path}/cells.zip?beside=nobody").status_code == 404
        assert client.get(f"/{path}/cells.zip?{'&'.join(['beside=bare'] * 51)}").status_code == 422
        only = client.get(f"/{path}/cells.zip?beside=bare&beside=a/run")
        assert only.status_code == 200 and len(zipfile.ZipFile(io.BytesIO(only.content)).namelist()) == 3


def test_pictures_within_a_log_are_exported_as_they_are_and_leave_no_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = shown(tmp_path).bench
    drawn = {step: png(step // 5) for step in (500, 1000)}
    event_file = log(tmp_path, *(picture(step, content, tag="a shoe") for step, content in drawn.items()))
    run = Run("a/run", tmp_path, tmp_path, "unknown", checkpoints=STEPS, logs=(event_file,))
    monkeypatch.setattr(bench, "library", lambda **more: Library((run,)))
    assert samples_of(bench, bench.library(), [run.id])["export"] == "cmp/export/samples/a/run"
    with serving(bench) as client:
        for name in FILES:
            answer = client.get(f"/cmp/export/samples/a/run/{name}")
            assert answer.status_code == 200 and "x-cmp-notes" not in answer.headers, (name, answer.text[:300])
            if name == "cells.zip":
                with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
                    assert [archive.read(file) for file in archive.namelist()[:2]] == list(drawn.values())
            elif name == "sheet.png":
                with Image.open(io.BytesIO(answer.content)) as sheet:
                    assert {(step // 5, 9, 9) for step in drawn} <= {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20) or ()}
            elif name == "steps.gif":
                with Image.open(io.BytesIO(answer.content)) as animation:
                    assert animation.n_frames == len(drawn)
    assert not list((bench.settings.home / "exports").rglob("within"))


def png(red: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (red, 9, 9)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("name", ["scores.csv", "verdicts.json"])
def test_a_visitor_is_told_the_scores_without_the_folder_they_were_measured_on(shareable: Given, name: str) -> None:
    class OfAFolder(Workbench):
        def verdicts(self, run: Run) -> tuple[Verdict, ...]:
            told = "the loss of 3 images in /mnt/jane/held"
            scores = (Score(f"{RUN}@500", told, 0.2, None, None, 3),)
            return tuple(replace(one, rule=told, reason=told, scores=scores) for one in super().verdicts(run))

    rules = Rules(token="open sesame", open_reading=True, hosts=frozenset({"testserver"}))
    app = Starlette(routes=export_routes(OfAFolder(shareable.bench.settings)), middleware=[Middleware(Guard, rules=rules)])
    with TestClient(app) as client:
        visitor, owner = (client.get(f"/cmp/scores/{RUN}/{name}", headers=h).text for h in ({}, {"X-CMP-Token": "open sesame"}))
    assert "/mnt/jane/held" in owner and "jane" not in visitor and "the loss of 3 images in held" in visitor
    assert f"{RUN}@500" in visitor


# -- handing over ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shareable(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return given_run(tmp_path_factory.mktemp("share"), side=64)


def test_a_page_is_told_first_and_packed_then(shareable: Given) -> None:
    with serving(shareable.bench) as client:
        told = client.get(f"/cmp/share/{RUN}/page.json").json()
        answer = client.get(f"/cmp/share/{RUN}/page.zip")
    assert answer.status_code == 200 and answer.headers["content-disposition"].endswith(f"{RUN}.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        sizes = {entry.filename.removeprefix(f"{RUN}/"): entry.file_size for entry in archive.infolist()}
    listed = {one["path"]: one["bytes"] for one in told["files"]}
    assert {name for name in sizes if not name.endswith(".svg")} == {name for name in listed if not name.endswith(".svg")}
    assert "index.html" in sizes and not any(name.endswith(".safetensors") for name in sizes)
    assert told["goes_to"] is None and list((shareable.bench.settings.home / "shares").iterdir()) == []


def test_a_model_is_packed_with_its_card(shareable: Given) -> None:
    with serving(shareable.bench) as client:
        answer = client.get(f"/cmp/share/{RUN}@1000/model.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    assert {"README.md", "pytorch_lora_weights.safetensors"} <= names


@pytest.mark.parametrize(
    ("address", "code"),
    [("x.zip", 404), (f"{RUN}/other.zip", 404), ("no-run/page.zip", 404), ("%2Fetc/page.zip", 404), (f"{RUN}@500/page.zip", 422)],
)
def test_nothing_else_is_handed_over(shareable: Given, address: str, code: int) -> None:
    with serving(shareable.bench) as client:
        assert client.get(f"/cmp/share/{address}").status_code == code


def test_a_read_only_server_hands_nothing_over(shareable: Given) -> None:
    bench = Workbench(replace(shareable.bench.settings, read_only=True))
    with serving(bench) as client:
        assert client.get(f"/cmp/share/{RUN}/page.zip").status_code == 404
