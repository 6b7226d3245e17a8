"""A ControlNet beside a base model: the pipeline that holds both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cmp.disk.bases import CONTROL, read_index
from cmp.disk.json_table import read_json_table
from cmp.errors import Refused

# diffusers' pipelines that take a ControlNet, by the one that draws without
_CONTROLLED = {
    "StableDiffusionPipeline": ("StableDiffusionControlNetPipeline", "ControlNetModel"),
    "StableDiffusionXLPipeline": ("StableDiffusionXLControlNetPipeline", "ControlNetModel"),
    "StableDiffusion3Pipeline": ("StableDiffusion3ControlNetPipeline", "SD3ControlNetModel"),
    "FluxPipeline": ("FluxControlNetPipeline", "FluxControlNetModel"),
}
_MUST_AGREE = ("cross_attention_dim", "block_out_channels", "joint_attention_dim", "num_attention_heads")


def add_control(source: Path, base: Path, draft: Path, strength: float) -> str:
    """Makes the base's pipeline in `draft`, where the ControlNet's weights lie already, one that takes it; gives what was done, in words.

    `source` is the folder in which the ControlNet's settings lie beside its weights. Raises Refused where they do not fit the base.
    """
    if strength != 1:
        raise Refused(f"a ControlNet has no strength of its own, and {strength:g} was asked for", "Set it where it is used.")
    index = read_index(base)
    kind, model = _CONTROLLED.get(str(index.get("_class_name")), ("", ""))
    settings = read_json_table(source / "config.json")
    if settings.get("_class_name") != model:
        told = f"{source} holds a {settings.get('_class_name')}, and {base.name} is a {index.get('_class_name')}"
        raise Refused(told, "Give the base model that it was trained for with --base.")
    denoiser = read_json_table(base / ("unet" if "unet" in index else "transformer") / "config.json")
    if wrong := [key for key in _MUST_AGREE if settings.get(key) != denoiser.get(key)]:
        told = f"its {wrong[0]} is {settings.get(wrong[0])}, and that of {base.name} {denoiser.get(wrong[0])}"
        raise Refused(told, "It was trained for another base; give it with --base.")
    whole = index | {"_class_name": kind, CONTROL: ["diffusers", model]}
    (draft / "model_index.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(source / "config.json", draft / CONTROL / "config.json")
    return f"the pipeline is a {kind}: {base.name} with the ControlNet beside it"
