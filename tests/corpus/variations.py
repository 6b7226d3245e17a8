"""Layouts of the same kinds as the corpus has, made here with the trainers' own libraries: what comes out is what was trained, or refused.

Nothing is trained: adapters get random values of visible effect, and the truth is what the live model gives at the moment of saving.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .fused import kohya as as_kohya
from .fused import original as as_original
from .fused import saved_as

ATTENTION, WORDS = ["to_q", "to_k", "to_v", "to_out.0"], ["q_proj", "v_proj"]
Make = Callable[[Any, Path], Any]


@dataclass(frozen=True)
class Variation:
    """One case. `make(pipe, run)` trains and saves; `right` are the forms that come out right, `refused` the others with a word of why."""

    name: str
    base: str
    make: Make
    right: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    key: str = "2"
    more: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()


VARIATIONS: list[Variation] = []


def case(name: str, make: Make, right: str = "", base: str = "sd_nano", **more: Any) -> None:
    VARIATIONS.append(Variation(name, base, make, tuple(right.split()), **more))


# ---- training


def randomise(model: Any, seed: int = 0, size: float = 0.12) -> Any:
    """Every adapter of the model gets values of visible effect; a DoRA's magnitudes stay near what they were."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.rand(parameter.shape, generator=generator)
        elif any(word in name for word in ("lora_", "hada_", "lokr_")):
            parameter.data = (torch.randn(parameter.shape, generator=generator) * size).to(parameter.dtype)
    return model


def perturb(model: Any, seed: int = 0, names: str = "") -> Any:
    """Every tensor whose name has `names` in it is trained a little."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if names in name:
            parameter.data += (torch.randn(parameter.shape, generator=generator) * 0.05).to(parameter.dtype)
    return model


def wrapped(pipe: Any, part: str = "unet", kind: str = "LoraConfig", adapter: str = "default", **settings: Any) -> Any:
    import peft

    settings = {"r": 4, "target_modules": ATTENTION if part in ("unet", "transformer") else WORDS} | settings
    settings |= {"lora_alpha" if kind == "LoraConfig" else "alpha": 8} if not {"alpha", "lora_alpha"} & set(settings) else {}
    model = randomise(peft.get_peft_model(getattr(pipe, part), getattr(peft, kind)(**settings), adapter_name=adapter), len(part))
    setattr(pipe, part, model)
    return model


def dump(folder: Path, *models: Any, safe: bool = True) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    accelerator.prepare(*models)
    accelerator.save_state(str(folder), safe_serialization=safe)


def accelerated(part: str = "unet", trained_too: str = "-", **settings: Any) -> Make:
    """The origin's loop: the whole wrapped model at each step, and the adapter alone at the end."""

    def make(pipe: Any, run: Path) -> None:
        model = perturb(wrapped(pipe, part, **settings), 3, trained_too)
        dump(run / "checkpoints" / "checkpoint-2", model)
        model.save_pretrained(run / "lora_weights")

    return make


def saved_by_peft(**settings: Any) -> Make:
    def make(pipe: Any, run: Path) -> None:
        trained_too = ".bias" if settings.get("bias") == "all" else "modules_to_save"
        perturb(wrapped(pipe, **settings), 4, trained_too).save_pretrained(run / "checkpoint-2")

    return make


def by_script(kind: str, **parts: Mapping[str, Any]) -> Make:
    """diffusers' scripts: every adapter in one file, with its settings in the header."""

    def make(pipe: Any, run: Path) -> None:
        import diffusers
        from diffusers.training_utils import _collate_lora_metadata
        from peft import LoraConfig, get_peft_model_state_dict

        layers, models = {}, {}
        for part, settings in parts.items():
            models[part] = model = getattr(pipe, part)
            model.add_adapter(LoraConfig(r=4, lora_alpha=8, **settings))
            layers[f"{part}_lora_layers"] = get_peft_model_state_dict(randomise(model, len(part)))
        getattr(diffusers, kind).save_lora_weights(run / "checkpoint-2", **layers, **_collate_lora_metadata(models))

    return make


def whole(*parts: str, type_: str = "float32") -> Make:
    """A full fine-tune: the components in folders of their own."""

    def make(pipe: Any, run: Path) -> None:
        for part in parts:
            perturb(getattr(pipe, part).to(getattr(torch, type_)), len(part)).save_pretrained(run / "checkpoint-2" / part)
            getattr(pipe, part).float()

    return make


