"""Compacts a dump: it goes only after it was made again in full, so that at any moment it or its compact form is there and whole.

What is written on the way lies in `.tmp-TOKEN` beside the dump; a note in the trash (see trash.begin) says what a killed process left.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path

import numpy as np

from cmp.core.present import size_text
from cmp.core.progress import Progress
from cmp.disk.compact import RECORD, Frozen, Manifest, Reference, compact_beside, manifest_beside, open_compacted
from cmp.disk.compact_bytes import Hasher, dress, in_order, rebuilt, remove_pair
from cmp.disk.raw import STRIDE, RawReader
from cmp.disk.replacing import cannot_write
from cmp.disk.tensors import Header, identify, read_header
from cmp.disk.trash import begin, move_to_trash, sync_folder, token_of
from cmp.disk.usage import occupied
from cmp.disk.writing import write_draft
from cmp.errors import Refused

Held = tuple[int, str]  # the number of a reference, and a tensor's name in it


def compacting(home: Path, raw: Path, frozen: Mapping[str, Held], references: tuple[Reference, ...]) -> Generator[Progress, None, int]:
    """Replaces a dump in `home` by what was trained and a manifest; gives the bytes that came free. Within `reclaiming` only.

    `frozen` says where each tensor is held that need not stay, to the bit: it is proven here once more. Raises Refused where the dump
    cannot be made again, and where nothing would be saved; then nothing has changed.
    """
    header = read_header(raw)
    _require_alone(raw, header)
    manifest = yield from _describing(raw, header, frozen, references)
    left = sum(e.end - e.start for n, e in header.tensors.items() if n not in frozen) + len(json.dumps(manifest.as_json()))
    if left >= manifest.size:
        raise Refused(f"nothing is saved by compacting {raw}: {size_text(left)} of {size_text(manifest.size)} were trained", "Keep it.")
    for old in (compact_beside(raw), manifest_beside(compact_beside(raw))):
        if os.path.lexists(old):  # of a dump that was here before this one
            move_to_trash(home, old, f"{raw.name} was compacted anew")
    journal = begin(home, "compact", raw, identity=str(header.identity))
    drafts = raw.with_name(f".tmp-{token_of(journal)}")
    try:
        yield from _writing(drafts, raw, header, manifest)
        yield from _proving(drafts / compact_beside(raw).name, raw, manifest)
        _take_place(drafts, raw, header)
    except OSError as fault:
        raise cannot_write(raw, fault) from fault
    finally:
        if raw.exists():  # it did not come to its end
            remove_pair(raw)
        shutil.rmtree(drafts, ignore_errors=True)
        journal.unlink(missing_ok=True)
    return manifest.size - occupied([compact_beside(raw), manifest_beside(compact_beside(raw))])


def _require_alone(raw: Path, header: Header) -> None:
    if raw.is_symlink():
        raise Refused(f"{raw} is a link", "Nothing is changed through links.")
    if header.identity.names > 1:
        told = f"{raw} has {header.identity.names} names (hard links), so that removing one of them frees nothing"
        raise Refused(told, "Keep it, or remove its other names first.")


def _describing(
    raw: Path, header: Header, frozen: Mapping[str, Held], references: tuple[Reference, ...]
) -> Generator[Progress, None, Manifest]:
    """The manifest, with the digests of the file and of every tensor: it is read once for both."""
    found, total = raw.stat(), sum(e.end - e.start for e in header.tensors.values())
    head = _head_of(raw)
    digests: dict[str, str] = {}
    done = 0
    with Hasher() as whole, RawReader(header) as reader:
        whole.update(len(head).to_bytes(8, "little") + head)
        for name in in_order(header):
            yield Progress(1, 4, "hashing the dump", done, total)
            own, since = hashlib.sha256(), 0
            for block in reader.blocks(name):
                whole.update(block)
                own.update(block)
                done += len(block)
                since += len(block)
                if since >= STRIDE:
                    since = 0
                    yield Progress(1, 4, "hashing the dump", done, total)
            digests[name] = own.hexdigest()
        sha256 = whole.hexdigest()
    return Manifest(
        raw.name, header.identity.size, sha256, found.st_mtime_ns, found.st_mode & 0o777, head, references,
        {name: sha for name, sha in digests.items() if name not in frozen},
        {name: Frozen(digests[name], *frozen[name]) for name in frozen},
    )  # fmt: skip


def _head_of(raw: Path) -> bytes:
    with open(raw, "rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


def _writing(drafts: Path, raw: Path, header: Header, manifest: Manifest) -> Generator[Progress, None, None]:
    drafts.mkdir()
    os.chmod(drafts, 0o700)
    compact = drafts / compact_beside(raw).name
    described = {name: (header.tensors[name].dtype, header.tensors[name].shape) for name in manifest.trained}
    with RawReader(header) as reader:
        syncing = yield from write_draft(
            compact, "what was trained", described, _unread, {"format": "pt", RECORD: manifest.sha256}, reader.blocks
        )
    yield from syncing.wait(Progress(2, 4, ""))
    with open(manifest_beside(compact), "w", encoding="utf-8") as file:
        json.dump(manifest.as_json(), file)
        file.flush()
        os.fsync(file.fileno())
    for draft in (compact, manifest_beside(compact)):
        dress(draft, manifest, raw.stat())


def _unread(name: str) -> np.ndarray:
    raise AssertionError(f"the bytes of {name} are there")


def _proving(compact: Path, raw: Path, manifest: Manifest) -> Generator[Progress, None, None]:
    """Raises Refused unless the two files and the references give back every byte of the dump."""
    header = open_compacted(compact, folder=raw.parent)
    with Hasher() as digest:
        for block, so_far in rebuilt(header, manifest, "proving that it can be restored"):
            digest.update(block)
            if so_far:
                yield so_far
        same = digest.hexdigest() == manifest.sha256
    if not same:
        raise Refused(f"{raw} was not made again from its compact form and the reference", "It stays as it is. The disk may be failing.")


def _take_place(drafts: Path, raw: Path, header: Header) -> None:
    """The proven pair gets its names, then the dump goes."""
    targets = (compact_beside(raw), manifest_beside(compact_beside(raw)))
    for target in targets:
        os.replace(drafts / target.name, target)
    sync_folder(raw.parent)
    if identify(raw) != header.identity:
        for target in targets:
            target.unlink()
        raise Refused(f"{raw} has changed while it was compacted", "It stays as it is; try again when nothing writes to it.")
    raw.unlink()
    sync_folder(raw.parent)
