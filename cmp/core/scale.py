"""Which scale an adapter has, and how sure that is: every source is heard, two that contradict each other are refused, none is assumed."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cmp.core.deltas import fixed_scale
from cmp.core.runs import plain_text
from cmp.core.weights import Adapted, Weights
from cmp.errors import BadInput, Refused

_PATTERN = re.compile(r"[\w.\-^$\\|()\[\]]*(?:[*+][\w.\-^$\\|()\[\]]*){0,2}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one source says of the adapter's scale. `rank` and `targets` are None where the source does not tell them.

    `decisive` is False for sources that belong to the run and not to this very file: they count only if rank and targets agree.
    `alphas` gives alpha by module (`component.module`), as kohya's files have it; the patterns are PEFT's, module pattern → value.
    With `rslora_folded` they are such that alpha/rank is right, and of modules whose scale is fixed they are the scale.
    `component` limits what is said to one of them. `only_pairs` is False where the source says that more than LoRA pairs was trained.
    """

    alpha: object
    rank: object
    source: str
    targets: tuple[str, ...] | None = None
    rslora: bool = False
    decisive: bool = False
    alphas: Mapping[str, float] | None = None
    rslora_folded: bool = False
    rank_pattern: Mapping[str, object] = field(default_factory=dict)
    alpha_pattern: Mapping[str, object] = field(default_factory=dict)
    component: str | None = None
    only_pairs: bool = True


@dataclass(frozen=True, slots=True)
class Scale:
    """What an adapter's product is multiplied by: alpha/rank (alpha/√rank for rsLoRA), and who says so.

    Where modules differ, `modules` has the value of each and `value`, `alpha` and `rank` are those of the most.
    """

    value: float
    alpha: float
    rank: int
    source: str
    modules: Mapping[str, float] = field(default_factory=dict)

    def of(self, module: str) -> float:
        """The scale of one module, named `component.module`."""
        return self.modules.get(module, self.value)

    @property
    def fingerprint(self) -> str:
        """The same for two scales that act alike."""
        if not self.modules:
            return str(self.value)
        return hashlib.sha256(repr(sorted(self.modules.items())).encode()).hexdigest()

    def as_json(self) -> dict[str, object]:
        told: dict[str, object] = {"value": self.value, "alpha": self.alpha, "rank": self.rank, "source": plain_text(self.source)}
        return told | ({"modules": {plain_text(name): value for name, value in self.modules.items()}} if self.modules else {})


_Found = dict[str, "_One"]  # what one source says: `component.module` → its scale


@dataclass(frozen=True, slots=True)
class _One:
    value: float
    alpha: float
    source: str


def resolve_scale(weights: Weights, evidence: Iterable[Evidence], given_alpha: float | None = None) -> Scale:
    """The scale that all sources agree on, module by module.

    What the user gives decides alone, it is their answer to "I do not know". Otherwise every source counts: raises Refused if two of
    them contradict each other, or a source describes another adapter, or there is none. Nothing is ever assumed here.
    """
    evidence = tuple(evidence)
    if any(m.method == "lora" and m.rank < 1 for m in weights.adapted):
        raise Refused("the adapter has modules without a rank", "The file is damaged.")
    fixed = {m.key: _One(1.0, m.rank or 1, "the layout has no scale") for m in weights.adapted if _has_no_scale(m, weights.layout)}
    for e in evidence:
        if e.rslora_folded and e.alphas:
            fixed |= {key: _One(e.alphas[key], one.alpha, e.source) for key, one in fixed.items() if key in e.alphas}
    scaled = tuple(m for m in weights.adapted if m.key not in fixed)
    if given_alpha is not None:  # it answers what alpha is, not how alpha is used
        kinds = {e.rslora for e in evidence if not _describes_another(e, weights)}
        if len(kinds) > 1:
            raise Refused("the sources contradict each other in whether this is an rsLoRA", "Correct the wrong one.")
        told = [{m.key: _scale(given_alpha, m.rank or 1, "given by the user", kinds == {True}) for m in scaled}]
    else:
        told = [found for e in evidence if (found := _read(e, weights, scaled))]
    return _agreed(weights, scaled, told, fixed)


def _agreed(weights: Weights, scaled: tuple[Adapted, ...], told: list[_Found], fixed: _Found) -> Scale:
    agreed = dict(fixed)
    for module in scaled:
        said = [found[module.key] for found in told if module.key in found]
        if not said:
            raise Refused(
                f"the adapter has rank {module.rank}, and nothing says which alpha it was trained with",
                f"Give it: --alpha X. If alpha was equal to the rank, that is --alpha {module.rank}; others draw at another strength.",
            )
        if len({one.value for one in said}) > 1:
            words = "; ".join(f"{one.source} says alpha {one.alpha:g} (scale {one.value:g})" for one in said)
            raise Refused(f"the sources of the scale contradict each other: {words}", "Say which is right: --alpha X.")
        agreed[module.key] = said[0]
    values = [agreed[module.key].value for module in weights.adapted]
    most = max(dict.fromkeys(values), key=values.count)
    example = next(module for module in weights.adapted if agreed[module.key].value == most)
    sources = dict.fromkeys(one.source for found in (*told, fixed) for one in found.values())
    modules = {key: one.value for key, one in agreed.items()} if len(set(values)) > 1 else {}
    return Scale(most, agreed[example.key].alpha, example.rank, ", ".join(sources), modules)