def dumped_text_encoders(pipe: Any, run: Path) -> None:
    models = {part: wrapped(pipe, part) for part in ("unet", "text_encoder", "text_encoder_2")}
    dump(run / "checkpoints" / "checkpoint-2", *models.values())
    for part, model in models.items():
        model.save_pretrained(run / "lora_weights" / ("" if part == "unet" else part))


def dumped_in_bf16(pipe: Any, run: Path) -> None:
    models = {part: wrapped(pipe, part, "LoraConfig") for part in ("unet", "text_encoder") if getattr(pipe, part).to(torch.bfloat16)}
    dump(run / "checkpoints" / "checkpoint-2", *models.values(), safe=False)
    for part, model in models.items():
        model.save_pretrained(run / "lora_weights" / ("" if part == "unet" else part))
        model.float()


def turned_into_lora(start: str, **settings: Any) -> Make:
    """PEFT's way from an adapter that changed the base to one that does not: the difference from its start, at twice the rank."""

    def make(pipe: Any, run: Path) -> None:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(pipe.unet, LoraConfig(r=4, target_modules=ATTENTION, init_lora_weights=start, **settings))
        model.peft_config["default"].init_lora_weights = True  # or its loading would start anew from the changed base
        model.save_pretrained(run.parent / "start")
        model.peft_config["default"].init_lora_weights = start
        perturb(model, 8, "lora_").save_pretrained(run / "checkpoint-2", path_initial_model_for_weight_conversion=str(run.parent / "start"))
        pipe.unet = model

    return make


def two_in_one_dump(pipe: Any, run: Path) -> None:
    from peft import LoraConfig

    model = wrapped(pipe)
    model.add_adapter("style", LoraConfig(r=4, lora_alpha=4, target_modules=["to_q"]))
    dump(run / "checkpoints" / "checkpoint-2", randomise(model, 5))


def two_of_which_one_was_trained(active: str, final: bool = True) -> Make:
    """PEFT starts every lora_B at zero, and only that of the active adapter leaves it."""

    def make(pipe: Any, run: Path) -> None:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(pipe.unet, LoraConfig(r=4, lora_alpha=8, target_modules=ATTENTION))
        model.add_adapter("style", LoraConfig(r=4, lora_alpha=2, target_modules=ATTENTION))
        model.set_adapter(active)
        for name, parameter in randomise(model, 5).named_parameters():
            if "lora_B" in name and f".{active}." not in name:
                parameter.data.zero_()
        dump(run / "checkpoints" / "checkpoint-2", model)
        pipe.unet = model
        if final:
            model.save_pretrained(run / "lora_weights")

    return make


def merged_before_saving(pipe: Any, run: Path) -> None:
    model = wrapped(pipe)
    model.merge_adapter()
    dump(run / "checkpoints" / "checkpoint-2", model)
    model.save_pretrained(run / "lora_weights")


def too_large_for_fp16(pipe: Any, run: Path) -> None:
    model = wrapped(pipe)
    next(p for n, p in model.named_parameters() if "lora_A" in n).data[0, 0] = 1e6
    model.save_pretrained(run / "checkpoint-2")


def two_in_folders(pipe: Any, run: Path) -> None:
    from peft import LoraConfig

    model = wrapped(pipe)
    model.add_adapter("style", LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"]))
    randomise(model, 5).set_adapter("style")
    model.save_pretrained(run / "checkpoint-2")


def with_prefix(prefix: str) -> Make:
    def make(pipe: Any, run: Path) -> None:
        model = wrapped(pipe)
        run.mkdir(exist_ok=True)
        torch.save({"model_state_dict": {prefix + n: v for n, v in model.state_dict().items()}, "step": 2}, run / "checkpoint-2.pt")

    return make


def averaged(pipe: Any, run: Path) -> None:
    from diffusers.training_utils import EMAModel

    perturb(copy.deepcopy(pipe.unet), 9).save_pretrained(run / "checkpoint-2" / "unet")
    model = perturb(pipe.unet)
    EMAModel(model.parameters(), model_cls=type(model), model_config=model.config).save_pretrained(str(run / "checkpoint-2" / "unet_ema"))


def control(pipe: Any, run: Path) -> Any:
    import diffusers

    model = perturb(diffusers.ControlNetModel.from_unet(pipe.unet))
    model.save_pretrained(run / "checkpoint-2" / "controlnet")
    return diffusers.StableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=model)


def word_for_webui(pipe: Any, run: Path) -> None:
    from safetensors.torch import save_file

    rows = torch.randn(2, pipe.text_encoder.config.hidden_size, generator=torch.Generator().manual_seed(1))
    save_file({"emb_params": rows}, run / "mystyle.safetensors")
    pipe.load_textual_inversion({"mystyle": rows}, token="mystyle")


