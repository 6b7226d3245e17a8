"""Options in kohya's header that change the scale and not the alpha that is stored: what was trained with, or a contradiction."""

from __future__ import annotations

import json
import math

import pytest

from cmp.core.network_args import evidence_of_alphas, read_network
from cmp.core.scale import Scale, resolve_scale
from cmp.core.weights import Adapted, Weights
from cmp.errors import Refused

LINEAR = Adapted("unet", "mid_block.attentions.0.proj_in", "lora", {"down": "d", "up": "u", "alpha": "a"}, 4)
WHOLE = Adapted("unet", "mid_block.attentions.0.proj_out", "lokr", {"w1": "w1", "w2": "w2", "alpha": "a2"}, 0)
QKV = tuple(
    Adapted("transformer", f"transformer_blocks.0.attn.to_{p}", "lora", {"down": "d", "up": "u", "alpha": "a"}, 12, ((0, 1),))
    for p in "qkv"
)
PLAIN = Adapted("transformer", "transformer_blocks.0.attn.to_out.0", "lora", {"down": "d2", "up": "u2", "alpha": "a2"}, 4)


def scale_of(modules: tuple[Adapted, ...], alphas: list[float], **header: object) -> Scale:
    args = {key: str(value) for key, value in header.items() if not key.startswith("ss_")}
    metadata = {key: str(value) for key, value in header.items() if key.startswith("ss_")} | {"ss_network_args": json.dumps(args)}
    known = {module.key: alpha for module, alpha in zip(modules, alphas, strict=True)}
    return resolve_scale(Weights("kohya", modules), evidence_of_alphas(modules, known, read_network(metadata), "the tensors"))


def test_split_qkv_is_scaled_by_the_rank_of_one_part_and_other_modules_are_not() -> None:
    scale = scale_of((*QKV, PLAIN), [2.0] * 4, split_qkv=True)
    assert [scale.of(module.key) for module in (*QKV, PLAIN)] == [0.5] * 4 and "split_qkv" in scale.source


@pytest.mark.parametrize("header", [{}, {"split_qkv": "False"}, {"split_qkv": None}])
def test_a_fused_pair_is_scaled_by_its_whole_rank_where_the_header_does_not_say_otherwise(header: dict[str, object]) -> None:
    scale = scale_of(QKV, [6.0] * 3, **header)
    assert [scale.of(module.key) for module in QKV] == [0.5] * 3 and "split_qkv" not in scale.source


def test_rs_lora_is_in_the_stored_alpha_already() -> None:
    """LyCORIS stores alpha·√rank: a root more would be wrong by it."""
    scale = scale_of((LINEAR,), [2.0], ss_network_dim=4, ss_network_alpha=1.0, rs_lora=True)
    assert scale.value == 1.0 / math.sqrt(4)


def test_rs_lora_beside_an_alpha_without_its_root_is_a_contradiction() -> None:
    with pytest.raises(Refused, match=r"contradict each other.*rs_lora"):
        scale_of((LINEAR,), [1.0], ss_network_dim=4, ss_network_alpha=1.0, rs_lora=True)


@pytest.mark.parametrize(("alpha", "value"), [(64.0, 4.0), (16.0, 1.0), (8.0, 2.0), (63.75, 4.0)])
def test_whole_factors_by_rs_lora_have_the_root_of_the_rank_that_was_asked_for(alpha: float, value: float) -> None:
    header = {"ss_network_dim": 16, "ss_network_alpha": 1.0, "conv_dim": 4, "conv_alpha": 1, "rs_lora": True}
    scale = scale_of((WHOLE,), [alpha], **header)
    assert scale.value == value and "rs_lora" in scale.source


@pytest.mark.parametrize("alpha", [5.0, 64.0])
def test_whole_factors_whose_rank_nobody_can_tell_are_refused(alpha: float) -> None:
    with pytest.raises(Refused, match="none or several"):  # 64 is the rank of the convolutions, and 16·√16
        scale_of((WHOLE,), [alpha], ss_network_dim=16, ss_network_alpha=1.0, conv_dim=64, conv_alpha=1, rs_lora=True)


def test_whole_factors_without_rs_lora_have_scale_one_whatever_alpha_says() -> None:
    assert scale_of((WHOLE,), [64.0], ss_network_dim=16, ss_network_alpha=1.0).value == 1.0


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"rs_lora": null}', "7"])
def test_a_header_that_says_nothing_readable_has_no_options(text: str) -> None:
    network = read_network({"ss_network_args": text, "ss_network_dim": "None", "ss_network_alpha": "nan"})
    assert not network.has("rs_lora") and network.asked == ()


def test_a_rank_that_no_module_can_have_is_not_one_that_was_asked_for() -> None:
    assert read_network({"ss_network_dim": "9" * 400, "ss_network_alpha": "1"}).asked == ()
