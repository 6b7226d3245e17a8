"""The modules of Flux 1 and SD 3 by the names of their first implementations, which hold in one matrix what diffusers holds in several.

kohya, ComfyUI and Black Forest Labs name modules so, `double_blocks.0.img_attn.qkv`. An adapter of a fused module is one of each of its
parts: they share what is multiplied from the right, and each has its own rows of the product. The final modulation holds shift before
scale, diffusers scale before shift.
Sources: `model.py` and `layers.py` of black-forest-labs/flux, `mmditx.py` of Stability-AI/sd3.5, diffusers' `loaders/single_file_utils.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cmp.errors import Refused

Rows = tuple[tuple[int, int], ...]  # ranges of rows, in their order; () stands for all as they are
Shape = tuple[int, ...]
TRANSFORMER = "transformer"

_SAMPLE, _CONTEXT = ("attn.to_q", "attn.to_k", "attn.to_v"), ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_BLOCKS: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "double_blocks": ("transformer_blocks", {
        "img_attn.qkv": _SAMPLE, "img_attn.proj": ("attn.to_out.0",), "img_mod.lin": ("norm1.linear",),
        "img_mlp.0": ("ff.net.0.proj",), "img_mlp.2": ("ff.net.2",),
        "txt_attn.qkv": _CONTEXT, "txt_attn.proj": ("attn.to_add_out",), "txt_mod.lin": ("norm1_context.linear",),
        "txt_mlp.0": ("ff_context.net.0.proj",), "txt_mlp.2": ("ff_context.net.2",),
    }),
    "single_blocks": ("single_transformer_blocks", {
        "linear1": (*_SAMPLE, "proj_mlp"), "linear2": ("proj_out",), "modulation.lin": ("norm.linear",),
    }),
    "joint_blocks": ("transformer_blocks", {
        "x_block.attn.qkv": _SAMPLE, "x_block.attn.proj": ("attn.to_out.0",), "x_block.adaLN_modulation.1": ("norm1.linear",),
        "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"), "x_block.attn2.proj": ("attn2.to_out.0",),
        "x_block.mlp.fc1": ("ff.net.0.proj",), "x_block.mlp.fc2": ("ff.net.2",),
        "context_block.attn.qkv": _CONTEXT, "context_block.attn.proj": ("attn.to_add_out",),
        "context_block.adaLN_modulation.1": ("norm1_context.linear",),
        "context_block.mlp.fc1": ("ff_context.net.0.proj",), "context_block.mlp.fc2": ("ff_context.net.2",),
    }),
}  # fmt: skip
_ENDS = {
    "img_in": "x_embedder", "txt_in": "context_embedder",
    "final_layer.linear": "proj_out", "final_layer.adaLN_modulation.1": "norm_out.linear",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1", "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1", "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1", "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "x_embedder.proj": "pos_embed.proj", "context_embedder": "context_embedder",
}  # fmt: skip
_NORMS = {
    "img_attn.norm.query_norm.scale": "attn.norm_q.weight", "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
    "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight", "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
    "norm.query_norm.scale": "attn.norm_q.weight", "norm.key_norm.scale": "attn.norm_k.weight",
}  # fmt: skip
# how many rows a module has for each of its inputs: what tells Flux 1 from its kin, whose names are the same and whose parts are others
_ROWS = {"qkv": 3, "linear1": 7, "img_mlp.0": 4, "txt_mlp.0": 4, "mlp.fc1": 4}
_BLOCK = re.compile(rf"({'|'.join(_BLOCKS)})[._]([0-9]+)[._](.+)\Z", re.ASCII)
_FLAT = {head: {rest.replace(".", "_"): rest for rest in rests} for head, (_, rests) in _BLOCKS.items()}
_FLAT_ENDS = {name.replace(".", "_"): name for name in _ENDS}


def from_flat(flat: str) -> str | None:
    """The original name, with its dots, of one that has underscores for them; None for another model's."""
    if (found := _BLOCK.match(flat)) and (rest := _FLAT[found[1]].get(found[3])):
        return f"{found[1]}.{found[2]}.{rest}"
    return _FLAT_ENDS.get(flat)


def is_block(module: str) -> bool:
    """Whether this is the original name of a module in a block: no other library's models have such."""
    found = _BLOCK.match(module)
    return found is not None and found[3] in _BLOCKS[found[1]][1]


def norm_of(name: str) -> str | None:
    """diffusers' name of a norm's weights that lie beside an adapter as `double_blocks.0.img_attn.norm.query_norm.scale`."""
    found = _BLOCK.match(name)
    return f"{_BLOCKS[found[1]][0]}.{found[2]}.{_NORMS[found[3]]}" if found and found[3] in _NORMS else None


def split_module(module: str, shape: Shape) -> tuple[tuple[str, Rows], ...]:
    """diffusers' modules for a module of the original, and the rows of a weight of this shape (or of its bias) that each has.

    Names that are none of the original's stand for themselves. Raises Refused where the shape is not that of Flux 1 or SD 3.
    """
    if not shape or 0 in shape:
        raise Refused(f"{module} has the shape {list(shape)}", "The file is damaged.")
    if module in _ENDS:
        return ((_ENDS[module], _halves_swapped(shape) if module.endswith("adaLN_modulation.1") else ()),)
    if not (found := _BLOCK.match(module)) or found[3] not in _BLOCKS[found[1]][1]:
        return ((module, ()),)
    head, rests = _BLOCKS[found[1]]
    names = tuple(f"{head}.{found[2]}.{name}" for name in rests[found[3]])
    rows, times = shape[0], next((times for end, times in _ROWS.items() if module.endswith(end)), 0)
    if times and (rows % times or (len(shape) > 1 and rows != times * shape[1])):
        raise Refused(
            f"{module} makes a weight of {list(shape)}, and in Flux 1 and SD 3 it has {times} rows for each input",
            "It was trained for another model of the same names, which is not converted.",
        )
    if len(names) == 1:
        if module.endswith("context_block.adaLN_modulation.1") and len(shape) == 1:
            raise Refused(f"{module} has a bias alone, which does not tell what it modulates", "Merge it with its own trainer.")
        last = module.endswith("context_block.adaLN_modulation.1") and len(shape) > 1 and rows == 2 * shape[1]
        return ((names[0], _halves_swapped(shape) if last else ()),)
    width = rows // times
    starts = [part * width for part in range(len(names))]
    return tuple(zip(names, [((a, b),) for a, b in zip(starts, [*starts[1:], rows], strict=True)], strict=True))


def _halves_swapped(shape: Shape) -> Rows:
    if shape[0] % 2:
        raise Refused(f"a modulation has {shape[0]} rows, which are no two halves", "The file is damaged.")
    return (shape[0] // 2, shape[0]), (0, shape[0] // 2)
