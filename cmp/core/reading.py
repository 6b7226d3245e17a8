"""Reads a table of tensor names and shapes: every name ends in exactly one of five groups (adapted, plain, embeddings, aside,
unexplained), so that a conversion can account for all of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field

from cmp.core.deltas import made_shape, rank_of
from cmp.core.fused_names import TRANSFORMER, Rows, is_block, norm_of, split_module
from cmp.core.names import Part, guess_component, read_part, split_component, unwrap
from cmp.core.weights import BESIDE, Adapted, Shape, Weights
from cmp.errors import Refused

_NEEDED = {"lora": ("down", "up"), "loha": ("w1_a", "w1_b", "w2_a", "w2_b"), "lokr": (), "full": ()}
# parts of adapters that are not read: taking the rest alone would draw something else than was trained
_FOREIGN = ("lora_", "hada_", "lokr_", "oft_", "boft_", "dora_", "magnitude", "lora.", "glora", "vera_", "ia3_")
_FLUX = ("double_blocks.", "single_blocks.", "single_transformer_blocks.")
_TEXT_WIDTHS = (768, 1024, 1280)  # of the text encoders that words are learned for
_REPLACED = ".modules_to_save."  # PEFT's copy of a module that was trained whole, beside the `original_module`
_ORIGINAL = ".original_module."
# a word beside a LoRA: OneTrainer's names of its tables, by text encoder, and webui's
_BUNDLED = re.compile(r"bundle_emb\.(.+?)\.(?:string_to_param(?:\..*)?|emb_params|(?:clip_[lg]|t5)(?:_out)?)\Z", re.DOTALL)
# what bitsandbytes stores beside a quantised weight
_QUANTISED = re.compile(r"\.weight\.(?:nested_)?(?:absmax|quant_map|quant_state\.)|\.(?:SCB|weight_format)\Z")
_HELD_QUANTISED = "the base as it was held for training, quantised"


@dataclass(slots=True)
class _Sorting:
    """Names on their way into their groups."""

    parts: dict[tuple[str, str | None, str], dict[str, str]] = field(default_factory=dict)
    plain: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    methods: dict[tuple[str, str | None, str], str] = field(default_factory=dict)
    styles: set[str] = field(default_factory=set)
    embeddings: dict[str, str] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)
    bundled: dict[str, None] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    wrapped: bool = False
    dumped: bool = False
    quantised: bool = False
    idle: Collection[str] = ()

    @property
    def original(self) -> bool:
        """Whether the modules bear the names of Flux's or SD 3's first implementation."""
        return any(is_block(module) for _, _, module in self.parts)

    def take(self, stored: str, shape: Shape) -> None:
        name, wrapped = unwrap(stored)
        self.wrapped |= wrapped or "base_model.model." in stored
        if part := read_part(stored) if _may_be_part(name) else None:
            self._take_part(stored, part)
        elif name.startswith("bundle_emb."):
            token = found[1] if (found := _BUNDLED.match(name)) else name.removeprefix("bundle_emb.").rpartition(".")[0]
            self.bundled[token] = None
            self.aside[stored] = f"an embedding of the word {token}, which pictures without that word do not need"
        elif name.endswith("embeddings.position_ids"):
            self.aside[stored] = "a buffer that counts from 0, which every text encoder makes itself"
        elif _QUANTISED.search(name):
            self.quantised = True
            self.aside[stored] = _HELD_QUANTISED
        elif _ORIGINAL in name:
            self.aside[stored] = "the untrained original of a module that was trained whole"
        elif any(sign in name for sign in _FOREIGN) or name.startswith("lycoris_"):
            self.unexplained.append(stored)
        else:
            self.dumped |= name.endswith(".base_layer.weight")  # PEFT's own files may hold trained biases of these layers
            component, inner = split_component(name)
            self.plain[stored] = component, _without_copy(inner.replace(".base_layer.", "."))

    def _take_part(self, stored: str, part: Part) -> None:
        if part.adapter in self.idle:
            self.aside[stored] = f"of the adapter {part.adapter}, which changes nothing: every lora_B of it is zero"
            return
        key = (part.adapter, part.component, part.module)
        roles = self.parts.setdefault(key, {})
        if roles.setdefault(part.role, stored) != stored:  # two spellings of one name: nobody can say which was trained
            self.unexplained.append(stored)
        if part.role != "alpha":
            self.styles.add("components" if part.style == "peft" and part.component else part.style)
        if part.role not in ("alpha", "dora_scale") and self.methods.setdefault(key, part.method) != part.method:
            self.flaws.append(f"module {part.module} is adapted in two ways")


def _may_be_part(name: str) -> bool:
    """Most names are plain, and reading them as parts is slow."""
    return "lora" in name or "hada" in name or "lokr" in name or name.endswith((".alpha", "dora_scale", ".diff", ".diff_b", "_norm"))


def _without_copy(name: str) -> str:
    """`conv_out.modules_to_save.default.weight` → `conv_out.weight`."""
    head, copied, rest = name.partition(_REPLACED)
    return f"{head}.{rest.partition('.')[2]}" if copied else name


def read_weights(shapes: Mapping[str, Shape], idle: Collection[str] = ()) -> Weights:
    """Sorts every tensor name of a checkpoint; nothing is raised, what stands against using it is in `flaws`.

    `idle` are adapters that are known by their values to change nothing.
    """
    if not shapes:
        return Weights("unknown", flaws=("it holds no tensors",))
    if _are_embeddings(shapes):
        return Weights("embedding", embeddings={name: name for name in shapes})
    sorting = _Sorting(idle=idle)
    for stored, shape in shapes.items():
        sorting.take(stored, shape)
    guessed = guess_component([*(n for _, n in sorting.plain.values()), *(f"{module}." for _, _, module in sorting.parts)])
    guessed = TRANSFORMER if sorting.original else guessed
    plain = _plain(sorting, guessed)
    adapted = _adapted(sorting, shapes, guessed)
    if not adapted and not sorting.parts and (sorting.unexplained or not plain):
        unexplained = (*sorting.unexplained, *plain)
        return Weights("unknown", unexplained=unexplained, flaws=(_strangers(unexplained),))
    layout = _layout(sorting)
    if sorting.quantised:
        sorting.aside.update(dict.fromkeys(plain, _HELD_QUANTISED))
        plain = {}
    if layout in ("diffusers-lora", "attn-procs", "kohya"):  # such a file holds nothing but adapters
        owners = {module.component for module in adapted}
        stray = {stored for stored, name in plain.items() if name.partition(".")[0] in owners and not norm_of(sorting.plain[stored][1])}
        sorting.unexplained += [stored for stored in plain if stored in stray]
        plain = {stored: name for stored, name in plain.items() if stored not in stray}
    if sorting.unexplained:
        sorting.flaws.append(_strangers(sorting.unexplained))
    chosen = next((adapter for adapter, _, _ in sorting.parts), "") if idle else ""
    unexplained, flaws = tuple(sorting.unexplained), tuple(sorting.flaws)
    return Weights(
        layout, tuple(adapted), plain, sorting.embeddings, sorting.aside, unexplained, flaws, _rivals(sorting), chosen,
        tuple(sorting.bundled),
    )  # fmt: skip


def _rivals(sorting: _Sorting) -> dict[str, tuple[str, ...]]:
    """The adapters of which only one is active, each with its upper halves; with none where those do not show that it is idle."""
    owners: dict[str | None, set[str]] = {}
    found: dict[str, list[str]] = {}
    unlike = set()
    for key, parts in sorting.parts.items():
        adapter, component, _ = key
        owners.setdefault(component, set()).add(adapter)
        found.setdefault(adapter, []).extend(stored for role, stored in parts.items() if role in ("up", "up_bias"))
        if not {"down", "up"} <= set(parts) <= {"down", "up", "up_bias"}:  # DoRA changes a module by its lengths too
            unlike.add(adapter)
    several = any(len(adapters) > 1 for adapters in owners.values())
    return {adapter: () if adapter in unlike else tuple(names) for adapter, names in found.items()} if several else {}


def _layout(sorting: _Sorting) -> str:
    if not sorting.parts:
        return "full"
    if sorting.quantised:
        return "quantised-peft"
    if sorting.dumped:
        return "accelerate-peft"
    for style, layout in (("kohya", "kohya"), ("legacy", "attn-procs"), ("diffusers", "diffusers-lora")):
        if style in sorting.styles:
            return layout
    return "peft-adapter" if sorting.wrapped or "components" not in sorting.styles else "diffusers-lora"


def _plain(sorting: _Sorting, guessed: str | None) -> dict[str, str]:
    """Stored name → `component.name`; a second spelling of the same tensor, and what has no component, become unexplained."""
    first: dict[str, str] = {}
    plain: dict[str, str] = {}
    for stored, (component, written) in sorting.plain.items():
        owner, name = component or guessed, norm_of(written) or written
        if owner is None or first.setdefault(f"{owner}.{name}", stored) != stored:
            sorting.unexplained.append(stored)
        else:
            plain[stored] = f"{owner}.{name}"
    return plain


def _adapted(sorting: _Sorting, shapes: Mapping[str, Shape], guessed: str | None) -> list[Adapted]:
    for component in dict.fromkeys(component for _, component, _ in sorting.parts):
        if len(adapters := sorted({adapter for adapter, owner, _ in sorting.parts if owner == component})) > 1:
            sorting.flaws.append(
                f"it holds {len(adapters)} adapters ({', '.join(adapters)}) and does not say which of them is active: save that one alone, "
                f"by model.save_pretrained(FOLDER, selected_adapters=[{adapters[-1]!r}]), and give that folder"
            )
    original = sorting.original
    flux = any(module.startswith(_FLUX) for _, _, module in sorting.parts)
    found: list[Adapted] = []
    for key, parts in sorting.parts.items():
        _, component, module = key
        owner = component or (guess_component([f"{module}."]) if not original else None) or guessed
        if owner == "text_encoder_3" and flux:  # kohya and ComfyUI call T5 the third also where it is the second
            owner = "text_encoder_2"
        method = sorting.methods.get(key, "lora")
        fault = _incomplete(method, parts)
        if owner is None:
            sorting.unexplained.extend(parts.values())
        elif fault:
            sorting.flaws.append(f"module {module} {fault} ({next(iter(parts.values()))})")
            sorting.unexplained.extend(parts.values())
        else:
            rank, fault = _rank(method, {role: shapes[stored] for role, stored in parts.items()})
            split, strange = _split(module, method, parts, shapes) if original and not fault else (((module, ()),), None)
            sorting.flaws.extend(f"module {module}: {told}" for told in (fault, strange) if told)
            found += [Adapted(owner, name, method, parts, rank, rows, module if name != module else "") for name, rows in split]
    for module, names in Counter(m.key for m in found if original).items():
        if names > 1:
            sorting.flaws.append(f"{module} is adapted under two names")
    return sorted(found, key=lambda m: (m.component, m.module))


def _split(
    module: str, method: str, parts: Mapping[str, str], shapes: Mapping[str, Shape]
) -> tuple[tuple[tuple[str, Rows], ...], str | None]:
    """diffusers' modules for one by its original name, each with its rows, and what stands against that."""
    weight = {role: shapes[stored] for role, stored in parts.items() if role not in BESIDE}
    try:
        return split_module(module, made_shape(method, weight) if weight else shapes[parts["diff_b"]]), None
    except Refused as fault:
        return ((module, ()),), fault.message


