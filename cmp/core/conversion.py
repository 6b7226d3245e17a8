"""What a conversion is: its forms, its plan, its report, and the names that each form gives to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cmp.core.runs import Checkpoint, Run, path_text, plain_text
from cmp.core.scale import Scale
from cmp.core.weights import Weights
from cmp.errors import BadInput, Refused

FORMS = ("lora", "webui", "pipeline", "single")
LORA_FORMS = ("lora", "webui")  # the others are merged, and need the base
_DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
GENERATOR = "cmp"  # what checkpoint_metadata.json and LoRA files name as their maker


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
class Writing:
    """How a form is written: in which type ("F32", "F16", "BF16"; None keeps that of the weights), and a merge at which strength."""

    dtype: str | None = None
    strength: float = 1.0

    def as_json(self) -> dict[str, object]:
        return {"dtype": self.dtype, "strength": self.strength}


def check_form(form: str) -> None:
    """Raises BadInput for a form that there is not."""
    if form not in FORMS:
        raise BadInput(f"the form is {form!r}", f"Use one of: {', '.join(FORMS)}.")


def parse_writing(form: str, dtype: str | None, strength: float) -> Writing:
    """What a user asked for; raises BadInput and quotes it."""
    check_form(form)
    if dtype is not None and dtype not in _DTYPES:
        raise BadInput(f"the type is {dtype!r}", f"Use one of: {', '.join(_DTYPES)}.")
    if not -10 <= strength <= 10:
        raise BadInput(f"the strength is {strength!r}", "Use a number such as 0.8.")
    if strength != 1 and form in LORA_FORMS:
        raise BadInput(f"a LoRA file has no strength of its own, and {strength:g} was asked for", "Set it where it is used.")
    return Writing(_DTYPES[dtype] if dtype else None, strength)


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
    source: tuple[object, ...] = ()  # what the checkpoint's files and the base's were when the plan was made, see disk.planning
    writing: Writing = Writing()
    whole: tuple[str, ...] = ()  # components that are written merged, because no LoRA file can carry them

    def as_json(self) -> dict[str, object]:
        """A conversion that has not been carried out."""
        return {
            "checkpoint": self.checkpoint.id,
            "form": self.form,
            "output": path_text(self.target),
            "bytes": self.bytes,
            "scale": self.scale.as_json() if self.scale else None,
            "base": self.base.as_json() if self.base else None,
            "done": self.done,
        }


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


def to_webui_name(canonical: str, several_text_encoders: bool = False) -> str:
    """`unet.down_blocks.0.attn1.to_q.lora_A.weight` → `lora_unet_down_blocks_0_attn1_to_q.lora_down.weight`, kohya's naming."""
    component, _, rest = canonical.partition(".")
    first = "lora_te1" if several_text_encoders else "lora_te"
    prefix = {"unet": "lora_unet", "text_encoder": first, "text_encoder_2": "lora_te2"}.get(component)
    if prefix is None:
        raise Refused(f"component {component!r} has no agreed name in this form", "Use --to lora, which ComfyUI and Forge load too.")
    module, _, kind = rest.rpartition(".lora_")
    if kind not in ("A.weight", "B.weight"):
        raise Refused(f"{canonical} has no agreed name in this form", "Use --to lora or --to pipeline.")
    if component != "unet" and not module.startswith("text_model."):
        module = f"text_model.{module}"  # transformers 5 dropped this part of the name; A1111 and ComfyUI look for it
    return f"{prefix}_{module.replace('.', '_')}.lora_{'down' if kind.startswith('A') else 'up'}.weight"


def summarise(converted: int, skipped: int, failed: int) -> str:
    """The closing line that people know from the origin's script."""
    return f"converted {converted}, skipped {skipped}, failed {failed}, total {converted + skipped + failed}"


def whole_metadata(entries: Mapping[str, object]) -> dict[str, str]:
    """Values as safetensors metadata takes them: text only."""
    return {key: value if isinstance(value, str) else str(value) for key, value in entries.items()}
