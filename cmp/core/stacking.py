"""Several LoRAs as one: B₁A₁ + B₂A₂ = (B₁ B₂)·(A₁ A₂)ᵀ, so that worn together they are a single adapter of the summed rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cmp.errors import Refused

Folded = Mapping[str, np.ndarray]  # diffusers' name → float32, the scale alpha/rank folded into lora_B


def stack_adapters(adapters: Sequence[tuple[Folded, float]]) -> dict[str, np.ndarray]:
    """One adapter that does what all of these do together, each at its strength; worn at strength 1.

    Raises Refused for DoRA, whose magnitudes belong to one adapter alone.
    """
    made: dict[str, list[np.ndarray]] = {}
    for folded, strength in adapters:
        for name, values in folded.items():
            if "lora_magnitude" in name:
                raise Refused(f"{name} is a part of DoRA, which cannot be stacked with other LoRAs", "Draw it without --stack.")
            made.setdefault(name, []).append(values if name.endswith(".lora_A.weight") else values * np.float32(strength))
    return {name: _joined(name, parts) for name, parts in made.items()}


def _joined(name: str, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Pairs are put side by side along their rank, biases are added."""
    if name.endswith(".bias"):
        return np.stack(parts).sum(axis=0, dtype=np.float32)
    axis = 0 if name.endswith(".lora_A.weight") else 1
    if len({part.shape[:axis] + part.shape[axis + 1 :] for part in parts}) > 1:
        shapes = " and ".join(str(part.shape) for part in parts)
        raise Refused(f"{name} is {shapes} in the LoRAs to be stacked", "They were made for different models.")
    return np.concatenate(parts, axis=axis)
