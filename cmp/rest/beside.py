"""What OpenAPI tells of the addresses of files, which the page uses as well: pictures, grids to keep, runs to hand over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cmp.rest.answers import LOOKING, STATUSES

_DIGEST = "[0-9a-f]{64}"
_PICTURES = ("image/png", "image/webp", "text/plain")
_EXPORTS = {"sheet.png": "image/png", "sheet.webp": "image/webp", "cells.zip": "application/zip", "grid.html": "text/html",
            "steps.gif": "image/gif", "steps.webp": "image/webp"}  # fmt: skip
_CURVES = {"curves.svg": "image/svg+xml", "curves.png": "image/png", "curves.csv": "text/csv"}
_SCORES = {"scores.csv": "text/csv", "verdicts.json": "application/json"}
_SHARED = {"page.json": "application/json", "page.zip": "application/zip", "model.zip": "application/zip"}


def files_told(*, shares: bool) -> dict[str, Any]:
    """The paths of OpenAPI; those of `shares` are there where something may be changed."""
    run, job = {"type": "string", "maxLength": 1000}, {"type": "string", "maxLength": 1000}
    told = {
        "/cmp/cell/{name}": _get(
            "A drawn picture by its key: KEY.png, KEY.256.webp as wide as said, or KEY.txt of its settings.",
            {"name": {"type": "string", "pattern": rf"^{_DIGEST}\.(png|txt|(64|128|256|512|1024)\.webp)$"}}, _PICTURES,
        ),
        "/cmp/sample/{name}": _get(
            "A picture that a trainer left, by the digest of its file: DIGEST.png, or DIGEST.256.webp as wide as said.",
            {"name": {"type": "string", "pattern": rf"^{_DIGEST}\.(png|(64|128|256|512|1024)\.webp)$"}}, _PICTURES,
        ),
        "/cmp/curve/{name}": _get(
            "The curves of a run as a picture or a table.",
            {"name": {"type": "string", "enum": list(_CURVES)}}, tuple(_CURVES.values()), {"run": run},
        ),
        "/cmp/alerts": _get("What is wrong with runs, jobs and disks just now.", {}, ("application/json",)),
        "/cmp/export/{source}/{name}": _get(
            "A grid as a file. The source is its job, or samples/RUN for the trainer's pictures. The view is JSON, as in the page's link.",
            {"source": job, "name": {"type": "string", "enum": list(_EXPORTS)}}, tuple(_EXPORTS.values()),
            {"view": {"type": "string", "maxLength": 2000}, "ms": {"type": "integer", "minimum": 20, "maximum": 60_000}},
        ),
        "/cmp/scores/{run}/{name}": _get(
            "Every score of every rule on a run, or all verdicts.",
            {"run": run, "name": {"type": "string", "enum": list(_SCORES)}}, tuple(_SCORES.values()),
        ),
    }  # fmt: skip
    if shares:
        told["/cmp/share/{target}/{name}"] = _get(
            "A run's page without weights, as a list of its files or packed; or a checkpoint's LoRA with a model card.",
            {"target": run, "name": {"type": "string", "enum": list(_SHARED)}}, tuple(_SHARED.values()),
        )  # fmt: skip
    return told


def _get(what: str, path: Mapping[str, Any], kinds: Sequence[str], query: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    named = [{"name": name, "in": "path", "required": True, "schema": schema} for name, schema in path.items()]
    named += [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in (query or {}).items()]
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    good = {"description": "The file.", "content": {kind: {"schema": {}} for kind in kinds}}
    answers = {"200": good} | {str(status): {"description": STATUSES[status], "content": error} for status in LOOKING}
    return {"get": {"summary": what.partition(".")[0], "description": what, "parameters": named, "responses": answers}}