# ---- kohya's and LyCORIS's formulas, and their names for the original UNet

Noise = Callable[..., Any]


def lora(weight: Any, noise: Noise) -> tuple[dict[str, Any], Any]:
    rank, alpha = (2, 4, 8)[weight.shape[0] % 3], (1.0, 3.0)[weight.shape[1] % 2]
    down, up = noise(rank, *weight.shape[1:]), noise(weight.shape[0], rank, *(1 for _ in weight.shape[2:]))
    made = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape) * alpha / rank
    return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(alpha)}, made


def tucker(weight: Any, noise: Noise) -> tuple[dict[str, Any], Any]:
    if weight.shape[2:] != (3, 3):
        return lora(weight, noise)
    down, mid, up = noise(4, weight.shape[1], 1, 1), noise(4, 4, 3, 3), noise(weight.shape[0], 4, 1, 1)
    made = torch.einsum("or,rshw,si->oihw", up[:, :, 0, 0], mid, down[:, :, 0, 0]) * 0.5
    return {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(2.0)}, made


def loha(weight: Any, noise: Noise) -> tuple[dict[str, Any], Any]:
    first, second = ((noise(len(weight), 4, size=0.5), noise(4, weight[0].numel(), size=0.5)) for _ in range(2))
    made = ((first[0] @ first[1]) * (second[0] @ second[1])).reshape(weight.shape) * 0.5
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    return dict(zip(names, (*first, *second), strict=True)) | {"alpha": torch.tensor(2.0)}, made


def lokr(weight: Any, noise: Noise) -> tuple[dict[str, Any], Any]:
    out, into, kernel = weight.shape[0] // 2, weight.shape[1] // 2, weight.shape[2:]
    first, left, right = noise(2, 2, size=0.4), noise(out, 2, size=0.4), noise(2, into * math.prod(kernel), size=0.4)
    made = torch.kron(first.reshape(2, 2, *(1 for _ in kernel)), (left @ right).reshape(out, into, *kernel)) * 0.5
    return {"lokr_w1": first, "lokr_w2_a": left, "lokr_w2_b": right, "alpha": torch.tensor(1.0)}, made


def lokr_rooted(weight: Any, noise: Noise) -> tuple[dict[str, Any], Any]:
    """Both factors whole, by a LyCORIS that was asked for rank 16 and rs_lora."""
    out, into, kernel = weight.shape[0] // 2, weight.shape[1] // 2, weight.shape[2:]
    first, second = noise(2, 2, size=0.2), noise(out, into, *kernel)
    made = torch.kron(first.reshape(2, 2, *(1 for _ in kernel)), second) * 4
    return {"lokr_w1": first, "lokr_w2": second, "alpha": torch.tensor(64.0)}, made


def difference(weight: Any, noise: Noise) -> tuple[dict[str, Any], Any]:
    made = noise(*weight.shape, size=0.03)
    return {"diff": made}, made


def dora(axis: int) -> Callable[[Any, Noise], tuple[dict[str, Any], Any]]:
    def make(weight: Any, noise: Noise) -> tuple[dict[str, Any], Any]:
        parts, added = lora(weight, noise)
        others = [a for a in range(weight.dim()) if a != axis]
        lengths = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
        scale = lengths * (1 + noise(*lengths.shape))
        norm = torch.linalg.vector_norm(weight + added, dim=others, keepdim=True) + torch.finfo(weight.dtype).eps
        return parts | {"dora_scale": scale}, (weight + added) / norm * scale - weight

    return make


_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
           "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip


def original(name: str) -> str:
    """diffusers' name of a module in a block, as the original UNet calls it."""
    place = re.match(r"(down|up|mid)_blocks?\.(?:(\d)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)", name)
    assert place, name
    side, block, what, index, rest = place[1], int(place[2] or 0), place[3], int(place[4]), place[5]
    rest = _RESNET.get(rest, rest) if what == "resnets" else rest
    if side == "mid":
        return f"middle_block.{1 if what == 'attentions' else 2 * index}.{rest}"
    if what == "downsamplers":
        return f"input_blocks.{3 * block + 3}.0.op"
    if what == "upsamplers":
        return f"output_blocks.{3 * block + 2}.{2 if block < 2 else 1}.conv"
    return f"{'input' if side == 'down' else 'output'}_blocks.{3 * block + index + (side == 'down')}.{int(what == 'attentions')}.{rest}"


