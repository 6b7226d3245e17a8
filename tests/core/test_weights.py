"""What a table of tensor names holds: every name is accounted for, and nothing that was trained is silently dropped."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.weights import Weights, guess_component, read_weights
from tests.support import MODULES, WIDTH, adapter_tensors, base_tensors, wrapped_tensors

Shapes = dict[str, tuple[int, ...]]
MODULE = MODULES[0]


def shapes_of(tensors: dict) -> Shapes:
    return {name: values.shape for name, values in tensors.items()}


def named(template: str, modules: tuple[str, ...] = MODULES) -> Shapes:
    """A LoRA's shapes, `template` with {m} for the module and {h} for A or B."""
    return {template.format(m=m, h=h): (4, WIDTH) if h == "A" else (WIDTH, 4) for m in modules for h in "AB"}


def accounted(weights: Weights) -> Counter[str]:
    halves = [name for pair in weights.pairs for name in (pair.down, pair.up)]
    return Counter([*halves, *(weights.frozen or {}), *weights.unexplained])


def test_a_dump_of_a_wrapped_unet_is_pairs_and_the_bases_own_names() -> None:
    shapes = shapes_of(wrapped_tensors(500))
    weights = read_weights(shapes)
    assert (weights.layout, weights.component, weights.holds) == ("accelerate-peft", "unet", "lora")
    assert set((weights.frozen or {}).values()) == set(base_tensors())
    assert len(weights.pairs) == len(MODULES) and weights.ranks == (8,) and not weights.flaws and not weights.unexplained
    assert set(weights.canonical.values()) == {f"unet.{name}" for name in adapter_tensors(500)}
    assert weights.targets == ("to_k", "to_out.0", "to_q", "to_v")


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.base_model.model.", "base_model.model._orig_mod.", "module.base_model.model."]
)
def test_what_ddp_and_compile_put_in_front_changes_nothing(prefix: str) -> None:
    shapes = {prefix + name.removeprefix("base_model.model."): v.shape for name, v in wrapped_tensors(500).items()}
    weights = read_weights(shapes)
    assert weights.layout == "accelerate-peft" and not weights.flaws
    assert set((weights.frozen or {}).values()) == set(base_tensors())


@pytest.mark.parametrize(
    ("template", "layout"),
    [
        ("unet.{m}.lora_{h}.weight", "diffusers-lora"),
        ("unet.base_model.model.{m}.lora_{h}.weight", "diffusers-lora"),  # diffusers' LCM script
        ("base_model.model.{m}.lora_{h}.weight", "peft-adapter"),
        ("base_model.model.{m}.lora_{h}.default.weight", "peft-adapter"),
    ],
)
def test_the_same_pairs_are_read_from_every_style_of_names(template: str, layout: str) -> None:
    weights = read_weights(named(template))
    assert weights.layout == layout and not weights.flaws
    assert set(weights.canonical.values()) == set(named("unet.{m}.lora_{h}.weight"))


@pytest.mark.parametrize(("down", "up"), [("lora.down", "lora.up"), ("lora_linear_layer.down", "lora_linear_layer.up")])
def test_the_older_names_of_the_halves_are_the_same_halves(down: str, up: str) -> None:
    weights = read_weights({f"unet.{MODULE}.{down}.weight": (4, WIDTH), f"unet.{MODULE}.{up}.weight": (WIDTH, 4)})
    (pair,) = weights.pairs
    assert (pair.down, pair.up) == (f"unet.{MODULE}.{down}.weight", f"unet.{MODULE}.{up}.weight")
    assert not weights.flaws


def test_a_unet_and_a_text_encoder_in_one_file_keep_their_own_modules() -> None:
    text = "text_model.encoder.layers.0.self_attn.q_proj"
    weights = read_weights(named("unet.{m}.lora_{h}.weight") | named("text_encoder.{m}.lora_{h}.weight", (text,)))
    assert {pair.component for pair in weights.pairs} == {"unet", "text_encoder"} and not weights.flaws


def test_a_text_encoder_called_model_safetensors_is_known_by_its_keys() -> None:
    weights = read_weights({"text_model.embeddings.token_embedding.weight": (99, 8), "text_model.final_layer_norm.bias": (8,)})
    assert (weights.layout, weights.component, weights.holds) == ("full", "text_encoder", "full")


def test_plain_weights_of_a_unet_are_a_full_component() -> None:
    weights = read_weights(shapes_of(base_tensors()))
    assert (weights.layout, weights.holds) == ("full", "full")
    assert set(weights.canonical.values()) == {f"unet.{name}" for name in base_tensors()}


@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "decoder.mid.weight", "quant_conv.weight", "something", ""])
def test_tensors_of_nothing_known_are_unexplained(name: str) -> None:
    weights = read_weights({name: (1,)})
    assert weights.holds == "unknown" and weights.unexplained == (name,) and weights.flaws
    assert guess_component([name]) is None


# what may not be dropped


