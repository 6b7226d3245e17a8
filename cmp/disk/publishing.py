"""A folder that is shared, as it comes to its place: whole under its name or not there, and never over what is not ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from pathlib import Path

from cmp.core.progress import Progress
from cmp.core.publishing import INDEX, MARK, OWN_IMAGE, README, WEIGHTS
from cmp.disk.replacing import cannot_write, replacing, sweep
from cmp.disk.tensors import read_header
from cmp.errors import BadInput, Refused, Unreadable

_LARGEST_README = 4_000_000  # bytes
_PIECE = 1 << 20


def new_draft(home: Path) -> Path:
    """A folder of ours for what may be shared; those that killed processes left a day ago go."""
    place = home / "shares"
    try:
        place.mkdir(parents=True, exist_ok=True)
        sweep(place)
        return Path(tempfile.mkdtemp(dir=place, prefix=".tmp-"))
    except OSError as fault:
        raise cannot_write(place, fault) from fault


def drop_draft(draft: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)


def require_place(target: Path, *, force: bool) -> None:
    """Raises Refused where something lies at `target`; with `force` only where that is not, to the last file, what this program wrote."""
    if not os.path.lexists(target):
        return
    if not force:
        raise Refused(f"{target} is there already", "Give another folder, or --force to replace one that share has written.")
    if target.is_symlink() or not target.is_dir():
        raise BadInput(f"{target} is no folder", "Give the name of a folder.")
    if not any(target.iterdir()):
        return
    if MARK not in _readme(target / README):
        raise Refused(f"{target} was not written by share", "Give another folder: --force replaces only such a one.")
    strange = sorted(set(_files(target)) - {README, INDEX, WEIGHTS})
    if strange := [name for name in strange if not OWN_IMAGE.match(name)]:
        raise Refused(f"{target} holds {strange[0]}, which share has not written", "Move it elsewhere, or give another folder.")


def _readme(file: Path) -> list[str]:
    with suppress(OSError):
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= _LARGEST_README:
            return file.read_text(encoding="utf-8", errors="replace").splitlines()
    return []


def _files(folder: Path) -> list[str]:
    """All that is in a folder and is none itself, by its path there."""
    return [
        os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")
        for place, folders, names in os.walk(folder)
        for name in (*names, *(one for one in folders if os.path.islink(os.path.join(place, one))))
    ]


def put_in_place(draft: Path, target: Path, *, force: bool) -> Generator[Progress, None, None]:
    """Copies the draft beside `target` and gives it its name at the end; leaving it before that leaves what was there."""
    require_place(target, force=force)
    names = sorted(_files(draft))
    beside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".tmp-"))
        made = beside / "new"
        for done, name in enumerate(names):
            yield Progress(done, len(names), "writing the files")
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(draft / name, made / name)
        require_place(target, force=force)
        old = beside / "old"
        if os.path.lexists(target):
            os.rename(target, old)
        try:
            os.rename(made, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
    except OSError as fault:
        raise cannot_write(target, fault) from fault
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
    yield Progress(len(names), len(names), "done")


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as read, open(target, "xb") as written:
        shutil.copyfileobj(read, written, _PIECE)
        written.flush()
        os.fsync(written.fileno())


def tell_metadata(file: Path, cut: Callable[[str], str]) -> None:
    """Writes a safetensors file anew with every text of its metadata gone through `cut`; the tensors stay to the byte."""
    told = {name: _cut(value, cut) for name, value in read_header(file).metadata.items()}
    with open(file, "rb") as read, replacing(file) as draft, open(draft, "wb") as written:
        table = json.loads(read.read(int.from_bytes(read.read(8), "little")))
        head = json.dumps(table | {"__metadata__": told}, separators=(",", ":"), ensure_ascii=False).encode()
        head += b" " * (-len(head) % 8)
        written.write(len(head).to_bytes(8, "little") + head)
        shutil.copyfileobj(read, written, _PIECE)
    if read_header(file).metadata != told:
        raise Unreadable(f"{file.name} came back with other metadata", "The disk may be failing; try again.")


def _cut(text: str, cut: Callable[[str], str]) -> str:
    """A text, or every text within JSON, gone through `cut`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return cut(text)
    return json.dumps(_cut_value(value, cut)) if isinstance(value, (dict, list)) else cut(text)


def _cut_value(value: object, cut: Callable[[str], str]) -> object:
    if isinstance(value, dict):
        return {name: _cut_value(one, cut) for name, one in value.items()}
    if isinstance(value, list):
        return [_cut_value(one, cut) for one in value]
    return cut(value) if isinstance(value, str) else value


def require_nothing_of(folder: Path, places: Iterable[Path]) -> None:
    """Raises Refused if any byte of the folder's files tells one of these places, as it is or as JSON writes it."""
    sought = [(place, _telling(place)) for place in places if len(place.parts) > 1]
    for name in _files(folder):
        content = (folder / name).read_bytes()
        if found := next((place for place, telling in sought if telling.search(content)), None):
            told = f"{name} would tell {str(found)!r}, a folder of yours"
            raise Refused(told, "Take it out of the prompts or names that say it.")


def _telling(place: Path) -> re.Pattern[bytes]:
    """A place by itself; one such as /data only where it goes on, since a word of another's text may look like it."""
    texts = {str(place), json.dumps(str(place))[1:-1], json.dumps(str(place), ensure_ascii=False)[1:-1]}
    names = b"|".join(re.escape(os.fsencode(text)) for text in sorted(texts))
    return re.compile(rb"(?<![\w.-])(?:%s)%s" % (names, rb"(?![\w.-])" if len(place.parts) > 2 else rb"(?=[/\\]\w)"))
