"""Makes a checkpoint ready for use: weights read, scale known, base found and proven. Drawing and converting both start here."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cmp.core.conversion import Base
from cmp.core.fitting import check_fits
from cmp.core.progress import Progress, run_through
from cmp.core.runs import Checkpoint, Run, plain_text
from cmp.core.scale import Evidence, Scale, resolve_scale, same_targets
from cmp.core.stages import UNREAD
from cmp.core.weights import Weights
from cmp.disk.base_proof import base_otherwise, check_not_merged, compared, pipeline_around, prove_base, proven_before, require_same_parts
from cmp.disk.bases import find_base, named_below, read_component, read_index, with_place
from cmp.disk.checkpoint import Opened, open_weights
from cmp.disk.evidence import collect_evidence
from cmp.disk.fit import fit_scale
from cmp.disk.store import Store, subject_of
from cmp.disk.tensors import PART_OF, digest_tensors
from cmp.errors import NotFound, Refused, Unreadable

_METHODS = {"loha": "LoHa", "lokr": "LoKr", "full": "full differences"}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a user has said about a run: alpha and base, None where they were not asked. Answers are remembered per run."""

    alpha: float | None = None
    base: str | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A checkpoint that can be used. `scale` is None where nothing has one, as in full weights.

    `whole` are the components that no LoRA file can carry, each with the reason: they are replaced by the merged ones.
    """

    checkpoint: Checkpoint
    opened: Opened
    scale: Scale | None
    base: Base | None
    whole: tuple[tuple[str, str], ...] = ()

    @property
    def replaced(self) -> tuple[str, ...]:
        """The names of the components that are taken whole."""
        return tuple(name for name, _ in self.whole)

    def digest(self, store: Store) -> str:
        """Digest of the trained tensors and the scale they are used with."""
        return run_through(self.digesting(store))

    def digesting(self, store: Store) -> Generator[Progress, None, str]:
        """The same in steps."""
        return self.worn((yield from digesting(self.opened, store, self.replaced)))

    def worn(self, raw: str) -> str:
        """Digest of trained tensors, of which `raw` is one, and the scale."""
        return hashlib.sha256(f"{raw}*{self.scale.fingerprint if self.scale else 1}".encode()).hexdigest()


def ready_checkpoint(
    run: Run, checkpoint: Checkpoint, bases: Iterable[Path], store: Store, given: Answers = Answers(), *, need_base: bool
) -> Ready:
    """Reads one checkpoint's header and everything that speaks about it; raises what stands against using it.

    With `need_base` a base must be found, and a full dump is compared with it. Without, the base is taken if it is there; where it is
    not, an adapter config of the run must say that nothing but the LoRA was trained, since nothing else shows it.
    """
    return run_through(readying(run, checkpoint, bases, store, given, need_base=need_base))


def readying(
    run: Run, checkpoint: Checkpoint, bases: Iterable[Path], store: Store, given: Answers = Answers(), *, need_base: bool
) -> Generator[Progress, None, Ready]:
    """The same in steps; who leaves it early has nothing remembered that was not finished."""
    opened = open_checkpoint(checkpoint)
    remembered = remembered_answers(run, store)
    places = tuple(bases)
    base: Base | None
    missing, wanted = None, given.base or remembered.base or run.base_model
    try:
        base = find_base(run, places, given.base, remembered.base)
    except NotFound as fault:
        below = named_below(run, wanted)
        base, missing = (yield from base_otherwise(opened, places, store, below)) if not given.base else None, fault
    scale, evidence = _scale(run, checkpoint, opened, given, remembered, base) if opened.weights.adapted else (None, ())
    _require_whole(checkpoint, opened, evidence)
    unproven = pipeline_around(opened) is not None or not _holds_only_lora(opened.weights, evidence)
    if base is None and missing and (need_base or given.base or unproven):
        raise with_place(missing, run, wanted)
    if need_base and opened.weights.layout == "quantised-peft":
        told = f"{checkpoint.id} was trained on a quantised base, which no plain base equals"
        raise Refused(told, "Take its adapter along with --to lora, and use it on the base that you trust with it.")
    whole = _not_attachable(opened.weights) | _said_to_be_whole(opened.weights, evidence)
    if base is not None:
        yield from require_same_parts(opened, base, store)
        if need_base:
            read_index(base.path)
            base, trained = yield from prove_base(opened, base, store)
            whole = {**trained, **whole}
        else:
            base = proven_before(opened, base, store)
        require_fit(opened, base)
        for name in opened.weights.dumped & set(whole) if need_base else ():
            check_not_merged(opened, name, read_component(base.path, name), scale, compared(opened, name, base.path, store).differing)
    return Ready(checkpoint, opened, scale, base, tuple(sorted(whole.items())))


def _not_attachable(weights: Weights) -> dict[str, str]:
    """Component → why no LoRA file can carry what was trained of it."""
    whole = {}
    for name in weights.components:
        mine = weights.of(name)
        strange = [m for m in mine.adapted if not m.attachable]
        if strange:
            kind = _METHODS.get(strange[0].method, "more than a pair of matrices")
            kind = "a pair of matrices, and diffusers attaches none to T5" if strange[0].in_t5 else kind
            whole[name] = f"{len(strange)} modules are adapted by {kind}, the first is {strange[0].module}"
        elif mine.plain and name not in weights.dumped:
            first = next(iter(mine.plain.values()))
            whole[name] = f"{len(mine.plain)} tensors were trained whole, the first is {first}"
    return whole


def _said_to_be_whole(weights: Weights, evidence: tuple[Evidence, ...]) -> dict[str, str]:
    """The dumped components of which a config says that more than LoRA pairs was trained."""
    told = {}
    for name in weights.dumped:
        mine = weights.of(name)
        for e in evidence:
            if not e.only_pairs and e.rank in mine.ranks and (e.targets is None or same_targets(e.targets, mine.targets)):
                told[name] = f"{e.source} says that more than LoRA pairs was trained"
    return told


def unlike_lora(ready: Ready) -> str | None:
    """Why no LoRA file can hold what was trained, None if one can."""
    if ready.opened.weights.embeddings:
        return "it is a learned word and holds no LoRA"
    for name, why in ready.whole:
        if file := _file_of_lycoris(ready.opened, name):
            loads = f"the trainer's own file, {file}, loads in A1111 and ComfyUI as it is"
            return f"of its {name} no LoRA file is written by this program: {why}; {loads}"
        return f"no LoRA file can carry its {name}: {why}"
    return None if ready.opened.weights.adapted else "it is a full fine-tune and holds no LoRA"


def _file_of_lycoris(opened: Opened, component: str) -> str | None:
    """The name of a file that A1111 and ComfyUI load themselves, where what no pair of matrices holds is in kohya's and LyCORIS' names."""
    lora = (opened.header.path.suffix, len(opened.header.files)) == (".safetensors", 1) and opened.weights.layout == "kohya"
    known = {"unet", "text_encoder", "text_encoder_2"}.issuperset(opened.weights.components)
    strange = any(not module.attachable for module in opened.weights.of(component).adapted)
    named = all(name.startswith(("lora_unet_", "lora_te")) for name in opened.header.tensors)
    return plain_text(opened.header.path.name) if lora and known and strange and named else None


def trained_tensors(opened: Opened, whole: Iterable[str] = ()) -> dict[str, str]:
    """Stored name → diffusers' name of all that was trained; of a dump taken `whole` that is every tensor."""
    taken = set(whole)
    dumped = {stored: name for stored, name in opened.weights.plain.items() if name.partition(".")[0] in taken}
    return opened.weights.canonical | dumped


