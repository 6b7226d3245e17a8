"""Weights computed without torch equal those of PEFT's live modules, and of models that real trainers held in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from safetensors.numpy import load_file
from torch import nn

from cmp.core.deltas import apply_delta, fixed_scale, rank_of

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
R, ALPHA = 4, 6.0
LAYERS = ("linear", "conv", "conv1x1")


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 36)
        self.conv = nn.Conv2d(24, 36, 3, padding=1)
        self.conv1x1 = nn.Conv2d(24, 36, 1)


def parts_of(layer: Any) -> dict[str, np.ndarray]:
    """A live PEFT layer's tensors by role."""
    roles = {"lora_A": "down", "lora_B": "up", "lora_magnitude_vector": "magnitude"}
    found = {}
    for name, tensor in layer.state_dict().items():
        stem = name.partition(".")[0]
        if not stem.startswith("base_layer"):
            found[roles.get(stem, stem.partition("_")[2])] = tensor.numpy()
    return found


@pytest.mark.parametrize(
    "method, config",
    [
        ("lora", LoraConfig(r=R, lora_alpha=ALPHA, target_modules=LAYERS)),
        ("lora", LoraConfig(r=R, lora_alpha=ALPHA, use_dora=True, target_modules=LAYERS)),
        ("loha", LoHaConfig(r=R, alpha=ALPHA, target_modules=LAYERS)),
        ("loha", LoHaConfig(r=R, alpha=ALPHA, use_effective_conv2d=True, target_modules=LAYERS)),
        ("lokr", LoKrConfig(r=R, alpha=ALPHA, target_modules=LAYERS)),
        ("lokr", LoKrConfig(r=R, alpha=ALPHA, use_effective_conv2d=True, decompose_factor=2, target_modules=LAYERS)),
        ("lokr", LoKrConfig(r=2, alpha=ALPHA, use_effective_conv2d=True, decompose_both=True, target_modules=LAYERS)),
        ("lokr", LoKrConfig(r=32, alpha=ALPHA, target_modules=LAYERS)),  # both factors whole, and yet scaled by alpha/r
    ],
)
def test_every_weight_equals_the_one_that_peft_merges(method: str, config: Any) -> None:
    torch.manual_seed(1)
    model = get_peft_model(Tiny(), config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = torch.rand_like(parameter) + 0.5 if "magnitude" in name else 0.3 * torch.randn_like(parameter)
    for layer in LAYERS:
        wrapped = model.base_model.model.get_submodule(layer)
        parts, base = parts_of(wrapped), wrapped.base_layer.weight.detach().numpy().copy()
        wrapped.merge()
        shapes = {role: part.shape for role, part in parts.items()}
        assert rank_of(method, shapes) in (config.r, 0) and fixed_scale(method, parts, "peft") is None
        ours = apply_delta(method, parts, ALPHA / config.r, base)
        merged = wrapped.base_layer.weight.detach().numpy()
        assert np.abs(merged - base).max() > 0.05
        assert np.abs(ours - merged).max() <= 1e-6 * max(1.0, np.abs(merged).max()), layer


KOHYA_ROLES = {"lora_down.weight": "down", "lora_up.weight": "up"}


def merge_kohya(state: dict[str, np.ndarray], adapters: dict[str, dict[str, np.ndarray]], prefix: str, method: str) -> int:
    """Merges what a kohya file says about one component into its state; how many modules that were."""
    merged = 0
    for name in [n for n in state if n.endswith(".weight")]:
        module = name.removesuffix(".weight").replace(".", "_")
        names = (f"{prefix}_{module}", f"{prefix}_text_model_{module}")
        found = next((adapters[n] for n in names if n in adapters), None)
        if found:
            parts = {role: part for role, part in found.items() if role != "alpha"}
            scale = fixed_scale(method, parts, "lycoris")
            if scale is None:
                scale = float(found["alpha"]) / rank_of(method, {role: part.shape for role, part in parts.items()})
            state[name] = apply_delta(method, parts, scale, state[name])
            merged += 1
    return merged


def answer_of(model: Any) -> np.ndarray:
    """The model's output for the input with which the truth was taken while the trainer ran: noise of numpy's old generator."""

    def noise(seed: int, *shape: int) -> torch.Tensor:
        return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype("float32"))

    with torch.no_grad():
        if hasattr(model.config, "vocab_size"):
            last = model.config.vocab_size - 1
            out = model(torch.tensor([[last - 1, 5, 60, 300, 7, *[last] * 5]]))
            return torch.cat([out.last_hidden_state.flatten(), out.pooler_output.flatten()]).numpy()
        return model(noise(1, 1, 4, 8, 8), torch.tensor([501]), noise(2, 1, 7, model.config.cross_attention_dim), return_dict=False)[
            0
        ].numpy()


@pytest.mark.model
@pytest.mark.parametrize("case, method", [("lycoris_lokr", "lokr"), ("lycoris_dora", "lora")])
def test_a_merged_model_answers_as_the_one_in_the_trainers_memory_did(case: str, method: str) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    adapters: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in load_file(CORPUS / case / "outputs" / "run1" / "sks_cat.safetensors").items():
        module, _, part = name.partition(".")
        adapters.setdefault(module, {})[KOHYA_ROLES.get(part, part.removeprefix("lokr_"))] = tensor
    truth = np.load(CORPUS / case / "truth" / "sks_cat.npz", allow_pickle=False)
    merged = 0
    components = {"unet": (UNet2DConditionModel, "lora_unet", 0), "text_encoder": (CLIPTextModel, "lora_te", 1)}
    for folder, (kind, prefix, number) in components.items():
        model = kind.from_pretrained(CORPUS / "bases" / "sd_nano" / folder, local_files_only=True).eval()
        before = answer_of(model)
        state = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
        merged += merge_kohya(state, adapters, prefix, method)
        model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=True)
        wanted = truth[f"probe_{number}_{kind.__name__}"]
        assert np.abs(answer_of(model) - wanted).max() <= 2e-6 and np.abs(before - wanted).max() > 0.1
    assert merged == len(adapters), "every part of the file was used"
