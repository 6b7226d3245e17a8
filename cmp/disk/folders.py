"""Folders as a scan sees them: names and kinds, nothing opened, no link followed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cmp.errors import NotFound, Unreadable


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
    """What lies in a folder; raises NotFound or Unreadable with the system's reason."""
    files, folders, links = set(), set(), set()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.add(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.add(entry.name)
    except FileNotFoundError as fault:
        raise NotFound(f"the folder {path} does not exist", "Check the path; --runs takes the folder that holds the runs.") from fault
    except NotADirectoryError as fault:
        raise NotFound(f"{path} is not a folder", "Give the folder that holds the runs.") from fault
    except OSError as fault:
        raise Unreadable(f"cannot read the folder {path}: {fault.strerror}", "Check its permissions.") from fault
    return Folder(path, frozenset(files), frozenset(folders), frozenset(links))


def size_below(path: Path) -> int:
    """Bytes of all regular files below a folder, links not followed; what cannot be read counts nothing."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += size_below(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    except OSError:
        return total
    return total
