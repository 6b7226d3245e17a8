"""Compacted dumps: `model.compact.safetensors` holds what was trained, `model.compact.json` says where every frozen tensor is held.

A frozen tensor lies to the bit in a reference, which is a file of the base model or the dump of another checkpoint. Its digest stands in
the manifest, with the header and the digest of the whole file that was there, so that nothing has to be believed: what is read of a
reference is proven, and the file that is restored is the one that was compacted.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cmp.core.runs import COMPACT
from cmp.disk.json_table import read_json_table
from cmp.disk.shards import is_compact, open_header
from cmp.disk.table import Entry, Seal, read_table
from cmp.disk.tensors import Header, Identity, identify, read_header
from cmp.errors import CmpError, Unreadable

RECORD = "cmp_compact"  # in the compact file's header: the digest of the file that was compacted
MANIFEST = ".compact.json"
FORMAT = 1
_LARGEST = 60_000_000  # bytes of a manifest
_RAW = re.compile(r"model(?:_[0-9]{1,3})?\.safetensors\Z", re.ASCII)  # as Accelerate calls its dumps
_DIGEST = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
_HINT = "Copy both files of the compacted checkpoint again from a backup."


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that holds frozen tensors. `kind` is "base" or "checkpoint", `id` its name; `path` may be seen from the manifest's folder."""

    kind: str
    id: str
    path: Path


