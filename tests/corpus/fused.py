"""Adapters in the names of Flux's and SD 3's first implementations, made by hand: what each fused module is in diffusers is written here
anew, and the live model gets the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

# the original's name, and diffusers' modules whose outputs stand in it one after the other
DOUBLE = {
    "img_attn.qkv": "attn.to_q attn.to_k attn.to_v", "txt_attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
    "img_attn.proj": "attn.to_out.0", "txt_attn.proj": "attn.to_add_out", "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_mlp.0": "ff.net.0.proj", "img_mlp.2": "ff.net.2", "txt_mlp.0": "ff_context.net.0.proj", "txt_mlp.2": "ff_context.net.2",
}  # fmt: skip
SINGLE = {"linear1": "attn.to_q attn.to_k attn.to_v proj_mlp", "linear2": "proj_out", "modulation.lin": "norm.linear"}
ENDS = {
    "img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1", "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1", "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
}  # fmt: skip
NORMS = {"img_attn.norm": ("attn.norm_q", "attn.norm_k"), "txt_attn.norm": ("attn.norm_added_q", "attn.norm_added_k")}
JOINT = {
    "x_block.attn.qkv": "attn.to_q attn.to_k attn.to_v", "x_block.attn.proj": "attn.to_out.0", "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2", "x_block.adaLN_modulation.1": "norm1.linear",
    "context_block.attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj", "context_block.attn.proj": "attn.to_add_out",
    "context_block.mlp.fc1": "ff_context.net.0.proj", "context_block.mlp.fc2": "ff_context.net.2",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
}  # fmt: skip
SD3_ENDS = {
    "final_layer.linear": "proj_out", "final_layer.adaLN_modulation.1": "norm_out.linear", "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1", "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
}  # fmt: skip

Name = Callable[[str, str], str]  # the original module and one of down, up, alpha, bias → what the file calls that


def kohya(module: str, role: str) -> str:
    role = {"down": "lora_down.weight", "up": "lora_up.weight"}.get(role, role)
    return f"lora_unet_{module.replace('.', '_')}.{role}"


def original(prefix: str) -> Name:
    names = {"down": "lora_A.weight", "up": "lora_B.weight", "bias": "lora_B.bias"}
    return lambda module, role: f"{prefix}{module}.{names.get(role, role)}"


def modules_of(transformer: Any, ends: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Every fused module of this architecture, with the names of its parts."""
    flux = hasattr(transformer, "single_transformer_blocks")
    kinds = [("double_blocks", "transformer_blocks", DOUBLE), ("single_blocks", "single_transformer_blocks", SINGLE)]
    for theirs, ours, table in kinds if flux else [("joint_blocks", "transformer_blocks", JOINT)]:
        for number, block in enumerate(getattr(transformer, ours)):
            inside = dict(block.named_modules())
            for name, parts in table.items():
                if parts.split()[0] in inside:  # the last block of SD 3 has less of the context
                    yield f"{theirs}.{number}.{name}", [f"{ours}.{number}.{part}" for part in parts.split()]
    yield from ((name, [part]) for name, part in (ENDS if flux else SD3_ENDS).items() if ends)


@torch.no_grad()
def adapt(transformer: Any, name: Name, alpha: Callable[[int], float | None], ends: bool = True, **more: bool) -> dict[str, Any]:
    """Adds a random pair to every module of the live model and gives the tensors of its file. `alpha(number)` is None for no such tensor.

    `split`: each part has its own pair, in one block-diagonal matrix, whose alpha is over the rank of one. `bias`: with a trained bias.
    """
    generator, saved, inside = torch.Generator().manual_seed(3), {}, dict(transformer.named_modules())
    for number, (module, parts) in enumerate(modules_of(transformer, ends)):
        layers = [inside[part] for part in parts]
        told = alpha(number)
        rows, rank = [len(layer.weight) for layer in layers], 4 if told is None else (2, 4)[number % 2]
        times = len(parts) if more.get("split") else 1
        down = torch.randn(rank * times, layers[0].weight.shape[1], generator=generator) * 0.2
        up = torch.randn(sum(rows), rank * times, generator=generator) * 0.2
        if times > 1:
            up *= torch.block_diag(*(torch.ones(count, rank) for count in rows))
        bias = torch.randn(sum(rows), generator=generator) * 0.1 if more.get("bias") else torch.zeros(sum(rows))
        scale = 1.0 if told is None else told / rank
        for layer, product, shift in zip(layers, (up @ down * scale).split(rows), (bias * scale).split(rows), strict=True):
            swapped = parts == ["norm_out.linear"] or (len(product) == 2 * product.shape[1] and "norm1_context" in parts[0])
            layer.weight += product.roll(len(product) // 2, 0) if swapped else product
            layer.bias += shift.roll(len(shift) // 2, 0) if swapped else shift
        saved |= {name(module, "down"): down, name(module, "up"): up}
        saved |= {name(module, "alpha"): torch.tensor(told)} if told is not None else {}
        saved |= {name(module, "bias"): bias} if more.get("bias") else {}
    return saved


@torch.no_grad()
def with_norms(transformer: Any, prefix: str) -> dict[str, Any]:
    """Trains the norms of queries and keys too, whole, and gives them by their original names."""
    generator, saved, inside = torch.Generator().manual_seed(4), {}, dict(transformer.named_modules())
    places = [(f"double_blocks.0.{theirs}", [f"transformer_blocks.0.{n}" for n in ours]) for theirs, ours in NORMS.items()]
    places.append(("single_blocks.0.norm", [f"single_transformer_blocks.0.attn.norm_{n}" for n in "qk"]))
    for theirs, ours in places:
        for kind, part in zip(("query", "key"), ours, strict=True):
            inside[part].weight += torch.randn(inside[part].weight.shape, generator=generator) * 0.2
            saved[f"{prefix}{theirs}.{kind}_norm.scale"] = inside[part].weight.clone()
    return saved


def saved_as(
    name: Name,
    alpha: Callable[[int], float | None],
    metadata: Mapping[str, str] | None = None,
    words: str = "",
    norms: str | None = None,
    **more: bool,
) -> Callable[[Any, Path], None]:
    """One file of all modules of the transformer; `words`: pairs prefix=component of text encoders, in kohya's names."""

    def make(pipe: Any, run: Path) -> None:
        from safetensors.torch import save_file

        saved = adapt(pipe.transformer, name, alpha, **more)
        saved |= {} if norms is None else with_norms(pipe.transformer, norms)
        for pair in words.split():
            prefix, component = pair.split("=")
            saved |= _in_words(getattr(pipe, component), prefix)
        save_file({key: value.contiguous() for key, value in saved.items()}, run / "style-step00000002.safetensors", metadata)

    return make


@torch.no_grad()
def _in_words(encoder: Any, prefix: str) -> dict[str, Any]:
    generator, saved = torch.Generator().manual_seed(5), {}
    for name, layer in encoder.named_modules():
        if isinstance(layer, torch.nn.Linear) and (".layers." in f".{name}" or ".block." in name):
            down, up = torch.randn(2, layer.in_features, generator=generator), torch.randn(layer.out_features, 2, generator=generator) * 0.2
            layer.weight += up @ down * 0.5
            whole = name if name.startswith("text_model") or ".block." in name else f"text_model.{name}"
            flat = f"{prefix}_{whole.replace('.', '_')}"
            saved |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": torch.tensor(1.0)}
    return saved
