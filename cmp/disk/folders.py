"""Folders as a scan sees them: names, kinds and sizes, nothing opened, no link followed.

A scan asks for everything within `looking`, so that what it has seen is not asked again, and a later one finds what has changed.
"""

from __future__ import annotations

import gc
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from cmp.errors import CmpError, NotFound, Unreadable

Marks = tuple[int, int, int, int]  # size, time of the last writing and of the last change of any kind (ns), inode
_YOUNG = 2_000_000_000  # ns: some systems keep a folder's times in steps of two seconds


@dataclass(frozen=True, slots=True)
class Folder:
    """The regular files and real folders directly in `path`. Links are left out: a run must not lead out of the given roots."""

    path: Path
    files: frozenset[str]
    folders: frozenset[str]
    links: frozenset[str] = frozenset()

    def __contains__(self, name: str) -> bool:
        return name in self.files or name in self.folders

    def ending(self, suffix: str) -> list[str]:
        return sorted(name for name in self.files if name.endswith(suffix) and not name.startswith("."))


def list_folder(path: Path) -> Folder:
    """What lies in a folder; raises NotFound or Unreadable with the system's reason. Within `looking` each is asked once."""
    look = _LOOK.get()
    return look.folder(path) if look else _seen(path, 0).told()


def size_below(path: Path) -> int:
    """Bytes of all regular files below a folder, links not followed; what cannot be read counts nothing."""
    return (_LOOK.get() or Look()).size_below(path)


def size_and_time(path: Path) -> tuple[int, float]:
    """Bytes of a file or folder and when it was written, within `looking` as it was seen; raises OSError."""
    look = _LOOK.get()
    size, written_ns, *_ = (look and look.known(path)) or _marks(os.stat(path))
    return size, written_ns / 1e9


def is_file(path: Path) -> bool:
    """Whether a regular file lies there; False also where nobody may look."""
    look = _LOOK.get()
    return look.has_file(path) if look else os.path.isfile(path) and not os.path.islink(path)


@dataclass(slots=True, eq=False)
class _Seen:
    """A folder as it was listed. `settled`: it is so old that a change would show in its times; `changed`: the turn of the last change
    in it or below; `size`: bytes below, None while nobody asked.
    """

    folder: Folder
    marks: Marks | None
    files: dict[str, Marks]
    settled: bool
    changed: int
    fault: CmpError | None = None
    size: int | None = None

    def told(self) -> Folder:
        if self.fault:
            raise type(self.fault)(self.fault.message, self.fault.hint)
        return self.folder


class Look:
    """All folders that a scan has looked into. `refresh` looks again, and lists only those whose times have changed.

    Every file in them is asked for its size and times at each turn, since one that is rewritten in place leaves its folder as it was.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self.turn = 1
        self.last_change = 1  # the turn in which anything changed last

    def folder(self, path: Path) -> Folder:
        return self._at(path).told()

    def known(self, path: Path) -> Marks | None:
        """What was seen of a file or folder, None if it was not."""
        text = str(path)
        if own := self._seen.get(text):
            return own.marks
        above = self._seen.get(text[: text.rfind(os.sep)] or os.sep)
        return above.files.get(text) if above else None

    def has_file(self, path: Path) -> bool:
        return str(path) in self._at(path.parent).files

    def size_below(self, path: Path) -> int:
        seen = self._at(path)
        if seen.size is None:
            seen.size = sum(marks[0] for marks in seen.files.values())
            for name in seen.folder.folders:
                inner = self._seen.get(f"{path}{os.sep}{name}")
                seen.size += self.size_below(path / name) if inner is None or inner.size is None else inner.size
        return seen.size

    def changed(self, path: Path) -> int:
        """The turn in which something in or below a folder changed last."""
        seen = self._seen.get(os.fspath(path))
        return seen.changed if seen else self.turn

    def refresh(self) -> None:
        """Looks again at all that was looked at."""
        self.turn += 1
        changed = [path for path, seen in self._seen.items() if not _is_same(path, seen)]
        for path in changed:
            before, now = self._seen[path], _seen(Path(path), self.turn)
            if (now.folder, now.files) == (before.folder, before.files) and not now.fault:  # it was only listed again
                now.changed, now.size = before.changed, before.size
                self._seen[path] = now
                continue
            if isinstance(now.fault, NotFound):
                del self._seen[path]
            else:
                self._seen[path] = now
            self._mark_above(path)

    def _at(self, path: Path) -> _Seen:
        text = str(path)
        seen = self._seen.get(text)
        if seen is None:
            seen = self._seen[text] = _seen(path, self.turn)
        return seen

    def _mark_above(self, path: str) -> None:
        self.last_change = self.turn
        while (above := os.path.dirname(path)) != path:
            path = above
            if seen := self._seen.get(path):
                seen.changed, seen.size = self.turn, None


_LOOK: ContextVar[Look | None] = ContextVar("look", default=None)


@contextmanager
def looking(look: Look) -> Iterator[None]:
    """Within it folders are as `look` saw them."""
    token = _LOOK.set(look)
    try:
        yield
    finally:
        _LOOK.reset(token)


def _is_same(path: str, seen: _Seen, stat: Callable[[str], os.stat_result] = os.lstat) -> bool:
    try:
        if not seen.settled or _marks(os.stat(path)) != seen.marks:
            return False
        for file, (size, written_ns, changed_ns, _) in seen.files.items():
            now = stat(file)  # another file of the name would show in the folder's times
            if now.st_ctime_ns != changed_ns or now.st_mtime_ns != written_ns or now.st_size != size:
                return False
    except OSError:
        return seen.marks is None
    return True


def _marks(found: os.stat_result) -> Marks:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _seen(path: Path, turn: int) -> _Seen:
    """A folder as it is now, with what stands against listing it."""
    names: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    files: dict[str, Marks] = {}
    marks: Marks | None = None
    fault: CmpError | None = None
    text, whole = str(path), True
    began = time.time_ns()
    try:
        marks = _marks(os.stat(text))
        with os.scandir(text) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    names.append(entry.name)
                    try:
                        files[entry.path] = _marks(entry.stat(follow_symlinks=False))
                    except OSError:  # it went meanwhile
                        whole = False
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_symlink():
                    links.append(entry.name)
    except FileNotFoundError:
        fault = NotFound(f"the folder {path} does not exist", "Check the path; --runs takes the folder that holds the runs.")
    except NotADirectoryError:
        fault = NotFound(f"{path} is not a folder", "Give the folder that holds the runs.")
    except OSError as why:
        fault = Unreadable(f"cannot read the folder {path}: {why.strerror}", "Check its permissions.")
    settled = marks is not None and max(marks[1:3]) < began - _YOUNG and whole
    folder = Folder(path, frozenset(names), frozenset(folders), frozenset(links))
    return _Seen(folder, marks, files, settled, turn, fault)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def without_collecting() -> Iterator[None]:
    """Spares the search for garbage: all that a first look makes is kept, and looking through it again and again takes a third longer."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