def kohya(
    method: Callable[[Any, Noise], tuple[dict[str, Any], Any]],
    names: Callable[[str], str] = str,
    words: str = "",
    header: Mapping[str, str] | None = None,
) -> Make:
    """Every linear layer and convolution of the UNet's blocks, and those of the text encoders `words` (prefix=component), in one file."""

    @torch.no_grad()
    def make(pipe: Any, run: Path) -> None:
        from safetensors.torch import save_file

        generator, saved = torch.Generator().manual_seed(7), {}

        def noise(*shape: int, size: float = 0.15) -> Any:
            return torch.randn(shape, generator=generator) * size

        for prefix, part in (("lora_unet", "unet"), *(pair.split("=") for pair in words.split())):
            for name, module in getattr(pipe, part).named_modules():
                in_text = name if name.startswith("text_model") or part == "unet" else f"text_model.{name}"
                if "block" in name if part == "unet" else ".layers." in in_text:
                    if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                        continue
                    parts, added = method(module.weight, noise)
                    flat = (names(name) if part == "unet" else in_text).replace(".", "_")
                    saved |= {f"{prefix}_{flat}.{role}": value.clone().contiguous() for role, value in parts.items()}
                    module.weight += added
        save_file(saved, run / "style-step00000002.safetensors", header)

    return make


