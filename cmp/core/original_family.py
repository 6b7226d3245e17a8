"""Which original layout a pipeline has, and what the tools that read one file take for granted because the file cannot say it."""

from __future__ import annotations

from collections.abc import Mapping

from cmp.errors import Refused

Configs = Mapping[str, Mapping[str, object]]  # the settings of each component, as its config.json has them

_SD = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
)
_SDXL = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline")
CLASSES = {
    "unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",), "text_encoder_2": ("CLIPTextModelWithProjection",),
}  # fmt: skip

_NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
_EPSILON = {**_NOISE, "prediction_type": "epsilon", "rescale_betas_zero_snr": False}
_VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4, "latents_mean": None, "shift_factor": None}
_CLIP_L = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu", "vocab_size": 49408}
_CLIP_G = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu", "vocab_size": 49408}
_CLIP_H = {"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu", "vocab_size": 49408}
_WIDTHS = {"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2}
_USUAL: Mapping[str, Configs] = {
    "SD 1": {
        "unet": {**_WIDTHS, "cross_attention_dim": 768, "attention_head_dim": 8}, "text_encoder": _CLIP_L,
        "vae": {**_VAE, "scaling_factor": 0.18215}, "scheduler": _EPSILON,
    },
    "SD 2": {  # whether it predicts noise or velocity is told by A1111 and ComfyUI from the weights
        "unet": {**_WIDTHS, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20]}, "text_encoder": _CLIP_H,
        "vae": {**_VAE, "scaling_factor": 0.18215}, "scheduler": _NOISE,
    },
    "SDXL": {  # and here from marks, see `marks_of`
        "unet": {
            "block_out_channels": [320, 640, 1280], "layers_per_block": 2, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
            "transformer_layers_per_block": [1, 2, 10],
        },
        "text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G, "vae": {**_VAE, "scaling_factor": 0.13025}, "scheduler": _NOISE,
    },
    "SDXL refiner": {
        "unet": {
            "block_out_channels": [384, 768, 1536, 1536], "layers_per_block": 2, "cross_attention_dim": 1280,
            "attention_head_dim": [6, 12, 24, 24], "transformer_layers_per_block": 4,
        },
        "text_encoder_2": _CLIP_G, "vae": {**_VAE, "scaling_factor": 0.13025}, "scheduler": _EPSILON,
    },
}  # fmt: skip


def family_of(pipeline: str, classes: Mapping[str, str], configs: Configs) -> str:
    """The family (a key of `original_names.PREFIXES`) of a pipeline class with these components; raises Refused for all others.

    SD 1 and SD 2 share their classes. What tells them apart is who made the text encoder: OpenAI's computes with quick_gelu, OpenCLIP's
    with gelu, and each tool takes the one for granted that belongs to the layout.
    """
    refuge = "Use the form pipeline, which keeps every component as it is."
    if pipeline not in _SD + _SDXL:
        raise Refused(f"a {pipeline} has no agreed layout in one file that is written here", refuge)
    family = "SD 1" if pipeline in _SD else "SDXL" if "text_encoder" in classes else "SDXL refiner"
    if family == "SD 1" and configs.get("text_encoder", {}).get("hidden_act") == "gelu":
        family = "SD 2"
    needed = {"unet", "vae", *(name for name in _USUAL[family] if name.startswith("text_encoder"))}
    if missing := sorted(needed - set(classes)):
        raise Refused(f"the pipeline has no {' and no '.join(missing)}, which one file of {family} must hold", refuge)
    for name, found in sorted(classes.items()):
        if found not in CLASSES.get(name, ()):
            raise Refused(f"{name} is a {found}, for which the original layout has no place", refuge)
    return family


def unusual(family: str, configs: Configs) -> tuple[str, ...]:
    """What A1111 and ComfyUI take for granted and this pipeline has otherwise, in words.

    They build the model before they read the file. Other widths they cannot load; another prediction type or scaling they would draw
    wrongly without being told. diffusers reads all of it when it is given the pipeline's folder as `config`.
    """
    return tuple(
        f"{name}.{key} is {_plain(configs[name][key])}, and A1111 and ComfyUI take it to be {_plain(value)}"
        for name, usual in _USUAL[family].items()
        for key, value in usual.items()
        if key in configs.get(name, {}) and _plain(configs[name][key]) != _plain(value)
    )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def marks_of(family: str, configs: Configs) -> tuple[str, ...]:
    """The names of empty tensors that tell A1111, Forge and ComfyUI how an SDXL model was trained.

    Source: AUTOMATIC1111/stable-diffusion-webui#16567 and #16569, ComfyUI `supported_models.py`.
    """
    scheduler = configs.get("scheduler", {})
    if family != "SDXL" or scheduler.get("prediction_type") != "v_prediction":
        return ()
    return ("v_pred", "ztsnr") if scheduler.get("rescale_betas_zero_snr") else ("v_pred",)
