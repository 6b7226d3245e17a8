"""The models as they were when they were trained, built with diffusers and peft alone: what a converted form is held against."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Case, Item

_DUMPS = ("model.safetensors", "pytorch_model.bin", "pytorch_model_fsdp.bin", "adapter_model.safetensors")


class Reference:
    """Base models, and checkpoints as their training had them. Nothing here comes from the program that is judged."""

    def __init__(self, corpus: Path, probing: Any) -> None:
        import torch

        torch.set_num_threads(1)
        self.corpus, self.probing = corpus, probing
        self._base = lru_cache(maxsize=None)(load_base)

    def base(self, name: str, rounded: bool = False) -> Any:
        """A base model; only to be looked at."""
        return self._base(self.corpus / "bases" / name, rounded)

    def load(self, made: Path, form: str, base: str, rounded: bool = False) -> Any:
        """A converted form in a pipeline of its own, by diffusers' own loaders."""
        if form == "pipeline":
            return load_pipeline(made)
        pipe = self.base(base, rounded)
        if form == "single":
            return quiet(type(pipe).from_single_file(made, config=str(self.corpus / "bases" / base), local_files_only=True))
        pipe = copy.deepcopy(pipe)
        pipe.load_lora_weights(made)
        return pipe

    def trained(self, case: Case, item: Item, base: str) -> dict[str, np.ndarray]:
        """The probes of the model as it was trained, computed on this machine; empty where nothing but the truth itself knows it."""
        if not case.exact or len(item.files) != 1:
            return {}
        file = self.corpus / case.name / item.files[0]
        if file.parent.name in ("unet", "unet_ema"):
            unet = type(self.base(base).unet).from_pretrained(file.parent, local_files_only=True)
        elif file.name in _DUMPS:
            unet = self._wrapped(file, item, base, case.rounded_base)
        elif file.parent.name == "lora_weights":  # written without its alpha: diffusers draws it at another strength
            return {}
        else:
            pipe = self.load(file, "lora", base)
            return {kind: self.probing.probe(component(pipe, kind)) for kind in item.probes}
        return {"UNet2DConditionModel": self.probing.probe(unet)}

    def _wrapped(self, file: Path, item: Item, base: str, rounded: bool) -> Any:
        """The UNet as it was wrapped while training, with every tensor of the file put into it."""
        import torch
        from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
        from safetensors.torch import load_file

        unet = copy.deepcopy(self.base(base, rounded).unet)
        if wrapped := item.models[0].get("peft_config"):
            inject_adapter_in_model(LoraConfig(**{k: v for k, v in wrapped["default"].items() if k != "peft_type"}), unet)
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
        state = {name.removeprefix("base_model.model."): value for name, value in state.items()}
        if file.name == "adapter_model.safetensors":
            assert not set_peft_model_state_dict(unet, state).unexpected_keys
        else:
            unet.load_state_dict(state, strict=True)
        return unet

    def embedded(self, learned: Path, base: str) -> Any:
        """A base model that has learned a word."""
        pipe = copy.deepcopy(self.base(base))
        pipe.load_textual_inversion(learned)
        return pipe


def load_base(folder: Path, rounded: bool) -> Any:
    import torch

    pipe = load_pipeline(folder)
    if rounded:  # trained on a base in bfloat16
        for parameter in pipe.unet.parameters():
            parameter.data = parameter.data.to(torch.bfloat16).to(torch.float32)
    return pipe


def load_pipeline(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    return quiet(DiffusionPipeline.from_pretrained(folder, local_files_only=True))


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def component(pipe: Any, kind: str) -> Any:
    """The pipeline's component of that class."""
    return next(part for part in pipe.components.values() if type(part).__name__ == kind)
