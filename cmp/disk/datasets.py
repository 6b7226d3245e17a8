"""The images that a run was trained with: counted and digested where they still lie where the run's settings say."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cmp.core.run_settings import DataSet
from cmp.core.runs import Run

_FOLDERS = ("train_data_dir", "instance_data_dir", "train_data_directory")
_REPEATS = ("dataset_repeats", "repeats")
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jxl")
_CAPTIONS = (".txt", ".caption")
MOST_IMAGES = 20_000
_MOST_BYTES = 256 << 20  # to be read for a digest; of more images only names and sizes count


def read_data_set(run: Run) -> DataSet | None:
    """The run's images, None where its settings name no folder. Never raises for what lies there or does not."""
    named = next((s.value for key in _FOLDERS if (s := run.settings.get(key)) and isinstance(s.value, str) and s.value.strip()), None)
    if named is None:
        return None
    repeats = next((s.value for key in _REPEATS if (s := run.settings.get(key)) and isinstance(s.value, int)), None)
    for folder in _candidates(run, named):
        found = images_below(folder)
        if found:
            digest, whole = _digest(folder, found)
            return DataSet(str(folder), len(found), _captions(folder, found), repeats, digest, whole)
    return DataSet(named, None, None, repeats)


def _candidates(run: Run, named: str) -> list[Path]:
    """Where a folder may lie that was named on the training's command line: the line's own folder is found from the run's `output_dir`."""
    path = Path(os.path.expanduser(named))
    if path.is_absolute():
        return [path]
    places = [run.folder, *run.folder.parents]
    output = run.settings.get("output_dir")
    if output is not None and isinstance(output.value, str):
        below = [folder / name for folder in places for name in ("", "_")]  # "_": a folder that `..` leads out of again
        places = [place for place in below if os.path.normpath(place / output.value) == str(run.folder)]
    return [Path(os.path.normpath(place / named)) for place in places]


def images_below(folder: Path) -> list[Path]:
    """The images below a folder, in the order of their names; links are not followed, and hidden folders not entered."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=lambda _: None):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(place, name) for name in sorted(names) if name.lower().endswith(_IMAGES))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
        if len(found) > MOST_IMAGES:
            break
    return sorted(found[:MOST_IMAGES])


def _captions(folder: Path, images: list[Path]) -> int | None:
    """How many images have a caption of their own beside them, or a line in the folder's table."""
    beside = sum(any(path.with_suffix(suffix).is_file() for suffix in _CAPTIONS) for path in images)
    table = folder / "metadata.jsonl"
    if not beside and table.is_file() and table.stat().st_size < 16 << 20:
        with open(table, "rb") as lines:
            beside = sum(b"file_name" in line for line in lines)
    return beside or None


def _digest(folder: Path, images: list[Path]) -> tuple[str | None, bool]:
    """A digest of the images under their names, and whether it is of their contents."""
    try:
        sizes = [path.stat().st_size for path in images]
        whole = sum(sizes) <= _MOST_BYTES
        digest = hashlib.sha256()
        for path, size in zip(images, sizes, strict=True):
            content = hashlib.sha256(path.read_bytes()).hexdigest() if whole else str(size)
            digest.update(f"{path.relative_to(folder)}\0{content}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        return None, True
    return digest.hexdigest(), whole
