"""What no route answers is told in the contract's form too: a path that there is not, and a method that a path does not take."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from cmp.rest import api_routes
from tests.support import bench_of, origin_run


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with TestClient(FastAPI(routes=api_routes(bench_of(origin_run(tmp_path_factory.mktemp("rest")))))) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/api/models", "GET"), ("GET", "/api/generate", "POST"), ("DELETE", "/api/v1/list", "GET"), ("PUT", "/health", "GET")],
)
def test_a_method_that_a_path_does_not_take_is_refused_with_those_that_it_does(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path, json={})
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    detail = answer.json()["detail"]
    assert set(detail) == {"error", "hint", "code"} and path in detail["error"] and method in detail["error"] and allowed in detail["hint"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_verb_that_there_is_not_is_not_found_by_any_method(client: TestClient, method: str) -> None:
    answer = client.request(method, "/api/v1/nothing", json={})
    assert answer.status_code == 404 and set(answer.json()["detail"]) == {"error", "hint", "code"}


def test_what_there_is_still_answers(client: TestClient) -> None:
    assert client.get("/api/models").status_code == client.get("/health").status_code == client.get("/api/v1/list").status_code == 200
    assert client.post("/api/generate", json={}).status_code == 422
