"""Names in the original layout, from names and shapes alone; the expected ones are those of the published SD 1.5 and SDXL files."""

from __future__ import annotations

import numpy as np
import pytest

from cmp.core.original_family import family_of, marks_of, unusual
from cmp.core.original_names import Renamed, change_values, stack, to_original
from cmp.errors import Refused

Shapes = dict[str, tuple[int, ...]]
SD = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
SDXL = {**SD, "text_encoder_2": "CLIPTextModelWithProjection"}


def unet(blocks: int = 4, layers: int = 2) -> Shapes:
    """One tensor of each residual layer, sampler and end of a UNet that attends everywhere but in its innermost blocks."""
    names = ["conv_in.bias", "conv_out.weight", "time_embedding.linear_2.bias", "mid_block.resnets.1.conv2.bias"]
    names += ["mid_block.attentions.0.proj_in.weight"]
    for block in range(blocks):
        for side, count, attends in (("down", layers, block < blocks - 1), ("up", layers + 1, block > 0)):
            names += [f"{side}_blocks.{block}.resnets.{layer}.conv1.weight" for layer in range(count)]
            names += [
                f"{side}_blocks.{block}.attentions.{layer}.transformer_blocks.0.attn2.to_k.weight" for layer in range(count) if attends
            ]
            names += [f"{side}_blocks.{block}.{side}samplers.0.conv.weight"] if block < blocks - 1 else []
    return dict.fromkeys(names, (4, 4))


