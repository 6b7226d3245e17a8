"""Restores a compacted dump to the last byte, and ends what a killed process had begun."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path

from cmp.core.progress import Progress, run_through
from cmp.disk.compact import Manifest, compact_beside, manifest_beside, open_compacted, read_manifest
from cmp.disk.compact_bytes import Hasher, dress, in_order, rebuilt, remove_pair
from cmp.disk.folders import hash_file
from cmp.disk.raw import RawReader
from cmp.disk.replacing import cannot_write
from cmp.disk.tensors import Header, identify
from cmp.disk.trash import begin, begun, sync_folder, token_of
from cmp.disk.writing import Syncing
from cmp.errors import NoSpace, Refused, Unreadable

MARGIN = 16_000_000  # bytes that stay free


def restoring(home: Path, compact: Path, moved: Mapping[Path, Path] | None = None) -> Generator[Progress, None, Path]:
    """Makes a dump again to the last byte, and gives its path; the compact form goes afterwards. Within `reclaiming` only.

    `moved` says where references are that are no longer where they were. Raises Refused or Unreadable, and names what is wrong, where
    the bytes would be others; NoSpace before the first byte where they have no room.
    """
    manifest = read_manifest(manifest_beside(compact))
    raw = compact.with_name(manifest.original)
    if os.path.lexists(raw):
        raise Refused(f"{raw} exists", f"It is used instead of {compact.name}; move one of them away.")
    free = shutil.disk_usage(raw.parent).free
    if manifest.size + MARGIN > free:
        raise NoSpace(f"restoring {raw} needs {manifest.size:,} bytes and {raw.parent} has {free:,} free", "Make room and try again.")
    header = open_compacted(compact, moved=moved)
    journal = begin(home, "restore", raw)
    draft = raw.with_name(f".tmp-{token_of(journal)}.safetensors")
    try:
        yield from _writing_again(draft, header, manifest)
        dress(draft, manifest, compact.stat())
        if os.path.lexists(raw):
            raise Refused(f"{raw} has appeared meanwhile", "Nothing was changed; see what writes to the run.")
        os.rename(draft, raw)
        sync_folder(raw.parent)
        compact.unlink()
        manifest_beside(compact).unlink()
    except OSError as fault:
        raise cannot_write(raw, fault) from fault
    finally:
        draft.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)
    return raw


def _writing_again(draft: Path, header: Header, manifest: Manifest) -> Generator[Progress, None, None]:
    with Hasher() as digest, open(draft, "xb", buffering=0) as file:
        for block, so_far in rebuilt(header, manifest, f"restoring {manifest.original}"):
            digest.update(block)
            _write(file.fileno(), block)
            if so_far:
                yield so_far
        syncing = Syncing(file.fileno())
        same = digest.hexdigest() == manifest.sha256
    if not same:
        run_through(_telling_what_changed(header))
        raise Unreadable(f"{header.references[0][0]} does not describe the file that was compacted", "Copy it again from a backup.")
    yield from syncing.wait(Progress(4, 4, "", manifest.size, manifest.size))


def _write(descriptor: int, block: memoryview | bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def _telling_what_changed(header: Header) -> Generator[Progress, None, None]:
    """Raises what names the first tensor that is not the one that was compacted."""
    with RawReader(header) as reader:
        for name in in_order(header):
            yield Progress(4, 4, "looking for what has changed")
            for _ in reader.blocks(name):
                pass


def end_begun(home: Path) -> tuple[str, ...]:
    """Undoes or finishes what a killed process had begun, and says in words what. Within `reclaiming` only."""
    told = []
    for journal, raw, said in begun(home):
        token = token_of(journal)
        if said:
            shutil.rmtree(raw.with_name(f".tmp-{token}"), ignore_errors=True)
            raw.with_name(f".tmp-{token}.safetensors").unlink(missing_ok=True)
        if said.get("act") == "compact" and said.get("identity") == _identity(raw):
            remove_pair(raw)  # what was there before is in the trash since before it began
            told.append(f"{raw} was to be compacted and is as it was")
        elif said.get("act") == "restore" and os.path.lexists(raw):
            told.append(_after_restoring(raw))
        elif said.get("act") == "share":
            told.append(f"{raw} was to share its bytes with an equal file, and holds them as before")
        journal.unlink(missing_ok=True)
    return tuple(told)


def _identity(raw: Path) -> str | None:
    with suppress(Unreadable):
        return str(identify(raw))
    return None


def _after_restoring(raw: Path) -> str:
    """The dump has its name, so it was proven; but by now something else may have written one there."""
    try:
        manifest = read_manifest(manifest_beside(compact_beside(raw)))
    except Unreadable:
        return f"{raw} was restored"
    if raw.is_symlink() or identify(raw).size != manifest.size or hash_file(raw) != manifest.sha256:
        return f"{raw} is not what {compact_beside(raw).name} was made from: both stay"
    remove_pair(raw)
    return f"{raw} was restored"
