"""The names and shapes that Stable Diffusion's first implementations give to weights, for tensors that carry diffusers' names.

One file in that layout is what A1111, Forge and ComfyUI call a checkpoint. The UNet and the VAE follow CompVis' latent-diffusion, the
text encoders OpenAI's CLIP as transformers has it (SD 1, SDXL's first) or OpenCLIP (SD 2, SDXL's second). The place of a block is
worked out from the tensors' own names, so that it holds for any width and depth. What has no place in the layout is refused, never
dropped. Sources: diffusers' `loaders/single_file_utils.py`, `openaimodel.py` and `model.py` of CompVis/latent-diffusion, `transformer.py`
of mlfoundations/open_clip.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cmp.errors import Refused

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CLIP, _OPENCLIP = "transformer.text_model.", "model."
PREFIXES: Mapping[str, Mapping[str, str]] = {
    "SD 1": {"unet": _UNET, "vae": _VAE, "text_encoder": f"cond_stage_model.{_CLIP}"},
    "SD 2": {"unet": _UNET, "vae": _VAE, "text_encoder": f"cond_stage_model.{_OPENCLIP}"},
    "SDXL": {
        "unet": _UNET, "vae": _VAE,
        "text_encoder": f"conditioner.embedders.0.{_CLIP}", "text_encoder_2": f"conditioner.embedders.1.{_OPENCLIP}",
    },
    "SDXL refiner": {"unet": _UNET, "vae": _VAE, "text_encoder_2": f"conditioner.embedders.0.{_OPENCLIP}"},
}  # fmt: skip

_KIND = r"\.(weight|bias)"
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
_UNET_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_VAE_RESNET = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
    "query": "q", "key": "k", "value": "v", "proj_attn": "proj_out",  # diffusers before 0.17
}  # fmt: skip
_VAE_ENDS = {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"}
_OPENCLIP_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip
_OPENCLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight", "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.position_ids": "position_ids", "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
}  # fmt: skip

# the inside of a transformer bears the same names in both layouts; only what the original implementation has is let through
_TRANSFORMER = re.compile(
    rf"(?:(?:norm|proj_in|proj_out){_KIND}"
    rf"|transformer_blocks\.[0-9]+\.(?:norm[123]{_KIND}|attn[12]\.(?:to_[qkv]\.weight|to_out\.0{_KIND})|ff\.net\.(?:0\.proj|2){_KIND}))"
)
_CLIP_TEXT = re.compile(
    rf"(?:embeddings\.(?:token_embedding\.weight|position_embedding\.weight|position_ids)|final_layer_norm{_KIND}"
    rf"|encoder\.layers\.[0-9]+\.(?:layer_norm[12]|self_attn\.(?:[qkv]|out)_proj|mlp\.fc[12]){_KIND})"
)


@dataclass(frozen=True, slots=True)
class Renamed:
    """Where a tensor goes in the original layout.

    `change` is what becomes of its values: "" nothing, "1x1" a matrix written as the convolution that it is, "transposed", or "left out"
    for counted positions that the layout does not keep. `part` is its place among the tensors stacked into one (0, 1, 2 for q, k, v).
    """

    name: str
    change: str = ""
    part: int | None = None

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape, 1, 1) if self.change == "1x1" else shape[::-1] if self.change == "transposed" else shape


def to_original(component: str, shapes: Mapping[str, tuple[int, ...]], family: str) -> dict[str, Renamed]:
    """The place of every tensor of a diffusers component; `family` is a key of PREFIXES.

    Raises Refused and names the tensors that have no place there, or that would share one.
    """
    prefix = PREFIXES.get(family, {}).get(component)
    if prefix is None:
        raise Refused(f"{component} has no place in one file of {family}", "Use the form pipeline, which keeps every component.")
    find = _finder(component, prefix, shapes)
    found = {name: place for name, shape in shapes.items() if (place := find(name, shape))}
    if lost := sorted(set(shapes) - set(found)):
        told = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise Refused(f"{component}: no place in the original layout for {told}", "Use the form pipeline, which keeps them as they are.")
    placed = {name: Renamed(prefix + place.name, place.change, place.part) for name, place in found.items()}
    stack(placed)
    return placed


def stack(placed: Mapping[str, Renamed]) -> dict[str, tuple[str, ...]]:
    """The names in the original layout, each with the tensors that make it, in their order; raises Refused for two in one place."""
    made: dict[str, dict[int | None, str]] = {}
    for name, place in placed.items():
        if place.change == "left out":
            continue
        parts = made.setdefault(place.name, {})
        if place.part in parts or (parts and None in {place.part, *parts}):
            raise Refused(f"{parts.popitem()[1]} and {name} are the same tensor in the original layout", "One of them is a leftover.")
        parts[place.part] = name
    for target, parts in made.items():
        if None not in parts and set(parts) != {0, 1, 2}:
            raise Refused(
                f"{target} is made of q, k and v, and there is only {', '.join(sorted(parts.values()))}", "The model is incomplete."
            )
    return {target: tuple(parts[part] for part in sorted(parts, key=lambda part: part or 0)) for target, parts in made.items()}


def change_values(values: np.ndarray, place: Renamed) -> np.ndarray:
    """The values as they stand in the original layout (one part of them where the layout stacks)."""
    return np.ascontiguousarray(values.T) if place.change == "transposed" else values.reshape(place.shape(values.shape))


Find = Callable[[str, tuple[int, ...]], "Renamed | None"]


def _finder(component: str, prefix: str, names: Iterable[str]) -> Find:
    if component == "unet":
        return _in_unet(tuple(names))
    if component == "vae":
        return _in_vae(tuple(names))
    return _in_clip if prefix.endswith(_CLIP) else _in_openclip(projected=component == "text_encoder_2")


def _in_unet(names: tuple[str, ...]) -> Find:
    """The original numbers all layers of the way down, and of the way up, through: a block takes `per` numbers, its sampler included."""
    per = _layers_per_block(names)
    attending = {int(found[1]) for name in names if (found := re.match(r"up_blocks\.([0-9]+)\.attentions\.", name))}

    def find(name: str, shape: tuple[int, ...]) -> Renamed | None:
        stem, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias"):
            return None
        if stem in _UNET_ENDS:
            return Renamed(f"{_UNET_ENDS[stem]}.{kind}")
        if found := re.fullmatch(rf"down_blocks\.([0-9]+)\.downsamplers\.0\.conv{_KIND}", name):
            return Renamed(f"input_blocks.{(int(found[1]) + 1) * per}.0.op.{kind}")
        if found := re.fullmatch(rf"up_blocks\.([0-9]+)\.upsamplers\.0\.conv{_KIND}", name):
            block = int(found[1])
            return Renamed(f"output_blocks.{(block + 1) * per - 1}.{2 if block in attending else 1}.conv.{kind}")
        if found := re.fullmatch(r"down_blocks\.([0-9]+)\.(resnets|attentions)\.([0-9]+)\.(.+)", name):
            return _in_layer(f"input_blocks.{int(found[1]) * per + int(found[3]) + 1}", found[2], found[4])
        if found := re.fullmatch(r"up_blocks\.([0-9]+)\.(resnets|attentions)\.([0-9]+)\.(.+)", name):
            return _in_layer(f"output_blocks.{int(found[1]) * per + int(found[3])}", found[2], found[4])
        if found := re.fullmatch(r"mid_block\.resnets\.([01])\.(.+)", name):
            return _in_layer("middle_block", "resnets", found[2], 2 * int(found[1]))
        if found := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", name):
            return _in_layer("middle_block", "attentions", found[1])
        return None

    return find


def _layers_per_block(names: tuple[str, ...]) -> int:
    """How many layers a block has on the way up, which is one more than on the way down; raises Refused where blocks differ."""
    down, up = (_count(names, rf"{side}_blocks\.([0-9]+)\.resnets\.([0-9]+)\.") for side in ("down", "up"))
    per = up.get(0, 0)
    if not up or set(down) != set(up) or set(up.values()) != {per} or set(down.values()) != {per - 1}:
        told = f"{sorted(down.values())} layers on the way down and {sorted(up.values())} on the way up"
        raise Refused(f"the original layout has no UNet whose blocks have {told}", "Use the form pipeline, which keeps it as it is.")
    return per


def _count(names: tuple[str, ...], pattern: str) -> Mapping[int, int]:
    """How many different second numbers the pattern finds for each first one."""
    pairs = {(int(found[1]), int(found[2])) for name in names if (found := re.match(pattern, name))}
    return Counter(block for block, _ in pairs)


def _in_layer(block: str, sort: str, rest: str, first: int = 0) -> Renamed | None:
    """A tensor of one numbered place, where the residual layer stands at `first` and the attention behind it."""
    stem, _, kind = rest.rpartition(".")
    if sort == "attentions":
        return Renamed(f"{block}.{first + 1}.{rest}") if _TRANSFORMER.fullmatch(rest) else None
    return Renamed(f"{block}.{first}.{_UNET_RESNET[stem]}.{kind}") if stem in _UNET_RESNET else None


def _in_vae(names: tuple[str, ...]) -> Find:
    """The original counts the decoder's blocks from the picture inwards, diffusers from the latents outwards."""
    last = max(_count(names, r"decoder\.up_blocks\.([0-9]+)\.resnets\.([0-9]+)\."), default=0)

    def find(name: str, shape: tuple[int, ...]) -> Renamed | None:
        if re.fullmatch(rf"(?:post_)?quant_conv{_KIND}", name):
            return Renamed(name)
        half, _, inner = name.partition(".")
        rest, _, kind = inner.rpartition(".")
        if half not in ("encoder", "decoder") or kind not in ("weight", "bias"):
            return None
        if rest in _VAE_ENDS:
            return Renamed(f"{half}.{_VAE_ENDS[rest]}.{kind}")
        if found := re.fullmatch(r"mid_block\.resnets\.([01])\.(.+)", rest):
            return _named(f"{half}.mid.block_{int(found[1]) + 1}", _VAE_RESNET, found[2], kind)
        if found := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", rest):
            return _named(f"{half}.mid.attn_1", _VAE_ATTENTION, found[1], kind, "1x1" if len(shape) == 2 else "")
        if found := re.fullmatch(r"(down|up)_blocks\.([0-9]+)\.(?:resnets\.([0-9]+)\.(.+)|(?:down|up)samplers\.0\.conv)", rest):
            side, layer = found[1], found[3]
            block = f"{half}.{side}.{int(found[2]) if side == 'down' else last - int(found[2])}"
            return _named(f"{block}.block.{layer}", _VAE_RESNET, found[4], kind) if layer else Renamed(f"{block}.{side}sample.conv.{kind}")
        return None

    return find


