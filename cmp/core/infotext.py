"""The settings text that A1111 writes into pictures, so that every tool that reads it can read ours."""

from __future__ import annotations

import json

from cmp.core.grids import Cell


def to_infotext(cell: Cell, size: tuple[int, int], base: str, digest: str | None, version: str) -> str:
    """A1111's `parameters`: the prompt, the negative prompt's line, and one line of `name: value` pairs."""
    lines = [cell.prompt.text]
    if cell.prompt.negative:
        lines.append(f"Negative prompt: {cell.prompt.negative}")
    pairs: list[tuple[str, object]] = [
        ("Steps", cell.sampling.steps),
        ("Sampler", cell.sampling.scheduler),
        ("CFG scale", f"{cell.sampling.guidance:g}"),
        ("Seed", cell.seed),
        ("Size", f"{size[0]}x{size[1]}"),
        ("Model", base),
    ]
    if cell.checkpoint:
        pairs += [("Checkpoint", cell.checkpoint.id), ("Strength", f"{cell.strength:g}"), ("Weights digest", (digest or "")[:16])]
    pairs.append(("Version", f"cmp {version}"))
    lines.append(", ".join(f"{name}: {_quoted(str(value))}" for name, value in pairs))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    """A1111 quotes a value that would break the line of pairs, as a JSON string."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:"\n') else value
