"""What a table of tensor names and shapes holds: which tensors are LoRA pairs, which are frozen base weights, and what nobody can explain.

Every name ends in exactly one of four groups (pairs, frozen, full, unexplained), so that a conversion can account for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from cmp.errors import Refused

_WRAPPERS = re.compile(r"(?:_orig_mod\.|module\.|base_model\.model\.)+")  # torch.compile, DDP, PEFT; in any number and order
_COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "controlnet")
_LORA = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?P<half>A|B)|lora\.(?P<way>down|up)|lora_linear_layer\.(?P<linear>down|up))"
    r"(?:\.(?P<adapter>[^.]+))?\.weight\Z"
)
# parts of adapters that are more than a pair of matrices: taking only the pairs would draw something else than was trained
_FOREIGN = re.compile(r"lora_|hada_|lokr_|oft_|dora_|modules_to_save|original_module|magnitude|\.alpha\Z|\.diff(_b)?\Z")

_UNET_HEADS = ("down_blocks.", "mid_block.", "up_blocks.", "conv_in.", "time_embedding.")
_TEXT_HEADS = ("text_model.", "encoder.layers.", "embeddings.token_embedding")
_TRANSFORMER_HEADS = ("transformer_blocks.", "single_transformer_blocks.", "x_embedder.", "pos_embed.", "context_embedder.")


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The two halves of one adapted module: `down` is lora_A (rank × in), `up` is lora_B (out × rank); both are stored names."""

    component: str
    module: str
    down: str
    up: str
    rank: int

    @property
    def canonical(self) -> dict[str, str]:
        """Stored name → diffusers' name, for both halves."""
        stem = f"{self.component}.{self.module}"
        return {self.down: f"{stem}.lora_A.weight", self.up: f"{stem}.lora_B.weight"}


@dataclass(frozen=True, slots=True)
class Weights:
    """The reading of one file.

    `layout`: "accelerate-peft" (a whole wrapped model), "peft-adapter", "diffusers-lora", "full" (one component without adapters) or
    "unknown". `frozen` maps the stored names of base tensors to the base model's own names. `flaws` are reasons to refuse.
    """

    layout: str
    component: str | None = None
    pairs: tuple[LoraPair, ...] = ()
    frozen: Mapping[str, str] | None = None
    unexplained: tuple[str, ...] = ()
    flaws: tuple[str, ...] = ()

    @property
    def holds(self) -> str:
        if self.layout == "full":
            return "full"
        return "lora" if self.pairs else "unknown"

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted({pair.rank for pair in self.pairs}))

    @property
    def targets(self) -> tuple[str, ...]:
        """The last name parts of the adapted modules, as adapter configs list them: to_k, to_out.0, …"""
        return tuple(sorted({_target(pair.module) for pair in self.pairs}))

    @property
    def canonical(self) -> dict[str, str]:
        """Stored name → diffusers' name of every trained tensor."""
        if self.layout == "full":
            return {stored: f"{self.component}.{name}" for stored, name in (self.frozen or {}).items()}
        return {stored: name for pair in self.pairs for stored, name in pair.canonical.items()}


def read_weights(shapes: Mapping[str, tuple[int, ...]]) -> Weights:
    """Sorts every tensor name of one file into pairs, frozen base weights and what is unexplained."""
    if not shapes:
        return Weights("unknown", flaws=("it holds no tensors",))
    halves: dict[tuple[str, str, str], dict[str, str]] = {}
    plain: dict[str, str] = {}
    unexplained: list[str] = []
    wrapped = False
    bare_modules: set[str] = set()
    for stored in shapes:
        name, was_wrapped = _unwrap(stored)
        wrapped |= was_wrapped
        found = _LORA.match(name) if "lora" in name else None  # most names are plain, and the pattern is slow
        if found:
            component, module = _split_component(found["module"])
            if component is None:
                bare_modules.add(module)
            half = "down" if (found["half"] == "A" or "down" in (found["way"], found["linear"])) else "up"
            pair = halves.setdefault((found["adapter"] or "", component or "", module), {})
            if pair.setdefault(half, stored) != stored:  # two spellings of one name: nobody can say which was trained
                unexplained.append(stored)
        elif _FOREIGN.search(name):
            unexplained.append(stored)
        else:
            plain[stored] = name.replace(".base_layer.", ".")
    unexplained.extend(_repeated(plain))
    guessed = guess_component([*plain.values(), *(f"{module}." for module in bare_modules)])
    if halves:
        return _adapter(shapes, halves, plain, unexplained, guessed, wrapped)
    if guessed is None or unexplained:
        return Weights("unknown", guessed, unexplained=(*unexplained, *plain), flaws=(_strangers([*unexplained, *plain]),))
    return Weights("full", guessed, frozen=plain)


