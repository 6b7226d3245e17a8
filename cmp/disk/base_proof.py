"""Proves that the frozen tensors of a full dump are those of a base model, by comparing every one of them."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from cmp.core.conversion import Base
from cmp.core.deltas import apply_delta
from cmp.core.fitting import RECOMPUTED, find_tensor
from cmp.core.progress import Progress, counted_from, run_through
from cmp.core.scale import Scale
from cmp.core.weights import Weights
from cmp.disk.bases import Component, is_pipeline, pipelines_below, read_component
from cmp.disk.checkpoint import TRAINED_PARTS, Opened
from cmp.disk.raw import RawReader, comparing_bytes, has_digest
from cmp.disk.store import Store
from cmp.disk.tensors import read_float32
from cmp.errors import CmpError, Refused

_KIND = "base-comparison"  # of what the store remembers


@dataclass(frozen=True, slots=True)
class Comparison:
    """`equal` counts tensors that are the base's to the bit (in the dump's own type); the others are named.

    `missing` are names of the dump that the base does not have, `absent` names of the base that the dump does not have.
    """

    equal: int
    differing: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def proven(self) -> bool:
        return bool(self.equal) and not (self.differing or self.missing or self.absent)

    @property
    def related(self) -> bool:
        """Whether it is this base with some tensors trained further, such as all biases: the same names, and at least half to the bit."""
        return self.equal >= len(self.differing) > 0 and not (self.missing or self.absent)

    @property
    def told(self) -> str:
        """In words what speaks against it."""
        groups = (("differ", self.differing), ("are not in the base", self.missing), ("are only in the base", self.absent))
        return "; ".join(f"{len(names)} {how}, for example {names[0]}" for how, names in groups if names)


def compared(opened: Opened, name: str, base: Path, store: Store) -> Comparison:
    """The comparison of one dumped component with a base's, made once and remembered for as long as neither file changes."""
    return run_through(comparing(opened, name, base, store))


def comparing(opened: Opened, name: str, base: Path, store: Store) -> Generator[Progress, None, Comparison]:
    """The same in steps; who leaves it early has nothing remembered."""
    component = read_component(base, name)
    subject = f"{name}|{opened.header.subject}|{component.header.subject}"
    if not isinstance(told := store.get(_KIND, subject), list):
        told = astuple((yield from comparing_with_base(opened, name, component)))
        with suppress(Refused):
            store.put(_KIND, subject, told)
    return Comparison(told[0], *map(tuple, told[1:]))


def compared_before(opened: Opened, name: str, base: Path, store: Store) -> Comparison | None:
    """The comparison if it is remembered: nothing but headers is read."""
    told = store.get(_KIND, f"{name}|{opened.header.subject}|{read_component(base, name).header.subject}")
    return Comparison(told[0], *map(tuple, told[1:])) if isinstance(told, list) else None


def bytes_to_compare(opened: Opened, whole: Collection[str], base: Base | None, store: Store) -> int:
    """How many bytes of the checkpoint `frozen_checks` would read; none where it is remembered how they compare."""
    total = 0
    if base is None:
        return total
    for name in opened.weights.dumped - set(whole):
        subject = f"{name}|{opened.header.subject}|{read_component(base.path, name).header.subject}"
        if store.get(_KIND, subject) is None:
            total += sum(_size(opened, stored) for stored in opened.weights.plain_of(name))
    return total


def frozen_checks(opened: Opened, whole: Collection[str], base: Base | None, store: Store) -> Generator[Progress, None, tuple[str, ...]]:
    """The proof, in words, that the frozen weights beside an adapter are the base's; raises Refused and names what speaks against it.

    Components taken `whole` need none: every tensor of theirs comes from the checkpoint.
    """
    checks, before = [], 0
    for name in sorted(opened.weights.dumped - set(whole)):
        if base is None:
            checks.append(f"the frozen weights of {name} were NOT compared with a base model: none was given or found")
            continue
        own = bytes_to_compare(opened, opened.weights.dumped - {name}, base, store)
        comparison = yield from counted_from(before, comparing(opened, name, base.path, store))
        before += own
        if not comparison.proven:
            raise Refused(
                f"the frozen weights are not those of {base.id}: {comparison.told}",
                "Give its own base with --base. If more than the LoRA was trained, it alone would not draw the same: use --to pipeline.",
            )
        checks.append(f"all {comparison.equal} frozen tensors of {name} equal those of {base.id} to the bit")
    return tuple(checks)


