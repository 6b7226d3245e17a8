"""What kohya's header says of how a network was made, where its tensors alone would be read at another strength than it was trained at.

Two options of its trainers change the scale and not the alpha that is stored, so that other programs, and the trainers themselves when
they load the file again, use it weaker than it was trained:

- `split_qkv` (sd-scripts' lora_flux.py): the parts of a fused module have pairs of their own, each at alpha/rank. They are saved as one
  block-diagonal pair of n times the rank, with the alpha of one.
- `rs_lora` (LyCORIS): scales by alpha/√rank and stores alpha·√rank, so that the usual alpha/rank is right; but where both factors of a
  LoKr are whole, alpha is the rank that was asked for, and the scale was √rank.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cmp.core.scale import Evidence
from cmp.core.weights import Adapted
from cmp.errors import Refused

_NEAR = 0.01  # alphas are stored in half precision too
_ARGS = "ss_network_args"


@dataclass(frozen=True, slots=True)
class Network:
    """`asked` are the ranks and alphas that a module may have been given, by the header; `args` its options as text."""

    args: Mapping[str, str]
    asked: tuple[tuple[int, float], ...] = ()

    def has(self, option: str) -> bool:
        return self.args.get(option, "").lower() in ("true", "1")


def read_network(metadata: Mapping[str, str]) -> Network:
    """The options in a safetensors header; none where it says nothing that can be read."""
    try:
        found = json.loads(metadata.get(_ARGS, "{}"))
    except (ValueError, RecursionError):
        found = {}
    args = {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
    told = (
        (metadata.get("ss_network_dim", ""), metadata.get("ss_network_alpha", "")),
        (args.get("conv_dim", ""), args.get("conv_alpha", "")),
    )
    return Network(args, tuple(pair for dim, alpha in told if (pair := _pair(dim, alpha))))


def _pair(dim: str, alpha: str) -> tuple[int, float] | None:
    try:
        rank, value = int(dim), float(alpha)
    except ValueError:
        return None
    return (rank, value) if 1 <= rank < 10**9 and 0 < value < math.inf else None


def evidence_of_alphas(modules: Iterable[Adapted], alphas: Mapping[str, float], network: Network, source: str) -> Iterator[Evidence]:
    """What alpha tensors (`component.module` → value) say of the scale that was trained with, given the options it was trained with."""
    modules = [module for module in modules if module.key in alphas]
    sharing = Counter(module.parts.get("down") for module in modules)
    split = {m.key: sharing[m.parts["down"]] for m in modules if network.has("split_qkv") and _is_split(m, sharing)}
    if split:
        source += f", and split_qkv in {_ARGS}: a fused module's parts were trained at the rank of one of them"
    yield Evidence(None, None, source, decisive=True, alphas={m.key: alphas[m.key] * split.get(m.key, 1) for m in modules})
    if network.has("rs_lora"):
        whole = {m.key: _scale_of_whole(m, alphas[m.key], network) for m in modules if m.method == "lokr" and not m.rank}
        raw = {m.key: alphas[m.key] * math.sqrt(m.rank) for m in modules if m.rank > 1 and _is_raw(m, alphas[m.key], network)}
        yield Evidence(None, None, f"rs_lora in {_ARGS}", decisive=True, alphas=raw | whole, rslora_folded=True)


def _is_split(module: Adapted, sharing: Mapping[str | None, int]) -> bool:
    parts = sharing[module.parts["down"]] if "down" in module.parts else 1
    return parts > 1 and module.rank % parts == 0


def _is_raw(module: Adapted, alpha: float, network: Network) -> bool:
    """Whether this alpha is what was asked for, and not √rank of it, as LyCORIS stores: then nobody can say which scale was meant."""
    asked = [value for rank, value in network.asked if rank == module.rank]
    return any(_near(alpha, value) for value in asked) and not any(_near(alpha, value * math.sqrt(module.rank)) for value in asked)


def _scale_of_whole(module: Adapted, alpha: float, network: Network) -> float:
    scales = {scale for rank, _ in network.asked for scale in (1.0, math.sqrt(rank)) if _near(alpha, rank * scale)}
    if len(scales) != 1:
        ranks = ", ".join(str(rank) for rank, _ in network.asked) or "none"
        raise Refused(
            f"{_ARGS} says rs_lora, and the alpha {alpha:g} of {module.module} fits none or several of the ranks asked for ({ranks})",
            "Merge it with LyCORIS while it is loaded as it was trained.",
        )
    return scales.pop()


def _near(value: float, other: float) -> bool:
    return abs(value - other) <= _NEAR * other
