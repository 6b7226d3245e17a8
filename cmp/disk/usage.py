"""What files and folders occupy: every file once, however many names it has, and no link followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def occupied(paths: Iterable[Path]) -> int:
    """Bytes of all regular files at and below the given places."""
    return sum(inodes(paths).values())


def freed_by(paths: Iterable[Path]) -> int:
    """Bytes that come free if all of these go: a file that has further names elsewhere stays."""
    names: dict[tuple[int, int], list[int]] = {}
    for _, found in _files(paths):
        names.setdefault((found.st_dev, found.st_ino), [found.st_size, found.st_nlink, 0])[2] += 1
    return sum(size for size, links, seen in names.values() if seen >= links)


def inodes(paths: Iterable[Path]) -> dict[tuple[int, int], int]:
    """Every regular file at and below the given places once, by device and inode, with its bytes."""
    return {(found.st_dev, found.st_ino): found.st_size for _, found in _files(paths)}


def newest(path: Path) -> float:
    """When anything at or below a path was written last, Unix seconds; 0 where nothing is."""
    return max((found.st_mtime for _, found in _files([path])), default=0.0)


def mark(path: Path) -> str:
    """What shows that nothing at or below a path has changed: how many files there are, their bytes, their last change."""
    found = [each for _, each in _files([path])]
    return f"{len(found)}:{sum(each.st_size for each in found)}:{max((each.st_mtime_ns for each in found), default=0)}"


def files_below(path: Path) -> list[Path]:
    """Every regular file at or below a path, sorted."""
    return sorted(Path(name) for name, _ in _files([path]))


def _files(paths: Iterable[Path]) -> Iterator[tuple[str, os.stat_result]]:
    """Every file with what it is; one that lies below two of the places comes once. What cannot be looked at counts nothing."""
    seen: set[str] = set()
    waiting = [os.fspath(path) for path in paths]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        with suppress(OSError):
            found = os.lstat(name)
            if stat.S_ISREG(found.st_mode):
                yield name, found
            elif stat.S_ISDIR(found.st_mode):
                waiting.extend(entry.path for entry in os.scandir(name))