def require_fit(opened: Opened, base: Base) -> None:
    """Raises Refused if the adapter's modules are not those of the base, so that no file is made that fits nothing."""
    for name in opened.weights.components:
        mine = opened.weights.of(name)
        if mine.adapted:
            check_fits(mine, read_component(base.path, name).shapes, opened.header.shapes)


def _scale(
    run: Run, checkpoint: Checkpoint, opened: Opened, given: Answers, remembered: Answers, base: Base | None
) -> tuple[Scale, tuple[Evidence, ...]]:
    """The scale and all that speaks for it. An alpha given now decides; one given earlier does only where the files leave it open."""
    alpha = given.alpha
    if alpha is None:
        try:
            evidence = collect_evidence(run, checkpoint, opened)
            if not evidence and base is not None and (fitted := fit_scale(run, opened, base.path)):
                evidence = (fitted,)
            return resolve_scale(opened.weights, evidence), evidence
        except Refused:
            if remembered.alpha is None:
                raise
            alpha = remembered.alpha
    evidence = collect_evidence(run, checkpoint, opened, alpha_known=True)
    return resolve_scale(opened.weights, evidence, alpha), evidence


def _holds_only_lora(weights: Weights, evidence: tuple[Evidence, ...]) -> bool:
    """Whether it is known without a base that nothing but LoRA pairs was trained. A dump alone does not show it: biases may have been."""
    return _says_only_pairs(weights, weights.components if weights.layout == "quantised-peft" else weights.dumped, evidence)


