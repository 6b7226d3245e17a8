"""Which dumps can be compacted, against what, and which references may not go because something depends on them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from cmp.core.fitting import find_tensor
from cmp.core.progress import Progress
from cmp.core.runs import Checkpoint, Run
from cmp.core.weights import Weights
from cmp.disk.base_proof import compared_before, comparing, comparing_with_base
from cmp.disk.bases import Component, find_base, pipelines_below, read_component
from cmp.disk.checkpoint import Opened, open_weights
from cmp.disk.compact import MANIFEST, Manifest, Reference, is_raw, places, read_manifest
from cmp.disk.compact_making import Held, compacting
from cmp.disk.folders import list_folder
from cmp.disk.numbers import FLOATS
from cmp.disk.ready import remembered_answers
from cmp.disk.shards import is_compact
from cmp.disk.store import Store
from cmp.disk.table import Entry
from cmp.disk.tensors import Header, identify, read_header
from cmp.disk.trash import FOLDER, list_trash
from cmp.disk.usage import files_below
from cmp.errors import CmpError, NotFound, Refused

_DECLINED = (  # in a checkpoint's folder, and what to say of it
    (".safetensors.index.json", "its weights lie in several files"),
    (".bin", "it is in torch's own format; with safe_serialization=True Accelerate writes the other one"),
)


@dataclass(frozen=True, slots=True)
class Against:
    """What a dump may be compacted against: a base model's folder, or another dump of the run. `bytes` is what it may save, by headers."""

    kind: str
    id: str
    path: Path
    bytes: int


def dumps_of(checkpoint: Checkpoint) -> tuple[Path, ...]:
    """The files of a checkpoint that may be compacted."""
    try:
        listing = list_folder(checkpoint.path)
    except CmpError:
        return ()
    return tuple(listing.path / name for name in sorted(listing.files) if is_raw(name))


def compact_files(checkpoint: Checkpoint) -> tuple[Path, ...]:
    """The compact forms in a checkpoint."""
    try:
        listing = list_folder(checkpoint.path)
    except CmpError:
        return ()
    return tuple(listing.path / name for name in sorted(listing.files) if is_compact(Path(name)))


def why_declined(checkpoint: Checkpoint) -> str | None:
    """Why a checkpoint without a dump is not compacted; None where it holds only what was trained."""
    if any(is_compact(file) for file in checkpoint.files):
        return "it is compacted already"
    if checkpoint.layout in ("accelerate-peft", "full"):
        for file in checkpoint.files:
            for ending, why in _DECLINED:
                if file.name.endswith(ending):
                    return f"{file.name} is not compacted: {why}"
    return None


def candidates(run: Run, raw: Path, opened: Opened, bases: Iterable[Path], store: Store, kept: Iterable[Path]) -> tuple[Against, ...]:
    """What a dump may be compacted against, the likeliest first; by names and shapes, and by what is remembered of their bytes.

    `kept` are dumps of the run that stay.
    """
    found = []
    for name, folder in _bases(run, tuple(bases), store):
        unlike = _known_unlike(opened, folder, store)
        if size := _may_save(opened, {stored: held for stored, held in _of_base(opened, folder).items() if stored not in unlike}):
            found.append(Against("base", name, folder, size))
    for other in kept:
        with suppress(CmpError):
            if other != raw and (size := _may_save(opened, _of_dump(read_header(other), other))):
                found.append(Against("checkpoint", other.parent.name, other, size))
    return tuple(found)


def _bases(run: Run, places: tuple[Path, ...], store: Store) -> Iterator[tuple[str, Path]]:
    known: set[Path] = set()
    with suppress(NotFound):
        base = find_base(run, places, None, remembered_answers(run, store).base)
        known.add(base.path)
        yield base.id, base.path
    for folder in pipelines_below(places):
        if folder not in known:
            yield folder.name, folder


Theirs = Mapping[str, tuple[Path, str, Entry]]  # stored name → file, name in it, entry


def _of_base(opened: Opened, folder: Path) -> Theirs:
    """For each tensor of the dump where a base has it."""
    found: dict[str, tuple[Path, str, Entry]] = {}
    for name in opened.weights.components:
        with suppress(CmpError):
            header = read_component(folder, name).header
            for stored, inner in opened.weights.plain_of(name).items():
                if known := find_tensor(inner, header.tensors):
                    found[stored] = header.files[header.tensors[known].file][0], known, header.tensors[known]
    return found


def _known_unlike(opened: Opened, folder: Path, store: Store) -> set[str]:
    """The tensors that were found to be others than a base's."""
    found: set[str] = set()
    for name in opened.weights.components:
        with suppress(CmpError):
            if known := compared_before(opened, name, folder, store):
                found |= {*known.differing, *known.missing}
    return found


def _of_dump(header: Header, file: Path) -> Theirs:
    return {name: (file, name, entry) for name, entry in header.tensors.items()}


