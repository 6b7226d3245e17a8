"""Norms from the parts of an adapter, held against the product that apply_delta multiplies out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cmp.core.deltas import apply_delta
from cmp.core.update_size import WHOLE, ModuleSize, block_of, by_block, square_of, squares_of

Parts = dict[str, np.ndarray]


def made(seed: int = 0, **shapes: tuple[int, ...]) -> Parts:
    random = np.random.default_rng(seed)
    return {role: random.normal(size=shape).astype("f4") for role, shape in shapes.items()}


CASES = {
    "linear": ("lora", made(down=(4, 12), up=(10, 4)), (10, 12)),
    "a rank above the width": ("lora", made(down=(20, 12), up=(10, 20)), (10, 12)),
    "a convolution": ("lora", made(down=(4, 6, 3, 3), up=(10, 4, 1, 1)), (10, 6, 3, 3)),
    "a decomposed convolution": ("lora", made(down=(4, 6, 1, 1), mid=(4, 4, 3, 3), up=(10, 4, 1, 1)), (10, 6, 3, 3)),
    "LoHa of small ranks": ("loha", made(w1_a=(40, 2), w1_b=(2, 50), w2_a=(40, 2), w2_b=(2, 50)), (40, 50)),
    "LoHa of large ranks": ("loha", made(w1_a=(10, 8), w1_b=(8, 12), w2_a=(10, 8), w2_b=(8, 12)), (10, 12)),
    "LoHa with cores": (
        "loha", made(w1_a=(4, 10), w1_b=(4, 6), t1=(4, 4, 3, 3), w2_a=(4, 10), w2_b=(4, 6), t2=(4, 4, 3, 3)), (10, 6, 3, 3),
    ),
    "LoKr of whole factors": ("lokr", made(w1=(2, 3), w2=(5, 4)), (10, 12)),
    "LoKr of products": ("lokr", made(w1_a=(2, 2), w1_b=(2, 3), w2_a=(5, 2), w2_b=(2, 4)), (10, 12)),
    "LoKr of a convolution": ("lokr", made(w1=(2, 3), w2=(5, 2, 3, 3)), (10, 6, 3, 3)),
    "LoKr with a core": ("lokr", made(w1=(2, 3), w2_a=(4, 5), w2_b=(4, 2), t2=(4, 4, 3, 3)), (10, 6, 3, 3)),
    "a full difference": ("full", made(diff=(10, 6, 3, 3)), (10, 6, 3, 3)),
    "a full difference of a norm": ("full", made(diff=(10,)), (10,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [(), ((2, 5), (7, 8))], ids=["all rows", "some rows"])
def test_the_norm_is_that_of_the_product_multiplied_out(name: str, rows: tuple[tuple[int, int], ...]) -> None:
    method, parts, shape = CASES[name]
    count = sum(stop - start for start, stop in rows) or shape[0]
    product = apply_delta(method, parts, 0.5, np.zeros((count, *shape[1:]), np.float32), rows=rows)
    assert math.sqrt(square_of(method, parts, 0.5, rows)) == pytest.approx(float(np.linalg.norm(product.astype(np.float64))), rel=1e-5)


def test_a_small_product_of_large_factors_is_not_lost_to_rounding() -> None:
    up = np.array([[1e8, 1e8]] * 3)
    down = np.array([[1.0] * 5, [-1.0 + 1e-9] * 5])
    assert math.sqrt(square_of("lora", {"up": up, "down": down}, 1.0)) == pytest.approx(float(np.linalg.norm(up @ down)), rel=1e-6)


def test_an_adapter_that_was_not_trained_yet_has_no_size() -> None:
    parts = made(down=(4, 12)) | {"up": np.zeros((10, 4), "f4")}
    assert square_of("lora", parts, 2.0) == 0.0


@pytest.mark.parametrize("role", ["up", "down"])
def test_nan_is_not_taken_for_a_size(role: str) -> None:
    parts = made(down=(4, 12), up=(10, 4))
    parts[role][1, 1] = np.nan
    assert math.isnan(square_of("lora", parts, 1.0))


def test_the_scale_counts_as_its_square() -> None:
    method, parts, _ = CASES["linear"]
    assert square_of(method, parts, -3.0) == pytest.approx(9 * square_of(method, parts, 1.0))


def test_a_dora_is_not_measured_by_its_product() -> None:
    with pytest.raises(ValueError, match="depends on its base"):
        square_of("lora", made(down=(4, 12), up=(10, 4), magnitude=(10,)), 1.0)


def test_squares_are_summed_in_double_precision() -> None:
    assert squares_of(np.full(10_000_000, 1e-3, np.float32)) == pytest.approx(10.0, rel=1e-6)


@pytest.mark.parametrize(
    ("component", "module", "block"),
    [
        ("unet", "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q", "unet down_blocks.0"),
        ("unet", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k", "unet mid_block"),
        ("unet", "conv_in", "unet others"),
        ("transformer", "single_transformer_blocks.12.attn.to_q", "transformer single_transformer_blocks.12"),
        ("text_encoder", "text_model.encoder.layers.3.self_attn.q_proj", "text_encoder layers.3"),
        ("text_encoder_3", "encoder.block.2.layer.0.SelfAttention.q", "text_encoder_3 block.2"),
    ],
)
def test_a_module_belongs_to_the_outermost_block_that_has_a_number(component: str, module: str, block: str) -> None:
    assert block_of(component, module) == block


def test_blocks_add_up_to_the_whole_and_come_in_the_order_of_the_model() -> None:
    squares = {"up_blocks.1.x": 9.0, "down_blocks.10.x": 4.0, "down_blocks.2.x": 1.0, "conv_in": 2.0, "mid_block.y": 16.0}
    squares["mid_block.x"] = 4.0
    found = by_block(("unet", ModuleSize(name, square, 100.0)) for name, square in squares.items())
    names = [one.block for one in found]
    assert names == [WHOLE, "unet down_blocks.2", "unet down_blocks.10", "unet mid_block", "unet up_blocks.1", "unet others"]
    assert found[0].size == pytest.approx(6.0) and found[0].modules == 6
    assert found[3].size == pytest.approx(math.sqrt(20)) and found[3].relative == pytest.approx(math.sqrt(20 / 200))


def test_a_block_of_which_one_base_weight_is_unknown_has_no_relative_size() -> None:
    found = by_block([("unet", ModuleSize("mid_block.a", 1.0, 4.0)), ("unet", ModuleSize("mid_block.b", 1.0))])
    assert [one.relative for one in found] == [None, None]