def _incomplete(method: str, parts: Container[str]) -> str | None:
    if any(role not in parts for role in _NEEDED[method]):
        return "has only half a LoRA pair" if method == "lora" else "lacks a factor"
    if method == "lokr" and not all(f in parts or (f"{f}_a" in parts and f"{f}_b" in parts) for f in ("w1", "w2")):
        return "lacks a factor"
    return "has no weights" if method == "full" and not ("diff" in parts or "diff_b" in parts) else None


def _rank(method: str, shapes: Mapping[str, Shape]) -> tuple[int, str | None]:
    if method == "lora":
        down, up = shapes["down"], shapes["up"]
        if len(down) < 2 or len(up) < 2 or 0 in (*down, *up):
            return 0, f"its halves have the shapes {list(down)} and {list(up)}"
        return down[0], None if down[0] == up[1] else f"lora_A has rank {down[0]} and lora_B rank {up[1]}"
    try:
        return rank_of(method, {role: shape for role, shape in shapes.items() if role not in BESIDE}), None
    except Refused as fault:
        return 0, fault.message


def _are_embeddings(shapes: Mapping[str, Shape]) -> bool:
    """Whether these are learned words: one or two small tables whose names are the words, or webui's `emb_params`, `clip_l`, `clip_g`."""
    return len(shapes) <= 2 and all(
        1 <= len(shape) <= 2 and 0 not in shape and shape[0] <= (256 if len(shape) == 2 else 8192) and _is_word(name, shape)
        for name, shape in shapes.items()
    )


def _is_word(name: str, shape: Shape) -> bool:
    if name in ("emb_params", "clip_l", "clip_g") or (name.startswith("<") and name.endswith(">")):
        return True
    return len(shape) == 2 and shape[1] in _TEXT_WIDTHS and bool(name) and "." not in name


def _strangers(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    kind = " (OFT adapters are not converted: merge it with its own trainer)" if any("oft_" in name for name in names) else ""
    return f"{len(names)} tensors belong to nothing that is known here{kind}: {shown}"
