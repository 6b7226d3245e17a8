"""The origin's four routes: what people already call, unchanged."""

from __future__ import annotations

import asyncio
import base64
import secrets
import threading
import time
from typing import Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from pydantic import Field

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.limits import Limits
from cmp.core.runs import Checkpoint, Run, origin_name
from cmp.errors import Busy, NotFound, as_error
from cmp.rest.answers import WRITING, Asked, described
from cmp.rest.models import Models
from cmp.workbench import Workbench

MOST_WAITING = 8  # requests for pictures, the one that is drawn included
NOT_CHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "It is as If-None-Match says."}}

EXAMPLES = (
    {
        "category": "Shapes",
        "title": "Red casual shoe",
        "prompt": "a red casual shoe",
        "description": "What the demo's runs were trained on, in a colour they know.",
    },
    {
        "category": "Shapes",
        "title": "Small blue casual shoe on mint",
        "prompt": "a small blue casual shoe on a mint background",
        "description": "The new thing in a size and on a ground it was not trained with.",
    },
    {
        "category": "Drift",
        "title": "Green star",
        "prompt": "a green star",
        "description": "What the base model knew before: it should stay as it was.",
    },
)


class GenerateRequest(Asked):
    """The origin's request."""

    model_name: str
    prompt: str = Field(min_length=1, max_length=4000)
    negative_prompt: str = Field("", max_length=4000)
    num_images: int = Field(1, ge=1, le=8)
    num_inference_steps: int = Field(50, ge=1, le=200)
    guidance_scale: float = Field(7.5, ge=0, le=50)
    seed: int | None = Field(None, ge=0, lt=2**53)


def add_origin(router: APIRouter, bench: Workbench) -> None:
    """Adds the routes."""
    looking, drawing = {"responses": described((400, 401, 403))}, {"responses": described(WRITING)}
    kept = Models(bench)
    room = threading.BoundedSemaphore(MOST_WAITING)

    @router.get("/health", **looking)  # type: ignore[arg-type]
    async def health() -> dict[str, Any]:
        """Whether the server answers, what it draws with, its memory, its queue, how long it has been up."""
        from cmp.workbench.vitals import vitals

        # in a thread of other threads than requests are answered in: of those all may be busy
        return {**await asyncio.to_thread(vitals, bench), "timestamp": _now()}

    @router.get("/api/models", responses=looking["responses"] | NOT_CHANGED, response_model=dict[str, Any])
    async def models(request: Request) -> Response:
        """Everything that can be drawn with: the base, every checkpoint, and every run's final."""
        return await kept.answer(request)

    @router.get("/api/prompts/examples", **looking)  # type: ignore[arg-type]
    def examples() -> list[dict[str, str]]:
        """Prompts to begin with."""
        return [dict(example) for example in EXAMPLES]

    @router.post("/api/generate", **drawing)  # type: ignore[arg-type]
    def generate(asked: GenerateRequest = Body()) -> dict[str, Any]:
        """Draws pictures with one checkpoint. Several without a seed take a random first seed, then the following ones."""
        if not room.acquire(blocking=False):
            raise Busy(f"{MOST_WAITING} requests for pictures are waiting already", "Ask again when some of them are done.")
        try:
            return draw_images(bench, asked)
        finally:
            room.release()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def find_model(bench: Workbench, name: str) -> tuple[Run, Checkpoint | None]:
    """The run and checkpoint that the origin's name, or an id of ours, means; None for the base model. Raises NotFound."""
    library = bench.library(fresh=False)
    if name == "base":
        if not library.runs:
            raise NotFound("there is no run, so no base model is known", "Start with --runs DIR.")
        return library.runs[0], None
    for run in library.runs:
        for checkpoint in run.checkpoints:
            aliases = {alias.rpartition("@")[2] for alias in checkpoint.aliases}
            if name in (checkpoint.id, origin_name(checkpoint), *checkpoint.aliases, *(f"{run.id}/{alias}" for alias in aliases)):
                return bench.find(checkpoint.id, only_ids=True)  # of which the headers may not have been read yet
    raise NotFound(f"there is no model {name!r}", "GET /api/models lists them.")


def steps_of(asked: GenerateRequest, *, limited: bool) -> int:
    """The denoising steps: what was asked for; where nothing was, the origin's number, or the most where drawing is `limited`."""
    if limited and "num_inference_steps" not in asked.model_fields_set:
        return min(asked.num_inference_steps, Limits().steps)
    return asked.num_inference_steps


def draw_images(bench: Workbench, asked: GenerateRequest) -> dict[str, Any]:
    """Draws what a request asks for; raises the first fault."""
    started = time.monotonic()
    run, checkpoint = find_model(bench, asked.model_name)
    first = asked.seed if asked.seed is not None else secrets.randbelow(2**32)
    steps = steps_of(asked, limited=bench.settings.read_only)
    spec = GridSpec(
        checkpoints=(checkpoint,),
        prompts=(Prompt(asked.prompt, asked.negative_prompt),),
        seeds=tuple(range(first, first + asked.num_images)),
        samplings=(Sampling(steps, asked.guidance_scale),),
    )
    images = []
    for tile in bench.draw_grid(spec, [run]):
        if not isinstance(tile, Tile):
            continue
        if tile.fault:
            raise as_error(tile.fault.error, tile.fault.hint, tile.fault.code)
        content, _ = bench.picture("cell", f"{tile.key}.png")
        name = f"{asked.model_name.replace('/', '_')}_seed{tile.cell.seed}.png"
        images.append({"image_data": base64.b64encode(content).decode(), "seed": tile.cell.seed, "filename": name})
    return {
        "success": True,
        "model_name": asked.model_name,
        "prompt": asked.prompt,
        "num_images": len(images),
        "images": images,
        "generation_time_seconds": round(time.monotonic() - started, 3),
        "metadata": {
            "num_inference_steps": steps,
            "guidance_scale": asked.guidance_scale,
            "device": bench.device_name(),
            "timestamp": _now(),
        },
    }
