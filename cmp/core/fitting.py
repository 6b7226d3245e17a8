"""Whether an adapter fits a base model: every module it adapts is there and has the measures that it was made for."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping

from cmp.core.deltas import check_delta
from cmp.core.weights import Shape, Weights
from cmp.errors import Refused

# what a UNet was made for, by how many channels it takes in (of diffusers' pipelines for Stable Diffusion)
_MADE_FOR = {4: "drawing from noise", 8: "InstructPix2Pix", 9: "inpainting", 5: "drawing by depth", 7: "upscaling"}
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
                f"the base model has no module {module.module}, which the checkpoint adapts{_likely(weights, shapes)}",
                "It was trained on another architecture; give its own base with --base.",
            )
        shapes_of_parts = {role: stored[name] for role, name in module.weight_parts.items()}
        if shapes_of_parts:
            try:
                check_delta(module.method, shapes_of_parts, base, module.module, module.rows)
            except Refused as fault:
                raise Refused(f"{fault.message}{_likely(weights, shapes)}", fault.hint) from fault


def check_input(name: str, ours: Shape, theirs: Shape) -> None:
    """Raises Refused, and says by name what each was made for, if a tensor of a checkpoint takes other channels in than the base's."""
    if not name.endswith("conv_in.weight") or len(ours) != 4 or len(theirs) != 4 or ours[1] == theirs[1]:
        return
    made, base = (f"{shape[1]} channels ({_MADE_FOR.get(shape[1], 'something else')})" for shape in (ours, theirs))
    wanted = _MADE_FOR.get(ours[1], "the same")
    raise Refused(
        f"the checkpoint was trained for another task than the base: its {name.removesuffix('.weight')} takes in {made}, the base's {base}",
        f"Give a pipeline for {wanted} as --base, for example the one that the training saved at its end."
        + ("" if ours[1] == 4 else " Drawing with it needs an input image, which cannot be given here."),
    )


def check_draws_from_noise(shapes: Mapping[str, Shape]) -> None:
    """Raises Refused if a UNet of these tensors draws after a picture, which none of the grid's coordinates is."""
    taken = shapes.get("conv_in.weight", ())
    if len(taken) == 4 and taken[1] != 4 and (made := _MADE_FOR.get(taken[1])):
        raise Refused(
            f"the base takes in {taken[1]} channels: it is for {made}, and draws after an input image, which cannot be given here",
            "Convert with --to pipeline, and draw with diffusers.",
        )


def _likely(weights: Weights, shapes: Iterable[str]) -> str:
    """In words, which architectures the checkpoint and the base look like, where their modules tell them apart."""
    ours, theirs = _architecture([m.module for m in weights.adapted]), _architecture(shapes)
    return f" (it looks like one for {ours}, and the base like {theirs})" if ours and theirs and ours != theirs else ""


def _architecture(names: Iterable[str]) -> str | None:
    """Stable Diffusion 1 and 2 have one transformer block in each place, XL has several, and none at the highest resolution."""
    blocks = set(
        re.findall(
            r"(?<![^ ])(down_blocks\.0\.attentions|[a-z]+_block(?:s\.[0-9]+)?\.attentions\.[0-9]+\.transformer_blocks\.[1-9]"
            r"|(?:single_)?transformer_blocks\.[0-9])",
            " ".join(names),
        )
    )
    if any("transformer_blocks" in block and "attentions" not in block for block in blocks):
        return "Flux" if any(block.startswith("single_") for block in blocks) else "SD 3 or Flux"
    if any(".transformer_blocks." in block for block in blocks):
        return "SDXL"
    return "SD 1 or 2" if "down_blocks.0.attentions" in blocks else None
