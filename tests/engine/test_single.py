"""One file in the original layout: what diffusers' own converters and loader make of it, and what the proof finds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.loaders import single_file_utils as converters
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cmp.core.original_names import stack, to_original
from cmp.core.progress import run_through
from cmp.disk.replacing import replacing
from cmp.disk.single_file import SinglePlan, plan_single_file, write_single_draft
from cmp.disk.writing import ENDING
from cmp.engine.single import convert_to_single_file, copy_settings, verify_single_file
from cmp.errors import BadInput, Refused

pytestmark = pytest.mark.model

Tensors = dict[str, torch.Tensor]
WORDS = Path(__file__).parents[1] / "data" / "corpus" / "bases" / "sd_nano" / "tokenizer"


def convert(pipeline: Path, target: Path, metadata: dict[str, str], dtype: str | None = None) -> str:
    return run_through(convert_to_single_file(pipeline, target, metadata, dtype))


def verify(target: Path, pipeline: Path) -> str:
    return run_through(verify_single_file(target, pipeline))


def write_single_file(pipeline: Path, target: Path, dtype: str | None = None) -> SinglePlan:
    plan = plan_single_file(pipeline, dtype)
    with replacing(target, ENDING) as draft:
        run_through(run_through(write_single_draft(plan, draft, {})).wait())
    return plan


# ---- names of the published sizes, on the meta device ----

XL_BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True, "addition_embed_type": "text_time",
}  # fmt: skip
UNETS: dict[str, dict[str, Any]] = {
    "SD 1": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "SD 2": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "SDXL": {
        **XL_BLOCKS, "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10), "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20), "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
OPENCLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu"}
OPENCLIP_G = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu",
    "projection_dim": 1280,
}  # fmt: skip


def on_meta(family: str, component: str) -> torch.nn.Module:
    with torch.device("meta"):
        if component == "unet":
            return diffusers.UNet2DConditionModel(**UNETS[family])
        if component == "vae":
            return diffusers.AutoencoderKL(**VAE)
        sizes = {"SD 2": OPENCLIP_H}.get(family, CLIP_L) if component == "text_encoder" else OPENCLIP_G
        kind = transformers.CLIPTextModel if component == "text_encoder" else transformers.CLIPTextModelWithProjection
        return kind(transformers.CLIPTextConfig(**sizes))


def read_by_diffusers(model: torch.nn.Module, component: str, original: Tensors) -> Tensors:
    """What diffusers' converter for this component makes of the original layout."""
    if component == "unet":
        return converters.convert_ldm_unet_checkpoint(original, model.config)
    if component == "vae":
        return converters.convert_ldm_vae_checkpoint(original, model.config)
    prefix = next(iter(original)).split(".model.")[0] + ".model."
    if next(iter(original)).startswith(prefix):
        return converters.convert_open_clip_checkpoint(model, original, prefix)
    return converters.convert_ldm_clip_checkpoint(original)


# the counts are those of v1-5-pruned-emaonly, v2-1_768-ema-pruned and sd_xl_base_1.0, less what no pipeline holds: position_ids of
# CLIP-L, logit_scale of OpenCLIP, and of SD 2 the 24th layer and the projection, which are not used
@pytest.mark.parametrize(
    ("family", "component", "count"),
    [
        ("SD 1", "unet", 686), ("SD 1", "vae", 248), ("SD 1", "text_encoder", 196),
        ("SD 2", "unet", 686), ("SD 2", "text_encoder", 280),
        ("SDXL", "unet", 1680), ("SDXL", "vae", 248), ("SDXL", "text_encoder", 196), ("SDXL", "text_encoder_2", 389),
    ],
)  # fmt: skip
def test_a_full_size_component_has_the_published_files_names_and_diffusers_converter_gives_its_own_back(
    family: str, component: str, count: int
) -> None:
    model = on_meta(family, component)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    placed = to_original(component, shapes, family)
    original = {}
    for target, names in stack(placed).items():
        parts = [placed[name].shape(shapes[name]) for name in names]
        original[target] = torch.empty((sum(part[0] for part in parts), *parts[0][1:]), device="meta")
    assert len(original) == count
    back = {name: tuple(tensor.shape) for name, tensor in read_by_diffusers(model, component, original).items()}
    plain = {name.removeprefix("text_model."): shape for name, shape in shapes.items()}
    assert {name.removeprefix("text_model."): shape for name, shape in back.items()} == plain


# ---- tiny pipelines of real classes ----


