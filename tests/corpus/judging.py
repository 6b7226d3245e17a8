"""Judges a case as a user would see it: list it, convert it, draw it, and hold what came out against the truth."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.in_process import Said, command

from .cases import SAME, Case, Item, read_items
from .reference import Reference, component

LEVEL = 1 / 255 + 1e-6  # one step of a picture's 256
NEAR = 2 * SAME  # of the outputs' size: the truth was computed on another machine, which alone makes up to 8e-7


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one checkpoint: "right", "refused" or "wrong", and what was seen."""

    tag: str
    became: str
    seen: str

    def __str__(self) -> str:
        return f"{self.tag} is {self.became}: {self.seen}"


@dataclass(slots=True)
class Judged:
    """All that a case was asked. `rows` are the listed checkpoints by tag; those not found are missing."""

    case: Case
    base: str
    items: tuple[Item, ...]
    runs: list[dict[str, Any]]
    rows: dict[str, dict[str, Any]]
    shown: dict[str, dict[str, Any]] = field(default_factory=dict)
    converted: dict[str, Verdict] = field(default_factory=dict)
    drawn: dict[str, Verdict] = field(default_factory=dict)


class Judge:
    """Judges each case once, on a copy, so that nothing of the corpus can change."""

    def __init__(self, corpus: Path, probing: Any, place: Path) -> None:
        self.corpus, self.probing, self.place = corpus, probing, place
        self.reference = Reference(corpus, probing)
        self.judged: dict[str, Judged] = {}

    def __call__(self, case: Case) -> Judged:
        if case.name not in self.judged:
            self.judged[case.name] = self._judge(case)
        return self.judged[case.name]

    def say(self, case: Case, *arguments: str) -> Said:
        """A command over the copy of a case."""
        runs, bases = self.place / case.name / "outputs", self.corpus / "bases"
        return command(self.place / "home", "--runs", str(runs), "--bases", str(bases), *arguments)

    def _judge(self, case: Case) -> Judged:
        copied = self.place / case.name
        for name in ("outputs", "logs"):
            if (self.corpus / case.name / name).is_dir():
                shutil.copytree(self.corpus / case.name / name, copied / name)
        for folder in (copied, *(path for path in copied.rglob("*") if path.is_dir())):
            folder.chmod(0o755)  # the corpus itself may be read-only
        base, items = read_items(self.corpus / case.name)
        listed = self.say(case, "list", "--json")
        assert listed.code == 0, listed.told
        runs = listed.json["runs"]
        judged = Judged(case, base, items, runs, {item.tag: row for item in items if (row := find_row(copied, runs, item))})
        for item in items:
            if item.tag in judged.rows:
                self._judge_item(judged, item)
        return judged

    def _judge_item(self, judged: Judged, item: Item) -> None:
        case, target = judged.case, id_of(judged.rows[item.tag], item)
        shown = self.say(case, "show", target, "--base", self._base(judged), "--json")
        judged.shown[item.tag] = shown.json if shown.code == 0 else {"refused": shown.told}
        picture, refusals = None, []
        for form in ("lora", "pipeline"):
            verdict, picture = self.convert(judged, item, form)
            if verdict.became != "refused":
                break
            refusals.append(verdict.seen)
        judged.converted[item.tag] = verdict if verdict.became != "refused" else Verdict(item.tag, "refused", " | ".join(refusals))
        judged.drawn[item.tag] = self._draw(judged, item, picture)

    def _base(self, judged: Judged) -> str:
        return str(self.corpus / "bases" / judged.base)

    def convert(self, judged: Judged, item: Item, form: str) -> tuple[Verdict, np.ndarray | None]:
        """Converts one checkpoint, and says what diffusers makes of it; with the picture that it draws."""
        name = form if form == "pipeline" else f"{form}.safetensors"
        output = self.place / "made" / judged.case.name / item.tag / name
        order = (
            "convert",
            id_of(judged.rows[item.tag], item),
            "--to",
            form,
            "--base",
            self._base(judged),
            "--output",
            str(output),
            "--json",
        )
        said = self.say(judged.case, *order)
        if said.code == 0:
            return self._compare(judged, item, form, output)
        if said.crashed or output.exists():
            return Verdict(item.tag, "wrong", f"--to {form}: {said.told}"), None
        return Verdict(item.tag, "refused", f"--to {form}: [{said.code}] {said.json['error']} {said.json['hint']}"), None

    def _compare(self, judged: Judged, item: Item, form: str, made: Path) -> tuple[Verdict, np.ndarray | None]:
        case = judged.case
        worn = self.reference.load(made, form, judged.base, case.rounded_base)
        seen = {kind: self.probing.probe(component(worn, kind)) for kind in item.probes}
        faults = [f"{kind} {fault}" for kind, truth in item.probes.items() if (fault := _fault(seen[kind], truth, NEAR))]
        if form == "lora" or not case.rank:
            trained = self.reference.trained(case, item, judged.base)
            faults += [f"{kind} as it was trained {fault}" for kind in trained if (fault := _fault(seen[kind], trained[kind], 0))]
        first = next(iter(item.probes))
        effect = float(np.abs(seen[first] - self.probing.probe(component(self.reference.base(judged.base), first))).max())
        if not effect or (item.effect and abs(effect - item.effect) > 0.001 * item.effect):
            faults.append(f"its effect is {effect:g} and was {item.effect}")
        picture = self.probing.ref_image(worn)
        as_there = self.probing.ref_image(worn, **case.sampling) if case.sampling and item.image is not None else picture
        if item.image is not None and (fault := _fault(as_there, item.image, LEVEL)):
            faults.append(f"the picture {fault}")
        return Verdict(item.tag, "wrong" if faults else "right", f"--to {form}: {'; '.join(faults) or 'as it was trained'}"), picture

    def _draw(self, judged: Judged, item: Item, picture: np.ndarray | None) -> Verdict:
        """Our own drawing of the reference picture against the truth; where that has none, against diffusers with what was made."""
        case, ref = judged.case, self.probing.REF
        if case.drawn_only:
            name = "learned_embeds" if item.is_final else f"learned_embeds-steps-{item.step}"
            learned = self.corpus / case.name / "outputs" / "run1" / f"{name}.safetensors"
            picture = self.probing.ref_image(self.reference.embedded(learned, judged.base), **case.sampling)
        prompt, size = case.sampling.get("prompt", ref["prompt"]), f"{ref['width']}x{ref['height']}"
        sampling = ("--steps", str(ref["steps"]), "--guidance", str(ref["guidance_scale"]), "--seeds", str(ref["seed"]), "--size", size)
        order = ("grid", id_of(judged.rows[item.tag], item), "--prompt", prompt, *sampling, "--base", self._base(judged), "--json")
        said = self.say(case, *order)
        if said.code:
            return Verdict(item.tag, "wrong" if said.crashed else "refused", f"[{said.code}] {said.err[-600:]}")
        (tile,) = said.json["tiles"]
        wanted = picture if item.image is None or case.sampling else item.image  # one drawn in another way is no measure of ours
        if wanted is None:
            return Verdict(item.tag, "wrong", "it was drawn, and nothing says that the picture is right")
        fault = _fault(read_picture(Path(tile["path"])), wanted, LEVEL)
        return Verdict(item.tag, "wrong" if fault else "right", f"the picture {fault}" if fault else "drawn as it was trained")


