"""What is known about one checkpoint, as lines that people read. Page and command line show the same ones.

They are made from the JSON value of `show` (see disk.describe.describe_checkpoint), so that nothing is told here that scripts cannot have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmp.core.conversion import FORMS
from cmp.core.misfits import equal_text
from cmp.core.present import COMPACTED, alias_names, counted, size_text
from cmp.errors import sentences

CAN_BE_MADE = "can be made"
FORM_NAMES = {
    "lora": "LoRA file for diffusers",
    "webui": "LoRA file for A1111, Forge, ComfyUI",
    "pipeline": "full diffusers pipeline",
    "single": "full model in one file",
}
_METHODS = {"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr", "full": "full difference"}
_PROOFS = {
    "tensors": "proven: the checkpoint holds its tensors",
    "digest": "proven: its recorded digest is the same",
    "user": "not proven: the checkpoint holds nothing of it to compare",
}
_MOST_BLOCKS = 8  # that are told of a large model


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is known.

    `tone`: "" as it is, "list" (every line counts alike), "good", "bad" (it stands against the checkpoint), "ask" (the user is asked).
    """

    label: str
    lines: tuple[str, ...]
    tone: str = ""


def kind_text(layout: str, holds: str, name: str, dora: bool = False) -> str:
    """What a checkpoint is, in the field's words. `name` is that of its file's folder, where averaged weights say so."""
    method = "DoRA" if dora and holds == "lora" else _METHODS.get(holds, holds)
    method += " with DoRA" if dora and holds in ("loha", "lokr") else ""
    ema = name.endswith("_ema") or name == "ema"
    if layout == "full":
        return "EMA weights of a full fine-tune" if ema and not name.endswith("non_ema") else "full fine-tune"
    words = {
        "accelerate-peft": f"Accelerate dump of a PEFT {method}",
        "peft-adapter": f"PEFT adapter, {method}",
        "diffusers-lora": f"{method} in diffusers' names",
        "attn-procs": f"{method} as attention processors (diffusers before 0.17)",
        "kohya": f"kohya {method}" if method == "LoRA" else f"LyCORIS {method}",
        "embedding": "learned word",
        "sharded": "sharded dump",
    }
    return words.get(layout, "not read") + (", EMA weights" if ema and layout in words else "")


