"""A marker in every place that a machine may have, and a visitor who asks every address for everything: the marker is never told."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from fastapi import FastAPI
from PIL import ExifTags, Image, PngImagePlugin
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from cmp.core.describing import checkpoint_facts
from cmp.core.grids import Fault, GridSpec, Prompt, Sampling, Tile
from cmp.core.infotext import to_infotext
from cmp.core.orders import grid_title
from cmp.exports import FILES
from cmp.guard import Guard
from cmp.pictures.files import save_png
from cmp.pictures.settings import to_exif
from cmp.server import routes_of, rules_for
from cmp.settings import Settings
from cmp.ui.details import details_value
from cmp.ui.runs_tab import problem_text, tables
from cmp.ui.samples_view import linked_value, stamp_of
from cmp.workbench import Workbench
from cmp.workbench.curtain import Curtain
from tests.support import BASE_NAME, adapter_tensors, finished, origin_run, save, write_config, write_log

MARK = "zqmarker"
WEIRD = f'{MARK} o\'k & "q" ünï (x), <b>{MARK}'
ELSEWHERE = {
    "pretrained_model_name_or_path": f"/mnt/{MARK} disk/{MARK} folder/sd, v2: x",
    "train_data_dir": f"file:///srv/{MARK}/images",
    "instance_data_dir": f"smb://bob@nas/{MARK}/J/x",
    "class_data_dir": f"\\\\nas\\{MARK} b\\x",
    "cache_dir": f"C:\\Users\\{MARK} p\\sd",
    "output_dir": f"../../{MARK}/I/x",
    "logging_dir": f"bob@host:/srv/{MARK}/x",
    "resume_from_checkpoint": f"/mnt/{MARK} b/{MARK} c/checkpoint-5",
    "revision": f"{MARK}@host:/srv/L/x",
}
ODD = "sd (new)/<img src=x>/outputs/run1"
TOKEN = "open sesame"
MODES: dict[str, dict[str, Any]] = {
    "a token and open reading": {"token": TOKEN, "open_reading": True},
    "read-only and open reading": {"read_only": True, "open_reading": True},
    "a Space": {"mode": "space", "read_only": True, "open_reading": True},
}


@dataclass(frozen=True)
class Planted:
    """A bench whose runs folder lies below the marker, a job of it whose pictures carry the marker, and what there is by name."""

    bench: Workbench
    job: str
    runs: tuple[str, ...]
    checkpoints: tuple[str, ...]
    cells: tuple[str, ...]
    samples: tuple[str, ...]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs: an origin's with a broken checkpoint and a base by path, and one that recorded places of other machines."""
    place = tmp_path_factory.mktemp("home") / WEIRD
    made = origin_run(place, (500, 1000), logs=False)
    told = {"pretrained_model_name_or_path": str(made.base), "output_dir": str(made.run), "lora_rank": 8, "lora_alpha": 16}
    losses = [(step, 1 / (step + 1)) for step in range(1, 51)]
    write_log(place / "logs" / "train_lora_casual_shoes", losses, **told, train_data_dir=f"{place}/my images")
    (made.checkpoint(750)).mkdir()
    (made.checkpoint(750) / "model.safetensors").write_text("junk")
    for name in ("foreign", ODD):
        run = made.outputs / name
        save(run / "checkpoint-2" / "adapter_model.safetensors", {f"base_model.model.{n}": v for n, v in adapter_tensors(2).items()})
        write_config(run / "checkpoint-2", base_model_name_or_path=ELSEWHERE["pretrained_model_name_or_path"])
        (run / "checkpoint-3").mkdir()
        (run / "checkpoint-3" / "pytorch_lora_weights.safetensors").write_text("junk")
        write_log(run / "logs" / "text2image-fine-tune", [(1, 0.5), (2, 0.4)], "train_loss", **ELSEWHERE, rank=8)
    plant_samples(made.run)
    return place


def plant_samples(run: Path) -> None:
    """A trainer's pictures in all three formats, each with the marker wherever the format has room."""
    folder, text = run / "sample", f"a shoe\nSteps: 3, Sampler: Euler, Seed: 1, Model: /srv/{MARK}/sd, VAE: /srv/{MARK} b/v.pt"
    folder.mkdir()
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", text)
    chunks.add_text("Comment", f"made in '/srv/{MARK} b/c'", zip=True)
    chunks.add_itxt("workflow", json.dumps({"nodes": [f"/srv/{MARK} b/x"]}), zip=True)
    chunks.add_itxt("XML:com.adobe.xmp", f"<x>{MARK}</x>")
    exif = Image.Exif()
    exif.load(to_exif(text))
    exif[ExifTags.Base.Artist], exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = MARK, 1, f'workflow:{{"a": "/srv/{MARK}/x"}}'
    image, xmp = Image.effect_noise((64, 64), 30).convert("RGB"), f"<x>{MARK}</x>".encode()
    image.save(folder / "run_000500_00_20260101000000.png", pnginfo=chunks, exif=exif)
    image.save(folder / "run_001000_00_20260101000000.jpg", exif=exif, comment=MARK.encode(), xmp=xmp, progressive=True)
    image.save(folder / "run_001500_00_20260101000000.webp", exif=exif, xmp=xmp)


