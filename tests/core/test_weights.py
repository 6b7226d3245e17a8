"""What a table of tensor names holds: every name is accounted for, and nothing that was trained is silently dropped."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.names import guess_component, read_part
from cmp.core.reading import read_weights
from cmp.core.weights import Weights
from tests.support import MODULES, WIDTH, adapter_tensors, base_tensors, wrapped_tensors

Shapes = dict[str, tuple[int, ...]]
MODULE = MODULES[0]


def shapes_of(tensors: dict) -> Shapes:
    return {name: values.shape for name, values in tensors.items()}


def named(template: str, modules: tuple[str, ...] = MODULES) -> Shapes:
    """A LoRA's shapes, `template` with {m} for the module and {h} for A or B."""
    return {template.format(m=m, h=h): (4, WIDTH) if h == "A" else (WIDTH, 4) for m in modules for h in "AB"}


def accounted(weights: Weights) -> Counter[str]:
    parts = [name for module in weights.adapted for name in module.parts.values()]
    return Counter([*parts, *weights.plain, *weights.embeddings, *weights.aside, *weights.unexplained])


def plain_names(weights: Weights) -> set[str]:
    return set(weights.plain_of("unet").values())


def test_a_dump_of_a_wrapped_unet_is_pairs_and_the_bases_own_names() -> None:
    shapes = shapes_of(wrapped_tensors(500))
    weights = read_weights(shapes)
    assert (weights.layout, weights.component, weights.holds, weights.dumped) == ("accelerate-peft", "unet", "lora", {"unet"})
    assert plain_names(weights) == set(base_tensors())
    assert len(weights.adapted) == len(MODULES) and weights.ranks == (8,) and not weights.flaws and not weights.unexplained
    assert set(weights.canonical.values()) == {f"unet.{name}" for name in adapter_tensors(500)}
    assert weights.targets == ("to_k", "to_out.0", "to_q", "to_v")


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.base_model.model.", "base_model.model._orig_mod.", "module.base_model.model."]
)
def test_what_ddp_and_compile_put_in_front_changes_nothing(prefix: str) -> None:
    shapes = {prefix + name.removeprefix("base_model.model."): v.shape for name, v in wrapped_tensors(500).items()}
    weights = read_weights(shapes)
    assert weights.layout == "accelerate-peft" and not weights.flaws
    assert plain_names(weights) == set(base_tensors())


@pytest.mark.parametrize(
    ("template", "layout"),
    [
        ("unet.{m}.lora_{h}.weight", "diffusers-lora"),
        ("unet.base_model.model.{m}.lora_{h}.weight", "peft-adapter"),  # diffusers' LCM script, which has an alpha of its own
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
    (module,) = weights.adapted
    assert (module.parts["down"], module.parts["up"]) == (f"unet.{MODULE}.{down}.weight", f"unet.{MODULE}.{up}.weight")
    assert not weights.flaws


def test_a_unet_and_a_text_encoder_in_one_file_keep_their_own_modules() -> None:
    text = "text_model.encoder.layers.0.self_attn.q_proj"
    weights = read_weights(named("unet.{m}.lora_{h}.weight") | named("text_encoder.{m}.lora_{h}.weight", (text,)))
    assert weights.components == ("unet", "text_encoder") and not weights.flaws


def test_a_text_encoder_called_model_safetensors_is_known_by_its_keys() -> None:
    weights = read_weights({"text_model.embeddings.token_embedding.weight": (99, 8), "text_model.final_layer_norm.bias": (8,)})
    assert (weights.layout, weights.component, weights.holds) == ("full", "text_encoder", "full")


def test_plain_weights_of_a_unet_are_a_full_component() -> None:
    weights = read_weights(shapes_of(base_tensors()))
    assert (weights.layout, weights.holds) == ("full", "full")
    assert set(weights.canonical.values()) == {f"unet.{name}" for name in base_tensors()}


@pytest.mark.parametrize("name", ["decoder.mid.weight", "something", ""])
def test_tensors_of_nothing_known_are_unexplained(name: str) -> None:
    weights = read_weights({name: (1,)})
    assert weights.holds == "unknown" and weights.unexplained == (name,) and weights.flaws
    assert guess_component([name]) is None


# kinds of adapters


def flat(module: str) -> str:
    return module.replace(".", "_")


@pytest.mark.parametrize(
    ("parts", "method", "attachable"),
    [
        ({"lora_down.weight": (4, 8), "lora_up.weight": (8, 4), "alpha": ()}, "lora", True),
        ({"lora_down.weight": (4, 8), "lora_up.weight": (8, 4), "dora_scale": (8, 1)}, "lora", False),
        ({"lora_down.weight": (4, 8, 1, 1), "lora_mid.weight": (4, 4, 3, 3), "lora_up.weight": (8, 4, 1, 1)}, "lora", False),
        ({"hada_w1_a": (8, 4), "hada_w1_b": (4, 8), "hada_w2_a": (8, 4), "hada_w2_b": (4, 8), "alpha": ()}, "loha", False),
        ({"lokr_w1": (2, 2), "lokr_w2": (4, 4), "alpha": ()}, "lokr", False),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4)}, "lokr", False),
        ({"diff": (8, 8), "diff_b": (8,)}, "full", False),
    ],
)
def test_flat_names_of_kohya_and_lycoris_are_read_as_modules_of_the_model(parts: Shapes, method: str, attachable: bool) -> None:
    text = "text_model.encoder.layers.0.self_attn.out_proj"
    for prefix, module, owner in (
        ("lora_unet", MODULES[3], "unet"),
        ("lora_te1", text, "text_encoder"),
        ("lora_te2", text, "text_encoder_2"),
    ):
        weights = read_weights({f"{prefix}_{flat(module)}.{part}": shape for part, shape in parts.items()})
        (found,) = weights.adapted
        assert (found.component, found.module, found.method, found.attachable) == (owner, module, method, attachable)
        assert weights.layout == "kohya" and not weights.flaws and weights.holds == method


