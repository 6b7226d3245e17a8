"""Makes a checkpoint ready for use: weights read, scale known, base found and proven. Drawing and converting both start here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cmp.core.conversion import Base, Evidence, Scale, resolve_scale, same_targets
from cmp.core.runs import Checkpoint, Run
from cmp.core.weights import Weights, check_fits
from cmp.disk.base_proof import Comparison, compare_with_base
from cmp.disk.bases import Component, find_base, is_pipeline, pipelines_below, read_component
from cmp.disk.checkpoint import TRAINED_PARTS, Opened, open_weights
from cmp.disk.evidence import collect_evidence
from cmp.disk.store import Store, subject_of
from cmp.disk.tensors import Header, digest_tensors, identify
from cmp.errors import CmpError, NotFound, Refused, Unreadable


@dataclass(frozen=True, slots=True)
class Answers:
    """What a user has said about a run: alpha and base, None where they were not asked. Answers are remembered per run."""

    alpha: float | None = None
    base: str | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A checkpoint that can be used. `scale` is None for full weights, which have none."""

    checkpoint: Checkpoint
    opened: Opened
    scale: Scale | None
    base: Base | None

    def digest(self, store: Store) -> str:
        """Digest of the trained tensors and the scale they are used with."""
        raw = digest_of(self.opened, store)
        return hashlib.sha256(f"{raw}*{self.scale.value if self.scale else 1}".encode()).hexdigest()


def ready_checkpoint(
    run: Run, checkpoint: Checkpoint, bases: Iterable[Path], store: Store, given: Answers = Answers(), *, need_base: bool
) -> Ready:
    """Reads one checkpoint's header and everything that speaks about it; raises what stands against using it.

    With `need_base` a base must be found, and a full dump must equal it. Without, the base is taken if it is there; where it is not,
    an adapter config of the run must say that nothing but the LoRA was trained, since nothing else shows it.
    """
    opened = open_checkpoint(checkpoint)
    remembered = remembered_answers(run, store)
    places = tuple(bases)
    scale, evidence = _scale(run, checkpoint, opened, given.alpha, remembered.alpha) if opened.weights.pairs else (None, ())
    base: Base | None
    try:
        base = find_base(run, places, given.base, remembered.base)
    except NotFound:
        base = _base_by_tensors(opened, places, store) if not given.base else None
        unproven = pipeline_around(opened) is not None or not _holds_only_lora(opened.weights, evidence)
        if base is None and (need_base or given.base or unproven):
            raise
    if base is not None:
        require_same_parts(opened, base, store)
        base = prove_base(opened, base, store) if need_base else base
    if base is not None:
        require_fit(opened, base)
    return Ready(checkpoint, opened, scale, base)


def require_fit(opened: Opened, base: Base) -> None:
    """Raises Refused if the adapter's modules are not those of the base, so that no file is made that fits nothing."""
    for name in sorted({pair.component for pair in opened.weights.pairs}):
        shapes = read_component(base.path, name).shapes
        mine = tuple(pair for pair in opened.weights.pairs if pair.component == name)
        check_fits(replace(opened.weights, pairs=mine), shapes, opened.header.shapes)


def _scale(
    run: Run, checkpoint: Checkpoint, opened: Opened, given: float | None, remembered: float | None
) -> tuple[Scale, tuple[Evidence, ...]]:
    """The scale and all that speaks for it. An alpha given now decides; one given earlier does only where the files leave it open."""
    if given is None and remembered is not None:
        try:
            evidence = collect_evidence(run, checkpoint, opened)
            return resolve_scale(opened.weights, evidence), evidence
        except Refused:
            given = remembered
    evidence = collect_evidence(run, checkpoint, opened, alpha_known=given is not None)
    return resolve_scale(opened.weights, evidence, given), evidence


def _holds_only_lora(weights: Weights, evidence: tuple[Evidence, ...]) -> bool:
    """Whether it is known without a base that nothing but LoRA pairs was trained. A dump alone does not show it: biases may have been."""
    if not (weights.frozen and weights.pairs):
        return True
    configs = (e for e in evidence if e.targets is not None)  # only adapter configs list targets, and one with more than LoRA was refused
    return any(e.rank in weights.ranks and same_targets(e.targets or (), weights.targets) for e in configs)


def open_checkpoint(checkpoint: Checkpoint) -> Opened:
    """The weights of a checkpoint, read anew; raises Unreadable or Refused with its flaw."""
    if checkpoint.file is None:
        raise Unreadable(f"{checkpoint.id}: {checkpoint.flaw}", "Choose another checkpoint, or wait until it is whole.")
    opened = open_weights(checkpoint.file)
    # the scan also looks at what lies beside the file: a second trained model, for example
    if flaw := "; ".join(opened.weights.flaws) or checkpoint.flaw:
        raise Refused(f"{checkpoint.id}: {flaw}", "It cannot be used without leaving something out unexplained.")
    return opened