@pytest.fixture(scope="module", params=MODES)
def planted(home: Path, request: pytest.FixtureRequest) -> Planted:
    settings = Settings(home / f"cmp-home {len(request.param)}", (home / "outputs",), (home / "bases",), **MODES[request.param])
    bench = Workbench(settings)
    library = bench.library()
    run = library.run("lora_casual_shoes")
    vae = str(home / "vae folder" / "x, y.pt")
    spec = GridSpec(
        (None, *(c for c in run.checkpoints if not c.flaw)), (Prompt("a /really/odd/ shoe"),), (0, 1), samplings=(Sampling(vae=vae),)
    )
    tiles = []
    for n, cell in enumerate(spec.cells()):
        base = {
            "id": str(home / "bases" / BASE_NAME) if n else ELSEWHERE["pretrained_model_name_or_path"],
            "proof": "user",
            "source": "you",
        }
        tile = Tile(cell, f"{n:064x}", bench.store.cell_path(f"{n:064x}"), base=base)
        old = to_infotext(cell, (64, 64), "BASE", None, "0").replace("Model: BASE", f"Model: {json.dumps(base['id'])}")
        weights = bench.ready(run, cell.checkpoint).digest(bench.store) if cell.checkpoint else None
        save_png(Image.new("RGB", (64, 64), (n * 30, 9, 9)), tile.path or Path(), old, tile.as_json() | {"weights": weights, "path": None})
        tiles.append(tile)
    tiles[-1] = Tile(tiles[-1].cell, "", fault=Fault(f"cannot read {vae!r} nor {vae}", f"Look into '/srv/{MARK} b/c d'."))
    job = finished(bench.jobs.start("grid", grid_title(spec, [run.id]), len(tiles), lambda: iter(tiles), spec))
    samples = [name for sample in bench.gallery.samples(run) if (name := bench.gallery.name(sample))]
    assert len(samples) == 3 and sum(bool(c.flaw) for one in library.runs for c in one.checkpoints) == 3
    ids = tuple(c.id for one in library.runs for c in one.checkpoints)
    return Planted(bench, job.id, tuple(one.id for one in library.runs), ids, tuple(f"{n:064x}" for n in range(len(tiles))), tuple(samples))


@pytest.fixture(scope="module")
def app(planted: Planted) -> FastAPI:
    bench = planted.bench
    guard = Middleware(Guard, rules=rules_for(bench.settings, "127.0.0.1"))
    return FastAPI(routes=routes_of(bench), middleware=[guard], docs_url=None, redoc_url=None, openapi_url=None)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://localhost:7860") as client:
        yield client


