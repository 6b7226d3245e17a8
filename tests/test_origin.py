"""The origin's request with nothing but what it must hold: it can be drawn wherever drawing is open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmp.core.grids import GridSpec
from cmp.errors import BadInput
from cmp.rest.origin import GenerateRequest, draw_images
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for
from tests.support import origin_run


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Asks in a mode, and gives the steps that were drawn and those that the answer tells of; all but the drawing itself is done."""
    made = origin_run(tmp_path)

    def answer(mode: str, **asked: object) -> tuple[int, int]:
        bench = Workbench(Settings(tmp_path / "home", (made.outputs,), (made.bases,), mode=mode, read_only=mode == "space"))
        drawn: list[GridSpec] = []

        def draw(spec: GridSpec, runs: object) -> Iterator[object]:
            bench.require_drawing(spec)
            drawn.append(spec)
            return iter(())

        monkeypatch.setattr(bench, "draw_grid", draw)
        body = json.dumps({"model_name": "base", "prompt": "x", "seed": 1} | asked)
        with acting_for(Caller(owner=mode != "space", address="192.0.2.1")):
            told = draw_images(bench, GenerateRequest.model_validate_json(body))
        return drawn[0].samplings[0].steps, told["metadata"]["num_inference_steps"]

    return answer


def test_a_request_that_names_no_steps_has_fifty_at_home_and_in_a_space_as_many_as_are_allowed(ask: Any) -> None:
    assert ask("local") == (50, 50) and ask("space") == (30, 30)


def test_steps_that_are_named_are_taken_as_they_are_or_refused(ask: Any) -> None:
    assert ask("space", num_inference_steps=7) == (7, 7) and ask("local", num_inference_steps=60) == (60, 60)
    with pytest.raises(BadInput, match="50 denoising steps"):
        ask("space", num_inference_steps=50)