def _has_no_scale(module: Adapted, layout: str) -> bool:
    producer = "peft" if layout in ("accelerate-peft", "peft-adapter") else "lycoris"
    return fixed_scale(module.method, module.parts, producer) is not None


def _read(evidence: Evidence, weights: Weights, scaled: Iterable[Adapted]) -> _Found | None:
    """What a source says of each module that it speaks of; None if it describes another adapter, which is refused if it should not."""
    if evidence.alphas is not None:
        known = ((module, evidence.alphas.get(module.key)) for module in scaled)
        return {m.key: _scale(alpha, m.rank or 1, evidence.source) for m, alpha in known if alpha is not None}
    if not _is_number(evidence.alpha):
        raise Refused(f"{evidence.source} gives alpha as {evidence.alpha!r}", "Correct the file or give --alpha X.")
    if evidence.rank is not None and not _is_rank(evidence.rank):
        raise Refused(f"{evidence.source} gives the rank as {evidence.rank!r}", "Correct the file or give --alpha X.")
    if _describes_another(evidence, weights):
        if not evidence.decisive:
            return None
        ranks = ", ".join(map(str, weights.ranks))
        raise Refused(
            f"{evidence.source} describes another adapter: rank {evidence.rank}, the tensors have rank {ranks}",
            "It may belong to another run. If you know alpha, give --alpha X.",
        )
    covered = _covered(evidence, weights)
    return {m.key: _of_module(evidence, m) for m in scaled if m.component in covered}


def _of_module(evidence: Evidence, module: Adapted) -> _One:
    name = module.written or module.module
    alpha = _by_pattern(evidence.alpha_pattern, name, evidence.alpha, evidence.source)
    if not _is_number(alpha):
        raise Refused(f"{evidence.source} gives alpha as {alpha!r}", "Correct the file or give --alpha X.")
    # a LoKr of two whole factors does not show its rank, and PEFT divides by it all the same
    rank = module.rank or _by_pattern(evidence.rank_pattern, name, evidence.rank, evidence.source)
    if not (_is_rank(rank) and isinstance(rank, (int, float)) and isinstance(alpha, (int, float))):
        raise Refused(f"{evidence.source} does not give the rank of {module.module}", "Correct the file or give --alpha X.")
    return _scale(alpha, int(rank), evidence.source, evidence.rslora)


def _describes_another(evidence: Evidence, weights: Weights) -> bool:
    covered = _covered(evidence, weights)
    if not covered:
        return True
    if evidence.rank is None:
        return False
    modules = (m for m in weights.adapted if m.component in covered and m.rank)
    return any(_by_pattern(evidence.rank_pattern, m.written or m.module, evidence.rank, evidence.source) != m.rank for m in modules)


def _covered(evidence: Evidence, weights: Weights) -> tuple[str, ...]:
    """The components that a source speaks of: the named one, those whose targets it lists, or all."""
    names = [c for c in weights.components if evidence.component in (None, c) and weights.of(c).adapted]
    return tuple(c for c in names if evidence.targets is None or _has_targets(weights.of(c), evidence.targets))


def _has_targets(weights: Weights, config: tuple[str, ...]) -> bool:
    return any(same_targets(config, targets) for targets in (weights.targets, weights.written_targets))


def _by_pattern(patterns: Mapping[str, object], module: str, otherwise: object, source: str) -> object:
    """PEFT's rule: the first pattern that matches the whole name, or its end after a dot."""
    for pattern, value in patterns.items():
        if len(pattern) > 300 or not _PATTERN.match(pattern) or re.search(r"\)[*+]", pattern):
            raise Refused(f"{source} has the pattern {pattern[:80]!r}", "Patterns this involved are not read here; write the names out.")
        try:
            if re.match(rf"(?:.*\.)?(?:{pattern})\Z", module):
                return value
        except re.error as fault:
            raise Refused(f"{source} has the pattern {pattern[:80]!r}: {fault}", "Correct the file or give --alpha X.") from fault
    return otherwise


def _scale(alpha: float, rank: int, source: str, rslora: bool = False) -> _One:
    if not 1e-30 < alpha < 1e30:  # also what no float can hold
        raise BadInput(f"alpha is {alpha!r} ({source})", "It must be a positive number, for example 16.")
    return _One(alpha / math.sqrt(rank) if rslora else alpha / rank, float(alpha), source + (" (rsLoRA)" if rslora else ""))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_rank(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1 and value % 1 == 0 and value != math.inf


def same_targets(config: Iterable[str], tensors: Iterable[str]) -> bool:
    """PEFT matches a target by the end of the module's name, so `attn1.to_k` and `to_k` may both name what the tensors show as to_k."""
    return {name.rsplit(".", 1)[-1] for name in config} == {name.rsplit(".", 1)[-1] for name in tensors}


def parse_alpha(text: str | float | None) -> float | None:
    """The alpha that a user typed, None for nothing; raises BadInput."""
    if text is None or text == "":
        return None
    try:
        return _scale(float(text), 1, "given by the user").alpha
    except ValueError as fault:
        raise BadInput(f"alpha is {text!r}, which is no number", "Give it like 16 or 0.5.") from fault
