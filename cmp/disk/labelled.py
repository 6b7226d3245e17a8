"""A folder of images with their captions, as people keep them for training, and which of its images are among others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmp.core.present import counted
from cmp.disk.datasets import MOST_IMAGES, images_below
from cmp.disk.folders import hash_file
from cmp.disk.store import Store
from cmp.disk.tensors import identify
from cmp.errors import BadInput, NotFound, Unreadable, why_not

_BESIDE = (".txt", ".caption")
_LONGEST_TABLE = 64 << 20  # bytes
_NAMES = ("file_name", "image", "filename", "file", "path", "name")
_TEXTS = ("text", "caption", "prompt", "captions")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One image: its path within the folder, its caption ("" without one), and the digest of its file."""

    name: str
    path: Path
    caption: str
    digest: str


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """The images of a folder in the order of their names, each content once, and in words what is to be known of them."""

    folder: Path
    images: tuple[Labelled, ...]
    told: tuple[str, ...] = ()


def read_labelled(folder: Path, store: Store) -> LabelledFolder:
    """The images below a folder. Captions come from `metadata.jsonl`, from `captions.json`, or from a `.txt` beside each image.

    Raises NotFound without such a folder, BadInput without an image in it, Unreadable for a table or an image that cannot be read.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}", "Give a folder of images, with captions as for training.")
    paths = images_below(folder)
    if not paths:
        raise BadInput(f"there is no image in {folder}", "Give a folder of images such as .png or .jpg.")
    table = _table(folder)
    found: dict[str, Labelled] = {}
    twice = 0
    for path in paths:
        name = path.relative_to(folder).as_posix()
        digest = str(store.remembered("file-digest", f"{path}|{identify(path)}", lambda path=path: _hash(path)))  # type: ignore[misc]
        twice += digest in found
        found.setdefault(digest, Labelled(name, path, _caption(path, name, table), digest))
    images = tuple(found.values())
    if len(paths) >= MOST_IMAGES:
        raise BadInput(f"there are {len(paths)} images or more in {folder}", "Give a folder of fewer; some hundred say enough.")
    return LabelledFolder(folder, images, tuple(_told(folder, images, twice)))


def without(labelled: LabelledFolder, others: Iterable[Labelled], what: str) -> LabelledFolder:
    """The folder without the images that are also among `others`, which is told; nothing may be left of it."""
    there = {image.digest for image in others}
    same = [image.name for image in labelled.images if image.digest in there]
    if not same:
        return labelled
    names = f"{', '.join(same[:4])}{' …' if len(same) > 4 else ''}"
    told = f"{len(same)} of {counted(len(labelled.images), 'image')} in {labelled.folder} are among the {what} ({names}) and are left out"
    left = tuple(image for image in labelled.images if image.digest not in there)
    return LabelledFolder(labelled.folder, left, (told, *labelled.told))


def _hash(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as fault:
        raise Unreadable(f"cannot read {path}: {why_not(fault)}", "Check its permissions.") from fault


def _told(folder: Path, images: tuple[Labelled, ...], twice: int) -> list[str]:
    told = [f"{counted(twice, 'image')} of {folder} came before under another name and counts once"] if twice else []
    bare = sum(not image.caption for image in images)
    return told + ([_bare(folder, bare, len(images))] if bare else [])


def _bare(folder: Path, bare: int, count: int) -> str:
    which = f"of the {counted(count, 'image')} in {folder} {'none' if bare == count else bare} {'has' if bare in (1, count) else 'have'}"
    return f"{which} {'a' if bare == count else 'no'} caption: the loss there is that without a prompt"


def _caption(path: Path, name: str, table: Mapping[str, str]) -> str:
    """From a table by the whole name, the file's name or the name without its ending; or from a text beside the image."""
    for key in (name, path.name, path.stem):
        if key in table:
            return table[key].strip()
    for suffix in _BESIDE:
        beside = path.with_suffix(suffix)
        if beside.is_file():
            return _text(beside).strip()
    return ""


def _text(path: Path) -> str:
    try:
        identity = identify(path)
        if identity.size > _LONGEST_TABLE:
            raise Unreadable(f"{path} has {identity.size} bytes, which no table of captions has", "Give another folder.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as fault:
        raise Unreadable(f"cannot read the captions in {path}: {why_not(fault)}", "Check its permissions.") from fault
    except UnicodeDecodeError as fault:
        raise Unreadable(f"{path} is no text in UTF-8", "Save the captions as UTF-8.") from fault


def _table(folder: Path) -> dict[str, str]:
    """Captions by the image's name; `metadata.jsonl` goes before `captions.json`."""
    lines, whole = folder / "metadata.jsonl", folder / "captions.json"
    if lines.is_file():
        rows = [_json(line, f"{lines}, line {number}") for number, line in enumerate(_text(lines).splitlines(), 1) if line.strip()]
        return dict(pair for row in rows if (pair := _pair(row)))
    if not whole.is_file():
        return {}
    told = _json(_text(whole), str(whole))
    if isinstance(told, Mapping) and not _pair(told):
        return {str(name): text for name, value in told.items() if (text := _first(value)) is not None}
    rows = told if isinstance(told, list) else [told]
    return dict(pair for row in rows if (pair := _pair(row)))


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise Unreadable(
            f"{where} is no JSON: {str(fault)[:100]}", "Mend it, or take it away: captions may stand in .txt files too."
        ) from fault


def _pair(row: object) -> tuple[str, str] | None:
    if not isinstance(row, Mapping):
        return None
    name = next((row[key] for key in _NAMES if isinstance(row.get(key), str)), None)
    text = next((found for key in _TEXTS if (found := _first(row.get(key))) is not None), None)
    return (name, text) if name is not None and text is not None else None


def _first(value: object) -> str | None:
    """A caption that is a text, the first of several, or the text of an object."""
    if isinstance(value, Mapping):
        return next((found for key in _TEXTS if (found := _first(value.get(key))) is not None), None)
    if isinstance(value, list):
        return next((text for text in value if isinstance(text, str)), None)
    return value if isinstance(value, str) else None
