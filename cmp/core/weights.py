"""What a checkpoint holds, by its tensors' names and shapes: adapted modules, the base model's own tensors, and what nobody can explain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from cmp.core.deltas import take_rows
from cmp.core.fused_names import Rows
from cmp.core.names import COMPONENTS, target_of

Shape = tuple[int, ...]
BESIDE = ("alpha", "diff_b", "up_bias")  # roles that are no part of the module's weight
ADAPTER_NAMES = {  # what PEFT and diffusers call the parts that an adapter file may hold
    "down": "lora_A.weight", "up": "lora_B.weight", "up_bias": "lora_B.bias", "magnitude": "lora_magnitude_vector",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Adapted:
    """One adapted module: `parts` maps the part's role (down, up, w1_a, alpha, …, see core.deltas) to the stored tensor's name.

    `method` is "lora", "loha", "lokr" or "full" (a difference as large as the module). `rank` is 0 where the method has none.
    `rows` are those of the product that are this module's, () for all: several modules may share the parts of one that the trainer
    held fused. `written` is what the trainer called the module, where that is not its name here.
    """

    component: str
    module: str
    method: str
    parts: Mapping[str, str]
    rank: int
    rows: Rows = ()
    written: str = ""

    @property
    def key(self) -> str:
        return f"{self.component}.{self.module}"

    @property
    def attachable(self) -> bool:
        """Whether diffusers and PEFT can carry it as a LoRA beside the base; else it must be merged into the module."""
        return self.method == "lora" and not {"mid", "dora_scale"} & set(self.parts) and not self.in_t5

    @property
    def in_t5(self) -> bool:
        """Whether it is of Flux's and SD 3's large text encoder, to which diffusers attaches nothing (0.42: `_lora_loadable_modules`)."""
        return self.component.startswith("text_encoder") and self.module.startswith("encoder.block.")

    def cut(self, role: str, values: np.ndarray) -> np.ndarray:
        """Of a LoRA's part, or of the product, what belongs to this module."""
        return values if role in ("down", "mid") else take_rows(values, self.rows)

    def share(self, role: str, shape: Shape) -> float:
        """How much of a part of this shape is left by `cut`."""
        return 1.0 if role in ("down", "mid") or not self.rows else sum(stop - start for start, stop in self.rows) / shape[0]

    @property
    def weight_parts(self) -> dict[str, str]:
        """Role → stored name of the parts that make up the change of the module's weight."""
        return {role: stored for role, stored in self.parts.items() if role not in BESIDE}

    @property
    def canonical(self) -> dict[str, str]:
        """Stored name → diffusers' name of each trained part; `alpha` is no weight, it says how the parts are used."""
        return {stored: f"{self.key}.{ADAPTER_NAMES.get(role, role)}" for role, stored in self.parts.items() if role != "alpha"}


@dataclass(frozen=True, slots=True)
class Weights:
    """The reading of one checkpoint.

    `plain` maps stored names to `component.name` in the base model's own naming: the whole base in a dump, the whole of a fine-tuned
    component, or a few tensors that were trained beside an adapter. `aside` are tensors that knowingly play no part, each with the reason.
    `layout`: "accelerate-peft" (a whole wrapped model), "quantised-peft" (the same on a quantised base), "peft-adapter",
    "diffusers-lora", "attn-procs", "kohya", "full", "embedding" or "unknown".
    `rivals` are the adapters of which only one can be meant, each with the tensors that are all zero if it changes nothing (none where
    no tensor shows it); `chosen` is the one that is left after such were put aside.
    `bundled` are words that were learned beside an adapter; their tensors are `aside`.
    """

    layout: str
    adapted: tuple[Adapted, ...] = ()
    plain: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    aside: Mapping[str, str] = field(default_factory=dict)
    unexplained: tuple[str, ...] = ()
    flaws: tuple[str, ...] = ()
    rivals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    chosen: str = ""
    bundled: tuple[str, ...] = ()
    _parts: dict[str, Weights] = field(default_factory=dict, init=False, repr=False, compare=False)  # what `of` has given: asked often

    @property
    def holds(self) -> str:
        if self.adapted:
            methods = {module.method for module in self.adapted}
            return next((m for m in ("lokr", "loha", "lora") if m in methods), "full")
        return "full" if self.plain else "embedding" if self.embeddings else "unknown"

    @property
    def components(self) -> tuple[str, ...]:
        """Every component that the checkpoint says something about, the denoiser first."""
        named = {module.component for module in self.adapted} | {name.partition(".")[0] for name in self.plain.values()}
        return tuple(name for name in COMPONENTS if name in named)

    @property
    def component(self) -> str | None:
        return next(iter(self.components), None)

    @property
    def dumped(self) -> frozenset[str]:
        """The components whose base lies beside their adapter, whole, as Accelerate dumps it."""
        if self.layout != "accelerate-peft":
            return frozenset()
        return frozenset(module.component for module in self.adapted) & self._plain_components

    @property
    def _plain_components(self) -> frozenset[str]:
        return frozenset(name.partition(".")[0] for name in self.plain.values())

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted({module.rank for module in self.adapted if module.rank}))

    @property
    def targets(self) -> tuple[str, ...]:
        """The last name parts of the adapted modules, as adapter configs list them: to_k, to_out.0, …"""
        return tuple(sorted({target_of(module.module) for module in self.adapted}))

    @property
    def written_targets(self) -> tuple[str, ...]:
        """The same by the trainer's names, which its own config lists."""
        return tuple(sorted({target_of(module.written or module.module) for module in self.adapted}))

    @property
    def canonical(self) -> dict[str, str]:
        """Stored name → diffusers' name of every trained tensor; of a dump the adapters alone, whose base is held to be frozen."""
        trained = {stored: name for module in self.adapted for stored, name in module.canonical.items()}
        dumped = self.dumped
        own = {stored: name for stored, name in self.plain.items() if name.partition(".")[0] not in dumped}
        return trained | own | dict(self.embeddings)

    def of(self, component: str) -> Weights:
        """What is said of one component."""
        if component not in self._parts:
            self._parts[component] = self._of(component)
        return self._parts[component]

    def _of(self, component: str) -> Weights:
        mine = {stored: name for stored, name in self.plain.items() if name.partition(".")[0] == component}
        return replace(self, adapted=tuple(m for m in self.adapted if m.component == component), plain=mine)

    def plain_of(self, component: str) -> dict[str, str]:
        """Stored name → the base component's own name."""
        return {stored: name.partition(".")[2] for stored, name in self.of(component).plain.items()}
