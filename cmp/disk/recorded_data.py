"""What trainers record of the images that they trained with: folders, counts and repeats, and never a path, a tag or a caption.

kohya's sd-scripts write the folders' names and counts into each header (`train_network.py`: ss_dataset_dirs, ss_datasets,
ss_tag_frequency) and are told of them by a `dataset_config` (`library/config_util.py`); ai-toolkit keeps its job's `config.yaml`
(`toolkit/config_modules.py`: DatasetConfig).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cmp.core.runs import Run
from cmp.disk.logs.hparams import read_yaml
from cmp.disk.logs.records import opened
from cmp.disk.trainers.found import count_in, header_of, parse_json, parse_table, tables
from cmp.errors import Unreadable

REPEATED = re.compile(r"([0-9]+)_.+", re.ASCII | re.DOTALL)  # `10_sks cat`: the folder's images are taken ten times an epoch
_KOHYA_CAPTIONS, _TOOLKIT_CAPTIONS = ".caption", "txt"  # where nothing else is said
_MOST_BYTES = 1 << 20
_MOST_FOLDERS = 200


@dataclass(frozen=True, slots=True)
class DataFolder:
    """One folder of images: its `name`, the `path` to look for it at where one is recorded, and what was recorded of it."""

    name: str
    path: str | None = None
    images: int | None = None
    repeats: int | None = None
    captions: str | None = None  # the ending of their files


@dataclass(frozen=True, slots=True)
class Recorded:
    """All folders of a run, at least one. `tags` is how many different ones its captions have."""

    folders: tuple[DataFolder, ...]
    resolution: str = ""
    tags: int | None = None


def recorded_data(run: Run) -> Recorded | None:
    """What the run's own files say of its images; None where they say nothing. Never raises for what they hold."""
    if run.trainer == "ai-toolkit":
        return _of_job(run.folder)
    if run.trainer != "kohya":
        return None
    configured = next((found for file in _configs(run.folder) if (found := _of_config(file))), None)
    headers = (header_of(c.file) for c in reversed(run.checkpoints) if c.file and c.file.suffix == ".safetensors")
    told = next((found for header in headers if header and (found := _of_header(header.metadata))), None)
    if told is None or configured is None:
        return told or configured
    return replace(told, folders=tuple(_joined(folder, configured.folders) for folder in told.folders))


def _joined(folder: DataFolder, configured: tuple[DataFolder, ...]) -> DataFolder:
    """A folder of the header with the place that a config beside it tells, of which only the names can say that it is the run's."""
    known = next((one for one in configured if one.name == folder.name), None)
    return replace(folder, path=known.path, captions=known.captions) if known else folder


def _of_header(metadata: Mapping[str, str]) -> Recorded | None:
    """The folders by their names alone; a header holds no paths. Images for regularisation are no part of them."""
    sets = tables(parse_json(metadata.get("ss_datasets", "")))
    subsets = [one for told in sets for one in tables(told.get("subsets")) if not one.get("is_reg")]
    folders = [
        DataFolder(
            _name(one.get("image_dir") or one.get("metadata_file")), None, count_in(one.get("img_count")), count_in(one.get("num_repeats"))
        )
        for one in subsets
    ]
    if not folders:
        dirs = parse_table(metadata.get("ss_dataset_dirs", ""))
        pairs = [(name, one) for name, told in dirs.items() for one in tables(told)]
        folders = [DataFolder(_name(name), None, count_in(one.get("img_count")), count_in(one.get("n_repeats"))) for name, one in pairs]
    if not folders:
        return None
    found = dict.fromkeys(_size(told.get("resolution")) for told in sets)
    frequencies = parse_table(metadata.get("ss_tag_frequency", "")).values()
    tags = {tag for told in frequencies if isinstance(told, dict) for tag in told}
    return Recorded(tuple(folders[:_MOST_FOLDERS]), ", ".join(filter(None, found)), len(tags) or None)


def _configs(folder: Path) -> Iterator[Path]:
    """The TOML files that may be the run's dataset_config: in its folder, else beside it."""
    for place in (folder, folder.parent):
        try:
            found = sorted(path for path in place.glob("*.toml") if path.is_file() and not path.is_symlink())
        except OSError:
            continue
        yield from found[:20]


def _of_config(file: Path) -> Recorded | None:
    """A dataset_config; what a subset does not say its data set says, and then `general`."""
    if sys.version_info < (3, 11):  # the library that reads it came with 3.11
        return None
    import tomllib

    try:
        with opened(file) as (content, size):
            told = tomllib.loads(content.read(_MOST_BYTES).decode("utf-8")) if size <= _MOST_BYTES else {}
    except (Unreadable, ValueError, RecursionError):
        return None
    general = next(iter(tables(told.get("general"))), {})
    folders, sizes = [], []
    for data in tables(told.get("datasets")):
        sizes.append(_size(data.get("resolution", general.get("resolution"))))
        for one in (general | data | subset for subset in tables(data.get("subsets"))):
            path = one.get("image_dir")
            if isinstance(path, str) and path.strip() and not one.get("is_reg"):
                folders.append(
                    DataFolder(
                        _name(path), path, None, count_in(one.get("num_repeats", 1)), _ending(one.get("caption_extension", _KOHYA_CAPTIONS))
                    )
                )
    return Recorded(tuple(folders[:_MOST_FOLDERS]), ", ".join(dict.fromkeys(filter(None, sizes)))) if folders else None


def _of_job(folder: Path) -> Recorded | None:
    config = next((told for name in ("config.yaml", "config.yml") if (told := read_yaml(folder / name).get("config"))), None)
    processes = tables(config.get("process")) if isinstance(config, dict) else ()
    folders, sizes = [], []
    for one in tables(processes[0].get("datasets")) if processes else ():
        path = one.get("folder_path") or one.get("dataset_path")
        if isinstance(path, str) and path.strip() and not one.get("is_reg"):
            ending = _ending(one.get("caption_ext", _TOOLKIT_CAPTIONS))
            folders.append(DataFolder(_name(path), path, None, count_in(one.get("num_repeats", 1)), ending))
            sizes.append(_size(one.get("resolution"), ", "))
    return Recorded(tuple(folders[:_MOST_FOLDERS]), ", ".join(dict.fromkeys(filter(None, sizes)))) if folders else None


def _name(path: object) -> str:
    """The last part of a path as any system writes it."""
    return PurePosixPath(str(path or "").replace("\\", "/")).name or "?"


def _ending(text: object) -> str | None:
    return f".{text.lstrip('.')}" if isinstance(text, str) and re.fullmatch(r"\.?[A-Za-z0-9_]{1,16}", text) else None


def _size(value: object, between: str = " × ") -> str:
    """A side, width and height, or with another `between` several sides: numbers alone."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return between.join(str(size) for size in items[:8] if isinstance(size, int) and not isinstance(size, bool))
