"""The settings that were found in a picture, whoever wrote it, and what of them could not be restored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cmp.core.grids import LONGEST_PROMPT, Prompt, Sampling, Told, check_seed
from cmp.errors import BadInput, Unreadable, json_place

DEEPEST = 64  # levels of JSON in a picture; ComfyUI's graph has four
_LORA = re.compile(r"<lora:([^:<>]{1,200}):(-?[0-9]{1,4}(?:\.[0-9]{1,9})?)(?::[^<>]{0,100})?>")
_OTHER_TAG = re.compile(r"<(?:lora|lyco|hypernet):[^<>]{0,300}>")
_WEIGHTED = re.compile(r"\([^()]{1,400}:[0-9.]{1,9}\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored(Told):
    """Settings of one picture; None where it does not say. `source` is the program whose record was read.

    `checkpoint` is an id of ours; `model` is what the base model was called there. `loras` are those named beside the checkpoint, each
    with its strength. `not_restored` names, in words, what the picture says and what cannot be drawn again here.
    """

    source: str
    prompt: str = ""
    negative: str = ""
    vae: str | None = None
    checkpoint: str | None = None
    strength: float | None = None
    model: str | None = None
    loras: tuple[tuple[str, float], ...] = ()
    not_restored: tuple[str, ...] = ()

    def as_prompt(self) -> Prompt:
        return Prompt(self.prompt, self.negative)

    def as_sampling(self, usual: Sampling = Sampling()) -> Sampling:
        """The sampling, with `usual` where the picture does not say."""
        return self.over(usual)

    def as_json(self) -> dict[str, object]:
        told = asdict(self)
        return told | {
            "loras": [{"name": name, "strength": strength} for name, strength in self.loras],
            "not_restored": list(self.not_restored),
        }


class Finding:
    """Collects values one by one; what cannot be used is named instead of kept, so that one bad value does not cost the others."""

    def __init__(self, source: str) -> None:
        self.values: dict[str, Any] = {"source": source}
        self.lost: list[str] = []

    def lose(self, told: str) -> None:
        if told not in self.lost and len(self.lost) < 100:
            self.lost.append(told if len(told) <= 200 else f"{told[:200]}…")

    def keep(self, name: str, value: Any, told: str = "") -> None:
        """Keeps a value that can be drawn with, or names it; None is passed over."""
        if value is None:
            return
        try:
            _check(name, value)
        except (BadInput, TypeError, OverflowError, UnicodeEncodeError):
            self.lose(told or f"{name.replace('_', ' ')} {str(value)[:80]!r}")
        else:
            self.values[name] = float(value) if name in ("guidance", "strength") else value

    def wear(self, name: Any, strength: Any) -> None:
        """Keeps one of the further LoRAs, or names it."""
        number = isinstance(strength, (int, float)) and not isinstance(strength, bool) and -10 <= strength <= 10
        if isinstance(name, str) and 0 < len(name) <= 1000 and number:
            self.values["loras"] = (*self.values.get("loras", ()), (name, float(strength)))
        else:
            self.lose(f"the LoRA {str(name)[:80]!r} at {str(strength)[:40]}")

    def prompt(self, name: str, text: str, *, foreign: bool) -> None:
        """Keeps a prompt. Another program's tags for LoRAs are taken out of it, and what it would weigh is named."""
        if foreign:
            for found in _LORA.finditer(text):
                self.wear(found[1], float(found[2]))
            text = _LORA.sub("", text)
            for tag in _OTHER_TAG.findall(text):
                self.lose(tag)
            text = _OTHER_TAG.sub("", text).strip()
            if weighted := _WEIGHTED.search(text):
                self.lose(f"weights such as {weighted[0]!r}, which are drawn as plain text")
        self.keep(
            name, text, f"the {name} prompt of {len(text)} characters" if name == "negative" else f"the prompt of {len(text)} characters"
        )

    def restored(self) -> Restored:
        return Restored(**self.values, not_restored=tuple(self.lost))


def _check(name: str, value: Any) -> None:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str):
        value.encode()  # JSON can say half of a pair of surrogates, which is no text
    if name in ("prompt", "negative"):
        if not isinstance(value, str) or len(value) > LONGEST_PROMPT:
            raise TypeError
    elif name in ("checkpoint", "model"):
        if not isinstance(value, str) or not 0 < len(value) <= 1000:
            raise TypeError
    elif name == "seed":
        _require(value, int)
        check_seed(value)
    elif name == "strength":
        _require(value, (int, float))
        if not -10 <= value <= 10:
            raise TypeError
    else:
        _require(value, {"scheduler": str, "vae": str, "guidance": (int, float)}.get(name, int))
        Sampling(**{name: value})


def _require(value: Any, kind: Any) -> None:
    if not isinstance(value, kind):
        raise TypeError


# -- our own record --------------------------------------------------------------------------------------------------------


def read_record(text: str) -> Restored:
    """What the JSON says that our own pictures carry, see Tile.as_json; raises Unreadable if it is none of ours."""
    told = read_object(text, "our own record")
    if not isinstance(told.get("sampling"), dict) or not isinstance(told.get("prompt"), str):
        raise Unreadable("our own record in the picture has no prompt and sampling", "It may have been changed by another program.")
    finding = Finding("cmp")
    for name in ("prompt", "negative"):
        finding.keep(name, told.get(name))
    for name in ("seed", "strength", "checkpoint"):
        finding.keep(name, told.get(name))
    known = asdict(Sampling())
    for name, value in told["sampling"].items():
        if name in known:
            finding.keep(name, value)
        elif value is not None:
            finding.lose(f"{str(name)[:60]} {str(value)[:80]!r}")
    base = told.get("base")
    finding.keep("model", base.get("id") if isinstance(base, dict) else None)
    if told.get("preview") is True:
        finding.lose("it is a preview, drawn small and with few steps")
    stack = told.get("stack")
    for one in stack if isinstance(stack, list) else []:
        finding.wear(*((one.get("checkpoint"), one.get("strength")) if isinstance(one, dict) else (one, None)))
    return finding.restored()


def read_object(text: str, what: str) -> dict[str, Any]:
    """A JSON object, as plain values; raises Unreadable, also for what is nested deeper than Python goes."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise Unreadable(f"{what} in the picture is no JSON{json_place(fault)}", "It may have been changed by another program.") from fault
    if not isinstance(found, dict) or _deeper(found, DEEPEST):
        told = "nested too deeply" if isinstance(found, dict) else "no JSON object"
        raise Unreadable(f"{what} in the picture is {told}", "It may have been changed by another program.")
    return found


def _deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists lie within each other on more levels, in a loop, since what is too deep for one would be so for us."""
    layer = [value]
    for _ in range(levels):
        layer = [inner for one in layer if isinstance(one, (dict, list)) for inner in (one.values() if isinstance(one, dict) else one)]
        if not layer:
            return False
    return True


def read_any(texts: Mapping[str, str], readers: Mapping[str, Callable[[str], Restored]]) -> Restored | None:
    """What the first of the readers makes of the texts at hand; a text that is damaged is named, and the next is read."""
    lost: list[str] = []
    first: Unreadable | None = None
    for name, read in readers.items():
        if name not in texts:
            continue
        try:
            found = read(texts[name])
        except Unreadable as fault:
            lost, first = [*lost, fault.message], first or fault
        else:
            return replace(found, not_restored=(*found.not_restored, *lost))
    if first:
        raise first
    return None
