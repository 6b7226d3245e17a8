"""Whether an adapter fits a base model: every module it adapts is there and has the measures that it was made for."""

from __future__ import annotations

from collections.abc import Container, Mapping

from cmp.core.deltas import check_delta
from cmp.core.weights import BESIDE, Shape, Weights
from cmp.errors import Refused

RECOMPUTED = "position_ids"  # older text encoders save this counting buffer; it holds nothing


def find_module(module: str, names: Container[str]) -> str | None:
    """What a base calls this module; older text encoders are `text_model.` on disk, newer ones are not."""
    plain = module.removeprefix("text_model.")
    return next((m for m in (module, plain, f"text_model.{plain}") if f"{m}.weight" in names), None)


def find_tensor(name: str, names: Container[str]) -> str | None:
    """What a base calls this tensor, see find_module."""
    plain = name.removeprefix("text_model.")
    return next((n for n in (name, plain, f"text_model.{plain}") if n in names), None)


def check_fits(weights: Weights, shapes: Mapping[str, Shape], stored: Mapping[str, Shape]) -> None:
    """Raises Refused if one module of the adapter is not in the base or has other measures; names the first.

    `weights` speak of one component, whose tensors in the base have `shapes`; `stored` are the checkpoint's. Some module names exist in
    several architectures, so that "most names match" says nothing.
    """
    for module in weights.adapted:
        known = find_module(module.module, shapes)
        base = shapes[f"{known}.weight"] if known else None
        if base is None:
            raise Refused(
                f"the base model has no module {module.module}, which the checkpoint adapts",
                "It was trained on another architecture; give its own base with --base.",
            )
        shapes_of_parts = {role: stored[name] for role, name in module.parts.items() if role not in BESIDE}
        if shapes_of_parts:
            check_delta(module.method, shapes_of_parts, base, module.module)