@pytest.mark.parametrize(
    ("original", "module"),
    [
        ("input_blocks_4_1_transformer_blocks_0_attn1_to_q", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
        ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        ("input_blocks_5_0_in_layers_2", "down_blocks.1.resnets.1.conv1"),
        ("middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
        ("middle_block_2_emb_layers_1", "mid_block.resnets.1.time_emb_proj"),
        ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks_5_1_transformer_blocks_1_ff_net_0_proj", "up_blocks.1.attentions.2.transformer_blocks.1.ff.net.0.proj"),
        ("output_blocks_8_0_skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
        ("time_embed_0", "time_embedding.linear_1"), ("label_emb_0_2", "add_embedding.linear_2"), ("out_2", "conv_out"),
    ],
)  # fmt: skip
def test_the_original_layouts_blocks_have_their_names_in_diffusers(original: str, module: str) -> None:
    pair = {"lora_down.weight": (4, 8), "lora_up.weight": (8, 4)}
    for stem in (f"lora_unet_{original}", f"diffusion_model.{original.replace('_blocks_', '_blocks.')}"):
        weights = read_weights({f"{stem}.{part}": shape for part, shape in pair.items()})
        assert [m.key for m in weights.adapted] == [f"unet.{module}"], stem


@given(st.sampled_from(MODULES), st.sampled_from(["lora_unet_", "lycoris_"]))
def test_a_flat_name_is_the_only_module_that_flattens_to_it(module: str, prefix: str) -> None:
    part = read_part(f"{prefix}{flat(module)}.lora_up.weight")
    assert part is not None and part.module == module


@pytest.mark.parametrize("name", ["lora_unet_down_blocks_0_something_else.lora_down.weight", "lora_unet_.alpha", "lora_te_x.alpha"])
def test_flat_names_with_words_that_no_module_has_are_unexplained(name: str) -> None:
    weights = read_weights(
        {name: (4, 8), f"lora_unet_{flat(MODULE)}.lora_down.weight": (4, 8), f"lora_unet_{flat(MODULE)}.lora_up.weight": (8, 4)}
    )
    assert name in weights.unexplained and name in "".join(weights.flaws)


def test_the_first_diffusers_names_of_attention_processors_are_read() -> None:
    shapes = {
        f"mid_block.attn1.processor.to_{m}_lora.{h}.weight": (4, 8) if h == "down" else (8, 4) for m in ("q", "out") for h in ("down", "up")
    }
    weights = read_weights(shapes)
    assert weights.layout == "attn-procs" and [m.module for m in weights.adapted] == ["mid_block.attn1.to_out.0", "mid_block.attn1.to_q"]


def test_what_peft_trains_beside_the_pairs_is_known_as_such() -> None:
    dora = f"base_model.model.{MODULE}.lora_magnitude_vector.default.weight"
    bias = f"base_model.model.{MODULE}.lora_B.default.bias"
    copy = "base_model.model.conv_out.modules_to_save.default.weight"
    original = "base_model.model.conv_out.original_module.weight"
    weights = read_weights({**shapes_of(wrapped_tensors(500)), dora: (8,), bias: (8,), copy: (4, 4), original: (4, 4)})
    (module,) = [m for m in weights.adapted if m.module == MODULE]
    assert (module.parts["magnitude"], module.parts["up_bias"]) == (dora, bias)
    assert weights.plain[copy] == "unet.conv_out.weight" and original in weights.aside and not weights.flaws


@pytest.mark.parametrize("name", ["<sks>", "emb_params", "clip_g"])
def test_a_learned_word_is_an_embedding(name: str) -> None:
    assert read_weights({name: (2, 16)}).holds == "embedding"
    assert read_weights({"sks-cat": (2, 768)}).holds == "embedding" and read_weights({"weight": (2, 16)}).holds == "unknown"


# what may not be dropped


@pytest.mark.parametrize(
    "stranger",
    [
        f"base_model.model.{MODULE}.lora_embedding_A.default",
        f"base_model.model.{MODULE}.oft_r.default",
        f"base_model.model.{MODULE}.lora_C.default.weight",
        f"lora_unet_{flat(MODULE)}.oft_blocks",
    ],
)
@pytest.mark.parametrize("layout", ["dump", "adapter"])
def test_parts_that_nobody_can_compute_are_named_as_unexplained_and_are_a_flaw(stranger: str, layout: str) -> None:
    shapes = shapes_of(wrapped_tensors(500)) if layout == "dump" else named("base_model.model.{m}.lora_{h}.weight")
    weights = read_weights({**shapes, stranger: (8,)})
    assert weights.unexplained == (stranger,)
    assert stranger in "".join(weights.flaws)


@pytest.mark.parametrize("name", [f"{MODULE}.hada_w1_a", f"lora_unet_{flat(MODULE)}.lora_down.weight", "lora_te_x.alpha"])
def test_a_file_of_parts_of_adapters_is_not_full_weights(name: str) -> None:
    weights = read_weights({name: (4, 8), "conv_in.weight": (1,)})
    assert weights.holds in ("unknown", "full") and name in weights.unexplained and weights.flaws


def test_plain_tensors_beside_a_diffusers_lora_are_unexplained() -> None:
    weights = read_weights({**named("unet.{m}.lora_{h}.weight"), "unet.conv_in.bias": (4,)})
    assert weights.unexplained == ("unet.conv_in.bias",) and weights.flaws


def test_half_a_pair_is_a_flaw_and_its_name_is_kept() -> None:
    shapes = named("unet.{m}.lora_{h}.weight")
    lone = f"unet.{MODULE}.lora_A.weight"
    del shapes[f"unet.{MODULE}.lora_B.weight"]
    weights = read_weights(shapes)
    assert "half" in "".join(weights.flaws) and lone in weights.unexplained
    assert len(weights.adapted) == len(MODULES) - 1


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


def test_an_adapter_that_is_known_to_change_nothing_is_aside_and_the_other_is_chosen() -> None:
    shapes = shapes_of(wrapped_tensors(500)) | named("base_model.model.{m}.lora_{h}.older.weight")
    assert set(read_weights(shapes).rivals) == {"default", "older"}
    weights = read_weights(shapes, ["older"])
    assert not weights.flaws and not weights.rivals and weights.chosen == "default" and accounted(weights) == Counter(list(shapes))
    assert set(weights.aside) == {name for name in shapes if ".older." in name}


def test_an_adapter_of_lengths_or_factors_does_not_show_by_zeros_that_it_is_idle() -> None:
    dora = {f"base_model.model.{MODULE}.lora_magnitude_vector.older.weight": (8,)}
    shapes = shapes_of(wrapped_tensors(500)) | named("base_model.model.{m}.lora_{h}.older.weight") | dora
    assert read_weights(shapes).rivals["older"] == () and read_weights(shapes).rivals["default"]


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


def test_a_base_that_was_quantised_for_training_is_set_aside_and_the_adapter_stays() -> None:
    layer = f"base_model.model.{MODULE}.base_layer.weight"
    state = {f"{layer}.absmax": (4,), f"{layer}.quant_map": (16,), f"{layer}.quant_state.bitsandbytes__nf4": (80,)}
    weights = read_weights({**shapes_of(wrapped_tensors(500)), layer: (32, 1), **state})
    assert weights.layout == "quantised-peft" and len(weights.adapted) == len(MODULES) and not weights.flaws
    assert not weights.plain and not weights.dumped and set(state) <= set(weights.aside) and layer in weights.aside
