"""REST: the origin's four routes, over the same verbs as page and command line. JSON in, JSON out."""

from __future__ import annotations

import base64
import secrets
import time
from typing import Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import BaseRoute

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.runs import Checkpoint, Run, origin_name, origin_title
from cmp.errors import CmpError, NotFound, as_error
from cmp.workbench import Workbench

LARGEST_BODY = 100_000  # bytes; a request is a prompt and a few numbers

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


class _Route(APIRoute):
    """Answers our errors in the contract's form, with their own status."""

    def get_route_handler(self) -> Any:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Any:
            try:
                if int(request.headers.get("content-length") or 0) > LARGEST_BODY:
                    return JSONResponse({"detail": {"error": "the request is too large", "hint": "Send less.", "code": 2}}, 413)
                return await handle(request)
            except CmpError as fault:
                return JSONResponse({"detail": fault.as_json()}, fault.http_status)

        return answer


class GenerateRequest(BaseModel):
    """The origin's request; further fields are refused, since a misspelt one would be ignored in silence."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: str
    prompt: str = Field(min_length=1, max_length=4000)
    negative_prompt: str = Field("", max_length=4000)
    num_images: int = Field(1, ge=1, le=8)
    num_inference_steps: int = Field(50, ge=1, le=200)
    guidance_scale: float = Field(7.5, ge=0, le=50)
    seed: int | None = Field(None, ge=0, lt=2**53)


def api_routes(bench: Workbench) -> list[BaseRoute]:
    """The routes, to be handed to the server."""
    router = APIRouter(route_class=_Route)

    @router.get("/health")
    def health() -> dict[str, Any]:
        """Whether the server answers, and what it draws with."""
        return {"status": "healthy", "timestamp": _now(), "device": bench.device_name(), "models_cached": bench.loaded_models()}

    @router.get("/api/models")
    def models() -> dict[str, Any]:
        """Everything that can be drawn with: the base, every checkpoint, and every run's final."""
        return {"models": list_models(bench)}

    @router.get("/api/prompts/examples")
    def examples() -> list[dict[str, str]]:
        """Prompts to begin with."""
        return [dict(example) for example in EXAMPLES]

    @router.post("/api/generate")
    def generate(asked: GenerateRequest = Body()) -> dict[str, Any]:
        """Draws pictures with one checkpoint. Several without a seed take a random first seed, then the following ones."""
        return draw_images(bench, asked)

    return list(router.routes)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def list_models(bench: Workbench) -> list[dict[str, Any]]:
    """The origin's list, in its names: `base`, `RUN/checkpoint-500`, `RUN/final`."""
    library = bench.library(fresh=False)
    found = [_model("base", "Base model", "the model that the runs were fine-tuned from", bool(library.runs), None)]
    for run in library.runs:
        for checkpoint in run.checkpoints:
            found.append(_checkpoint_model(bench, run, checkpoint, origin_name(checkpoint)))
            for alias in checkpoint.aliases:
                found.append(_checkpoint_model(bench, run, checkpoint, f"{run.id}/{alias.rpartition('@')[2]}"))
    return found


def _checkpoint_model(bench: Workbench, run: Run, checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    stage = f"Step {checkpoint.step}" if checkpoint.step is not None else checkpoint.key.capitalize()
    title = bench.given_name(run) or origin_title(run.name)
    label = "Final" if name.endswith("/final") else stage
    description = f"{run.trainer} run {run.id}, {stage.lower()}"
    return _model(name, f"{title} ({label})", description, checkpoint.flaw is None, checkpoint)


def _model(name: str, title: str, description: str, available: bool, checkpoint: Checkpoint | None) -> dict[str, Any]:
    return {
        "name": name,
        "display_name": title,
        "description": description,
        "available": available,
        "id": checkpoint.id if checkpoint else None,
        "step": checkpoint.step if checkpoint else None,
        "flaw": checkpoint.flaw if checkpoint else None,
    }


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


def draw_images(bench: Workbench, asked: GenerateRequest) -> dict[str, Any]:
    """Draws what a request asks for; raises the first fault."""
    started = time.monotonic()
    run, checkpoint = find_model(bench, asked.model_name)
    first = asked.seed if asked.seed is not None else secrets.randbelow(2**32)
    spec = GridSpec(
        checkpoints=(checkpoint,),
        prompts=(Prompt(asked.prompt, asked.negative_prompt),),
        seeds=tuple(range(first, first + asked.num_images)),
        samplings=(Sampling(asked.num_inference_steps, asked.guidance_scale),),
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
            "num_inference_steps": asked.num_inference_steps,
            "guidance_scale": asked.guidance_scale,
            "device": bench.device_name(),
            "timestamp": _now(),
        },
    }
