"""A base model held in memory, and the one checkpoint it wears: put on, read back, compared, and only then drawn with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer

from cmp.core.fitting import RECOMPUTED, find_tensor
from cmp.core.progress import Progress
from cmp.engine.device import choose_dtype, realign, settle, without_memory
from cmp.engine.loading import load_pipeline, round_as_trained
from cmp.engine.prompts import Prompts
from cmp.engine.steps import Report, silent
from cmp.engine.vocabulary import Vocabulary
from cmp.engine.words import tokens_of
from cmp.errors import Refused

ADAPTER = "checkpoint"
TEXT = "text_encoder"
DENOISERS = ("unet", "transformer")


class WornPipeline:
    """A diffusers pipeline whose weights are known at every moment.

    `wear_…` replaces what was worn before. `worn` is the digest of the worn weights, None while it is the base model alone; `reader`
    names the state of the text encoders, "" while they are the base's own.
    """

    def __init__(self, folder: Path, device: torch.device, rounded: tuple[tuple[str, str], ...] = (), report: Report = silent) -> None:
        self.device = device
        self.dtype = choose_dtype(device, folder)
        self.pipe = load_pipeline(folder, self.dtype, report)
        for name, kind in rounded:
            round_as_trained(getattr(self.pipe, name), folder / name, {"BF16": torch.bfloat16, "F16": torch.float16}[kind])
        self.visiting = settle(self.pipe, device)
        for component in self._modules().values():
            realign(component)
        self.worn: str | None = None
        self.reader = ""
        self.prompts = Prompts()
        self._pairs: dict[str, tuple[int, ...]] = {}
        self._own: dict[str, dict[str, torch.Tensor]] = {}  # the base's own tensors of the components that are replaced now
        self._vocabulary: Vocabulary | None = None  # the base's own, while words are worn
        self.base_scheduler = type(self.pipe.scheduler)
        self.scheduler_config = dict(self.pipe.scheduler.config)

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """The pipeline's models by their components' names."""
        return self._modules()

    @property
    def denoiser(self) -> torch.nn.Module:
        return next(self._modules()[name] for name in DENOISERS if name in self._modules())

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {name: part for name, part in self.pipe.components.items() if isinstance(part, torch.nn.Module)}

    def computing(self) -> AbstractContextManager[object]:
        """Without gradients. What moves between card and memory meanwhile must stay changeable, which inference mode does not allow."""
        return torch.no_grad() if self.visiting else torch.inference_mode()

    def wear_nothing(self) -> None:
        """Back to the base model. The adapter stays attached but switched off, ready for the next checkpoint."""
        self._restore_components()
        for layer in lora_layers(self._modules()).values():
            layer.enable_adapters(False)
        self.worn, self.reader = None, ""

    def wear_lora(self, digest: str, folded: Mapping[str, np.ndarray], strength: float) -> None:
        """Puts on an adapter given as `read_folded` makes it, and proves it; raises Refused if one tensor did not land."""
        self._restore_components()
        named = {plain_name(name): values for name, values in folded.items()}
        if len(named) != len(folded):
            raise Refused("one module of the text encoder is named in two ways", "Nobody can say which of them was trained.")
        folded = named
        layers = lora_layers(self._modules())
        if self.worn != digest:
            self.worn = None
            layers = self._put_on(folded, layers)
        for layer in layers.values():
            layer.enable_adapters(True)
            layer.set_scale(ADAPTER, strength)  # times alpha/rank, which is 1 here
        prove_layers(layers, folded, strength)
        self.worn, self.reader = digest, f"{digest}*{strength}" if any(name.startswith(TEXT) for name in folded) else ""

    def _put_on(self, folded: Mapping[str, np.ndarray], layers: dict[str, Any]) -> dict[str, Any]:
        """Gives the layers that wear it: those that were there, or where others are needed all anew."""
        shapes = {name: values.shape for name, values in folded.items()}
        if shapes == self._pairs:
            _copy_in(folded, layers)
            return layers
        if self._pairs:
            self._take_off()
        state = {self._own_name(name): torch.tensor(values, dtype=self.dtype) for name, values in folded.items()}
        try:
            self.pipe.load_lora_weights(state, adapter_name=ADAPTER)
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as fault:
            self._take_off()  # half of it may be in the model now
            if without_memory(fault):
                raise
            raise Refused(f"diffusers cannot attach this adapter: {fault}", "It was made for another model architecture.") from fault
        self._pairs = shapes
        for component in self._modules().values():
            if not self.visiting:
                component.to(self.device)
            realign(component)
        return lora_layers(self._modules())

    def _own_name(self, name: str) -> str:
        """A plain name as the text encoder at hand has it: transformers 5 kept `text_model.` in the class with a projection."""
        component, _, rest = name.partition(".")
        inside = component.startswith("text_encoder") and hasattr(self._modules().get(component), "text_model")
        return f"{component}.text_model.{rest}" if inside else name

    def _undress(self) -> None:
        """The base model alone, without even the wrappers of an adapter."""
        self.wear_nothing()
        if self._pairs:
            self._take_off()

    def _take_off(self) -> None:
        """Takes the adapter out, its wrappers too: diffusers' delete_adapters leaves those, without the adapter in them."""
        self.pipe.unload_lora_weights()
        self._pairs = {}
        if left := adapter_tensors(self._modules()):
            raise Refused(f"{min(left)} could not be taken out of the model", "This is a fault of ours; start the program again.")

    def wear_components(self, digest: str, read: Callable[[], Mapping[str, Mapping[str, torch.Tensor]]], report: Report = silent) -> None:
        """Replaces every tensor of the components that `read` gives (component → name → float32 values), unless they are worn already.

        It is strict, so that every tensor is used and none is missing, and each is read back out of the model. Can be left at any tensor:
        what is replaced by then is put back before anything else is worn.
        """
        if self.worn == digest:
            return
        self._undress()
        states = read()
        for component, state in states.items():
            model = self._modules().get(component)
            if model is None:
                raise Refused(f"the base model has no {component}", "It cannot be drawn with this base; give another with --base.")
            self._own[component] = dict(model.state_dict())
            self._replace(component, model, state, report)
        self.worn, self.reader = digest, digest if any(name.startswith(TEXT) for name in states) else ""

    def _replace(self, component: str, model: torch.nn.Module, state: Mapping[str, torch.Tensor], report: Report) -> None:
        inside = model.state_dict()
        found = {find_tensor(name, inside) or name: values.to(self.device, self.dtype) for name, values in state.items()}
        named = {name: values for name, values in found.items() if not name.endswith(RECOMPUTED) or name in inside}
        stored = {inside[name].data_ptr(): values for name, values in named.items() if name in inside}
        for name in set(inside) - set(named):  # one tensor under two names, of which the disk has one: T5's embeddings
            if (values := stored.get(inside[name].data_ptr())) is not None and values.shape == inside[name].shape:
                named[name] = values
        try:
            model.load_state_dict(named, strict=True, assign=True)
        except RuntimeError as fault:
            raise Refused(
                f"these weights are not a {component} of this base model: {str(fault)[:300]}", "Give its own base with --base."
            ) from fault
        realign(model)
        for number, (name, landed) in enumerate(model.state_dict().items()):
            report(Progress(number, len(named), f"reading {component} back"))
            if not torch.equal(landed, named[name]):
                raise Refused(f"{component}.{name} did not land in the model", "This is a fault of ours; please report it.")

    def _restore_components(self) -> None:
        for component, own in self._own.items():
            self._modules()[component].load_state_dict(own, strict=True, assign=True)
            self.worn = None
        self._own.clear()
        if self._vocabulary:
            self._vocabulary.put_back(self.pipe)
            self._vocabulary, self.worn, self.reader = None, None, ""

    def wear_words(self, digest: str, words: Mapping[str, torch.Tensor]) -> None:
        """Gives the text encoder learned words (word → rows × width), and reads each row back out of it."""
        if self.worn == digest:
            return
        self._undress()
        if "text_encoder_2" in self.pipe.components:
            raise Refused("the base model has two text encoders", "Words of one text encoder fit base models with one.")
        self._vocabulary = Vocabulary.lent(self.pipe)
        for word, rows in words.items():
            try:
                self.pipe.load_textual_inversion({word: rows.to(self.dtype)}, token=word)
            except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as fault:
                raise Refused(f"diffusers cannot take the word {word!r}: {fault}", "It was learned with another text encoder.") from fault
            numbers = self.pipe.tokenizer.convert_tokens_to_ids(tokens_of(word, len(rows)))
            landed = self.pipe.text_encoder.get_input_embeddings().weight[numbers].detach().cpu()
            if not torch.equal(landed, rows.to(landed.dtype)):
                raise Refused(f"the word {word!r} did not land in the text encoder", "This is a fault of ours; please report it.")
        self.worn = self.reader = digest


