"""The images that a run was trained with: counted and digested where they still lie where the run's settings say."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cmp.core.run_settings import DataSet
from cmp.core.runs import Run
from cmp.disk.recorded_data import REPEATED, DataFolder, Recorded, recorded_data

_FOLDERS = ("train_data_dir", "instance_data_dir", "train_data_directory")
_REPEATS = ("dataset_repeats", "repeats")
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jxl")
_CAPTIONS = (".txt", ".caption")
MOST_IMAGES = 20_000
_BELOW = ("", "img", "image", "images", "train", "data", "dataset", "datasets")  # where folders of images lie that only their names tell
_MOST_FOLDERS = 2000
_MOST_BYTES = 256 << 20  # to be read for a digest; of more images only names and sizes count


def read_data_set(run: Run) -> DataSet | None:
    """The run's images, None where nothing names a folder of them. Never raises for what lies there or does not."""
    named, recorded = _sources(run)
    if recorded is not None:
        return _joined(recorded, [_part(run, folder) for folder in recorded.folders])
    if named is None:
        return None
    repeats = tuple(s.value for key in _REPEATS if (s := run.settings.get(key)) and isinstance(s.value, int))[:1]
    for folder in _candidates(run, named):
        found = images_below(folder)
        if found:
            digest, whole = _digest(folder, found)
            return DataSet(str(folder), len(found), _captions(folder, found), repeats, digest, whole)
    return DataSet(named, repeats=repeats)


def data_folders(run: Run) -> tuple[Path, ...]:
    """The folders of the run's images that are at hand, none where nothing names one."""
    named, recorded = _sources(run)
    if recorded is not None:
        return tuple(place for told in recorded.folders if (place := _place(run, told)[0]))
    return tuple(folder for folder in (_candidates(run, named) if named else ()) if images_below(folder))[:1]


def _sources(run: Run) -> tuple[str | None, Recorded | None]:
    """The folder that its settings name, and what is recorded of the folders of images."""
    named = next((s.value for key in _FOLDERS if (s := run.settings.get(key)) and isinstance(s.value, str) and s.value.strip()), None)
    return named, recorded_data(run) or (_repeated(run, named) if named and run.trainer == "kohya" else None)


def _repeated(run: Run, named: str) -> Recorded | None:
    """The folders `10_sks cat` of kohya's in the folder that was named, None where it has none."""
    for folder in _candidates(run, named):
        try:
            found = sorted(path for path in folder.iterdir() if REPEATED.fullmatch(path.name) and path.is_dir() and not path.is_symlink())
        except OSError:
            continue
        if found:
            return Recorded(tuple(DataFolder(path.name, str(path), repeats=int(path.name.partition("_")[0][:9])) for path in found))
    return None


def _part(run: Run, told: DataFolder) -> DataSet:
    """One folder: what was recorded of it, and what it holds where it is at hand, which is known by its name and number of images."""
    repeats = () if told.repeats is None else (told.repeats,)
    place, found = _place(run, told)
    if place is None:
        return DataSet(told.name, told.images, None, repeats)
    digest, whole = _digest(place, found)
    captions = _captions(place, found, (told.captions,) if told.captions else _CAPTIONS)
    return DataSet(told.name, len(found), captions or 0, repeats, digest, whole)


def _place(run: Run, told: DataFolder) -> tuple[Path | None, list[Path]]:
    """Where a folder that was recorded is, and its images; None where it is not at hand."""
    places = _candidates(run, told.path) if told.path else [top / below / told.name for top in _tops(run) for below in _BELOW]
    for place in places:
        found = images_below(place)
        if found and (told.images == len(found) or (told.path and told.images is None)):
            return place, found
    return None, []


def _tops(run: Run) -> list[Path]:
    return [run.folder, *list(run.folder.parents)[:2]]


def _joined(recorded: Recorded, parts: list[DataSet]) -> DataSet:
    """The folders as one: sums where each is known, and a digest that does not depend on their order."""
    images, captions = (
        [value for value in values if value is not None] for values in zip(*((p.images, p.captions) for p in parts), strict=True)
    )
    repeats = tuple(value for part in parts for value in part.repeats)
    digests = sorted(part.digest for part in parts if part.digest)
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return DataSet(
        ", ".join(part.folder for part in parts),
        sum(images) if len(images) == len(parts) else None,
        sum(captions) if len(captions) == len(parts) else None,
        repeats if len(repeats) == len(parts) else (),
        digest if len(digests) == len(parts) else None,
        all(part.whole for part in parts),
        recorded.resolution,
        recorded.tags,
    )


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
    for count, (place, folders, names) in enumerate(os.walk(folder, onerror=lambda _: None), 1):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(place, name) for name in sorted(names) if name.lower().endswith(_IMAGES))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
        if len(found) > MOST_IMAGES or count >= _MOST_FOLDERS:
            break
    return sorted(found[:MOST_IMAGES])


def _captions(folder: Path, images: list[Path], endings: tuple[str, ...] = _CAPTIONS) -> int | None:
    """How many images have a caption of their own beside them, or a line in the folder's table."""
    beside = sum(any(path.with_suffix(suffix).is_file() for suffix in endings) for path in images)
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
