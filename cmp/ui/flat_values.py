"""A value with axes as the viewer that knows only rows and columns takes it."""

from __future__ import annotations

from typing import Any


def flat(value: dict[str, Any]) -> dict[str, Any]:
    """The step's axis across, all others down."""
    axes = value["axes"]
    across = next(i for i, axis in enumerate(axes) if axis["key"] == value["step_axis"])
    down = [i for i in range(len(axes)) if i != across]
    lines = sorted({tuple(cell["at"][i] for i in down) for cell in value["cells"]})
    named = [i for i in down if len(axes[i]["values"]) > 1] or down[-2:-1]
    rows = []
    for line in lines:
        words = [axes[i]["values"][line[down.index(i)]]["label"] for i in named]
        rows.append({"key": repr(line), "label": words[0] if words else "", "sub": " · ".join(words[1:])})
    urls, order = value["urls"], {line: i for i, line in enumerate(lines)}
    cells = [
        {
            "r": order[tuple(cell["at"][i] for i in down)],
            "c": cell["at"][across],
            "key": cell["key"],
            "state": cell["state"],
            "thumb": urls["thumb"].replace("{key}", cell["key"]),
            "full": urls["full"].replace("{key}", cell["key"]),
            "caption": "",
            "details": [*value["common"], *axes[across]["values"][cell["at"][across]]["details"], *cell["details"]],
            "reused": False,
            "seconds": None,
            "fault": None,
            "badge": "",
        }
        for cell in value["cells"]
    ]
    kept = {name: value[name] for name in ("title", "note", "done", "total", "rerolls")}
    return kept | {"columns": axes[across]["values"], "rows": rows, "cells": cells}