def _named(place: str, table: Mapping[str, str], stem: str, kind: str, change: str = "") -> Renamed | None:
    return Renamed(f"{place}.{table[stem]}.{kind}", change) if stem in table else None


def _in_clip(name: str, shape: tuple[int, ...]) -> Renamed | None:
    plain = name.removeprefix("text_model.")  # transformers 5.6 dropped this part of CLIPTextModel's names
    return Renamed(plain) if _CLIP_TEXT.fullmatch(plain) else None


def _in_openclip(projected: bool) -> Find:
    """`projected`: with the matrix at its end, which OpenCLIP multiplies from the other side (x @ P, where transformers has P @ x)."""

    def find(name: str, shape: tuple[int, ...]) -> Renamed | None:
        if name == "text_projection.weight":
            return Renamed("text_projection", "transposed") if projected else None
        plain = name.removeprefix("text_model.")
        if not _CLIP_TEXT.fullmatch(plain):
            return None
        if plain in _OPENCLIP_ENDS:
            return Renamed(_OPENCLIP_ENDS[plain], "left out" if plain.endswith("position_ids") else "")
        _, _, number, rest = plain.split(".", 3)
        stem, _, kind = rest.rpartition(".")
        block = f"transformer.resblocks.{number}"
        if part := re.fullmatch(r"self_attn\.([qkv])_proj", stem):
            return Renamed(f"{block}.attn.in_proj_{kind}", part="qkv".index(part[1]))
        return Renamed(f"{block}.{_OPENCLIP_LAYER[stem]}.{kind}")

    return find