@dataclass(frozen=True, slots=True)
class Frozen:
    """A frozen tensor: its digest, and under which name it lies in the reference of that number."""

    sha256: str
    reference: int
    name: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is known of the file that was compacted: its name, size, digest, and `head`, all before the first tensor but the length.

    `trained` maps the names of the tensors in the compact file to their digests.
    """

    original: str
    size: int
    sha256: str
    mtime_ns: int
    mode: int
    head: bytes
    references: tuple[Reference, ...]
    trained: Mapping[str, str]
    frozen: Mapping[str, Frozen]

    def as_json(self) -> dict[str, object]:
        return {
            "format": FORMAT, "original": self.original, "bytes": self.size, "sha256": self.sha256, "mtime_ns": self.mtime_ns,
            "mode": self.mode, "header": base64.b64encode(self.head).decode(),
            "references": [{"kind": r.kind, "id": r.id, "path": str(r.path)} for r in self.references],
            "trained": dict(self.trained),
            "frozen": {name: [f.sha256, f.reference, f.name] for name, f in self.frozen.items()},
        }  # fmt: skip


def is_raw(name: str) -> bool:
    """Whether a file of this name is a dump that may be compacted."""
    return bool(_RAW.match(name))


def compact_beside(raw: Path) -> Path:
    """`model_1.safetensors` → `model_1.compact.safetensors`."""
    return raw.with_name(raw.name.removesuffix(".safetensors") + COMPACT)


def manifest_beside(file: Path) -> Path:
    """The manifest of a compact file."""
    return file.with_name(file.name.removesuffix(COMPACT) + MANIFEST)


def read_manifest(path: Path) -> Manifest:
    """What a manifest says; raises Unreadable."""
    return _manifest(path, identify(path))


@lru_cache(maxsize=256)
def _manifest(path: Path, identity: Identity) -> Manifest:
    told = read_json_table(path, most=_LARGEST, links=False)
    if told.get("format") != FORMAT:
        raise Unreadable(f"{path} is a manifest of format {told.get('format')!r}", "A newer version of this program may have written it.")
    try:
        references = tuple(Reference(str(r["kind"]), str(r["id"]), Path(r["path"])) for r in told["references"])
        frozen = {
            name: Frozen(_digest(sha), references.index(references[number]), str(inner))
            for name, (sha, number, inner) in told["frozen"].items()
        }
        trained = {name: _digest(sha) for name, sha in told["trained"].items()}
        head = base64.b64decode(told["header"], validate=True)
        numbers = [told[name] for name in ("bytes", "mtime_ns", "mode")]
        original = told["original"]
        if (
            not is_raw(original)
            or {*map(type, numbers)} != {int}
            or not 0 <= min(numbers) <= max(numbers) < 1 << 63
            or original.removesuffix(".safetensors") + MANIFEST != path.name
        ):
            raise ValueError
        return Manifest(original, numbers[0], _digest(told["sha256"]), numbers[1], numbers[2] & 0o777, head, references, trained, frozen)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, binascii.Error) as fault:
        raise Unreadable(f"{path} is damaged: it is no manifest of a compacted file", _HINT) from fault


def _digest(text: object) -> str:
    if not isinstance(text, str) or not _DIGEST.match(text):
        raise ValueError
    return text


def open_compacted(file: Path, folder: Path | None = None, moved: Mapping[Path, Path] | None = None) -> Header:
    """The table of contents of the dump that was compacted; raises Unreadable where the two files do not belong together.

    A reference that is gone or has changed is no fault before its tensors are read: what was trained is here. `folder` is where the
    files will lie if that is not where they are, `moved` says where references are now.
    """
    path = manifest_beside(file)
    found = (moved.get(place, place) if moved else place for place in places(read_manifest(path), folder or file.parent))
    references = tuple((place, _identity(place)) for place in found)
    return _opened(file, identify(file), path, identify(path), references)


def places(manifest: Manifest, folder: Path) -> tuple[Path, ...]:
    """Where the references are, for a manifest in `folder`."""
    return tuple(Path(os.path.normpath(folder / reference.path)) for reference in manifest.references)


def _identity(path: Path) -> Identity | None:
    try:
        return identify(path)
    except Unreadable:
        return None


@lru_cache(maxsize=1024)
def _opened(file: Path, identity: Identity, path: Path, written: Identity, references: tuple[tuple[Path, Identity | None], ...]) -> Header:
    manifest, own = _manifest(path, written), read_header(file)
    try:
        table, metadata = read_table(manifest.head, 8 + len(manifest.head), manifest.size)
    except Unreadable as fault:
        raise Unreadable(f"{path} {fault.message}", _HINT) from fault
    _check_together(file, manifest, table, own)
    tensors = {
        name: _entry(entry, _held_here(file, own.tensors[name], manifest.trained[name]))
        for name, entry in table.items()
        if name in own.tensors
    }
    held = [_table_of(place) for place, _ in references]
    for name, frozen in manifest.frozen.items():
        place, (theirs, why) = references[frozen.reference][0], held[frozen.reference]
        tensors[name] = _entry(table[name], _seal(frozen, place, theirs.get(frozen.name), table[name], why))
    # in the order of the file that was compacted, which says how its tensors are read
    ordered = {name: tensors[name] for name in table}
    return Header(file, ordered, metadata, identity, references=((path, written), *references))


def _check_together(file: Path, manifest: Manifest, table: Mapping[str, Entry], own: Header) -> None:
    """Raises Unreadable unless the manifest is this file's and the two account for every tensor once."""
    accounted = len(manifest.trained) + len(manifest.frozen) == len(table) and {*manifest.trained, *manifest.frozen} == set(table)
    alike = set(own.tensors) == set(manifest.trained) and all(
        (entry.dtype, entry.shape) == (table[name].dtype, table[name].shape) for name, entry in own.tensors.items()
    )
    if own.metadata.get(RECORD) != manifest.sha256 or not accounted or not alike:
        raise Unreadable(f"{file} and its manifest do not belong together", _HINT)


def _table_of(place: Path) -> tuple[Mapping[str, Entry], str | None]:
    """The tensors of a reference, or why there are none."""
    try:
        if place.suffix != ".safetensors" or is_compact(place):  # it might refer to itself
            raise Unreadable(f"{place} is no plain weights file", _HINT)
        return open_header(place).tensors, None
    except CmpError as fault:
        return {}, f"the weights that a compacted checkpoint has there cannot be read: {fault.message}"


def _held_here(file: Path, entry: Entry, sha256: str) -> Seal:
    return Seal(sha256, file, entry.dtype, entry.start)


def _seal(frozen: Frozen, place: Path, theirs: Entry | None, ours: Entry, why: str | None) -> Seal:
    if theirs is None or theirs.shape != ours.shape:
        return Seal(frozen.sha256, place, missing=why or f"{place} has changed: it holds no {frozen.name} of {list(ours.shape)} any more")
    return Seal(frozen.sha256, place, theirs.dtype, theirs.start)


@lru_cache(maxsize=8192)  # what is frozen is the same in all checkpoints of a run
def _entry(entry: Entry, seal: Seal) -> Entry:
    return Entry(entry.dtype, entry.shape, entry.start, entry.end, 0, seal)