def tiny_unet(context: int, widths: tuple[int, ...] = (4, 8, 8, 8), **more: Any) -> torch.nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=widths, norm_num_groups=4, attention_head_dim=2, cross_attention_dim=context, **more
    )


def tiny_clip(kind: Any, width: int, **more: Any) -> torch.nn.Module:
    sizes = {"intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 529, **more}
    return kind(transformers.CLIPTextConfig(hidden_size=width, bos_token_id=527, eos_token_id=528, pad_token_id=528, **sizes))


def tiny_pipeline(family: str, wide: int = 12) -> Any:
    """A pipeline of its family in miniature, with weights that are all different; `wide` is the width of SDXL's second text encoder."""
    torch.manual_seed(7)
    words = transformers.CLIPTokenizer.from_pretrained(WORDS)
    vae = diffusers.AutoencoderKL(**{**VAE, "block_out_channels": (4, 4, 4, 8), "norm_num_groups": 4})
    first, second = transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection
    if family in ("SD 1", "SD 2"):
        act = {"SD 1": "quick_gelu", "SD 2": "gelu"}[family]
        parts = (vae, tiny_clip(first, 8, hidden_act=act), words, tiny_unet(8, use_linear_projection=family == "SD 2"))
        return diffusers.StableDiffusionPipeline(
            *parts, diffusers.DDIMScheduler(steps_offset=1, clip_sample=False), None, None, requires_safety_checker=False
        )
    second_encoder = tiny_clip(second, wide, hidden_act="gelu", projection_dim=10)  # no square, so that a missing transposition shows
    more = {**XL_BLOCKS, "addition_time_embed_dim": 4, "transformer_layers_per_block": (1, 1, 2)}
    flow = diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    if family == "SDXL":
        unet = tiny_unet(8 + wide, (4, 8, 8), projection_class_embeddings_input_dim=34, **more)
        return diffusers.StableDiffusionXLPipeline(vae, tiny_clip(first, 8), second_encoder, words, words, unet, flow)
    unet = tiny_unet(wide, (4, 8, 8), projection_class_embeddings_input_dim=30, **more)
    return diffusers.StableDiffusionXLImg2ImgPipeline(vae, None, second_encoder, None, words, unet, flow, requires_aesthetics_score=True)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of each family's tiny pipeline, saved once."""
    root = tmp_path_factory.mktemp("pipelines")

    def folder(family: str) -> Path:
        if not (root / family).exists():
            tiny_pipeline(family).save_pretrained(root / family)
        return root / family

    return folder


@pytest.fixture
def own(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a family's pipeline that a test may change."""
    return lambda family: shutil.copytree(made(family), tmp_path / "own")


def change(folder: Path, component: str, alter: Callable[[Tensors], Any]) -> None:
    (file,) = (folder / component).glob("*.safetensors")
    tensors = load_file(file)
    file.unlink()
    save_file(alter(tensors) or tensors, file, {"format": "pt"})


def states(pipe: Any) -> dict[str, Tensors]:
    return {name: part.state_dict() for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


@pytest.mark.parametrize("family", ["SD 1", "SD 2", "SDXL", "SDXL refiner"])
def test_diffusers_plain_call_gives_back_every_tensor_of_the_pipeline_bit_by_bit(
    family: str, made: Callable[[str], Path], tmp_path: Path
) -> None:
    pipeline, target = made(family), tmp_path / "one.safetensors"
    proof = convert(pipeline, target, {"made_by": "a test"})
    kind = getattr(diffusers, json.loads((pipeline / "model_index.json").read_text())["_class_name"])
    got = states(kind.from_single_file(str(target), config=str(pipeline), local_files_only=True))
    meant = states(kind.from_pretrained(pipeline, local_files_only=True))
    assert {name: set(state) for name, state in got.items()} == {name: set(state) for name, state in meant.items()}
    assert all(torch.equal(values, got[name][inner]) for name, state in meant.items() for inner, values in state.items())
    assert f"all {sum(map(len, meant.values()))} tensors" in proof
    with safe_open(target, "pt") as file:
        assert file.metadata() == {"format": "pt", "made_by": "a test"}
        assert ("v_pred" in file.keys()) == (family == "SDXL")  # noqa: SIM118


def test_two_text_encoders_of_one_width_are_refused_since_the_plain_call_would_mix_them_up(tmp_path: Path) -> None:
    tiny_pipeline("SDXL", wide=8).save_pretrained(tmp_path / "even")
    with pytest.raises(Refused, match="both text encoders are 8 wide"):
        convert(tmp_path / "even", tmp_path / "one.safetensors", {})


def test_a_changed_byte_is_found(made: Callable[[str], Path], tmp_path: Path) -> None:
    target = tmp_path / "one.safetensors"
    plan = write_single_file(made("SD 1"), target)
    raw = bytearray(target.read_bytes())
    raw[-1] ^= 1
    target.write_bytes(raw)
    last = max(name for name, (_, shape) in plan.described.items() if shape)
    assert last.startswith("model.diffusion_model")
    with pytest.raises(Refused, match=r"unet.* other values"):
        verify(target, made("SD 1"))


Q, K = (f"conditioner.embedders.0.transformer.text_model.encoder.layers.0.self_attn.{part}_proj.weight" for part in "qk")
IN_PROJ = "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight"


@pytest.mark.parametrize(
    ("alter", "named"),
    [
        (lambda t: {**t, Q: t[K], K: t[Q]}, r"text_encoder\.encoder.layers.0.self_attn.._proj.weight"),
        (lambda t: {**t, IN_PROJ: t[IN_PROJ].roll(12, 0)}, r"text_encoder_2\.encoder.layers.1.self_attn"),
        (lambda t: {n: v for n, v in t.items() if not n.endswith("out.2.bias")}, r"out\.2\.bias is missing"),
        (lambda t: {**t, "model.diffusion_model.extra.weight": torch.ones(3)}, r"extra\.weight is too much"),
        (lambda t: {**t, "first_stage_model.quant_conv.bias": t["first_stage_model.quant_conv.bias"][:4]}, "quant_conv.bias"),
    ],
    ids=["two tensors swapped", "q k v in another order", "one tensor missing", "one tensor too many", "another shape"],
)
def test_what_is_wrong_in_the_file_is_named(
    alter: Callable[[Tensors], Tensors], named: str, made: Callable[[str], Path], tmp_path: Path
) -> None:
    target = tmp_path / "one.safetensors"
    write_single_file(made("SDXL"), target)
    save_file(alter(load_file(target)), tmp_path / "wrong.safetensors")
    with pytest.raises(Refused, match=named):
        verify(tmp_path / "wrong.safetensors", made("SDXL"))


def test_nothing_stands_under_the_name_when_the_proof_fails(
    made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def object_to(draft: Path, pipeline: Path) -> None:
        assert draft.stat().st_size > 0
        raise Refused("no", "")

    monkeypatch.setattr("cmp.engine.single.verify_single_file", object_to)
    with pytest.raises(Refused, match="no"):
        convert(made("SD 1"), tmp_path / "new" / "one.safetensors", {})
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(("dtype", "kind"), [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_a_narrower_file_holds_what_torch_rounds_to_and_is_proven_as_that(
    dtype: str, kind: torch.dtype, made: Callable[[str], Path], tmp_path: Path
) -> None:
    target = tmp_path / "one.safetensors"
    assert "equal" in convert(made("SD 2"), target, {}, dtype)
    tensors = load_file(target)
    (file,) = (made("SD 2") / "unet").glob("*.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {kind}
    assert torch.equal(tensors["model.diffusion_model.out.2.weight"], load_file(file)["conv_out.weight"].to(kind))
    assert target.stat().st_size > plan_single_file(made("SD 2"), dtype).bytes == sum(t.nbytes for t in tensors.values())


def test_a_value_that_fp16_cannot_hold_is_refused_by_name(own: Callable[[str], Path], tmp_path: Path) -> None:
    folder = own("SD 1")
    change(folder, "vae", lambda t: {**t, "quant_conv.bias": t["quant_conv.bias"] + 70000})
    with pytest.raises(Refused, match=r"quant_conv\.bias holds 70000"):
        write_single_file(folder, tmp_path / "one.safetensors", "F16")
    assert not (tmp_path / "one.safetensors").exists()
    convert(folder, tmp_path / "one.safetensors", {}, "BF16")
    with pytest.raises(BadInput, match="fp12"):
        plan_single_file(folder, "fp12")


def test_components_of_different_types_keep_theirs_and_are_proven(own: Callable[[str], Path], tmp_path: Path) -> None:
    folder = own("SDXL")
    change(folder, "unet", lambda t: {name: values.half() for name, values in t.items()})
    change(folder, "text_encoder_2", lambda t: {name: values.bfloat16() for name, values in t.items()})
    convert(folder, tmp_path / "one.safetensors", {})
    assert {t.dtype for t in load_file(tmp_path / "one.safetensors").values() if t.numel()} == {
        torch.float16,
        torch.bfloat16,
        torch.float32,
    }


def test_q_k_and_v_of_different_types_are_refused_unless_one_type_is_chosen(own: Callable[[str], Path], tmp_path: Path) -> None:
    folder = own("SD 2")
    change(folder, "text_encoder", lambda t: {n: v.half() if "k_proj" in n else v for n, v in t.items()})
    with pytest.raises(Refused, match="k_proj"):
        plan_single_file(folder)
    convert(folder, tmp_path / "one.safetensors", {}, "F32")


def as_older_libraries_saved_it(folder: Path, encoders: tuple[str, ...]) -> None:
    """Names as in the published repositories: `text_model.` and counted positions in text encoders, query and proj_attn in the VAE."""
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for encoder in encoders:
        positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        change(folder, encoder, lambda t, more=positions: {n if "text_" in n else f"text_model.{n}": v for n, v in t.items()} | more)

    def rename(name: str) -> str:
        return next((name.replace(f".{new}.", f".{old}.") for new, old in older.items() if f".{new}." in name), name)

    change(folder, "vae", lambda t: {rename(name): values for name, values in t.items()})


def test_a_pipeline_saved_by_older_libraries_becomes_the_same_file_but_for_the_counted_positions(
    own: Callable[[str], Path], made: Callable[[str], Path], tmp_path: Path
) -> None:
    write_single_file(made("SDXL"), tmp_path / "new.safetensors")
    folder = own("SDXL")
    as_older_libraries_saved_it(folder, ("text_encoder", "text_encoder_2"))
    convert(folder, tmp_path / "old.safetensors", {}, "F32")
    old, new = load_file(tmp_path / "old.safetensors"), load_file(tmp_path / "new.safetensors")
    positions = old.pop("conditioner.embedders.0.transformer.text_model.embeddings.position_ids")
    assert torch.equal(positions, torch.arange(77)[None])
    assert set(old) == set(new) and all(torch.equal(old[name], new[name]) for name in new)


@pytest.mark.parametrize("family", ["SD 1", "SD 2"])
def test_positions_that_do_not_count_are_neither_handed_on_nor_left_out_in_silence(
    family: str, own: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = own(family)
    change(folder, "text_encoder", lambda t: {**t, "embeddings.position_ids": torch.arange(77)[None].flip(1)})
    with pytest.raises(Refused, match="position_ids"):
        convert(folder, tmp_path / "one.safetensors", {})
    assert not (tmp_path / "one.safetensors").exists()


def test_a_unet_in_several_files_is_read_from_all_of_them(made: Callable[[str], Path], own: Callable[[str], Path], tmp_path: Path) -> None:
    folder = own("SD 1")
    shutil.rmtree(folder / "unet")
    unet = diffusers.UNet2DConditionModel.from_pretrained(made("SD 1"), subfolder="unet")
    unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    convert(folder, tmp_path / "parts.safetensors", {})
    write_single_file(made("SD 1"), tmp_path / "whole.safetensors")
    assert (tmp_path / "parts.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_the_folder_that_diffusers_gets_for_the_proof_holds_no_weight(made: Callable[[str], Path], tmp_path: Path) -> None:
    copy_settings(made("SDXL"), tmp_path, ["unet", "vae", "text_encoder", "text_encoder_2"])
    copied = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert {"unet/config.json", "text_encoder_2/config.json", "tokenizer_2/tokenizer.json", "scheduler/scheduler_config.json"} <= copied
    assert {Path(name).suffix for name in copied} <= {".json", ".txt"}


def test_what_lies_beside_the_components_is_not_run(own: Callable[[str], Path], tmp_path: Path) -> None:
    folder = own("SD 1")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps({**index, "scheduler": ["my_code", "Scheduler"], "safety_checker": ["my_code", "X"]})
    )
    write_single_file(folder, tmp_path / "one.safetensors")
    with pytest.raises(Refused, match="my_code"):
        verify(tmp_path / "one.safetensors", folder)


def test_sd3_is_refused_by_its_class_before_a_weight_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]}'
    )
    with pytest.raises(Refused, match="StableDiffusion3Pipeline") as refusal:
        plan_single_file(tmp_path)
    assert "form pipeline" in refusal.value.hint


def test_the_plan_says_what_a1111_and_comfyui_would_take_otherwise(made: Callable[[str], Path]) -> None:
    told = plan_single_file(made("SD 1")).unusual
    assert any("cross_attention_dim is 8" in line and "768" in line for line in told)