def _fault(seen: np.ndarray, truth: np.ndarray, allowed: float) -> str:
    """How far it is off, in words; "" if that is allowed. Outputs larger than 1 are off by as much more."""
    off = float(np.abs(seen - truth).max()) / max(1.0, float(np.abs(truth).max()))
    return "" if off <= allowed else f"is {off:.3g} off, and {allowed:.3g} is allowed"


def find_row(copied: Path, runs: list[dict[str, Any]], item: Item) -> Mapping[str, Any] | None:
    """The listed checkpoint that is this one: by its place on disk, else, since the same weights are one row, by what it is called."""
    rows = [row for run in runs for row in run["checkpoints"] if is_averaged(row) == item.ema or item.is_final]
    places = {str(copied / place) for place in item.places}
    if item.is_final:
        return next((row for row in rows if has_key(row, "final")), None)
    by_place = [row for row in rows if row["path"] in places]
    by_step = [row for row in rows if item.step is not None and row["step"] == item.step]
    words = [row for row in by_step if "learned_embeds" in row["path"]]  # the whole text encoder lies beside the word that it learned
    return next(iter(words + by_place + by_step), None)


def is_averaged(row: Mapping[str, Any]) -> bool:
    """Whether it is listed as an EMA, in whatever words."""
    return "ema" in " ".join((row["id"].rpartition("@")[2], row["layout"], row["holds"], Path(row["path"]).name)).lower()


def has_key(row: Mapping[str, Any], key: str) -> bool:
    return any(name.rpartition("@")[2].split("~")[0] == key for name in (row["id"], *row["aliases"]))


def id_of(row: Mapping[str, Any], item: Item) -> str:
    """The id that a user would take for it: the final goes by its own name also where it is the last step once more."""
    return next((name for name in (row["id"], *row["aliases"]) if item.is_final and name.endswith("@final")), row["id"])


def read_picture(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype("float32") / 255
