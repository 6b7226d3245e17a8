"""The arithmetic of a conversion: which scale a LoRA has and how sure that is, and what a plan to convert consists of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cmp.core.runs import Checkpoint, Run, path_text, plain_text
from cmp.core.weights import Weights
from cmp.errors import BadInput, Refused

FORMS = ("lora", "webui", "pipeline")
GENERATOR = "cmp"  # what checkpoint_metadata.json and LoRA files name as their maker


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one source says of the adapter's scale. `rank` and `targets` are None where the source does not tell them.

    `decisive` is False for sources that belong to the run and not to this very file: they count only if rank and targets agree.
    """

    alpha: object
    rank: object
    source: str
    targets: tuple[str, ...] | None = None
    rslora: bool = False
    decisive: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """What B·A is multiplied by: alpha/rank (alpha/√rank for rsLoRA), and who says so."""

    value: float
    alpha: float
    rank: int
    source: str

    def as_json(self) -> dict[str, object]:
        return {"value": self.value, "alpha": self.alpha, "rank": self.rank, "source": plain_text(self.source)}


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on this disk. `proof` says why it is the one that was trained on: "tensors", "digest" or "user"; `source` in words."""

    id: str
    path: Path
    proof: str
    source: str

    def as_json(self) -> dict[str, object]:
        return {"id": plain_text(self.id), "proof": self.proof, "source": plain_text(self.source)}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tensor that knowingly does not reach the output."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """What converting one checkpoint would do; made from headers alone, carried out by `engine.convert` or `disk.lora_file`."""

    run: Run
    checkpoint: Checkpoint
    form: str
    target: Path
    weights: Weights
    scale: Scale | None
    base: Base | None
    bytes: int
    done: str | None = None  # why there is nothing to do
    replaces: bool = False  # something is at the target and goes to the trash first
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did. `checks` are the proofs that it passed, in words."""

    checkpoint: str
    form: str
    output: Path
    bytes: int
    seconds: float
    read: int
    applied: int
    left_out: tuple[LeftOut, ...]
    scale: Scale | None
    checks: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        left_out = [{"name": item.name, "why": item.why} for item in self.left_out]
        return {
            "checkpoint": self.checkpoint,
            "form": self.form,
            "output": path_text(self.output),
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "tensors": {"read": self.read, "applied": self.applied, "left_out": left_out},
            "scale": self.scale.as_json() if self.scale else None,
            "checks": list(map(plain_text, self.checks)),
        }


def resolve_scale(weights: Weights, evidence: Iterable[Evidence], given_alpha: float | None = None) -> Scale:
    """The scale that all sources agree on.

    What the user gives decides alone, it is their answer to "I do not know". Otherwise every source counts: raises Refused if two of
    them contradict each other, or a source describes another adapter, or there is none. Nothing is ever assumed here.
    """
    if len(weights.ranks) != 1 or weights.ranks[0] < 1:
        raise Refused(
            f"the modules of this adapter have different ranks ({', '.join(map(str, weights.ranks))})",
            "Adapters with a rank pattern are not converted yet.",
        )
    rank = weights.ranks[0]
    if given_alpha is not None:  # it answers what alpha is, not how alpha is used
        kinds = {e.rslora for e in evidence if not _describes_another(e, weights, rank)}
        if len(kinds) > 1:
            raise Refused("the sources contradict each other in whether this is an rsLoRA", "Correct the wrong one.")
        return _scale(given_alpha, rank, "given by the user", kinds == {True})
    found = [scale for e in evidence if (scale := _read(e, weights, rank))]
    if not found:
        raise Refused(
            f"the adapter has rank {rank}, and nothing says which alpha it was trained with",
            f"Give it: --alpha X. If alpha was equal to the rank, that is --alpha {rank}; another value draws at another strength.",
        )
    if len({scale.value for scale in found}) > 1:
        said = "; ".join(f"{scale.source} says alpha {scale.alpha:g} (scale {scale.value:g})" for scale in found)
        raise Refused(f"the sources of the scale contradict each other: {said}", "Say which is right: --alpha X.")
    sources = ", ".join(dict.fromkeys(scale.source for scale in found))
    return Scale(found[0].value, found[0].alpha, rank, sources)


def _read(evidence: Evidence, weights: Weights, rank: int) -> Scale | None:
    if not _is_number(evidence.alpha):
        raise Refused(f"{evidence.source} gives alpha as {evidence.alpha!r}", "Correct the file or give --alpha X.")
    if evidence.rank is not None and not _is_rank(evidence.rank):
        raise Refused(f"{evidence.source} gives the rank as {evidence.rank!r}", "Correct the file or give --alpha X.")
    other = _describes_another(evidence, weights, rank)
    if other and evidence.decisive:
        raise Refused(
            f"{evidence.source} describes another adapter: rank {evidence.rank}, the tensors have rank {rank}",
            "It may belong to another run. If you know alpha, give --alpha X.",
        )
    if other:
        return None
    assert isinstance(evidence.alpha, (int, float))
    return _scale(evidence.alpha, rank, evidence.source, evidence.rslora)


def _describes_another(evidence: Evidence, weights: Weights, rank: int) -> bool:
    return evidence.rank not in (None, rank) or (evidence.targets is not None and not same_targets(evidence.targets, weights.targets))


def _scale(alpha: float, rank: int, source: str, rslora: bool = False) -> Scale:
    if not 1e-30 < alpha < 1e30:  # also what no float can hold
        raise BadInput(f"alpha is {alpha!r} ({source})", "It must be a positive number, for example 16.")
    return Scale(alpha / math.sqrt(rank) if rslora else alpha / rank, float(alpha), rank, source + (" (rsLoRA)" if rslora else ""))


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


def to_webui_name(canonical: str) -> str:
    """`unet.down_blocks.0.attn1.to_q.lora_A.weight` → `lora_unet_down_blocks_0_attn1_to_q.lora_down.weight`, kohya's naming."""
    stem, half = canonical.rsplit(".lora_", 1)
    component, module = stem.split(".", 1)
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te"}.get(component)
    if prefix is None:
        raise Refused(f"component {component!r} has no agreed name in this form", "Use --to lora.")
    if component == "text_encoder" and not module.startswith("text_model."):
        module = f"text_model.{module}"  # transformers 5 dropped this part of the name; A1111 and ComfyUI look for it
    return f"{prefix}_{module.replace('.', '_')}.lora_{'down' if half.startswith('A') else 'up'}.weight"


def summarise(converted: int, skipped: int, failed: int) -> str:
    """The closing line that people know from the origin's script."""
    return f"converted {converted}, skipped {skipped}, failed {failed}, total {converted + skipped + failed}"


def whole_metadata(entries: Mapping[str, object]) -> dict[str, str]:
    """Values as safetensors metadata takes them: text only."""
    return {key: value if isinstance(value, str) else str(value) for key, value in entries.items()}