def _says_only_pairs(weights: Weights, components: Iterable[str], evidence: tuple[Evidence, ...]) -> bool:
    """Whether a config says of each of these components that nothing but LoRA pairs was trained of it."""
    for name in components:
        mine = weights.of(name)
        configs = (e for e in evidence if e.targets is not None and e.only_pairs)  # only adapter configs list targets
        if not any(e.rank in mine.ranks and same_targets(e.targets or (), mine.targets) for e in configs):
            return False
    return True


def _require_whole(checkpoint: Checkpoint, opened: Opened, evidence: tuple[Evidence, ...]) -> None:
    """Raises Refused for the LoRA of a dump whose other tensors are elsewhere, unless a config says that they were not trained."""
    if PART_OF in opened.header.metadata and not _says_only_pairs(opened.weights, opened.weights.components, evidence):
        whole = opened.header.metadata[PART_OF]
        told = f"{checkpoint.id} is the LoRA of {whole}, and no adapter_config.json says that nothing else was trained"
        raise Refused(told, "Put the whole file on this disk: then its other tensors are compared with the base model.")


def open_checkpoint(checkpoint: Checkpoint) -> Opened:
    """The weights of a checkpoint, read anew; raises Unreadable or Refused with its flaw."""
    if checkpoint.layout == UNREAD:  # what lies beside the file, and the run's settings, may not be known yet either
        raise Unreadable(f"{checkpoint.id} was found a moment ago and is not read yet", "Try again in a moment.")
    if checkpoint.layout == "sharded":
        raise Refused(f"{checkpoint.id}: {checkpoint.flaw}", "Then give the file that this makes.")
    if checkpoint.file is None:
        raise Unreadable(f"{checkpoint.id}: {checkpoint.flaw}", "Choose another checkpoint, or wait until it is whole.")
    opened = open_weights(*checkpoint.files)
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


def digest_of(opened: Opened, store: Store, whole: tuple[str, ...] = ()) -> str:
    """SHA-256 of the trained tensors, of the components taken `whole` of all; computed once per file and remembered."""
    return run_through(digesting(opened, store, whole))


def digesting(opened: Opened, store: Store, whole: tuple[str, ...] = ()) -> Generator[Progress, None, str]:
    """The same in steps; who leaves it early has nothing remembered."""
    dumped = [name for name in sorted(whole) if name in opened.weights.dumped]
    subject = "|".join((opened.header.subject, *dumped))
    if isinstance(known := store.get("tensors-digest", subject), str):
        return known
    digest = yield from digest_tensors(opened.header, trained_tensors(opened, dumped))
    with suppress(Refused):
        store.put("tensors-digest", subject, digest)
    return digest


def knows_digest(opened: Opened, store: Store, whole: tuple[str, ...] = ()) -> bool:
    """Whether digest_of would read no weights."""
    dumped = (name for name in sorted(whole) if name in opened.weights.dumped)
    return store.get("tensors-digest", "|".join((opened.header.subject, *dumped))) is not None