def addresses(planted: Planted) -> dict[str, list[str]]:
    """What is asked of every route, by its pattern; not all of it is given to a visitor."""
    runs, named = [quote(run) for run in planted.runs], [quote(name, safe="") for name in (*planted.runs, *planted.checkpoints)]
    of_run = [f"?run={quote(run, safe='')}" for run in planted.runs]
    all_runs = "?" + "&".join(one[1:] for one in of_run)
    exports = [f"/cmp/export/{source}/{name}" for source in (planted.job, "samples/lora_casual_shoes") for name in FILES]
    curves = ("stamp", "catalogue", "points", "band", "reading", "settings", "curves.csv", "curves.svg", "curves.png", "nothing")
    return {
        "/health": ["/health"],
        "/api/models": ["/api/models"],
        "/api/prompts/examples": ["/api/prompts/examples"],
        "/api/v1/list": ["/api/v1/list"],
        "/api/v1/show": [f"/api/v1/show?target={name}" for name in (*named, "nobody", quote(f"/srv/{MARK[:3]} b/x"))],
        "/api/v1/curves": [f"/api/v1/curves{run}" for run in of_run],
        "/api/v1/best": [f"/api/v1/best{run}" for run in of_run],
        "/api/v1/vote": [f"/api/v1/vote{run}" for run in of_run],
        "/api/v1/pair": [f"/api/v1/pair{run}&voter=ann" for run in of_run],
        "/api/v1/storage": ["/api/v1/storage", *(f"/api/v1/storage{run}" for run in of_run)],
        "/api/v1/cells": ["/api/v1/cells"],
        "/api/v1/doctor": ["/api/v1/doctor"],
        "/api/v1/measure": [f"/api/v1/measure{run}" for run in of_run],
        "/api/v1/jobs": ["/api/v1/jobs"],
        "/api/v1/jobs/{job}": [f"/api/v1/jobs/{planted.job}"],
        "/api/v1/jobs/{job}/events": [f"/api/v1/jobs/{planted.job}/events"],
        "/openapi.json": ["/openapi.json"],
        "/api/{path:path}": ["/api/nothing"],
        "/cmp/static/{name}": ["/cmp/static/matrix.css", "/cmp/static/nothing.css"],
        "/cmp/cell/{name}": [f"/cmp/cell/{key}.{ending}" for key in planted.cells for ending in ("png", "256.webp", "txt")],
        "/cmp/sample/{name}": [f"/cmp/sample/{key}.{ending}" for key in planted.samples for ending in ("png", "256.webp", "txt")],
        "/cmp/curve/{name}": [f"/cmp/curve/{name}{runs}" for name in curves for runs in (*of_run, all_runs, f"{all_runs}&tag=train_loss")],
        "/cmp/alerts": ["/cmp/alerts"],
        "/cmp/export/{source:path}/{name}": [*exports, f"/cmp/export/{planted.job}/grid.html?pictures=png"],
        "/cmp/scores/{run:path}/{name}": [f"/cmp/scores/{run}/{name}" for run in runs for name in ("scores.csv", "verdicts.json")],
        "/cmp/share/{target:path}/{name}": [f"/cmp/share/{run}/{name}" for run in runs for name in ("page.json", "page.zip", "model.zip")],
        "/cmp/ballot/strengths": [f"/cmp/ballot/strengths{run}" for run in of_run],
        "/cmp/ballot/{pair}/{side}.webp": ["/cmp/ballot/x/left.webp"],
        "/cmp/vote/{run:path}": [f"/cmp/vote/{run}" for run in runs],
        "/cmp/{path:path}": ["/cmp/nothing", *(f"/cmp/share/{run}/page.json" for run in runs)],
    }


def unpacked(content: bytes) -> Iterator[str]:
    """All texts that an answer holds, those of its pictures and of archives in it too."""
    for coding in ("utf-8", "utf-16-le", "utf-16-be"):
        yield content.decode(coding, "ignore")
    text = content.decode("utf-8", "ignore")
    yield unquote(text)
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield name
                yield from unpacked(archive.read(name))
    elif content[:4] in (b"\x89PNG", b"RIFF", b"GIF8") or content[:2] == b"\xff\xd8":
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            yield str(image.info)
            yield str({**image.getexif(), **image.getexif().get_ifd(ExifTags.IFD.Exif)})
    for part in text.split("base64,")[1:]:
        packed = part.split('"')[0].split("'")[0]
        yield from unpacked(base64.b64decode(packed + "=" * (-len(packed) % 4), validate=False))


def said(content: bytes) -> list[str]:
    """Where the marker stands in an answer, with what is around it."""
    found = [(text, text.lower().find(MARK)) for text in unpacked(content)]
    return [text[max(0, at - 200) : at + 100] for text, at in found if at >= 0]


# what is the owner's alone, what is not there at all, and what nobody has voted on or measured yet
CLOSED = {
    "/api/v1/doctor", "/cmp/share/{target:path}/{name}", "/api/{path:path}", "/cmp/{path:path}", "/cmp/ballot/{pair}/{side}.webp",
    "/cmp/ballot/strengths",
    "/api/v1/pair", "/api/v1/vote",
}  # fmt: skip


def test_a_visitor_who_asks_every_address_is_never_told_a_place(planted: Planted, app: FastAPI, client: TestClient) -> None:
    asked = addresses(planted)
    there = {route.path for route in app.routes if "GET" in (getattr(route, "methods", None) or {"GET"})}
    assert there <= set(asked), f"this test should ask {sorted(there - set(asked))}, too"
    told = {address: client.get(address) for pattern in sorted(there) for address in asked[pattern]}
    leaks = {address: found for address, answer in told.items() if (found := said(answer.content) + said(str(answer.headers).encode()))}
    assert not leaks, "\n".join(f"{address}: {found[0]!r}" for address, found in leaks.items())
    assert not [pattern for pattern in there - CLOSED if all(told[address].status_code != 200 for address in asked[pattern])]


def test_the_owner_is_told_the_places_which_shows_that_they_are_there_to_be_told(planted: Planted, client: TestClient) -> None:
    if not planted.bench.settings.token:
        return
    for address in ("/api/models", "/api/v1/list", f"/cmp/cell/{planted.cells[0]}.png", f"/cmp/export/{planted.job}/cells.zip"):
        assert said(client.get(address, headers={"X-CMP-Token": TOKEN}).content), address