@pytest.mark.parametrize(
    "stranger",
    [
        f"base_model.model.{MODULE}.lora_magnitude_vector.default.weight",  # DoRA
        f"base_model.model.{MODULE}.lora_B.default.bias",
        f"base_model.model.{MODULE}.lora_embedding_A.default",
        f"base_model.model.{MODULE}.hada_w1_a.default",  # LoHa
        f"base_model.model.{MODULE}.lokr_w1.default",
        f"base_model.model.{MODULE}.oft_r.default",
        "base_model.model.conv_out.modules_to_save.default.weight",
        "base_model.model.conv_out.original_module.weight",
        f"base_model.model.{MODULE}.dora_scale",
        f"{MODULE}.alpha",
        f"{MODULE}.diff_b",
    ],
)
@pytest.mark.parametrize("layout", ["dump", "adapter"])
def test_parts_beyond_plain_pairs_are_named_as_unexplained_and_are_a_flaw(stranger: str, layout: str) -> None:
    shapes = shapes_of(wrapped_tensors(500)) if layout == "dump" else named("base_model.model.{m}.lora_{h}.weight")
    weights = read_weights({**shapes, stranger: (8,)})
    assert weights.unexplained == (stranger,)
    assert stranger in "".join(weights.flaws)


@pytest.mark.parametrize("name", [f"{MODULE}.hada_w1_a", f"lora_unet_{MODULE.replace('.', '_')}.lora_down.weight", "lora_te_x.alpha"])
def test_a_file_of_foreign_adapters_alone_is_unknown_and_not_full_weights(name: str) -> None:
    weights = read_weights({name: (4, 8), "conv_in.weight": (1,)})
    assert weights.holds == "unknown" and name in weights.unexplained and weights.flaws


def test_plain_tensors_beside_a_diffusers_lora_are_unexplained() -> None:
    weights = read_weights({**named("unet.{m}.lora_{h}.weight"), "unet.conv_in.bias": (4,)})
    assert weights.unexplained == ("unet.conv_in.bias",) and weights.flaws


def test_half_a_pair_is_a_flaw_and_its_name_is_kept() -> None:
    shapes = named("unet.{m}.lora_{h}.weight")
    lone = f"unet.{MODULE}.lora_A.weight"
    del shapes[f"unet.{MODULE}.lora_B.weight"]
    weights = read_weights(shapes)
    assert "half" in "".join(weights.flaws) and lone in weights.unexplained
    assert len(weights.pairs) == len(MODULES) - 1


@pytest.mark.parametrize(
    ("down", "up", "said"),
    [((4, 8), (8, 8), "rank 4 and lora_B rank 8"), ((0, 8), (8, 0), "shapes"), ((4,), (8, 4), "shapes"), ((), (), "shapes")],
)
def test_halves_that_do_not_fit_together_are_a_flaw(down: tuple[int, ...], up: tuple[int, ...], said: str) -> None:
    weights = read_weights({f"unet.{MODULE}.lora_A.weight": down, f"unet.{MODULE}.lora_B.weight": up})
    assert said in "".join(weights.flaws)


def test_several_adapters_are_a_flaw_that_names_them() -> None:
    shapes = shapes_of(wrapped_tensors(500)) | named("base_model.model.{m}.lora_{h}.older.weight")
    (flaw,) = read_weights(shapes).flaws
    assert "default, older" in flaw


@pytest.mark.parametrize("second", [f"unet.{MODULE}.lora.down.weight", f"module.unet.{MODULE}.lora_A.weight"])
def test_two_spellings_of_one_half_do_not_replace_each_other(second: str) -> None:
    weights = read_weights({**named("unet.{m}.lora_{h}.weight"), second: (4, WIDTH)})
    assert weights.unexplained == (second,) and weights.flaws


def test_two_spellings_of_one_base_tensor_do_not_replace_each_other() -> None:
    weights = read_weights({**shapes_of(base_tensors()), "module.conv_in.bias": (4,)})
    assert weights.holds == "unknown" and "module.conv_in.bias" in weights.unexplained and weights.flaws


def test_different_ranks_are_both_told() -> None:
    wide = {f"unet.{MODULE}.lora_A.weight": (16, 8), f"unet.{MODULE}.lora_B.weight": (8, 16)}
    assert read_weights(named("unet.{m}.lora_{h}.weight") | wide).ranks == (4, 16)


PARTS = ("unet", "module", "base_model.model", "_orig_mod", "down_blocks.0", "to_q", "lora_A", "lora_B", "lora", "down", "default",
         "base_layer", "weight", "bias", "alpha", "hada_w1", "modules_to_save", "conv_in", "text_encoder", "x")  # fmt: skip
NAMES = st.one_of(st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map(".".join), st.text(max_size=8))


@given(st.dictionaries(NAMES, st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=8))
def test_every_stored_name_ends_in_exactly_one_group_and_what_is_unexplained_is_a_flaw(shapes: Shapes) -> None:
    weights = read_weights(shapes)
    assert accounted(weights) == Counter(list(shapes))
    assert bool(weights.flaws) or not weights.unexplained
    if not weights.flaws:
        assert len(set(weights.canonical.values())) == len(weights.canonical)
