"""The bundled demo: a tiny base model and two of its runs, unpacked once into a working copy outside the tracked files.

The archive stores what the six raw checkpoints share only once, so it cannot be used in place; and whatever a user converts or
compacts should not dirty the clone. `assets/demo/` says how it was made.
"""

from __future__ import annotations

import errno
import json
import lzma
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, cast

from cmp.disk.folders import hash_file
from cmp.errors import BadInput, Locked, NoSpace, NotFound, Unreadable

if TYPE_CHECKING:
    import tarfile

ARCHIVE = Path(__file__).resolve().parents[2] / "assets" / "demo" / "demo.tar.xz"
STAMP = ".demo.json"  # in the working copy: which archive it came from
WAIT = 120  # seconds for another process that is unpacking


@dataclass(frozen=True, slots=True)
class Demo:
    """Where the working copy lies."""

    folder: Path

    @property
    def runs(self) -> Path:
        return self.folder / "training" / "outputs"

    @property
    def bases(self) -> Path:
        """A base model's id is its path below this folder."""
        return self.folder / "bases"

    @property
    def data(self) -> Path:
        """`train/` and `held_out/`, both with captions in metadata.jsonl."""
        return self.folder / "data"


def open_demo(home: Path, archive: Path = ARCHIVE) -> Demo:
    """The demo below `home`, unpacked if it is not there yet.

    A newer archive replaces it; the old copy stays beside as `demo-DIGEST`, with whatever was converted in it. Raises NotFound
    without an archive, NoSpace if it does not fit, Unreadable if it is damaged, Locked if another process unpacks for too long.
    """
    demo = Demo(home / "demo")
    if not archive.is_file():
        hint = "It comes with the repository under assets/demo/; or name folders of your own with --runs."
        raise NotFound(f"the bundled demo is not at {archive}", hint)
    if _is_current(demo, archive):
        return demo
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / ".demo.lock"):
            if not _is_current(demo, archive):  # another process may have done it while this one waited
                _bring_up_to_date(demo, archive)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NoSpace(f"the disk ran full while unpacking the demo into {home}", "Free some space.") from error
        raise BadInput(f"cannot unpack the demo into {home}: {error.strerror or error}", "Set CMP_HOME to another folder.") from error
    return demo


def _is_current(demo: Demo, archive: Path) -> bool:
    """Whether the copy came from this very file, by size and time: hashing 20 MB at every start would be felt."""
    stat = archive.stat()
    stamp = _read_stamp(demo.folder)
    return stamp.get("size") == stat.st_size and stamp.get("mtime_ns") == stat.st_mtime_ns


def _read_stamp(folder: Path) -> dict[str, object]:
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _write_stamp(folder: Path, archive: Path, digest: str) -> None:
    stat = archive.stat()
    stamp = {"sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    new = folder / f"{STAMP}.new"
    new.write_text(json.dumps(stamp), encoding="utf-8")
    new.replace(folder / STAMP)


def _bring_up_to_date(demo: Demo, archive: Path) -> None:
    digest = hash_file(archive)
    old = str(_read_stamp(demo.folder).get("sha256", ""))
    if old == digest:  # the same archive under another time, as after a fresh clone
        _write_stamp(demo.folder, archive, digest)
        return
    fresh = demo.folder.with_name(".demo.unpacking")
    shutil.rmtree(fresh, ignore_errors=True)  # left by a process that was killed; the lock says that nobody is at work in it
    try:
        _unpack(archive, fresh)
        _write_stamp(fresh, archive, digest)
        if demo.folder.exists():
            demo.folder.rename(_free_name(demo.folder.with_name(f"demo-{old[:8] or 'unknown'}")))
        fresh.rename(demo.folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _free_name(path: Path) -> Path:
    """`path`, or the first of `path-2`, `path-3`, … that does not exist."""
    names = (path if n == 1 else path.with_name(f"{path.name}-{n}") for n in range(1, 1000))
    return next(name for name in names if not name.exists())


def _unpack(archive: Path, folder: Path) -> None:
    import tarfile  # not at the top, for the starts at which there is nothing to unpack

    try:
        with tarfile.open(archive, "r:xz") as tar:
            _check_room(tar, folder.parent)
            for member in tar:  # one by one, since Python before 3.11.4 checks no paths by itself
                _extract(tar, member, folder)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        hint = "Fetch it again: git checkout -- assets/demo/demo.tar.xz"
        raise Unreadable(f"the demo's archive {archive} is damaged: {error}", hint) from error


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Writes one file or folder; the archive holds nothing else, and nothing that leads out of it."""
    import tarfile

    parts = PurePosixPath(member.name).parts
    if not (member.isreg() or member.isdir()) or ".." in parts or member.name.startswith(("/", "\\")):
        raise tarfile.TarError(f"{member.name!r} does not belong into it")
    target = folder.joinpath(*parts)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file:
        shutil.copyfileobj(cast("IO[bytes]", tar.extractfile(member)), file)
    os.utime(target, (member.mtime, member.mtime))


def _check_room(tar: tarfile.TarFile, folder: Path) -> None:
    """The archive's head says how much it holds; without that, looking at every member decompresses the whole once more."""
    tar.next()
    recorded = tar.pax_headers.get("CMP.unpacked_bytes")
    needed = int(recorded) if recorded else sum(member.size for member in tar)
    free = shutil.disk_usage(folder).free
    if needed > free:
        message = f"the demo needs {needed / 1e6:.0f} MB and {folder} has {free / 1e6:.0f} MB free"
        raise NoSpace(message, "Free some space, or set CMP_HOME to a folder on another disk.")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout  # not at the top: it costs more than opening a demo that is already there

    try:
        with FileLock(path, timeout=WAIT):
            yield
    except Timeout as error:
        raise Locked(f"another process has been unpacking the demo for over {WAIT} s", f"If none is running, delete {path}.") from error
