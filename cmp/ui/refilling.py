"""A drawn grid as the fields of the form, so that a page that was loaded anew says what stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cmp.core.axes import quoted
from cmp.core.grids import GridSpec, Sampling
from cmp.core.labels import number_text

_AXES: dict[str, Callable[[Sampling], str]] = {
    "steps": lambda s: str(s.steps),
    "guidance": lambda s: number_text(s.guidance),
    "scheduler": lambda s: s.scheduler,
    "size": lambda s: f"{s.width}x{s.height}" if s.width and s.height else "",
    "clip_skip": lambda s: "" if s.clip_skip == 1 else str(s.clip_skip),
    "vae": lambda s: quoted(s.vae) if s.vae else "",
}
FIELDS = (*_AXES, "strengths", "mode", "preview", "title", "negative")


def fields_of(spec: GridSpec) -> dict[str, Any]:
    """The fields that say how a grid was drawn. Without one that the form could not say so: two values of which one is the usual."""
    samplings = [prompt.own.over(sampling) for prompt in spec.prompts for sampling in spec.samplings]
    told = {name: list(dict.fromkeys(map(of, samplings))) for name, of in _AXES.items()}
    told["strengths"] = [number_text(strength) for strength in dict.fromkeys(spec.strengths)]
    fields: dict[str, Any] = {name: _joined(values) for name, values in told.items() if len(values) == 1 or all(values)}
    negatives = list(dict.fromkeys(prompt.negative for prompt in spec.prompts))
    if len(negatives) == 1 and "\n" not in negatives[0]:
        fields["negative"] = quoted(negatives[0]) if "||" in negatives[0] else negatives[0]
    return fields | {"mode": spec.mode, "preview": spec.preview, "title": spec.title}


def _joined(values: Iterable[str]) -> str:
    return ", ".join(values)