ANY = "lora webui pipeline single"
MERGED = "pipeline single"
BIASED = {"lora": "more than LoRA pairs", "webui": "more than LoRA pairs"}
case("patterns", accelerated(rank_pattern={"attn1.to_q": 2}, alpha_pattern={"attn1.to_q": 1, "^mid_block.*to_v": 16}), ANY)
case("convolutions", accelerated(target_modules=["conv1", "proj_in", "ff.net.0.proj", "conv_shortcut", "to_q"]), "lora webui pipeline")
case(
    "DoRA of convolutions",
    accelerated(use_dora=True, target_modules=["conv1", "proj_in", "to_q"]),
    "lora pipeline",
    refused={"webui": "magnitude"},
)
case("lora_bias", accelerated(lora_bias=True, target_modules=["to_out.0", "conv1"]), "lora pipeline")
case("PiSSA", accelerated(init_lora_weights="pissa"), MERGED, refused=BIASED)
case("OLoRA", accelerated(init_lora_weights="olora"), "pipeline", refused=BIASED)
case("PiSSA alone", saved_by_peft(init_lora_weights="pissa"), refused=dict.fromkeys(ANY.split(), "pissa"))
case("OLoRA alone", saved_by_peft(init_lora_weights="olora"), refused=dict.fromkeys(ANY.split(), "olora"))
case("PiSSA turned into a LoRA", turned_into_lora("pissa", lora_alpha=8), ANY)
case("OLoRA by rsLoRA turned into a LoRA", turned_into_lora("olora", lora_alpha=2, use_rslora=True), "lora pipeline")
case("modules_to_save", accelerated(modules_to_save=["conv_out"], trained_too="modules_to_save"), "pipeline", refused=BIASED)
case("bias of the adapted", accelerated(bias="lora_only", trained_too="base_layer.bias"), "pipeline", refused=BIASED)
case("LoKr", accelerated(kind="LoKrConfig", target_modules=["conv1", "to_q"]), "pipeline")
case("LoKr in factors", accelerated(kind="LoKrConfig", r=2, decompose_both=True), "pipeline")
case("LoKr of whole factors", accelerated(kind="LoKrConfig", r=1000, alpha=2000), "pipeline")
case("LoHa", accelerated(kind="LoHaConfig", target_modules=["conv1", "to_q"], use_effective_conv2d=True), "pipeline")
case("two adapters in one dump", two_in_one_dump, refused=dict.fromkeys(("lora", "pipeline"), "2 adapters"))
case("two adapters, the first trained", two_of_which_one_was_trained("default"), "lora pipeline")
case("two adapters, the second trained", two_of_which_one_was_trained("style"), "lora pipeline")
case("two adapters and no config", two_of_which_one_was_trained("style", final=False), "lora", more=("--alpha", "2"))
case("two adapters in folders", two_in_folders, "lora pipeline", key="2~style")
case("an adapter with a name", saved_by_peft(adapter="style"), "lora")
case("torch.compile", with_prefix("module._orig_mod."), "lora", more=("--alpha", "8"))
case("on a base in bf16", dumped_in_bf16, "lora webui", rounded=("unet", "text_encoder"))
case("a text encoder alone", accelerated("text_encoder"), ANY)
case("SDXL with its text encoders", dumped_text_encoders, "lora webui pipeline", "sdxl_tiny", refused={"single": " wide"})
case("SD 3", accelerated("transformer", target_modules=["add_k_proj", "to_add_out", "to_k"]), "lora pipeline", "sd3_tiny")
case("Flux", accelerated("transformer", target_modules="all-linear"), "lora pipeline", "flux_tiny", refused={"single": "FluxPipeline"})
case("biases beside a PEFT adapter", saved_by_peft(bias="all"), "pipeline", refused={"lora": "trained whole"})
case("modules beside a PEFT adapter", saved_by_peft(modules_to_save=["conv_in"]), "pipeline", refused={"lora": "trained whole"})
case("DoRA by rsLoRA", saved_by_peft(use_dora=True, use_rslora=True), "lora")
BY_SCRIPT = {"transformer": {"target_modules": ATTENTION}, "text_encoder": {"target_modules": WORDS}}
case("SD 3's script", by_script("StableDiffusion3Pipeline", **BY_SCRIPT), "lora pipeline", "sd3_tiny")
case(
    "SDXL's script with DoRA",
    by_script("StableDiffusionXLPipeline", unet={"target_modules": ATTENTION, "use_dora": True}),
    "lora",
    "sdxl_tiny",
)
case("Flux's script", by_script("FluxPipeline", **BY_SCRIPT), "lora", "flux_tiny")
case("DreamBooth", whole("unet", "text_encoder"), MERGED, refused={"lora": "trained whole"})
case("a fine-tune in bf16", whole("unet", type_="bfloat16"), MERGED)
case("a second text encoder", whole("text_encoder_2"), "pipeline", "sdxl_tiny")
case("averaged weights", averaged, "pipeline", key="2~unet_ema")
case("ControlNet", control, "pipeline", refused={"single": "ControlNet", "lora": "ControlNet".lower()})
case("webui's word", word_for_webui, "pipeline", key="final", refused={"single": "tokenizer"})
case("LoCon of mixed ranks", kohya(lora, words="lora_te=text_encoder"), "lora webui pipeline", key="2")
case(
    "SDXL in the original names", kohya(lora, original, "lora_te1=text_encoder lora_te2=text_encoder_2"), "lora webui pipeline", "sdxl_tiny"
)
case("Tucker", kohya(tucker), "pipeline")
case("LyCORIS LoHa", kohya(loha, original), "pipeline", "sdxl_tiny")
case("LyCORIS LoKr", kohya(lokr), "pipeline")
ROOTED = {"ss_network_dim": "16", "ss_network_alpha": "1.0", "ss_network_args": '{"algo": "lokr", "rs_lora": "True"}'}
case("LyCORIS LoKr of whole factors by rsLoRA", kohya(lokr_rooted, header=ROOTED), "pipeline")
case("differences", kohya(difference, words="lora_te=text_encoder"), "pipeline")
case("DoRA by outputs", kohya(dora(0)), "pipeline")
case("DoRA by inputs", kohya(dora(1)), "pipeline")
case("Flux by kohya", saved_as(as_kohya, lambda n: (1.0, 3.0)[n % 2], words="lora_te1=text_encoder"), "lora pipeline", "flux_tiny")
SPLIT = {"ss_network_args": '{"split_qkv": "True"}'}
case("Flux by kohya, with q, k and v apart", saved_as(as_kohya, lambda n: (1.0, 3.0)[n % 2], SPLIT, split=True), "lora", "flux_tiny")
case(
    "T5 by kohya",
    saved_as(as_kohya, lambda n: 2.0, words="lora_te3=text_encoder_2", ends=False),
    "pipeline",
    "flux_tiny",
    refused={"lora": "attaches none to T5"},
)
case("Flux in ComfyUI's names", saved_as(as_original("diffusion_model."), lambda n: 2.0), "lora pipeline", "flux_tiny")
case(
    "Flux in its own names",
    saved_as(as_original(""), lambda n: None, bias=True),
    "lora pipeline",
    "flux_tiny",
    more=("--alpha", "4"),
)
case(
    "Flux with its norms",
    saved_as(as_original("transformer."), lambda n: 4.0, norms="transformer."),
    "pipeline",
    "flux_tiny",
    refused={"lora": "trained whole"},
)
case("SD 3 by kohya", saved_as(as_kohya, lambda n: 3.0), "lora pipeline", "sd3_tiny")
case("merged before it was saved", merged_before_saving, refused={"lora": "differ", "pipeline": "merged into"})
case("too large for fp16", too_large_for_fp16, refused=dict.fromkeys(ANY.split(), "fp16 cannot hold"), more=("--dtype", "fp16"))