def compare_with_base(opened: Opened, name: str, base: Component) -> Comparison:
    """Compares the tensors that a checkpoint has of the component `name`. Streams both once, one tensor of each in memory at a time."""
    return run_through(comparing_with_base(opened, name, base))


def comparing_with_base(opened: Opened, name: str, base: Component) -> Generator[Progress, None, Comparison]:
    """The same in steps."""
    plain = opened.weights.plain_of(name)
    there = base.header.tensors
    known = {stored: find_tensor(inner, there) for stored, inner in plain.items()}
    absent = tuple(sorted(set(there) - set(known.values()) - {n for n in there if n.endswith(RECOMPUTED)}))
    missing = tuple(stored for stored, inner in known.items() if inner is None)
    shaped = {s: n for s, n in known.items() if n and there[n].shape == opened.header.tensors[s].shape}
    differing = [stored for stored in plain if stored not in shaped and stored not in missing]
    what, equal, done = f"comparing the frozen weights of {name} with the base", 0, 0
    total = sum(_size(opened, stored) for stored in shaped)
    with RawReader(opened.header) as ours, RawReader(base.header) as theirs:
        for stored in sorted(shaped, key=lambda s: (opened.header.tensors[s].file, opened.header.tensors[s].start)):
            so_far = Progress(0, 4, what, done, total)
            yield so_far
            if (yield from is_same(ours, stored, theirs, shaped[stored], so_far)):
                equal += 1
            else:
                differing.append(stored)
            done += _size(opened, stored)
    return Comparison(equal, tuple(differing), missing, absent)


def prove_base(opened: Opened, base: Base, store: Store) -> Generator[Progress, None, tuple[Base, dict[str, str]]]:
    """The base with its proof: "tensors" where the checkpoint holds whole models that equal it, else as it came; and by component what
    was trained of it besides the adapter. Raises Refused where it is another base.
    """
    equal, trained = 0, {}
    for name in sorted(opened.weights.dumped):
        comparison = yield from comparing(opened, name, base.path, store)
        if comparison.proven:
            equal += comparison.equal
        elif comparison.related:
            trained[name] = f"more than its adapter was trained: {comparison.told}"
        else:
            raise Refused(
                f"the frozen weights of {opened.header.path.parent.name} are not those of {base.id}: {comparison.told}",
                "It was trained on another base. Give its own base with --base.",
            )
    if not opened.weights.dumped:
        return base, {}
    most = f"{base.source}; most tensors equal, and those that were trained are the checkpoint's"
    return replace(base, proof="tensors", source=most if trained else _equal(base, equal)), trained


def proven_before(opened: Opened, base: Base, store: Store) -> Base:
    """The base with the proof that comparing whole models with it has given, as `prove_base` tells it; as it came where none is known."""
    known = [compared_before(opened, name, base.path, store) for name in sorted(opened.weights.dumped)]
    if base.proof == "tensors" or not known or not all(one and one.proven for one in known):
        return base
    return replace(base, proof="tensors", source=_equal(base, sum(one.equal for one in known if one)))


def _equal(base: Base, count: int) -> str:
    return f"{base.source}; all {count} frozen tensors equal"