def plain_name(name: str) -> str:
    """An adapter tensor's name without `text_model.`, which text encoders have on disk and, from transformers 5 on, not in memory."""
    return re.sub(r"\A(text_encoder(?:_[23])?\.)text_model\.", r"\1", name)


def lora_layers(modules: Mapping[str, torch.nn.Module]) -> dict[str, Any]:
    """Every layer that is wrapped for an adapter, by `component.module`."""
    return {
        f"{component}.{name}": module
        for component, model in modules.items()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def adapter_tensors(modules: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Every adapter tensor that is really in the model, under diffusers' names."""
    return _tensors_in(lora_layers(modules))


@torch.no_grad()
def _copy_in(folded: Mapping[str, np.ndarray], layers: Mapping[str, Any]) -> None:
    """Checkpoints of one run have the same shapes: their few MB are copied into the adapter that is already there.

    To a card in one piece: each copy of its own waits for the card.
    """
    inside = _tensors_in(layers)
    whole = torch.from_numpy(np.concatenate([folded[name].reshape(-1) for name in inside]))
    whole = whole.to(next(iter(inside.values())).device)
    for parameter, values in zip(inside.values(), whole.split([p.numel() for p in inside.values()]), strict=True):
        parameter.copy_(values.view(parameter.shape))


def _read_back(inside: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The tensors as they are in the model, in the computer's memory; from a card in one piece."""
    tensors = [tensor.detach() for tensor in inside.values()]
    if len({(tensor.device, tensor.dtype) for tensor in tensors}) != 1 or tensors[0].device.type == "cpu":
        return {name: tensor.cpu() for name, tensor in zip(inside, tensors, strict=True)}
    whole = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu().split([tensor.numel() for tensor in tensors])
    return {name: values.view(tensor.shape) for name, values, tensor in zip(inside, whole, tensors, strict=True)}


def _tensors_in(layers: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    found = {}
    for name, module in layers.items():
        for half in ("lora_A", "lora_B", "lora_magnitude_vector"):
            for adapter, layer in getattr(module, half).items():
                suffix = "" if adapter == ADAPTER else f".{adapter}"
                whole = plain_name(f"{name}.{half}{suffix}")
                found[whole if half == "lora_magnitude_vector" else f"{whole}.weight"] = layer.weight
                if getattr(layer, "bias", None) is not None:
                    found[f"{whole}.bias"] = layer.bias
    return found


def prove_worn(modules: Mapping[str, torch.nn.Module], folded: Mapping[str, np.ndarray], strength: float) -> None:
    """Compares the model with the checkpoint: the same names, the same values, every scale as asked for.

    This is rule one: the model is asked, not the loader, because loaders have been seen to load nothing and only log it.
    """
    prove_layers(lora_layers(modules), folded, strength)


def prove_layers(layers: Mapping[str, Any], folded: Mapping[str, np.ndarray], strength: float) -> None:
    """The same for layers that have been looked up already."""
    inside = _tensors_in(layers)
    if set(inside) != set(folded):
        lost, strange = sorted(set(folded) - set(inside)), sorted(set(inside) - set(folded))
        told = [f"{len(lost)} did not land, for example {lost[0]}"] if lost else []
        told += [f"{len(strange)} are in the model and not in the checkpoint, for example {strange[0]}"] if strange else []
        raise Refused(f"of {len(folded)} adapter tensors {'; '.join(told)}", "The checkpoint was made for another model; give its base.")
    for name, landed in _read_back(inside).items():
        if not torch.equal(landed, torch.tensor(folded[name], dtype=landed.dtype)):
            raise Refused(f"{name} in the model is not what the checkpoint holds", "This is a fault of ours; please report it.")
    for name, module in layers.items():
        if module.scaling.get(ADAPTER) != strength or module.disable_adapters or module.merged or module.active_adapters != [ADAPTER]:
            raise Refused(f"{name} is not drawn at strength {strength:g}", "This is a fault of ours; please report it.")