def _adapter(
    shapes: Mapping[str, tuple[int, ...]],
    halves: Mapping[tuple[str, str, str], Mapping[str, str]],
    plain: dict[str, str],
    unexplained: list[str],
    guessed: str | None,
    wrapped: bool,
) -> Weights:
    flaws = []
    adapters = sorted({adapter for adapter, _, _ in halves})
    if len(adapters) > 1:
        flaws.append(f"it holds {len(adapters)} adapters ({', '.join(adapters)}) and does not say which one is active")
    pairs = []
    for (_, component, module), found in halves.items():
        owner = component or guessed
        if owner is None:
            unexplained.extend(found.values())
        elif len(found) < 2:
            flaws.append(f"module {module} has only half a LoRA pair ({next(iter(found.values()))})")
            unexplained.extend(found.values())
        else:
            rank, fault = _rank(shapes[found["down"]], shapes[found["up"]])
            flaws.extend([f"module {module}: {fault}"] if fault else [])
            pairs.append(LoraPair(owner, module, found["down"], found["up"], rank))
    if any(component for _, component, _ in halves):
        layout = "diffusers-lora"
        unexplained.extend(plain)  # such a file holds nothing but pairs
        plain = {}
    else:
        layout = "accelerate-peft" if plain else ("peft-adapter" if wrapped else "unknown")
    if unexplained:
        flaws.append(_strangers(unexplained))
    pairs.sort(key=lambda pair: (pair.component, pair.module))
    return Weights(layout, guessed, tuple(pairs), plain or None, tuple(unexplained), tuple(flaws))


def _repeated(plain: dict[str, str]) -> list[str]:
    """Takes out of `plain` the stored names that mean the same tensor as one before them, and gives them."""
    first: dict[str, str] = {}
    repeated = [stored for stored, name in plain.items() if first.setdefault(name, stored) != stored]
    for stored in repeated:
        del plain[stored]
    return repeated


def _unwrap(name: str) -> tuple[str, bool]:
    """The name without what PEFT, DDP and torch.compile put in front, and whether PEFT's prefix was among it."""
    if not (found := _WRAPPERS.match(name)):
        return name, False
    return name[found.end() :], "base_model.model." in found[0]


def _split_component(module: str) -> tuple[str | None, str]:
    """`unet.down_blocks.0` → ("unet", "down_blocks.0"); None for a name that starts inside the component."""
    head, _, rest = module.partition(".")
    if head in _COMPONENTS and rest:
        return head, _unwrap(rest)[0]
    return None, module


def guess_component(names: Iterable[str]) -> str | None:
    """Which component has tensors of these names. File names say nothing: Accelerate calls every model `model.safetensors`."""
    for name in names:
        for component, heads in (("unet", _UNET_HEADS), ("text_encoder", _TEXT_HEADS), ("transformer", _TRANSFORMER_HEADS)):
            if name.startswith(heads):
                return component
    return None


def _rank(down: tuple[int, ...], up: tuple[int, ...]) -> tuple[int, str | None]:
    if len(down) < 2 or len(up) < 2 or 0 in (*down, *up):
        return 0, f"its halves have the shapes {list(down)} and {list(up)}"
    if down[0] != up[1]:
        return down[0], f"lora_A has rank {down[0]} and lora_B rank {up[1]}"
    return down[0], None


def _target(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]


def _strangers(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{len(names)} tensors belong to nothing that is known here: {shown}"


def find_module(module: str, names: Container[str]) -> str | None:
    """What a base calls this module; older text encoders are `text_model.` on disk, newer ones are not."""
    plain = module.removeprefix("text_model.")
    return next((m for m in (module, plain, f"text_model.{plain}") if f"{m}.weight" in names), None)


def check_fits(weights: Weights, shapes: Mapping[str, tuple[int, ...]], lora_shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises Refused if one module of the adapter is not in the base or has other measures; names the first.

    `shapes` are the base component's tensors, `lora_shapes` the checkpoint's. Some module names exist in several architectures, so
    that "most names match" says nothing.
    """
    for pair in weights.pairs:
        known = find_module(pair.module, shapes)
        base = shapes[f"{known}.weight"] if known else None
        if base is None:
            raise Refused(
                f"the base model has no module {pair.module}, which the checkpoint adapts",
                "It was trained on another architecture; give its own base with --base.",
            )
        down, up = lora_shapes[pair.down], lora_shapes[pair.up]
        if (up[0], *down[1:]) != base or len(down) != len(up) or set(up[2:]) - {1}:
            raise Refused(
                f"{pair.module} is {list(base)} in the base and {list(up)} · {list(down)} in the checkpoint",
                "It was trained on another base model; give it with --base.",
            )
