"""Files of pipelines that lie on this disk twice: found by their digests, and made to share their blocks or to be one file."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from cmp.core.storage import Item
from cmp.disk.cloning import clone
from cmp.disk.folders import hash_file
from cmp.disk.replacing import cannot_write
from cmp.disk.store import Store
from cmp.disk.tensors import identify
from cmp.disk.trash import FOLDER, begin, token_of
from cmp.disk.trash_planning import Subject, too_young
from cmp.disk.usage import files_below, mark
from cmp.errors import Refused, Unreadable

WAYS = ("reflink", "hardlink")
_LEAST = 1 << 20  # bytes of a file that is worth it
_WHY = {
    "reflink": "the same bytes as {0}: the two can share their blocks, and stay two files",
    "hardlink": "the same bytes as {0}: the two become ONE file, and who edits one of them in place edits both",
}


def twins(subject: Subject, bases: Iterable[Path], way: str, store: Store) -> Iterator[Item]:
    """The weights in a run's pipelines that another of its pipelines or a base has too. Bases are only ever the ones that stay."""
    if subject.training:
        return
    sizes: dict[int, list[Path]] = {}
    for base in bases:
        for file in _weights(base):
            sizes.setdefault(identify(file).size, []).append(file)
    known = {file for files in sizes.values() for file in files}
    for folder in _pipelines(subject.run.folder):
        for file in _weights(folder):
            if file not in known and not file.is_symlink():
                sizes.setdefault(identify(file).size, []).append(file)
    for files in (files for files in sizes.values() if len(files) > 1 and not known.issuperset(files)):
        firsts: dict[str, Path] = {}
        for file in files:
            first = firsts.setdefault(store.remembered("file-digest", f"{file}|{identify(file)}", partial(hash_file, file)), file)
            ours, theirs = identify(file), identify(first)
            if file in known or (ours.device, ours.inode) == (theirs.device, theirs.inode) or too_young(file, subject):
                continue
            freed = ours.size if ours.names == 1 else 0
            if freed:
                why = _WHY[way].format(first)
                undo = "not needed: they stay two files" if way == "reflink" else "copy it, and give the copy its name"
                yield Item(file, "share", why, freed, undo, home=subject.run.folder, mark=mark(file), source=first)


def _pipelines(home: Path) -> list[Path]:
    trash = home / FOLDER
    return [file.parent for file in files_below(home) if file.name == "model_index.json" and trash not in file.parents]


def _weights(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*/*.safetensors"))
    return [file for file in files if file.is_file() and file.stat().st_size >= _LEAST]


def share(item: Item, way: str) -> None:
    """Makes a file share the blocks of its twin, or be that file; raises Refused where the two differ by now or the disk cannot do it.

    Within `reclaiming` only. Both hold the same bytes at any moment, whatever ends this.
    """
    assert item.source is not None
    first, before = item.source.resolve(), identify(item.path)
    if not filecmp.cmp(first, item.path, shallow=False):
        raise Refused(f"{item.path} is no longer the same as {first}", "It stays as it is; plan again.")
    assert item.home is not None
    journal = begin(item.home, "share", item.path)
    draft = item.path.with_name(f".tmp-{token_of(journal)}.safetensors")
    try:
        if way == "hardlink":
            os.link(first, draft)
        else:
            _clone(first, draft)
            shutil.copystat(item.path, draft)
        if identify(item.path) != before or not filecmp.cmp(first, draft, shallow=False):
            raise Unreadable(f"{item.path} has changed meanwhile", "It stays as it is; plan again.")
        os.replace(draft, item.path)
    except OSError as fault:
        raise cannot_write(item.path, fault) from fault
    finally:
        draft.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)


def _clone(source: Path, draft: Path) -> None:
    with open(draft, "wb") as written:
        if not clone(source, written.fileno()):
            told = f"{draft.parent} and {source.parent} are not on one file system that has reflinks (as Btrfs and XFS have)"
            raise Refused(told, "--share hardlink makes one file of both: who edits one of them in place edits both.")
        os.fsync(written.fileno())
