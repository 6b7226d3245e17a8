"""Fused names read without torch give what diffusers' own converters give, tensor by tensor; and what those swallow is known here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_bfl_flux_control_lora_to_diffusers as by_bfl,
)
from diffusers.loaders.lora_conversion_utils import (
    _convert_kohya_flux_lora_to_diffusers as by_kohya,
)
from safetensors.torch import save_file

from cmp.core.network_args import evidence_of_alphas, read_network
from cmp.core.scale import Evidence, resolve_scale
from cmp.disk.checkpoint import open_weights
from cmp.disk.evidence import _alpha_tensors
from cmp.disk.lora_file import read_folded

H = 3072  # diffusers' converters know Flux 1 by its own measures alone
DOUBLE = {
    "img_attn.qkv": (3 * H, H), "img_attn.proj": (H, H), "img_mlp.0": (4 * H, H), "img_mlp.2": (H, 4 * H), "img_mod.lin": (6 * H, H),
    "txt_attn.qkv": (3 * H, H), "txt_attn.proj": (H, H), "txt_mlp.0": (4 * H, H), "txt_mlp.2": (H, 4 * H), "txt_mod.lin": (6 * H, H),
}  # fmt: skip
SINGLE = {"linear1": (7 * H, H), "linear2": (H, 5 * H), "modulation.lin": (3 * H, H)}
ENDS = {
    "img_in": (H, 64), "txt_in": (H, 4096), "final_layer.linear": (64, H), "final_layer.adaLN_modulation.1": (2 * H, H),
    "time_in.in_layer": (H, 256), "time_in.out_layer": (H, H), "vector_in.in_layer": (H, 768), "vector_in.out_layer": (H, H),
    "guidance_in.in_layer": (H, 256), "guidance_in.out_layer": (H, H),
}  # fmt: skip
NORMS = ("img_attn.norm", "txt_attn.norm")
SOURCE = torch.Generator().manual_seed(1)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=SOURCE)


def modules(double: int, single: int) -> Iterator[tuple[str, tuple[int, int]]]:
    yield from ((f"double_blocks.{n}.{name}", shape) for n in range(double) for name, shape in DOUBLE.items())
    yield from ((f"single_blocks.{n}.{name}", shape) for n in range(single) for name, shape in SINGLE.items())
    yield from ENDS.items()


def flat(module: str) -> str:
    return f"lora_unet_{module.replace('.', '_')}"


def in_kohyas_names(rank: int, alpha: float | None) -> dict[str, torch.Tensor]:
    state = {}
    for module, (out, into) in modules(1, 1):
        state |= {f"{flat(module)}.lora_down.weight": random(rank, into), f"{flat(module)}.lora_up.weight": random(out, rank)}
        if alpha is not None and "final_layer" not in module:
            state[f"{flat(module)}.alpha"] = torch.tensor(alpha)
    return state


def ours(state: Mapping[str, torch.Tensor], place: Path, alpha_is_rank: bool = False) -> dict[str, np.ndarray]:
    """What this program reads out of a file of these tensors, scale folded in; every tensor of it is accounted for."""
    save_file(dict(state), place / "style.safetensors")
    opened = open_weights(place / "style.safetensors")
    assert not opened.weights.flaws and not opened.weights.unexplained
    parts = {stored for module in opened.weights.adapted for stored in module.parts.values()}
    assert parts | set(opened.weights.plain) == set(state)
    equal = {m.key: float(m.rank) for m in opened.weights.adapted if "alpha" not in m.parts}
    told = [Evidence(None, None, "alpha is the rank", alphas=equal, decisive=True)] if equal else []
    alphas = _alpha_tensors(opened)
    told += evidence_of_alphas(opened.weights.adapted, alphas, read_network(opened.header.metadata), "the tensors")
    return read_folded(opened, resolve_scale(opened.weights, told))


def products(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """B·A by module: diffusers folds the scale into the other half, and drops columns of zeros."""
    named = {name: np.asarray(values) for name, values in state.items()}
    made = {}
    for name, down in named.items():
        if name.endswith(".lora_A.weight"):
            stem = name.removesuffix(".lora_A.weight")
            up = named[f"{stem}.lora_B.weight"]
            made[stem.removeprefix("transformer.")] = up[:, :] @ down[:, :64]  # some columns tell all of them
    return made


@pytest.mark.parametrize(("rank", "alpha"), [(4, 4.0), (4, 1.0), (3, 6.0)])
def test_kohyas_fused_modules_are_cut_and_scaled_as_diffusers_does(rank: int, alpha: float, tmp_path: Path) -> None:
    state = in_kohyas_names(rank, alpha)
    mine, theirs = products(ours(state, tmp_path)), products(by_kohya(dict(state)))
    assert set(mine) == set(theirs) and len(mine) == 10 + 4 + 4 + 2 + len(ENDS)
    for module, product in mine.items():
        np.testing.assert_allclose(product, theirs[module], rtol=1e-4, atol=1e-4, err_msg=module)


def test_diffusers_swallows_the_alpha_of_the_last_layer_and_this_program_does_not(tmp_path: Path) -> None:
    state = in_kohyas_names(4, 2.0) | {f"{flat(m)}.alpha": torch.tensor(2.0) for m in ENDS if "final_layer" in m}
    mine, theirs = products(ours(state, tmp_path)), products(by_kohya(dict(state)))
    for module, product in mine.items():
        factor = 2 if module in ("proj_out", "norm_out.linear") else 1
        np.testing.assert_allclose(product * factor, theirs[module], rtol=1e-4, atol=1e-4, err_msg=module)


@pytest.mark.parametrize(
    "name",
    ["lora_te3_encoder_block_0_layer_0_SelfAttention_q", "text_encoders.t5xxl.transformer.encoder.block.0.layer.1.DenseReluDense.wo"],
)
def test_diffusers_swallows_t5_and_this_program_reads_it(name: str, tmp_path: Path) -> None:
    words = {f"{name}.lora_down.weight": random(4, 16), f"{name}.lora_up.weight": random(16, 4), f"{name}.alpha": torch.tensor(4.0)}
    state = in_kohyas_names(4, 4.0) | words
    assert not any("encoder" in module for module in products(by_kohya(dict(state))))
    (module,) = [module for module in products(ours(state, tmp_path)) if module.startswith("text_encoder_2.encoder.block.0.layer")]
    assert module.endswith(name[-2:].removeprefix("_").removeprefix("."))


def test_one_block_diagonal_pair_is_read_as_the_pairs_that_diffusers_takes_it_apart_into(tmp_path: Path) -> None:
    state = in_kohyas_names(12, 12.0)
    for module, rows in (("double_blocks.0.img_attn.qkv", (H,) * 3), ("single_blocks.0.linear1", (H, H, H, 4 * H))):
        rank = 12 // len(rows)
        state[f"{flat(module)}.lora_up.weight"] *= torch.block_diag(*(torch.ones(count, rank) for count in rows))
    theirs = by_kohya(dict(state))
    assert theirs["transformer.transformer_blocks.0.attn.to_k.lora_A.weight"].shape[0] == 4  # it did take it apart
    mine = products(ours(state, tmp_path))
    for module, product in products(theirs).items():
        np.testing.assert_allclose(mine[module], product, rtol=1e-4, atol=1e-4, err_msg=module)


def test_black_forest_labs_names_are_read_as_diffusers_reads_them_but_for_the_half_it_turns_wrongly(tmp_path: Path) -> None:
    state = {}
    for module, (out, into) in modules(19, 38):
        state |= {
            f"{module}.lora_A.weight": random(2, into),
            f"{module}.lora_B.weight": random(out, 2),
            f"{module}.lora_B.bias": random(out),
        }
    for place in [f"double_blocks.{n}.{norm}" for n in range(19) for norm in NORMS] + [f"single_blocks.{n}.norm" for n in range(38)]:
        state |= {f"{place}.query_norm.scale": random(128), f"{place}.key_norm.scale": random(128)}
    mine = ours(state, tmp_path)
    plain = open_weights(tmp_path / "style.safetensors").weights.plain
    mine |= {name: state[stored].numpy() for stored, name in plain.items()}
    theirs = by_bfl(dict(state))
    assert set(mine) == set(theirs)
    wrong = "transformer.norm_out.linear.lora_A.weight"  # diffusers swaps its halves as it does lora_B's, and they are ranks, no outputs
    assert [name for name, values in theirs.items() if not np.array_equal(values.numpy(), mine[name])] == [wrong]
    assert np.array_equal(mine[wrong], state["final_layer.adaLN_modulation.1.lora_A.weight"].numpy())


def test_comfyuis_prefix_is_read_as_diffusers_reads_it(tmp_path: Path) -> None:
    state = {f"diffusion_model.{m}.{part}": v for m, (out, into) in modules(1, 1) for part, v in
             (("lora_down.weight", random(4, into)), ("lora_up.weight", random(out, 4)))}  # fmt: skip
    mine, theirs = products(ours(state, tmp_path)), products(by_kohya(dict(state)))
    assert set(mine) == set(theirs)
    for module, product in mine.items():
        np.testing.assert_allclose(product, theirs[module], rtol=1e-4, atol=1e-4, err_msg=module)