def test_the_list_of_models_is_kept_in_two_forms_and_neither_is_taken_for_the_other(planted: Planted, client: TestClient) -> None:
    visitors = client.get("/api/models")
    flaws = {model["flaw"] for model in visitors.json()["models"] if model["flaw"]}
    assert len(flaws) == 3 and all("is not a safetensors file" in flaw for flaw in flaws)
    plain = client.get("/api/models", headers={"Accept-Encoding": "identity"})
    assert plain.content == visitors.content and "content-encoding" not in plain.headers and visitors.headers["content-encoding"] == "gzip"
    assert {"Authorization", "Cookie", "X-CMP-Token"} <= set(visitors.headers["vary"].split(", ")) and "private" in visitors.headers[
        "cache-control"
    ]
    tag = {"If-None-Match": visitors.headers["etag"]}
    assert client.get("/api/models", headers=tag).status_code == 304
    if planted.bench.settings.token:
        owners = client.get("/api/models", headers=tag | {"X-CMP-Token": TOKEN})
        assert owners.status_code == 200 and owners.headers["etag"] != visitors.headers["etag"] and said(owners.content)
        assert client.get("/api/models", headers={"If-None-Match": owners.headers["etag"]}).status_code == 200


def test_what_a_visitor_asks_to_have_drawn_is_refused_without_a_place(planted: Planted, client: TestClient) -> None:
    if not planted.bench.settings.for_strangers:
        return
    grid = {"targets": ["foreign@2", "lora_casual_shoes@500"], "prompts": ["x"], "steps": "1", "dry_run": True}
    answers = [client.post("/api/v1/grid", json=grid)]
    names = [model["name"] for model in client.get("/api/models").json()["models"] if model["name"].startswith(("foreign", "sd (new)"))]
    answers += [client.post("/api/generate", json={"model_name": name, "prompt": "x", "num_inference_steps": 1}) for name in names]
    assert "sd, v2: x" in answers[0].text and {answer.status_code for answer in answers[1:]} <= {404, 409, 422, 429}
    assert not [found for answer in answers for found in said(answer.content)]


def test_the_ids_that_a_visitor_is_told_are_those_that_can_be_asked_for(planted: Planted, client: TestClient) -> None:
    told = [checkpoint["id"] for run in client.get("/api/v1/list").json()["runs"] for checkpoint in run["checkpoints"]]
    models = [model["id"] for model in client.get("/api/models").json()["models"] if model["id"]]
    assert set(told) == set(models) == set(planted.checkpoints) and any(name.startswith(ODD) for name in told)
    for name in told:
        answer = client.get("/api/v1/show", params={"target": name})
        assert answer.status_code == 200 and answer.json()["id"] == name, name
    value = Curtain(planted.bench).hide(linked_value(planted.bench, planted.bench.library(), [ODD, "lora_casual_shoes"]))
    assert value["source"] == f"{ODD} lora_casual_shoes"


def test_nothing_that_page_events_keep_on_the_page_tells_a_place(planted: Planted) -> None:
    bench, library, hide = planted.bench, planted.bench.library(), Curtain(planted.bench).hide
    for run in library.runs:
        stamp = stamp_of(bench, library, [run.id])
        assert stamp.isalnum() and stamp == stamp_of(bench, library, [run.id]), "a text that a visitor holds says nothing"
        kept = hide((linked_value(bench, library, [run.id]), stamp, *tables(bench, library, run.id, ""), problem_text(library)))
        facts = hide([details_value(c.id, checkpoint_facts(bench.show(c.id)), "") for c in run.checkpoints])
        assert not said(json.dumps([kept, facts], default=str).encode()) and kept[4] == run.id


def test_a_picture_keeps_its_pixels_and_its_prompt_when_it_is_told_to_a_visitor(planted: Planted, client: TestClient) -> None:
    bench = planted.bench
    for kind, key in (("cell", planted.cells[1]), *(("sample", key) for key in planted.samples)):
        own, _ = bench.picture(kind, f"{key}.png")
        answer = client.get(f"/cmp/{kind}/{key}.png")
        with Image.open(io.BytesIO(own)) as before, Image.open(io.BytesIO(answer.content)) as after:
            assert before.format == after.format and before.tobytes() == after.tobytes()
        found = bench.settings_in(answer.content)
        assert found.prompt == ("a /really/odd/ shoe" if kind == "cell" else "a shoe") and found.steps == (12 if kind == "cell" else 3)
        assert found.model == (BASE_NAME if kind == "cell" else "sd")
        assert {"Authorization", "Cookie", "X-CMP-Token"} <= set(answer.headers["vary"].split(", "))
        if bench.settings.token:
            assert client.get(f"/cmp/{kind}/{key}.png", headers={"X-CMP-Token": TOKEN}).content == own