def base_otherwise(
    opened: Opened, places: tuple[Path, ...], store: Store, more: Iterable[Path] = ()
) -> Generator[Progress, None, Base | None]:
    """The pipeline in those places, or of `more`, that full dumps prove to be their base, or the whole trained pipeline that the weights
    lie in.
    """
    around = pipeline_around(opened)
    if around is not None and not opened.weights.adapted:
        return Base(around.name, around, "tensors", "the checkpoint is a whole pipeline")
    if not opened.weights.dumped:
        return None
    for folder in chain(pipelines_below(places), more):
        try:
            for name in opened.weights.dumped:
                if not (yield from comparing(opened, name, folder, store)).proven:
                    break
            else:
                return Base(folder.name, folder, "tensors", f"found by its tensors in {folder}")
        except CmpError:
            continue  # a pipeline that cannot be read is not this checkpoint's base as far as anyone can tell
    return None


def pipeline_around(opened: Opened) -> Path | None:
    """The trained pipeline that these weights lie in, None if they are not part of one."""
    folder = opened.header.path.parent
    whole = folder.parent if folder.name in TRAINED_PARTS else folder
    return whole if is_pipeline(whole) else None


def require_same_parts(opened: Opened, base: Base, store: Store) -> Generator[Progress, None, None]:
    """Around an adapter in a trained pipeline the other parts must be the base's, since those are drawn with; raises Refused."""
    pipeline = pipeline_around(opened)
    if pipeline is None or pipeline == base.path:
        return
    for name in TRAINED_PARTS:
        if name in opened.weights.components or not (pipeline / name).is_dir():
            continue
        ours, theirs = read_component(pipeline, name), read_component(base.path, name)
        subject = f"{ours.header.subject}|{theirs.header.subject}"
        if not isinstance(first := store.get("same-part", subject), str):
            first = yield from first_other(ours, name, theirs)
            with suppress(Refused):
                store.put("same-part", subject, first)
        if first:
            told = f"{pipeline.name} was trained in its {name} too: {first} is not the base's"
            raise Refused(told, "Give the pipeline itself as --base, or the base that it was trained on.")


def first_other(ours: Component, name: str, theirs: Component) -> Generator[Progress, None, str]:
    """The first tensor that the base does not have to the bit, "" if there is none."""
    whole = Opened(ours.header, Weights("full", plain={inner: f"{name}.{inner}" for inner in ours.header.tensors}))
    comparison = yield from comparing_with_base(whole, name, theirs)
    return next(iter((*comparison.differing, *comparison.missing)), "")


def check_not_merged(opened: Opened, name: str, base: Component, scale: Scale | None, differing: Collection[str]) -> None:
    """Raises Refused if the weights beside an adapter hold it already, as `merge_adapter` leaves them: it would be added twice.

    `differing` are the stored names that are not the base's. One module tells, since all are merged at once.
    """
    plain, there = opened.weights.plain_of(name), base.header.tensors
    known = {find_tensor(plain[stored], there): stored for stored in differing if stored in plain}
    for module in opened.weights.of(name).adapted:
        weight = find_tensor(f"{module.module}.weight", there)
        if weight is None or weight not in known:
            continue
        parts = {role: read_float32(opened.header, stored) for role, stored in module.weight_parts.items()}
        ours, theirs = read_float32(opened.header, known[weight]), read_float32(base.header, weight)
        merged = apply_delta(module.method, parts, scale.of(module.key) if scale else 1.0, theirs, rows=module.rows)
        if (added := float(np.abs(merged - theirs).max())) and float(np.abs(ours - merged).max()) < 0.1 * added:
            raise Refused(
                f"the adapter is merged into {plain[known[weight]]} already, and would be added twice",
                "Save it after unmerge_adapter(), or save what merge_and_unload() gives.",
            )
        return


def _size(opened: Opened, stored: str) -> int:
    entry = opened.header.tensors[stored]
    return entry.end - entry.start


def is_same(ours: RawReader, stored: str, theirs: RawReader, inner: str, so_far: Progress) -> Generator[Progress, None, bool]:
    """Whether a tensor is the base's to the bit, once that is cast to the type it was dumped in."""
    entry = ours.header.tensors[stored]
    if entry.seal:  # its digest says what it was, wherever its bytes lie now
        return (yield from has_digest(theirs, inner, entry.dtype, entry.seal.sha256, so_far))
    return (yield from comparing_bytes(ours, stored, theirs, inner, so_far))
