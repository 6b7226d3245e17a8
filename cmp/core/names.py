"""The names that trainers give to tensors, read as: which component, which module of it, which part of which kind of adapter.

PEFT, diffusers and OneTrainer write module names with dots; kohya and LyCORIS replace the dots by underscores, which underscores that
belong to a name do not survive. The words of diffusers' modules are few, so that flat names can be read back without a model at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from cmp.core.fused_names import TRANSFORMER, from_flat, is_block

COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "controlnet", "vae")
_WRAPPERS = re.compile(r"(?:_orig_mod\.|module\.|base_model\.model\.)+")  # torch.compile, DDP, PEFT; in any number and order
_FLAT_COMPONENTS = (
    ("lora_unet_", "unet"), ("lora_te1_", "text_encoder"), ("lora_te2_", "text_encoder_2"), ("lora_te3_", "text_encoder_3"),
    ("lora_te_", "text_encoder"), ("lora_transformer_", "transformer"), ("lycoris_", None),
)  # fmt: skip
# ComfyUI's names for what an adapter changes
_DENOISER = re.compile(r"(?:model\.)?diffusion_model\.")
_COMFY_TEXT = (
    ("text_encoders.clip_l.transformer.", "text_encoder"), ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("text_encoders.t5xxl.transformer.", "text_encoder_3"),
)  # fmt: skip

# the end of a name that makes it a part of an adapter; ADAPTER is the name PEFT gives to one of several
_PART = re.compile(
    r"\.(?:"
    r"lora_(?P<peft>A|B)(?:\.(?P<adapter>[^.]+))?\.(?P<kind>weight|bias)"
    r"|lora_(?P<kohya>down|up|mid)(?:\.weight)?"
    r"|lora(?:_linear_layer)?\.(?P<diffusers>down|up)\.weight"
    r"|processor\.(?P<legacy>to_q|to_k|to_v|to_out)_lora\.(?P<half>down|up)\.weight"
    r"|lora_(?P<magnitude>magnitude_vector)(?:\.(?P<adapter2>[^.]+?))?(?:\.weight)?"
    r"|(?P<factors>hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))(?:\.(?P<adapter3>[^.]+))?"
    r"|(?P<more>dora_scale|alpha|diff_b|diff|w_norm|b_norm)"
    r")\Z"
)
_ROLES = {"A": "down", "B": "up", "w_norm": "diff", "b_norm": "diff_b", "magnitude_vector": "magnitude"}
_LEGACY_MODULES = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}

_UNET_HEADS = ("down_blocks.", "mid_block.", "up_blocks.", "conv_in.", "time_embedding.", "add_embedding.", "conv_norm_out.")
_TEXT_HEADS = ("text_model.", "encoder.layers.", "embeddings.token_embedding", "embeddings.position_embedding", "text_projection.")
_TRANSFORMER_HEADS = ("transformer_blocks.", "single_transformer_blocks.", "x_embedder.", "pos_embed.", "context_embedder.")
_CONTROL_HEADS = ("controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block.")
_VAE_HEADS = ("encoder.conv_in.", "decoder.conv_in.", "quant_conv.", "post_quant_conv.", "encoder.down_blocks.", "decoder.up_blocks.")
_HEADS = (("vae", _VAE_HEADS), ("unet", _UNET_HEADS), ("text_encoder", _TEXT_HEADS), ("transformer", _TRANSFORMER_HEADS))

# words of diffusers' and transformers' module names that contain an underscore, longest first
_COMPOUNDS = sorted(
    """down_blocks up_blocks mid_block transformer_blocks single_transformer_blocks proj_in proj_out to_q to_k to_v to_out to_add_out
    add_q_proj add_k_proj add_v_proj conv_in conv_out conv_shortcut conv_norm_out time_emb_proj time_embedding add_embedding linear_1
    linear_2 norm_out text_model self_attn q_proj k_proj v_proj out_proj final_layer_norm token_embedding position_embedding
    text_projection proj_mlp time_text_embed timestep_embedder guidance_embedder text_embedder context_embedder x_embedder
    ff_context layer_norm1 layer_norm2 norm1_context pos_embed wi_0 wi_1""".split(),  # noqa: SIM905
    key=len,
    reverse=True,
)
_SINGLES = frozenset(
    """attentions resnets attn attn1 attn2 ff net proj conv conv1 conv2 norm norm1 norm2 norm3 group_norm downsamplers upsamplers
    encoder layers mlp fc1 fc2 embeddings linear block layer SelfAttention DenseReluDense q k v o wo""".split()  # noqa: SIM905
)
_WORD = re.compile(rf"({'|'.join((*_COMPOUNDS, *_SINGLES))}|[0-9]+)(?:_|\Z)", re.ASCII)
# the original UNet of Stable Diffusion 1, 2 and XL, which has two residual layers to a block
_ORIGINAL_RESNET = {
    "in_layers_0": "norm1", "in_layers_2": "conv1", "emb_layers_1": "time_emb_proj", "out_layers_0": "norm2", "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}  # fmt: skip
_ORIGINAL_OTHERS = {
    "time_embed_0": "time_embedding.linear_1", "time_embed_2": "time_embedding.linear_2", "label_emb_0_0": "add_embedding.linear_1",
    "label_emb_0_2": "add_embedding.linear_2", "input_blocks_0_0": "conv_in", "out_0": "conv_norm_out", "out_2": "conv_out",
}  # fmt: skip
_ORIGINAL_BLOCK = re.compile(
    r"(?:(?P<side>input|output)_blocks_(?P<block>[0-9]+)|middle_block)_(?P<part>[0-9]+)(?:_(?P<rest>.+))?\Z", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor's name, read: it is the part `role` of the adapter of `module`; `component` is None where the name does not say it."""

    component: str | None
    module: str
    method: str
    role: str
    adapter: str = ""
    style: str = "peft"


