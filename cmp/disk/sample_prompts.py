"""The prompts of a trainer's pictures, where the trainer keeps them beside: files of prompts, and names of folders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cmp.disk.folders import Folder, list_folder
from cmp.disk.tensors import without_waiting
from cmp.disk.trainers.found import parse_json, read_json, tables
from cmp.errors import BadInput, CmpError

_LARGEST = 1 << 20  # bytes
_FILES = ("prompt.txt", "prompts.txt", "sample_prompts.txt", "sample_prompts.json")
_NUMBERED = re.compile(r"(?P<prompt>[0-9]{1,9}) - (?P<text>.*?)(?P<raw> - no-ema)?", re.ASCII | re.DOTALL)
_CUSTOM = "custom"
_BACKUPS = 8  # of the newest ones that are looked into
FolderPrompts = dict[str, tuple[int, str, str]]


def kohya_prompts(folder: Folder, inner: Folder) -> dict[int, str]:
    """Prompts by their number. kohya's scripts are told of a file anywhere; those who use its page have it as `sample/prompt.txt`.

    Only what lies with the run is read: a path in a file may lead anywhere.
    """
    for place in (inner, folder):
        for name in _FILES:
            if name in place.files and (found := _numbered(_text(place.path / name), name.endswith(".json"))):
                return found
    return {}


def _text(file: Path) -> str:
    try:
        with open(file, "rb", opener=without_waiting) as opened:
            return opened.read(_LARGEST).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def _numbered(text: str, is_json: bool) -> dict[int, str]:
    """kohya counts the lines that are neither empty nor begin with #; in JSON the entries of a list."""
    if is_json:
        return {i: str(entry["prompt"]) for i, entry in enumerate(tables(parse_json(text))) if entry.get("prompt")}
    lines = (line.strip() for line in text.split("\n"))
    return {i: _prompt_of(line) for i, line in enumerate(line for line in lines if line and not line.startswith("#"))}


def _prompt_of(line: str) -> str:
    from cmp.core.prompts import parse_prompt_line  # which brings the grids along, and a list of runs is told without them

    try:
        return parse_prompt_line(line).text or line
    except BadInput:
        return line.partition(" --")[0] or line


def folder_prompts(folder: Folder, inner: Folder) -> FolderPrompts:
    """OneTrainer's folders of pictures, each with its prompt's number and text, and whether it is of another kind.

    A folder's name holds the prompt without what file systems refuse, and cut; in full it stands in the backups.
    """
    named = {name: found for name in inner.folders if (found := _NUMBERED.fullmatch(name))}
    texts = next((texts for texts in _recorded(folder) if texts), []) if named else []
    out: FolderPrompts = {}
    for name, found in named.items():
        number, text = int(found["prompt"]), found["text"]
        whole = texts[number] if number < len(texts) else ""
        out[name] = (number, whole if _begins(whole, text) else text, "without EMA" if found["raw"] else "")
    if _CUSTOM in inner.folders:
        out[_CUSTOM] = (1 + max((number for number, _, _ in out.values()), default=-1), "asked for by hand", "")
    return out


def _begins(whole: str, cut: str) -> bool:
    """Whether a folder may be named after this prompt."""
    letters, wanted = ("".join(filter(str.isalnum, text)).casefold() for text in (whole, cut))
    return bool(wanted) and letters.startswith(wanted)


def _recorded(folder: Folder) -> Iterator[list[str]]:
    try:
        backups = list_folder(folder.path / "backup") if "backup" in folder.folders else None
    except CmpError:
        return
    for name in sorted(backups.folders, reverse=True)[:_BACKUPS] if backups else ():
        config = backups.path / name / "onetrainer_config" if backups else folder.path
        yield [str(entry.get("prompt", "")) for entry in tables(parse_json(_text(config / "samples.json")))]
        yield [str(entry.get("prompt", "")) for entry in tables(read_json(config / "args.json").get("samples"))]