def clip(prefix: str = "", layers: int = 2) -> Shapes:
    ends = {"embeddings.token_embedding.weight": (9, 4), "embeddings.position_embedding.weight": (7, 4), "final_layer_norm.bias": (4,)}
    inside = {f"self_attn.{part}_proj.{kind}": (4, 4)[: 1 + (kind == "weight")] for part in "qkv" for kind in ("weight", "bias")}
    inside |= {"self_attn.out_proj.bias": (4,), "layer_norm2.weight": (4,), "mlp.fc1.weight": (16, 4)}
    found = ends | {f"encoder.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in inside.items()}
    return {prefix + name: shape for name, shape in found.items()}


@pytest.mark.parametrize(
    ("ours", "original"),
    [
        ("conv_in.bias", "input_blocks.0.0.bias"),
        ("conv_out.weight", "out.2.weight"),
        ("time_embedding.linear_2.bias", "time_embed.2.bias"),
        ("down_blocks.1.resnets.1.conv1.weight", "input_blocks.5.0.in_layers.2.weight"),
        ("down_blocks.2.downsamplers.0.conv.weight", "input_blocks.9.0.op.weight"),
        ("down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight", "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"),
        ("mid_block.resnets.1.conv2.bias", "middle_block.2.out_layers.3.bias"),
        ("mid_block.attentions.0.proj_in.weight", "middle_block.1.proj_in.weight"),
        ("up_blocks.3.resnets.2.conv1.weight", "output_blocks.11.0.in_layers.2.weight"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),  # behind a residual layer
        ("up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"),  # behind an attention
    ],
)
def test_a_unet_tensor_bears_the_name_it_has_in_the_published_sd_1_5_file(ours: str, original: str) -> None:
    assert to_original("unet", unet(), "SD 1")[ours] == Renamed(f"model.diffusion_model.{original}")


@pytest.mark.parametrize(("blocks", "layers"), [(2, 1), (3, 2), (4, 3)])
def test_layers_are_numbered_through_for_any_depth_and_no_two_share_a_number(blocks: int, layers: int) -> None:
    shapes = unet(blocks, layers)
    placed = to_original("unet", shapes, "SD 1")
    assert len({place.name for place in placed.values()}) == len(shapes)
    last = f"up_blocks.{blocks - 1}.resnets.{layers}.conv1.weight"
    assert placed[last].name == f"model.diffusion_model.output_blocks.{blocks * (layers + 1) - 1}.0.in_layers.2.weight"


def test_a_unet_whose_blocks_differ_in_depth_is_refused() -> None:
    shapes = unet()
    del shapes["down_blocks.1.resnets.1.conv1.weight"]
    with pytest.raises(Refused, match="on the way down"):
        to_original("unet", shapes, "SD 1")


@pytest.mark.parametrize(
    "stranger",
    [
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.bias",
        "down_blocks.0.motion_modules.0.norm.weight",
        "encoder_hid_proj.weight",
        "mid_block.attentions.1.proj_in.weight",
        "conv_in.alpha",
        "time_embedding.cond_proj.weight",
    ],
)
def test_a_tensor_without_a_place_is_refused_by_name_and_not_dropped(stranger: str) -> None:
    with pytest.raises(Refused, match=stranger):
        to_original("unet", {**unet(), stranger: (4, 4)}, "SD 1")


@pytest.mark.parametrize(
    ("ours", "shape", "original", "change"),
    [
        ("encoder.conv_norm_out.weight", (8,), "encoder.norm_out.weight", ""),
        ("encoder.down_blocks.1.resnets.0.conv_shortcut.weight", (8, 8, 1, 1), "encoder.down.1.block.0.nin_shortcut.weight", ""),
        ("encoder.down_blocks.1.downsamplers.0.conv.bias", (8,), "encoder.down.1.downsample.conv.bias", ""),
        ("decoder.up_blocks.0.resnets.2.norm1.bias", (8,), "decoder.up.3.block.2.norm1.bias", ""),
        ("decoder.up_blocks.2.upsamplers.0.conv.weight", (8, 8, 3, 3), "decoder.up.1.upsample.conv.weight", ""),
        ("decoder.mid_block.resnets.0.conv2.weight", (8, 8, 3, 3), "decoder.mid.block_1.conv2.weight", ""),
        ("decoder.mid_block.attentions.0.group_norm.weight", (8,), "decoder.mid.attn_1.norm.weight", ""),
        ("decoder.mid_block.attentions.0.to_q.weight", (8, 8), "decoder.mid.attn_1.q.weight", "1x1"),
        ("decoder.mid_block.attentions.0.query.weight", (8, 8), "decoder.mid.attn_1.q.weight", "1x1"),
        ("decoder.mid_block.attentions.0.proj_attn.bias", (8,), "decoder.mid.attn_1.proj_out.bias", ""),
        ("post_quant_conv.weight", (4, 4, 1, 1), "post_quant_conv.weight", ""),
    ],
)
def test_a_vae_tensor_bears_its_original_name_also_when_an_older_diffusers_saved_it(
    ours: str, shape: tuple[int, ...], original: str, change: str
) -> None:
    shapes = {ours: shape, **{f"decoder.up_blocks.{block}.resnets.0.conv1.bias": (8,) for block in range(4)}}
    assert to_original("vae", shapes, "SDXL")[ours] == Renamed(f"first_stage_model.{original}", change)


def test_the_text_encoder_gets_back_the_part_of_its_names_that_newer_libraries_dropped() -> None:
    new, old = to_original("text_encoder", clip(), "SD 1"), to_original("text_encoder", clip("text_model."), "SD 1")
    assert set(new.values()) == set(old.values())
    assert new["final_layer_norm.bias"].name == "cond_stage_model.transformer.text_model.final_layer_norm.bias"


def test_one_tensor_under_two_names_is_refused() -> None:
    with pytest.raises(Refused, match="the same tensor"):
        to_original("text_encoder", {**clip(), "text_model.final_layer_norm.bias": (4,)}, "SD 1")


def test_openclip_holds_q_k_and_v_as_one_in_that_order_and_its_projection_from_the_other_side() -> None:
    shapes = {**clip("text_model."), "text_projection.weight": (3, 4)}
    placed = to_original("text_encoder_2", shapes, "SDXL")
    made = stack(placed)
    block = "conditioner.embedders.1.model.transformer.resblocks.1"
    layer = "text_model.encoder.layers.1.self_attn"
    assert made[f"{block}.attn.in_proj_weight"] == tuple(f"{layer}.{part}_proj.weight" for part in "qkv")
    assert f"{block}.mlp.c_fc.weight" in made and f"{block}.ln_2.weight" in made and f"{block}.attn.out_proj.bias" in made
    projection = placed["text_projection.weight"]
    values = np.arange(12.0).reshape(3, 4)
    assert projection == Renamed("conditioner.embedders.1.model.text_projection", "transposed")
    assert np.array_equal(change_values(values, projection), values.T) and projection.shape((3, 4)) == (4, 3)


def test_q_and_v_without_k_are_refused() -> None:
    shapes = clip()
    del shapes["encoder.layers.0.self_attn.k_proj.bias"]
    with pytest.raises(Refused, match="in_proj_bias"):
        to_original("text_encoder", shapes, "SD 2")


def test_counted_positions_are_kept_where_the_layout_has_them_and_else_knowingly_left_out() -> None:
    shapes: Shapes = {**clip(), "embeddings.position_ids": (1, 7)}
    assert to_original("text_encoder", shapes, "SD 1")["embeddings.position_ids"].change == ""
    placed = to_original("text_encoder", shapes, "SD 2")
    assert placed["embeddings.position_ids"].change == "left out"
    assert not [target for target in stack(placed) if "position_ids" in target]


def test_every_family_names_its_text_encoders_as_its_tools_look_for_them() -> None:
    def named(family: str, component: str) -> str:
        placed = to_original(component, clip(), family)
        return next(place.name for name, place in placed.items() if "token_embedding" in name)

    assert named("SD 2", "text_encoder") == "cond_stage_model.model.token_embedding.weight"
    assert named("SDXL", "text_encoder") == "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
    assert named("SDXL", "text_encoder_2") == "conditioner.embedders.1.model.token_embedding.weight"
    assert named("SDXL refiner", "text_encoder_2") == "conditioner.embedders.0.model.token_embedding.weight"


def test_the_family_is_told_by_class_by_components_and_by_the_text_encoders_activation() -> None:
    refiner = {name: kind for name, kind in SDXL.items() if name != "text_encoder"}
    assert family_of("StableDiffusionPipeline", SD, {}) == "SD 1"
    assert family_of("StableDiffusionInpaintPipeline", SD, {"text_encoder": {"hidden_act": "gelu"}}) == "SD 2"
    assert family_of("StableDiffusionXLPipeline", SDXL, {}) == "SDXL"
    assert family_of("StableDiffusionXLImg2ImgPipeline", refiner, {}) == "SDXL refiner"


@pytest.mark.parametrize(
    ("pipeline", "classes", "named"),
    [
        ("FluxPipeline", {"transformer": "FluxTransformer2DModel"}, "FluxPipeline"),
        ("StableDiffusion3Pipeline", {"transformer": "SD3Transformer2DModel"}, "StableDiffusion3Pipeline"),
        ("StableDiffusionPipeline", {**SD, "vae": "AsymmetricAutoencoderKL"}, "AsymmetricAutoencoderKL"),
        ("StableDiffusionPipeline", {**SD, "controlnet": "ControlNetModel"}, "ControlNetModel"),
        ("StableDiffusionPipeline", {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel"}, "no vae"),
    ],
)
def test_what_has_no_agreed_layout_is_refused_by_name_with_the_form_that_has_room(
    pipeline: str, classes: dict[str, str], named: str
) -> None:
    with pytest.raises(Refused, match=named) as refusal:
        family_of(pipeline, classes, {})
    assert "pipeline" in refusal.value.hint


def test_what_the_tools_take_otherwise_is_told_and_the_published_settings_are_not() -> None:
    usual = {
        "unet": {"block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "attention_head_dim": 8},
        "vae": {"scaling_factor": 0.18215},
        "scheduler": {"prediction_type": "epsilon", "beta_schedule": "scaled_linear"},
    }
    assert unusual("SD 1", usual) == ()
    (told,) = unusual("SD 1", {**usual, "scheduler": {"prediction_type": "v_prediction"}})
    assert "v_prediction" in told and "epsilon" in told


def test_an_sdxl_model_that_predicts_velocity_is_marked_for_the_tools_that_cannot_see_it() -> None:
    assert marks_of("SDXL", {"scheduler": {"prediction_type": "epsilon"}}) == ()
    assert marks_of("SDXL", {"scheduler": {"prediction_type": "v_prediction"}}) == ("v_pred",)
    assert marks_of("SDXL", {"scheduler": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}}) == ("v_pred", "ztsnr")
    assert marks_of("SD 1", {"scheduler": {"prediction_type": "v_prediction"}}) == ()