@lru_cache(maxsize=1 << 15)  # the checkpoints of a run have the same names, and so have the runs on one base
def read_part(stored: str) -> Part | None:
    """What part of an adapter a tensor of this name is; None if it is none, or of a module that nobody can name."""
    name = unwrap(stored)[0]
    if not (found := _PART.search(name)):
        return None
    stem = name[: found.start()]
    kind, written = next((k, v) for k in ("peft", "kohya", "diffusers", "half", "magnitude", "factors", "more") if (v := found[k]))
    role = _ROLES.get(written, written)
    if kind == "peft" and found["kind"] == "bias":
        if role != "up":
            return None
        role = "up_bias"
    adapter = found["adapter"] or found["adapter2"] or found["adapter3"] or ""
    style = {"peft": "peft", "magnitude": "peft", "diffusers": "diffusers", "half": "legacy"}.get(kind, "kohya")
    if kind == "factors" and "." in stem:
        style = "peft"
    method = _method(role)
    if method in ("loha", "lokr"):
        role = role.partition("_")[2]
    if kind == "half":
        stem = f"{stem}.{_LEGACY_MODULES[found['legacy']]}"
    located = _locate(stem)
    return Part(*located, method, role, adapter, style) if located else None


def _method(role: str) -> str:
    if role.startswith("hada_"):
        return "loha"
    if role.startswith("lokr_"):
        return "lokr"
    return "full" if role in ("diff", "diff_b") else "lora"


def _locate(stem: str) -> tuple[str | None, str] | None:
    """Component and module of what stands before the part; None for a flat name with words that no module has."""
    for prefix, component in _FLAT_COMPONENTS:
        if stem.startswith(prefix) and "." not in stem:
            module = _from_flat(stem[len(prefix) :])
            return (_denoiser_of(module, component), module) if module else None
    if found := _DENOISER.match(stem):
        module = _from_flat(stem[found.end() :].replace(".", "_"))
        return (_denoiser_of(module, "unet"), module) if module else None
    for prefix, component in _COMFY_TEXT:
        if stem.startswith(prefix):
            return component, stem.removeprefix(prefix)
    component, module = split_component(stem)
    return _denoiser_of(module, component), module


def _denoiser_of(module: str, otherwise: str | None) -> str | None:
    """The transformer, for a module that only transformers have."""
    original = from_flat(module.replace(".", "_")) if otherwise == "unet" else None
    return TRANSFORMER if original or is_block(module) or (otherwise and module.startswith(_TRANSFORMER_HEADS)) else otherwise


def _from_flat(flat: str) -> str | None:
    """`down_blocks_0_attentions_1_proj_in` → `down_blocks.0.attentions.1.proj_in`; None if a word is unknown."""
    if (original := from_flat(flat) or _from_original(flat)) is not None:
        return original
    words, end = [], 0
    while end < len(flat):
        if not (found := _WORD.match(flat, end)):
            return None
        words.append(found[1])
        end = found.end()
    return ".".join(words) or None


def _from_original(flat: str) -> str | None:
    """A module of the original UNet under diffusers' name; None if it is no such name."""
    if flat in _ORIGINAL_OTHERS:
        return _ORIGINAL_OTHERS[flat]
    if not (found := _ORIGINAL_BLOCK.match(flat)):
        return None
    part, rest = int(found["part"]), found["rest"] or ""
    if found["side"] is None:
        home = ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1")[part] if part < 3 else None
    else:
        home, rest = _original_block(found["side"], int(found["block"]), part, rest)
    if home is None:
        return None
    if rest in _ORIGINAL_RESNET:
        return f"{home}.{_ORIGINAL_RESNET[rest]}"
    inner = _from_flat(rest) if rest else ""
    return None if inner is None else f"{home}.{inner}" if inner else home


def _original_block(side: str, block: int, part: int, rest: str) -> tuple[str | None, str]:
    if side == "input":
        level, layer = divmod(block - 1, 3)
        if layer == 2:
            return (f"down_blocks.{level}.downsamplers.0.conv", "") if rest == "op" else (None, rest)
        return f"down_blocks.{level}.{('resnets', 'attentions')[min(part, 1)]}.{layer}", rest
    level, layer = divmod(block, 3)
    if rest == "conv":
        return f"up_blocks.{level}.upsamplers.0.conv", ""
    return f"up_blocks.{level}.{('resnets', 'attentions')[min(part, 1)]}.{layer}", rest


def unwrap(name: str) -> tuple[str, bool]:
    """The name without what PEFT, DDP and torch.compile put in front, and whether PEFT's prefix was among it."""
    if not (found := _WRAPPERS.match(name)):
        return name, False
    return name[found.end() :], "base_model.model." in found[0]


def split_component(name: str) -> tuple[str | None, str]:
    """`unet.down_blocks.0` → ("unet", "down_blocks.0"); None for a name that starts inside the component."""
    head, _, rest = name.partition(".")
    if head in COMPONENTS and rest:
        return head, unwrap(rest)[0]
    return None, name


def guess_component(names: Iterable[str]) -> str | None:
    """Which component has tensors of these names. File names say nothing: Accelerate calls every model `model.safetensors`."""
    guessed = None
    for name in names:
        if name.startswith(_CONTROL_HEADS):  # a ControlNet also has most names of a UNet
            return "controlnet"
        guessed = guessed or next((component for component, heads in _HEADS if name.startswith(heads)), None)
    return guessed


def target_of(module: str) -> str:
    """The last part of a module's name, as adapter configs list targets: to_k, to_out.0, …"""
    parts = module.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]