def checkpoint_facts(told: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Everything known about a checkpoint; what stands against it first."""
    facts = [Fact("cannot be used", (sentences(told["why"], told.get("hint") or ""),), "bad")] if told.get("usable") is False else []
    if same := told.get("is_base"):
        facts.append(Fact("nothing learned", (f"its weights ARE the base model's: {equal_text(**same)}",), "bad"))
    facts.append(Fact("what it is", _what(told)))
    facts += _words(told)
    facts += _marks(told)
    facts.append(Fact("on disk", _where(told)))
    if told.get("usable") is False:
        return (*facts, *_converted(told))
    facts += [Fact("adapted", _adapted(told))] if told["modules"] else []
    facts += [Fact("scale", *_scale(told))] if told["modules"] else []
    facts += [Fact("size of update", _update(told["update"]))] if told.get("update") else []
    facts += [Fact("base model", *_base(told)), Fact("tensors", _tensors(told["tensors"]))]
    facts += [Fact("can become", _forms(told), "list")]
    return (*facts, *_converted(told))


def run_facts(told: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Everything known about a run."""
    made = (c for c in told["checkpoints"] if any(c["converted"].values()))
    forms = {c["id"]: ", ".join(form for form, path in c["converted"].items() if path) for c in made}
    inside = f"{told['folder']}/"
    by_source: dict[str, list[str]] = {}
    for key, item in told["settings"].items():
        by_source.setdefault(item["source"].removeprefix(inside), []).append(f"{key} = {_value(item['value'])}")
    answers = (f"{key} {value}, answered by you" for key, value in told["answers"].items() if value is not None)
    facts = (
        Fact("name", (told["name"],) if told.get("name") else ()),
        Fact("trainer", (f"{told['trainer']}, {told['state']}",)),
        Fact("on disk", (told["folder"], size_text(told["bytes"]))),
        Fact("base model", (told["base_model"] or "not recorded",)),
        *_words(told),
        Fact("answers", tuple(answers)),
        Fact("settings", tuple(f"{source}: {'; '.join(values)}" for source, values in by_source.items())),
        Fact("checkpoints", tuple(_checkpoint_line(c, forms.get(c["id"])) for c in told["checkpoints"])),
        Fact("logs", tuple(log.removeprefix(inside) for log in told["logs"])),
        Fact("warnings", tuple(told["warnings"]), "bad"),
    )
    return tuple(fact for fact in facts if fact.lines)


def _marks(told: Mapping[str, Any]) -> list[Fact]:
    """What people say of it."""
    facts = [Fact("name", (told["name"],))] if told.get("name") else []
    if told.get("star") or told.get("note"):
        facts.append(Fact("★ starred" if told["star"] else "note", (told["note"] or "without a note",)))
    return facts


def _words(told: Mapping[str, Any]) -> list[Fact]:
    words = told.get("trigger_words")
    return [Fact("trigger words", (", ".join(words), f"source: {told['trigger_source']}"))] if words else []


def _checkpoint_line(told: Mapping[str, Any], forms: str | None) -> str:
    key = told["id"].rpartition("@")[2]
    kind = kind_text(told["layout"], told["holds"], told["path"].rpartition("/")[2])
    marked = "★ " if told.get("star") else ""
    said = (f"“{told['name']}”" if told.get("name") else "", told.get("note") or "")
    state = (COMPACTED if told["compacted"] else "", f"converted to {forms}" if forms else "", told["flaw"] or "")
    parts = (f"{marked}{key}: {kind}", *said, size_text(told["bytes"]), *state)
    return ", ".join(part for part in parts if part)


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _what(told: Mapping[str, Any]) -> tuple[str, ...]:
    parts = _joined([name.replace("_", " ") for name in told.get("components") or ()])
    return (told["kind"] + (f", of the {parts}" if parts else ""),)


def _where(told: Mapping[str, Any]) -> tuple[str, ...]:
    lines = [told["path"], ", ".join([size_text(told["bytes"]), *([f"written {told['written_at']}"] if told["written_at"] else [])])]
    if told["step"] is not None and told["step_source"]:
        lines.append(f"step {told['step']}, as {told['step_source']} says")
    if told["compacted"]:
        lines.append(COMPACTED)
    if told["aliases"]:
        lines.append(f"the same weights lie in {_joined(alias_names(told['aliases']))} once more")
    return tuple(lines)


def _adapted(told: Mapping[str, Any]) -> tuple[str, ...]:
    lines = []
    for component in told["components"]:
        groups = [group for group in told["modules"] if group["component"] == component]
        if groups:
            ranks = _counted([(f"rank {g['rank']}" if g["rank"] else "no rank", g["count"]) for g in groups])
            lines.append(f"{component}: {counted(sum(g['count'] for g in groups), 'module')}, {ranks}")
    return (*lines, f"named {', '.join(told['targets'])}")


def _scale(told: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    if question := told.get("question"):
        return (sentences(question["why"], ""), *alpha_words(question["rank"])), "ask"
    if not (scale := told.get("scale")):
        return ("not known, for the reason given below",), "bad"
    if scale.get("modules"):
        value = _counted([(f"{g['scale']:g}", g["count"]) for g in told["modules"]])
    elif scale["rank"]:
        root = "√" if "(rsLoRA)" in scale["source"] else ""
        value = f"{scale['value']:g} = alpha {scale['alpha']:g} / {root}rank {scale['rank']}"
    else:
        value = f"{scale['value']:g}"
    return (value, f"source: {scale['source']}"), ""


def _update(update: Mapping[str, Any]) -> tuple[str, ...]:
    """The norm of what was trained, and where most of it is."""
    whole, *blocks = update["blocks"]
    if whole["size"] is None:
        return ("not finite: the weights hold NaN or infinity",)
    largest = sorted(blocks, key=lambda block: -(block["size"] or 0.0))[:_MOST_BLOCKS]
    listed = ", ".join(f"{block['block']} {block['size']:.3g}" for block in largest)
    return f"Frobenius norm {whole['size']:.4g}", f"{'most of it in' if len(largest) < len(blocks) else 'of it'} {listed}"


def alpha_words(rank: int) -> tuple[str, ...]:
    """What an answer to the question of alpha would mean."""
    return (
        f"alpha = {rank}, equal to the rank, means scale 1: the adapter counts as it is stored",
        f"alpha = {2 * rank} means scale 2, twice as strong; alpha = {rank / 2:g} means scale 0.5, half as strong",
        "the training script or its config says it, as lora_alpha, network_alpha or alpha; a wrong one draws too strongly or too weakly",
    )


def _base(told: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    if base := told.get("base"):
        return (base["id"], base["source"], _PROOFS[base["proof"]]), "good" if base["proof"] != "user" else ""
    return (told.get("base_missing") or "none was found",), ""


def _tensors(tensors: Mapping[str, Any]) -> tuple[str, ...]:
    groups = (("adapter", "adapted"), ("frozen", "frozen"), ("trained whole", "whole"), ("of learned words", "embeddings"))
    told = [f"{tensors[key]:,} {word}" for word, key in groups if tensors.get(key)]
    told += [f"{sum(item['count'] for item in tensors['left_out']):,} left out"] if tensors["left_out"] else []
    types = ", ".join(sorted(tensors["types"]))
    left = (f"left out: {item['count']:,}, for example {item['example']}: {item['why']}" for item in tensors["left_out"])
    return (f"{tensors['total']:,} in all ({types}): {', '.join(told)}", *left)


def _forms(told: Mapping[str, Any]) -> tuple[str, ...]:
    """Each form that can be made, and what cannot with its reason, which several may share."""
    forms: Mapping[str, str] = told["forms"]
    if told.get("question"):
        return ("nothing before its alpha is known",)
    lines = [f"✓ {form}, {FORM_NAMES[form]}" for form in FORMS if forms.get(form) == CAN_BE_MADE]
    for reason in dict.fromkeys(text for text in forms.values() if text != CAN_BE_MADE):
        lines.append(f"✗ {_joined([form for form in FORMS if forms.get(form) == reason])}: {reason}")
    return tuple(lines)


def _converted(told: Mapping[str, Any]) -> tuple[Fact, ...]:
    facts = []
    for made in told.get("made") or ():
        lines = (made["path"], ", ".join(part for part in (size_text(made["bytes"]), f"made {made['made_at']}") if part), *made["checks"])
        facts.append(Fact(f"converted: {made['form']}", lines, "good"))
    return tuple(facts)


def _counted(groups: Sequence[tuple[str, int]]) -> str:
    """`rank 4`, or `rank 2 in 64 modules, rank 3 in 32 modules` where they differ."""
    sums: dict[str, int] = {}
    for name, count in groups:
        sums[name] = sums.get(name, 0) + count
    return next(iter(sums)) if len(sums) == 1 else ", ".join(f"{name} in {counted(count, 'module')}" for name, count in sums.items())


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), *names[-1:]] if len(names) > 1 else names)
