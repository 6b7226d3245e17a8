"""The modules of Flux's and SD 3's first implementations: what each is in diffusers, which rows it has, and what is none of theirs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.deltas import apply_delta, check_delta
from cmp.core.fused_names import split_module
from cmp.core.reading import read_weights
from cmp.core.scale import Evidence, resolve_scale
from cmp.core.weights import Weights
from cmp.errors import Refused

H = 8
QKV = "double_blocks.0.img_attn.qkv"


def pair(module: str, out: int, into: int = H, rank: int = 2) -> dict[str, tuple[int, ...]]:
    return {f"{module}.lora_A.weight": (rank, into), f"{module}.lora_B.weight": (out, rank)}


def rows_of(weights: Weights) -> dict[str, tuple[tuple[int, int], ...]]:
    assert not weights.flaws and not weights.unexplained, weights.flaws
    return {module.key: module.rows for module in weights.adapted}


@pytest.mark.parametrize("prefix", ["", "transformer.", "diffusion_model.", "model.diffusion_model.", "base_model.model.", "module."])
def test_a_fused_module_is_its_parts_whatever_stands_in_front(prefix: str) -> None:
    shapes = pair(f"{prefix}{QKV}", 3 * H) | pair(f"{prefix}single_blocks.3.linear1", 7 * H)
    weights = read_weights(shapes)
    block = "transformer.single_transformer_blocks.3"
    assert rows_of(weights) == {
        **{f"transformer.transformer_blocks.0.attn.to_{p}": ((i * H, (i + 1) * H),) for i, p in enumerate("qkv")},
        **{f"{block}.attn.to_{p}": ((i * H, (i + 1) * H),) for i, p in enumerate("qkv")},
        f"{block}.proj_mlp": ((3 * H, 7 * H),),
    }
    assert set(weights.canonical) == set(shapes) and {m.written for m in weights.adapted} == {QKV, "single_blocks.3.linear1"}


def test_the_ends_of_the_model_are_read_only_beside_blocks_of_the_original() -> None:
    """Other models of diffusers have modules of these names under their own."""
    ends = pair("transformer.img_in", H) | pair("transformer.final_layer.adaLN_modulation.1", 2 * H)
    assert set(rows_of(read_weights(ends))) == {"transformer.img_in", "transformer.final_layer.adaLN_modulation.1"}
    beside = rows_of(read_weights(ends | pair(f"transformer.{QKV}", 3 * H)))
    assert beside["transformer.x_embedder"] == () and beside["transformer.norm_out.linear"] == ((H, 2 * H), (0, H))


@pytest.mark.parametrize("rows", [2 * H, 6 * H])
def test_the_last_context_block_of_sd3_has_scale_and_shift_the_other_way_round(rows: int) -> None:
    read = rows_of(read_weights(pair("joint_blocks.1.context_block.adaLN_modulation.1", rows)))
    assert read == {"transformer.transformer_blocks.1.norm1_context.linear": ((H, 2 * H), (0, H)) if rows == 2 * H else ()}


@pytest.mark.parametrize(
    ("module", "rows"),
    [("single_blocks.0.linear1", 9 * H), ("double_blocks.0.img_mlp.0", 6 * H), (QKV, 3 * H + 1), ("single_blocks.0.linear1", 7 * H + 7)],
)
def test_another_models_module_of_the_same_name_is_a_flaw(module: str, rows: int) -> None:
    weights = read_weights(pair(f"diffusion_model.{module}", rows))
    assert module in "".join(weights.flaws) and "Flux 1 and SD 3" in "".join(weights.flaws)


def test_a_module_that_is_named_fused_and_by_its_parts_is_a_flaw() -> None:
    weights = read_weights(pair(f"transformer.{QKV}", 3 * H) | pair("transformer.transformer_blocks.0.attn.to_k", H))
    assert weights.flaws == ("transformer.transformer_blocks.0.attn.to_k is adapted under two names",)


def test_a_word_that_the_original_has_not_is_unexplained() -> None:
    weights = read_weights(pair(f"diffusion_model.{QKV}", 3 * H) | pair("diffusion_model.double_blocks.0.img_attn.qkw", 3 * H))
    assert len(weights.unexplained) == 2 and "qkw" in "".join(weights.flaws)


def test_a_bias_alone_does_not_tell_which_modulation_it_is_of() -> None:
    with pytest.raises(Refused, match="bias alone"):
        split_module("joint_blocks.1.context_block.adaLN_modulation.1", (2 * H,))
    assert split_module("double_blocks.0.img_mod.lin", (6 * H,)) == (("transformer_blocks.0.norm1.linear", ()),)


@pytest.mark.parametrize("method", ["lora", "loha", "lokr", "full"])
def test_the_rows_of_every_method_are_those_of_the_whole_product(method: str) -> None:
    noise = np.random.default_rng(1)
    shapes = {
        "lora": {"up": (12, 2), "down": (2, 4)},
        "loha": {"w1_a": (12, 2), "w1_b": (2, 4), "w2_a": (12, 2), "w2_b": (2, 4)},
        "lokr": {"w1": (4, 2), "w2": (3, 2)},  # 4 × 3 rows: a third of them is no whole factor
        "full": {"diff": (12, 4)},
    }
    parts = {role: noise.normal(size=shape).astype("f4") for role, shape in shapes[method].items()}
    base = noise.normal(size=(12, 4)).astype("f4")
    whole = apply_delta(method, parts, 0.5, base)
    for rows in (((4, 8),), ((8, 12), (0, 4))):
        places = [row for start, stop in rows for row in range(start, stop)]
        np.testing.assert_allclose(apply_delta(method, parts, 0.5, base[places], rows=rows), whole[places], rtol=1e-6)


def test_doras_lengths_of_outputs_are_cut_with_the_rows_and_those_of_inputs_are_refused() -> None:
    noise = np.random.default_rng(1)
    parts = {role: noise.normal(size=shape).astype("f4") for role, shape in {"up": (12, 2), "down": (2, 4), "dora_scale": (12, 1)}.items()}
    base = noise.normal(size=(12, 4)).astype("f4")
    cut = apply_delta("lora", parts, 0.5, base[4:8], rows=((4, 8),))
    np.testing.assert_allclose(cut, apply_delta("lora", parts, 0.5, base)[4:8], rtol=1e-6)
    with pytest.raises(Refused, match="columns of several modules"):
        check_delta("lora", {"up": (12, 2), "down": (2, 4), "dora_scale": (1, 4)}, (4, 4), "to_q", ((4, 8),))


def test_a_config_that_lists_the_originals_modules_speaks_of_the_parts_that_they_became() -> None:
    weights = read_weights(pair(f"base_model.model.{QKV}", 3 * H) | pair("base_model.model.single_blocks.0.linear1", 7 * H, rank=4))
    told = Evidence(8, 2, "its config", ("qkv", "linear1"), rank_pattern={"linear1": 4}, alpha_pattern={"single_blocks.0.linear1": 2})
    scale = resolve_scale(weights, [told])
    assert {m.written: scale.of(m.key) for m in weights.adapted} == {QKV: 4.0, "single_blocks.0.linear1": 0.5}
    with pytest.raises(Refused, match="nothing says"):
        resolve_scale(weights, [Evidence(8, 2, "another's config", ("qkv",), rank_pattern={"linear1": 4})])


STEMS = ("double_blocks.0.img_attn.qkv", "single_blocks.0.linear1", "final_layer.adaLN_modulation.1", "transformer_blocks.0.attn.to_q",
         "joint_blocks.0.context_block.adaLN_modulation.1", "double_blocks.0.img_attn.norm.query_norm.scale", "img_in")  # fmt: skip
ENDS = ("", ".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".diff", ".diff_b", ".alpha", ".dora_scale", ".lokr_w1", ".lokr_w2",
        ".weight")  # fmt: skip
NAMES = st.builds("{}{}{}".format, st.sampled_from(("", "transformer.", "diffusion_model.")), st.sampled_from(STEMS), st.sampled_from(ENDS))
SIZES = st.sampled_from((0, 1, 2, H, 2 * H, 3 * H, 7 * H))


@given(st.dictionaries(NAMES, st.lists(SIZES, max_size=3).map(tuple), max_size=8))
def test_every_stored_name_ends_in_one_group_however_many_modules_share_it(shapes: dict[str, tuple[int, ...]]) -> None:
    weights = read_weights(shapes)
    parts = {stored for module in weights.adapted for stored in module.parts.values()}
    assert Counter([*parts, *weights.plain, *weights.embeddings, *weights.aside, *weights.unexplained]) == Counter(list(shapes))
    assert bool(weights.flaws) or not weights.unexplained
    if not weights.flaws:
        assert len({module.key for module in weights.adapted}) == len(weights.adapted)
