"""The origin's API, answered by the running server on the page's own port."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from .conftest import FULL, Server, start_server

pytestmark = pytest.mark.model


def test_health_tells_the_device(server: Server) -> None:
    status, told, kind = server.get("/health")
    assert status == 200 and kind.startswith("application/json")
    assert told["status"] == "healthy" and told["device"] == "cpu" and isinstance(told["models_cached"], list) and told["timestamp"]


def test_models_has_the_base_every_step_and_the_final(server: Server) -> None:
    models = {model["name"]: model for model in server.get("/api/models")[1]["models"]}
    assert {"base", f"{FULL}/checkpoint-500", f"{FULL}/checkpoint-3000", f"{FULL}/final"} <= set(models)
    first = models[f"{FULL}/checkpoint-500"]
    assert (
        first["display_name"] == "Lora Casual Shoes 3000Steps Full (Step 500)" and first["available"] and "step 500" in first["description"]
    )


def test_prompt_examples_have_the_origins_fields(server: Server) -> None:
    examples = server.get("/api/prompts/examples")[1]
    assert examples and all({"category", "title", "prompt", "description"} <= set(example) for example in examples)


def test_generate_draws_as_many_pictures_as_asked_with_following_seeds(server: Server) -> None:
    asked = {"model_name": f"{FULL}/checkpoint-1500", "prompt": "a red casual shoe", "num_images": 2, "num_inference_steps": 2, "seed": 5}
    status, told, _ = server.post("/api/generate", asked)
    assert status == 200 and told["success"] and told["num_images"] == 2
    assert [image["seed"] for image in told["images"]] == [5, 6]
    assert (
        told["metadata"]["num_inference_steps"] == 2 and told["metadata"]["guidance_scale"] == 7.5 and told["generation_time_seconds"] >= 0
    )
    pictures = [Image.open(io.BytesIO(base64.b64decode(image["image_data"]))) for image in told["images"]]
    assert all(picture.format == "PNG" and picture.size == (64, 64) for picture in pictures)
    base = server.post("/api/generate", asked | {"model_name": "base"})[1]
    assert base["images"][0]["image_data"] != told["images"][0]["image_data"]


def test_generate_without_a_seed_says_which_it_took(server: Server) -> None:
    asked = {"model_name": f"{FULL}/final", "prompt": "a red casual shoe", "num_images": 2, "num_inference_steps": 1, "seed": None}
    seeds = [image["seed"] for image in server.post("/api/generate", asked)[1]["images"]]
    assert seeds[1] == seeds[0] + 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model_name": "nothing/checkpoint-1"}, 404),
        ({"num_images": 9}, 422),
        ({"num_inference_steps": 0}, 422),
        ({"guidance_scale": -1}, 422),
        ({"prompt": ""}, 422),
        ({"seed": -1}, 422),
        ({"num_image": 3}, 422),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(server: Server, change: dict[str, object], status: int) -> None:
    asked = {"model_name": "base", "prompt": "x", "num_inference_steps": 1} | change
    answer = server.post("/api/generate", asked)
    assert answer[0] == status and "detail" in answer[1]


def test_a_form_of_another_site_cannot_make_it_draw(server: Server) -> None:
    asked = b'{"model_name": "base", "prompt": "x", "num_inference_steps": 1}'
    assert server.post("/api/generate", asked, **{"Content-Type": "text/plain"})[0] == 415
    assert server.post("/api/generate", asked, Origin="http://evil.test")[0] == 403
    assert server.get("/health", Host="evil.test")[0] == 400


def test_a_tab_holds_no_permanent_connection(server: Server) -> None:
    """With one heartbeat per tab the sixth tab of a browser would hang."""
    assert server.get("/config")[1]["connect_heartbeat"] is False


def test_nothing_is_measured_or_sent_home(server: Server) -> None:
    assert server.get("/monitoring/summary")[0] in (403, 404)
    assert server.get("/config")[1]["analytics_enabled"] is False


def test_pictures_are_named_by_digest_and_by_nothing_else(server: Server) -> None:
    assert server.get("/cmp/cell/..%2f..%2fstate.db")[0] == 404
    assert server.get("/cmp/cell/" + "0" * 64 + ".png")[0] == 404
    assert server.get("/cmp/static/__init__.py")[0] == 404
    assert server.get("/cmp/static/matrix.js")[0] == 200
    for path in ("grid-nobody/sheet.png", "samples/nobody/cells.zip", "..%2f..%2fstate.db/grid.html"):
        status, told, kind = server.get(f"/cmp/export/{path}")
        assert status == 404 and kind.startswith("application/json") and told["detail"]["hint"]


@pytest.fixture(scope="module")
def guarded(demo_home: Path) -> Iterator[Server]:
    yield from start_server(demo_home, "serve", "--port", "0", "--token", "open sesame")


def test_with_a_token_nobody_comes_in_without_it(guarded: Server) -> None:
    for path in ("/", "/health", "/api/models", "/config", "/cmp/static/matrix.js", "/cmp/export/grid-1/sheet.png"):
        assert guarded.get(path)[0] == 401, path
    assert guarded.post("/api/generate", {})[0] == 401
    assert guarded.get("/health", Authorization="Bearer open sesame")[0] == 200
    assert guarded.get("/health", **{"X-CMP-Token": "open sesame"})[0] == 200
    assert guarded.get("/health", Authorization="Bearer wrong")[0] == 401