def remembered_answers(run: Run, store: Store) -> Answers:
    """What was answered for this run before."""
    known = store.get("answers", subject_of(run.place))
    if not isinstance(known, dict):
        return Answers()
    return Answers(known.get("alpha"), known.get("base"))


def remember_answers(run: Run, store: Store, given: Answers) -> None:
    """Keeps what was given now over what was given before."""
    before = remembered_answers(run, store)
    alpha = before.alpha if given.alpha is None else given.alpha
    base = before.base if given.base is None else given.base
    store.put("answers", subject_of(run.place), {"alpha": alpha, "base": base})


def pipeline_around(opened: Opened) -> Path | None:
    """The trained pipeline that these weights lie in, None if they are not part of one."""
    folder = opened.header.path.parent
    whole = folder.parent if folder.name in TRAINED_PARTS else folder
    return whole if is_pipeline(whole) else None


def require_same_parts(opened: Opened, base: Base, store: Store) -> None:
    """The other parts of a trained pipeline must be the base's, since the base's are what is drawn with; raises Refused."""
    pipeline = pipeline_around(opened)
    for name in TRAINED_PARTS if pipeline else ():
        if pipeline is None or name == opened.weights.component or not (pipeline / name).is_dir():
            continue
        theirs = read_component(base.path, name)
        for header in read_component(pipeline, name).headers:
            subject = "|".join(f"{h.path}|{h.identity}" for h in (header, *theirs.headers))
            if first := store.remembered("same-part", subject, partial(_first_other, header, name, theirs)):
                told = f"{pipeline.name} was trained in its {name} too: {first} is not the base's"
                raise Refused(told, "Give the pipeline itself as --base, or the base that it was trained on.")


def _first_other(header: Header, name: str, theirs: Component) -> str:
    """The first tensor that the base does not have to the bit, "" if there is none."""
    names = theirs.names
    alike = ((n, (n, n.removeprefix("text_model."), f"text_model.{n}")) for n in header.tensors)  # transformers 5 dropped that part
    frozen = {n: next((m for m in several if m in names), n) for n, several in alike}
    comparison = compare_with_base(Opened(header, Weights("full", name, frozen=frozen)), theirs)
    return next(iter((*comparison.differing, *comparison.missing)), "")


def digest_of(opened: Opened, store: Store) -> str:
    """SHA-256 of the trained tensors, computed once per file and remembered."""
    subject = f"{opened.header.path}|{opened.header.identity}"
    return store.remembered("tensors-digest", subject, lambda: digest_tensors(opened.header, opened.weights.canonical))


def prove_base(opened: Opened, base: Base, store: Store) -> Base:
    """The base with its proof: "tensors" where the checkpoint holds the whole model, else as it came. Raises Refused."""
    if opened.weights.layout != "accelerate-peft":
        return base
    comparison = _compare(opened, base.path, store)
    if not comparison["proven"]:
        raise Refused(
            f"the frozen weights of {opened.header.path.parent.name} are not those of {base.id}: {comparison['told']}",
            "It was trained on another base, or more than the LoRA was trained. Give its own base with --base.",
        )
    return replace(base, proof="tensors", source=f"{base.source}; all {comparison['equal']} frozen tensors equal")


def _compare(opened: Opened, base: Path, store: Store) -> dict[str, object]:
    component = read_component(base, str(opened.weights.component))
    files = "|".join(f"{header.path}|{header.identity}" for header in component.headers)
    subject = f"{opened.header.path}|{opened.header.identity}|{files}"
    return store.remembered("base-proof", subject, lambda: _told(compare_with_base(opened, component)))


def _told(comparison: Comparison) -> dict[str, object]:
    groups = (("differ", comparison.differing), ("are not in the base", comparison.missing), ("are only in the base", comparison.absent))
    told = "; ".join(f"{len(names)} {how}, for example {names[0]}" for how, names in groups if names)
    return {"proven": comparison.proven, "equal": comparison.equal, "told": told}


def _base_by_tensors(opened: Opened, places: tuple[Path, ...], store: Store) -> Base | None:
    """The pipeline among those at hand that a full dump proves to be its base."""
    if opened.weights.layout != "accelerate-peft":
        return None
    for folder in pipelines_below(places):
        try:
            if _compare(opened, folder, store)["proven"]:
                return Base(folder.name, folder, "tensors", f"found by its tensors in {folder}")
        except CmpError:
            continue  # a pipeline that cannot be read is not this checkpoint's base as far as anyone can tell
    return None


def digest_base(base: Path, store: Store) -> str:
    """SHA-256 over all files of a pipeline that decide what it draws; each file is hashed once and remembered."""
    total = hashlib.sha256()
    for path in sorted(base.rglob("*")):
        if path.suffix in (".safetensors", ".json", ".txt", ".model") and path.is_file() and not path.name.startswith("."):
            inside = path.relative_to(base).as_posix()
            digest = store.remembered("file-digest", f"{path}|{identify(path)}", partial(_hash_file, path))
            total.update(f"{inside}\0{digest}\n".encode())
    return total.hexdigest()


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