def _may_save(opened: Opened, theirs: Theirs) -> int:
    """Bytes of the tensors that may be the same, as far as headers tell."""
    tensors = opened.header.tensors
    return sum(tensors[name].end - tensors[name].start for name in theirs if name in tensors and _may_equal(tensors[name], theirs[name][2]))


def _may_equal(ours: Entry, theirs: Entry) -> bool:
    return ours.shape == theirs.shape and (ours.dtype == theirs.dtype or {ours.dtype, theirs.dtype} <= FLOATS)


def compact(home: Path, raw: Path, against: Iterable[Against], store: Store) -> Generator[Progress, None, int]:
    """Compacts a dump against the first of these that holds its frozen tensors; gives the bytes that came free. See `compacting`."""
    opened = open_weights(raw)
    if opened.header.path != raw or opened.header.others:
        raise Refused(f"{raw} is not one file of weights", "Keep it.")
    for one in against:
        if one.kind == "checkpoint" and not one.path.is_file():  # it was compacted itself, before this one
            continue
        frozen, references = yield from _finding(opened, one, store, raw.parent)
        saved = sum(opened.header.tensors[name].end - opened.header.tensors[name].start for name in frozen)
        if 10 * saved > _bytes(opened):
            return (yield from compacting(home, raw, frozen, references))
    told = f"nothing is saved by compacting {raw}: less than a tenth of it is to the bit what {_named(against)} holds"
    raise Refused(told, "It stays as it is.")


def _named(against: Iterable[Against]) -> str:
    return " or ".join(one.id for one in against) or "a base model that is here"


def _bytes(opened: Opened) -> int:
    return sum(entry.end - entry.start for entry in opened.header.tensors.values())


def _finding(
    opened: Opened, one: Against, store: Store, folder: Path
) -> Generator[Progress, None, tuple[dict[str, Held], tuple[Reference, ...]]]:
    """The tensors that are to the bit the other's, each with where it is held."""
    if one.kind == "base":
        theirs, unlike = _of_base(opened, one.path), set()
        for name in opened.weights.components:
            if any(stored in theirs for stored in opened.weights.plain_of(name)):
                comparison = yield from comparing(opened, name, one.path, store)
                unlike |= {*comparison.differing, *comparison.missing}
    else:
        header = read_header(one.path)
        whole = Opened(
            opened.header, Weights("full", plain={name: f"all.{name}" for name in opened.header.tensors if name in header.tensors})
        )
        theirs = _of_dump(header, one.path)
        unlike = set((yield from comparing_with_base(whole, "all", Component(one.path.parent, header))).differing)
    frozen: dict[str, Held] = {}
    files: dict[Path, int] = {}
    for stored, (file, name, entry) in theirs.items():
        ours = opened.header.tensors.get(stored)
        if ours and stored not in unlike and _may_equal(ours, entry):
            frozen[stored] = files.setdefault(file, len(files)), name
    return frozen, tuple(Reference(one.kind, one.id, _seen_from(folder, file, one.kind)) for file in files)


def _seen_from(folder: Path, file: Path, kind: str) -> Path:
    """A base where it is; a dump of the run as seen from the manifest, so that the run may be moved as a whole."""
    return Path(os.path.abspath(file)) if kind == "base" else Path(os.path.relpath(file, folder))


# -- what depends on what --------------------------------------------------------------------------------------------------


def referred_to(*homes: Path) -> dict[str, str]:
    """Each file's `device:inode` that a compacted dump in these folders or their trash cannot do without → that one's manifest."""
    found: dict[str, str] = {}
    for path, folder in chain.from_iterable(map(_manifests, dict.fromkeys(homes))):
        with suppress(CmpError):
            for place in places(read_manifest(path), folder):
                with suppress(CmpError):
                    found.setdefault(place_of(place), str(folder))
    return found


def _manifests(home: Path) -> Iterator[tuple[Path, Path]]:
    """Every manifest, with the folder from which it sees its references: of those in the trash the one that they were in."""
    trash = home / FOLDER
    yield from ((path, path.parent) for path in files_below(home) if path.name.endswith(MANIFEST) and trash not in path.parents)
    for trashed in list_trash(home):
        for path in files_below(trashed.place):
            if path.name.endswith(MANIFEST) and trashed.path is not None:
                yield path, (trashed.path / path.relative_to(trashed.place)).parent


def place_of(file: Path) -> str:
    """What tells a file from all others, whatever path leads to it; raises Unreadable."""
    identity = identify(file)
    return f"{identity.device}:{identity.inode}"


def moved_references(manifest: Manifest, folder: Path, bases: Iterable[Path]) -> dict[Path, Path]:
    """Where base models are now that are no longer where a manifest in `folder` has them. What they hold is proven when it is read."""
    moved = {}
    for reference, place in zip(manifest.references, places(manifest, folder), strict=True):
        if reference.kind == "base" and not place.is_file():
            inside = Path(*place.parts[-2:])
            if there := next((base / inside for base in bases if (base / inside).is_file()), None):
                moved[place] = there
    return moved
