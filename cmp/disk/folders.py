"""Folders as a scan sees them: names, kinds and sizes, nothing opened, no link followed.

A scan asks for everything within `looking`, so that what it has seen is not asked again, and a later one finds what has changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from cmp.errors import CmpError, NotFound, Unreadable

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
    return (_LOOK.get() or Look()).size_below(os.fspath(path))


def stat_of(path: Path) -> os.stat_result:
    """What the system says of a file or folder, within `looking` what it said; raises OSError."""
    look = _LOOK.get()
    return (look and look.known(path)) or os.stat(path)


def is_file(path: Path) -> bool:
    """Whether a regular file lies there; False also where nobody may look."""
    look = _LOOK.get()
    return look.has_file(path) if look else os.path.isfile(path) and not os.path.islink(path)


def in_haste() -> bool:
    """Whether names and sizes must do for now. Whoever asks leaves something out, which is read later."""
    look = _LOOK.get()
    if look is None or not look.hasty:
        return False
    look.left_out += 1
    return True


@dataclass(slots=True, eq=False)
class _Seen:
    """A folder as it was listed. `settled`: it is so old that a change would show in its times; `changed`: the turn of the last change
    in it or below; `size`: bytes below, None while nobody asked.
    """

    folder: Folder
    found: os.stat_result | None
    files: dict[str, os.stat_result]
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
        self.hasty = False
        self.left_out = 0

    def folder(self, path: Path) -> Folder:
        return self._at(os.fspath(path)).told()

    def known(self, path: Path) -> os.stat_result | None:
        """What was seen of a file or folder, None if it was not."""
        text = os.fspath(path)
        if own := self._seen.get(text):
            return own.found
        above = self._seen.get(os.path.dirname(text))
        return above.files.get(text) if above else None

    def has_file(self, path: Path) -> bool:
        text = os.fspath(path)
        return text in self._at(os.path.dirname(text)).files

    def size_below(self, path: str) -> int:
        seen = self._at(path)
        if seen.size is None:
            own = sum(found.st_size for found in seen.files.values())
            seen.size = own + sum(self.size_below(os.path.join(path, name)) for name in seen.folder.folders)
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
            if (now.folder, _marks(now)) == (before.folder, _marks(before)) and not now.fault:  # it was only listed again
                now.changed, now.size = before.changed, before.size
                self._seen[path] = now
                continue
            if isinstance(now.fault, NotFound):
                del self._seen[path]
            else:
                self._seen[path] = now
            self._mark_above(path)

    def _at(self, path: str) -> _Seen:
        seen = self._seen.get(path)
        if seen is None:
            seen = self._seen[path] = _seen(Path(path), self.turn)
        return seen

    def _mark_above(self, path: str) -> None:
        self.last_change = self.turn
        while (above := os.path.dirname(path)) != path:
            path = above
            if seen := self._seen.get(path):
                seen.changed, seen.size = self.turn, None


_LOOK: ContextVar[Look | None] = ContextVar("look", default=None)


@contextmanager
def looking(look: Look, *, hasty: bool = False) -> Iterator[None]:
    """Within it folders are as `look` saw them; `hasty`: nothing is opened either, see `in_haste`."""
    token = _LOOK.set(look)
    look.hasty = hasty
    try:
        yield
    finally:
        _LOOK.reset(token)


def _is_same(path: str, seen: _Seen, stat: Callable[[str], os.stat_result] = os.lstat) -> bool:
    try:
        if not _equal(os.stat(path), seen.found) or not seen.settled:
            return False
        for file, old in seen.files.items():
            now = stat(file)
            if now.st_ctime_ns != old.st_ctime_ns or now.st_mtime_ns != old.st_mtime_ns or now.st_size != old.st_size:
                return False
            if now.st_ino != old.st_ino:
                return False
    except OSError:
        return seen.found is None
    return True


def _equal(now: os.stat_result, old: os.stat_result | None) -> bool:
    return old is not None and (now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev) == (
        old.st_mtime_ns, old.st_ctime_ns, old.st_ino, old.st_dev
    )  # fmt: skip


def _marks(seen: _Seen) -> dict[str, tuple[int, ...]]:
    return {file: (f.st_ino, f.st_size, f.st_mtime_ns, f.st_ctime_ns) for file, f in seen.files.items()}


def _seen(path: Path, turn: int) -> _Seen:
    """A folder as it is now, with what stands against listing it."""
    files, folders, links = set(), set(), set()
    stats: dict[str, os.stat_result] = {}
    found: os.stat_result | None = None
    fault: CmpError | None = None
    began = time.time_ns()
    try:
        found = os.stat(path)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.add(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.add(entry.name)
                    with suppress(OSError):  # it went meanwhile
                        stats[entry.path] = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        fault = NotFound(f"the folder {path} does not exist", "Check the path; --runs takes the folder that holds the runs.")
    except NotADirectoryError:
        fault = NotFound(f"{path} is not a folder", "Give the folder that holds the runs.")
    except OSError as why:
        fault = Unreadable(f"cannot read the folder {path}: {why.strerror}", "Check its permissions.")
    settled = found is not None and max(found.st_mtime_ns, found.st_ctime_ns) < began - _YOUNG and len(stats) == len(files)
    folder = Folder(path, frozenset(files), frozenset(folders), frozenset(links))
    return _Seen(folder, found, stats, settled, turn, fault)
