"""Several checkpoints' adapters on one base model at once, each picture of a batch with its own.

The base's layers compute the whole batch together, and a hook on each adapted layer adds scale·B·A·x of the picture's own checkpoint.
Checkpoints of one run differ in a few MB only, so that a batch may mix them: the dear part is shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch.nn import functional

from cmp.core.stacking import Folded
from cmp.engine.lanes import rows_here
from cmp.errors import Refused

_Factors = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]  # down, up, bias: rows × …, or one for all rows
_HALVES = (".lora_A.weight", ".lora_B.weight", ".lora_B.bias")


@dataclass(frozen=True, slots=True)
class Worn:
    """What one picture of a batch wears: an adapter at a strength. An empty one is the base model alone."""

    folded: Folded
    strength: float


def can_stack(names: Iterable[str]) -> bool:
    """Whether an adapter of tensors with these names is made of plain pairs alone (no DoRA), on the denoiser or on text encoders."""
    return all(name.endswith(_HALVES) for name in names)


@contextmanager
def wearing(modules: Mapping[str, torch.nn.Module], worn: Sequence[Worn]) -> Iterator[None]:
    """Puts one adapter per picture on the named components, proves it, and takes all of it off again.

    Within, the first axis of what these components compute is a multiple of `len(worn)`: the pictures in order, once or, under guidance,
    once without and once with the prompt. Raises Refused where a tensor has no place, did not land, or was never used.
    """
    layers = _layers(modules, worn)
    _prove(modules, layers, worn)
    handles = [layer.module.register_forward_hook(layer.add) for layer in layers.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if idle := [key for key, layer in layers.items() if not layer.calls]:
        raise Refused(f"{idle[0]} took no part in the drawing", "The model does not use what was trained; take its own base model.")


@dataclass(slots=True)
class _Layer:
    """An adapted layer. `down` is adapters × rank × in (a kernel's axes behind), `up` adapters × out × rank, strength included; `which`
    of them each picture wears.
    """

    module: torch.nn.Module
    which: tuple[int, ...]
    down: torch.Tensor
    up: torch.Tensor
    bias: torch.Tensor | None
    calls: int = 0
    _chosen: dict[tuple[int | None, int | None, int], _Factors] = field(default_factory=dict)

    def add(self, module: torch.nn.Module, given: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        """The hook: the layer's output with the adapters' part added, each picture's own."""
        x = given[0]
        self.calls += 1
        down, up, bias = self._for(x.shape[0], x.device)
        x = x.to(down.dtype)
        flat = output.flatten(2).transpose(1, 2) if output.dim() == 4 else output.reshape(x.shape[0], -1, output.shape[-1])
        hidden = self._convolved(x, down) if output.dim() == 4 else _times(x.reshape(x.shape[0], -1, x.shape[-1]), down)
        added = flat + _times(hidden, up) if len(up) == 1 else torch.baddbmm(flat, hidden, up.transpose(1, 2))
        if bias is not None:
            added = added + bias[:, None, :]
        added = added.transpose(1, 2) if output.dim() == 4 else added
        return added.reshape(output.shape).to(output.dtype)

    def _for(self, size: int, device: torch.device) -> _Factors:
        """The factors of the rows that are computed here: those of all pictures once or twice, or of the lane that the caller is."""
        rows = rows_here()
        key = (rows.start, rows.stop, size)
        if key not in self._chosen:
            numbers = torch.zeros(1, dtype=torch.long)
            if len(self.down) > 1:
                total, pictures = size if rows.stop is None else rows.stop, len(self.which)
                numbers = torch.tensor(self.which).repeat(-(-total // pictures))[rows]
                if len(numbers) != size:
                    raise Refused(f"a layer computes {size} parts for {pictures} pictures", "Draw it with --exact.")
            numbers = numbers.to(self.down.device)
            bias = None if self.bias is None else self.bias[numbers].to(device)
            self._chosen[key] = (self.down[numbers].to(device), self.up[numbers].to(device), bias)
        return self._chosen[key]

    def _convolved(self, x: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        """x through each picture's own kernel: pictures × places × rank."""
        conv: Any = self.module.get_base_layer() if isinstance(self.module, LoraLayer) else self.module
        shape = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
        if len(down) == 1:
            return functional.conv2d(x, down[0], **shape).flatten(2).transpose(1, 2)
        batch, rank = len(down), down.shape[1]
        grouped = functional.conv2d(x.reshape(1, -1, *x.shape[2:]), down.flatten(0, 1), groups=batch, **shape)
        return grouped.reshape(batch, rank, -1).transpose(1, 2)


def _times(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """batch × places × in through batch × out × in, or through one matrix for all."""
    return functional.linear(x, matrices[0]) if len(matrices) == 1 else torch.bmm(x, matrices.transpose(1, 2))


def _layers(modules: Mapping[str, torch.nn.Module], worn: Sequence[Worn]) -> dict[str, _Layer]:
    """`component.module` → its layer with the factors of every adapter."""
    distinct = _distinct(worn)
    which = tuple(list(distinct).index((id(one.folded), one.strength)) for one in worn)
    keys = dict.fromkeys(name.rpartition(".lora_")[0] for one in distinct.values() for name in one.folded)
    found = {}
    for key in keys:
        component, _, inside = key.partition(".")
        module = _find(modules, component, inside)
        base: Any = module.get_base_layer() if isinstance(module, LoraLayer) else module
        if not isinstance(base, torch.nn.Linear | torch.nn.Conv2d):
            raise Refused(f"{key} is a {type(base).__name__}, which carries no pair of matrices", "Draw it with --exact.")
        found[key] = _layer(key, module, base.weight, tuple(distinct.values()), which)
    return found


def _distinct(worn: Sequence[Worn]) -> dict[tuple[int, float], Worn]:
    """Every adapter at every strength, once."""
    return {(id(one.folded), one.strength): one for one in worn}


def _find(modules: Mapping[str, torch.nn.Module], component: str, inside: str) -> torch.nn.Module:
    try:
        return modules[component].get_submodule(inside)
    except (KeyError, AttributeError):
        raise Refused(f"the base model has no {component}.{inside}", "The checkpoint was made for another model; give its base.") from None


def _layer(key: str, module: torch.nn.Module, weight: torch.Tensor, worn: Sequence[Worn], which: tuple[int, ...]) -> _Layer:
    """The factors of one layer, filled up with zeros to the largest rank, where an adapter has none included.

    They are put together in the computer's memory, and go to a card at once: each copy of its own waits for the card.
    """
    ranks = [_rank(one, key) for one in worn]
    rank = max(ranks)
    down = torch.zeros((len(worn), rank, *weight.shape[1:]), dtype=weight.dtype)
    up = torch.zeros((len(worn), weight.shape[0], rank), dtype=weight.dtype)
    bias = None
    for number, (one, own) in enumerate(zip(worn, ranks, strict=True)):
        if not own:
            continue
        a, b = (torch.tensor(one.folded[f"{key}{half}"]) for half in _HALVES[:2])
        if a.shape[1:] != weight.shape[1:] or b.shape[:2] != (weight.shape[0], own):
            told = f"{key} is {tuple(weight.shape)} in the model, and its adapter {tuple(a.shape)} and {tuple(b.shape)}"
            raise Refused(told, "The checkpoint was made for another model; give its base.")
        down[number, :own] = a.to(down)
        up[number, :, :own] = b.reshape(b.shape[:2]).to(up) * one.strength
        if (own_bias := one.folded.get(f"{key}{_HALVES[2]}")) is not None:
            bias = torch.zeros((len(worn), weight.shape[0]), dtype=weight.dtype) if bias is None else bias
            bias[number] = torch.tensor(own_bias).to(bias) * one.strength
    return _Layer(module, which, down.to(weight.device), up.to(weight.device), None if bias is None else bias.to(weight.device))


def _rank(one: Worn, key: str) -> int:
    halves = [name in one.folded for name in (f"{key}{_HALVES[0]}", f"{key}{_HALVES[1]}")]
    if any(halves) and not all(halves):
        raise Refused(f"{key} has only one half of its pair", "The checkpoint is damaged.")
    if f"{key}{_HALVES[2]}" in one.folded and not any(halves):
        raise Refused(f"{key} has a bias without its pair", "The checkpoint is damaged.")
    return int(one.folded[f"{key}{_HALVES[0]}"].shape[0]) if all(halves) else 0


def _prove(modules: Mapping[str, torch.nn.Module], layers: Mapping[str, _Layer], worn: Sequence[Worn]) -> None:
    """Reads every factor back and compares it with its checkpoint; and nothing else may be on the model at the same time.

    This is rule one for a batch: every tensor of every picture's checkpoint is found in the layer that will use it, and no other is.
    """
    for component, model in modules.items():
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer) and (not module.disable_adapters or module.merged):
                raise Refused(f"{component}.{name} wears an adapter already", "This is a fault of ours; please report it.")
    for number, one in enumerate(_distinct(worn).values()):
        used = set()
        for key, layer in layers.items():
            meant = {half: one.folded.get(f"{key}{half}") for half in _HALVES}
            used |= {f"{key}{half}" for half, values in meant.items() if values is not None}
            if not _landed(layer, number, one.strength, meant):
                raise Refused(f"{key} on the model is not what the checkpoint holds", "This is a fault of ours; please report it.")
        if lost := sorted(set(one.folded) - used):
            raise Refused(
                f"{len(lost)} adapter tensors did not land, for example {lost[0]}", "It was made for another model; give its base."
            )


def _landed(layer: _Layer, number: int, strength: float, meant: Mapping[str, np.ndarray | None]) -> bool:
    down, up, bias = (meant[half] for half in _HALVES)
    rank = 0 if down is None else down.shape[0]
    down_there, up_there = layer.down[number].cpu(), layer.up[number].cpu()
    parts = [(down_there[:rank], down, 1.0), (up_there[:, :rank], up, strength)]
    if layer.bias is not None:
        parts.append((layer.bias[number].cpu(), bias, strength))
    elif bias is not None:
        return False
    rest = bool(down_there[rank:].any()) or bool(up_there[:, rank:].any())
    return not rest and all(_equal(landed, values, times) for landed, values, times in parts)


def _equal(landed: torch.Tensor, values: np.ndarray | None, strength: float) -> bool:
    if values is None:
        return not landed.any()
    expected = torch.tensor(values).reshape(landed.shape).to(landed.dtype) * strength
    return torch.equal(landed, expected)
