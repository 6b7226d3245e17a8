"""Removal that can be undone: a rename into `.cmp-trash/` of the same file system, with a record of where it was and why it went.

In the trash of a run lie the things, each under its id; `.ID.json`, its record, is written before the thing comes and removed after it
went, so that whatever kills the program a thing is at one of the two places and whole. `.begun-TOKEN.json` says what is being changed
in the run (see compact_making), `.gone-ID` is what is being deleted for good, `.lock` keeps a second process out.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmp.core.runs import plain_text, read_stage
from cmp.disk.converted import read_record
from cmp.disk.json_table import read_json_table
from cmp.disk.replacing import cannot_write
from cmp.disk.usage import freed_by
from cmp.errors import Locked, Refused, Unreadable

FOLDER = ".cmp-trash"
_GONE, _BEGUN = ".gone-", ".begun-"
_OF_CONVERT = re.compile(r"([0-9]{8}T[0-9]{6})-[0-9]+(?:-[0-9]+)?-(.+)\Z", re.ASCII | re.DOTALL)  # what `convert --force` puts there


@dataclass(frozen=True, slots=True)
class Trashed:
    """A thing in the trash of `home`. `path` is where it was, None where nobody knows; `bytes` come free when it is deleted.

    `beside`: it may come back beside what took its place, as a converted form that was made anew may. `names` are those of the checkpoints
    that it was (see core.storage.trash_name).
    """

    id: str
    home: Path
    path: Path | None
    bytes: int
    moved_at: float
    why: str
    beside: bool = False
    names: tuple[str, ...] = ()

    @property
    def place(self) -> Path:
        return self.home / FOLDER / self.id


@contextmanager
def reclaiming(home: Path) -> Iterator[None]:
    """Within it no other process reclaims room in this folder; raises Locked, and Refused where nothing can be written."""
    from filelock import FileLock, Timeout  # not at the top: it costs more than looking into a trash

    try:
        (home / FOLDER).mkdir(exist_ok=True)
        if (home / FOLDER).is_symlink():
            raise Refused(f"{home / FOLDER} is a link", "Nothing is moved through links; remove it.")
        lock = FileLock(home / FOLDER / ".lock", timeout=0)
        lock.acquire()
    except Timeout as taken:
        raise Locked(f"another process is reclaiming room in {home}", "Try again when it is done.") from taken
    except (OSError, NotImplementedError) as fault:
        raise Refused(
            f"nothing can be changed in {home}: {fault}", "Its folder must be writable, on a file system that has locks."
        ) from fault
    try:
        yield
    finally:
        lock.release()


def list_trash(home: Path) -> tuple[Trashed, ...]:
    """What lies in the trash, oldest first."""
    try:
        names = sorted(name for name in os.listdir(home / FOLDER) if not name.startswith("."))
    except OSError:
        return ()
    return tuple(sorted((_trashed(home, name) for name in names), key=lambda each: (each.moved_at, each.id)))


def _trashed(home: Path, name: str) -> Trashed:
    place = home / FOLDER / name
    told = _read(record_of(home, name))
    size = freed_by([place])
    if isinstance(told.get("path"), str) and isinstance(told.get("moved_at"), (int, float)):
        path = Path(os.path.normpath(home / told["path"]))
        # a record may have been tampered with: nothing is ever brought back to outside of the folder
        why, beside = str(told.get("why", "")), told.get("beside") is True
        names = tuple(map(str, told["names"])) if isinstance(told.get("names"), list) else _names_by_folder(path)
        return Trashed(name, home, path if path.is_relative_to(home) else None, size, float(told["moved_at"]), why, beside, names)
    found = _OF_CONVERT.match(name)
    with suppress(OSError, ValueError):
        moved = time.mktime(time.strptime(found[1], "%Y%m%dT%H%M%S")) if found else place.lstat().st_mtime
        form = read_record(place).get("form")
        return Trashed(name, home, None, size, moved, f"replaced by convert --force{f' (form {form})' if form else ''}" if found else "")
    return Trashed(name, home, None, size, 0.0, "")


def _names_by_folder(path: Path) -> tuple[str, ...]:
    """What a checkpoint is called where its record does not say it, as those of older versions do not."""
    stage = read_stage(path.name)
    return (f"@{stage.key}",) if stage else ()


def plain_name(path: Path) -> str:
    """The end of an id in the trash. It is typed by people, so it holds nothing that a shell takes for something else."""
    return re.sub(r"[^\w.-]", "_", path.name, flags=re.ASCII)[-80:].lstrip(".-")


def move_to_trash(home: Path, path: Path, why: str, names: tuple[str, ...] = ()) -> Trashed:
    """Moves a file or folder within `home` into its trash; raises Refused where that would be no rename."""
    trashed = Trashed(
        f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}-{plain_name(path)}", home, path, freed_by([path]), time.time(), why,
        names=names,
    )  # fmt: skip
    record = record_of(home, trashed.id)
    try:
        if os.lstat(path).st_dev != os.stat(home / FOLDER).st_dev:
            raise Refused(f"{path} lies on another file system than {home / FOLDER}", "Moving it there would copy it; remove it by hand.")
        told = {"path": os.path.relpath(path, home), "moved_at": trashed.moved_at, "why": why}
        write_synced(record, told | ({"names": list(map(plain_text, names))} if names else {}))
        os.rename(path, trashed.place)
        sync_folder(path.parent)
        sync_folder(home / FOLDER)
    except OSError as fault:
        record.unlink(missing_ok=True)
        raise cannot_write(path, fault) from fault
    return trashed


def take_back(trashed: Trashed) -> Path:
    """Brings a thing back to where it was, or beside what is there now if it may lie there, and says where it is.

    Raises Refused where something else is there now, or nobody knows where it was.
    """
    if trashed.path is None:
        raise Refused(f"it is not recorded where {trashed.id} was", f"Move it by hand: it is at {trashed.place}.")
    path = trashed.path
    if os.path.lexists(path):
        if not trashed.beside:
            raise Refused(f"{path} exists again", f"Move one of the two by hand: what was there is at {trashed.place}.")
        path = _beside(trashed, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.rename(trashed.place, path)
        sync_folder(path.parent)
        record_of(trashed.home, trashed.id).unlink(missing_ok=True)
    except OSError as fault:
        raise cannot_write(path, fault) from fault
    return path


def _beside(trashed: Trashed, path: Path) -> Path:
    """A free name that says what it is: `NAME.before-20261127T103000.safetensors`."""
    ending = "" if trashed.place.is_dir() else path.suffix
    stem, when = path.name.removesuffix(ending), time.strftime("%Y%m%dT%H%M%S", time.localtime(trashed.moved_at))
    names = (path.with_name(f"{stem}.before-{when}{again}{ending}") for again in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(name for name in names if not os.path.lexists(name))


def delete(trashed: Trashed) -> None:
    """Deletes a thing in the trash for good. From its first file on it is no longer there to be brought back."""
    gone = trashed.home / FOLDER / f"{_GONE}{trashed.id}"
    try:
        os.rename(trashed.place, gone)
        record_of(trashed.home, trashed.id).unlink(missing_ok=True)
        _remove(gone)
    except OSError as fault:
        raise cannot_write(trashed.place, fault) from fault


def record_of(home: Path, trash_id: str) -> Path:
    """Where it stands what a thing in the trash was."""
    return home / FOLDER / f".{trash_id}.json"


def tidy(home: Path) -> tuple[str, ...]:
    """Ends what a killed process had begun to move or to delete, and says in words what. Within `reclaiming` only."""
    told = []
    for name in sorted(os.listdir(home / FOLDER)):
        path = home / FOLDER / name
        if name.startswith(_GONE):
            _remove(path)
            told.append(f"deleted the rest of {name.removeprefix(_GONE)}")
        thing = home / FOLDER / name[1:].removesuffix(".json")
        if name.startswith(".") and name.endswith(".json") and not name.startswith(_BEGUN) and not os.path.lexists(thing):
            path.unlink(missing_ok=True)  # it never came, or went back
    return tuple(told)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# -- what is being changed -------------------------------------------------------------------------------------------------


def begin(home: Path, act: str, file: Path, **more: str) -> Path:
    """Notes what is about to be done to a file in `home`; the note is removed once it is done or undone."""
    journal = home / FOLDER / f"{_BEGUN}{secrets.token_hex(4)}.json"
    try:
        write_synced(journal, {"act": act, "file": os.path.relpath(file, home), **more})
    except OSError as fault:
        journal.unlink(missing_ok=True)
        raise cannot_write(file, fault) from fault
    return journal


def token_of(journal: Path) -> str:
    """Eight characters that nothing else of ours has: drafts bear them in their names."""
    return journal.name.removeprefix(_BEGUN).removesuffix(".json")


def begun(home: Path) -> tuple[tuple[Path, Path, Mapping[str, Any]], ...]:
    """What was begun and has not come to its end: each note, the file that it is about, and what it says."""
    try:
        names = sorted(name for name in os.listdir(home / FOLDER) if name.startswith(_BEGUN))
    except OSError:
        return ()
    found = []
    for name in names:
        told = _read(home / FOLDER / name)
        file = Path(os.path.normpath(home / str(told.get("file", ""))))
        found.append((home / FOLDER / name, file, told if file.is_relative_to(home) else {}))
    return tuple(found)


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json_table(file, links=False)
    except Unreadable:
        return {}


def write_synced(file: Path, told: Mapping[str, object]) -> None:
    """Writes a JSON table that is on the disk when this returns."""
    with open(file, "x", encoding="utf-8") as opened:
        json.dump(told, opened)
        opened.flush()
        os.fsync(opened.fileno())
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Has the names in a folder reach the disk, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
