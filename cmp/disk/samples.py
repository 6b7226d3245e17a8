"""Finds the pictures that trainers draw while they train, by the names that each gives them, and reads one safely.

Sources of the names: kohya-ss/sd-scripts `library/train_util.py` (sample_image_inference), ostris/ai-toolkit
`BaseSDTrainProcess.sample`, Nerogar/OneTrainer `GenericTrainer.__sample_loop`, bghira/SimpleTuner `validation.py` (_save_images).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from cmp.core.runs import Checkpoint, Run, Setting
from cmp.core.samples import Sample, Within, apart, placed
from cmp.disk.folders import Folder, list_folder
from cmp.disk.sample_prompts import folder_prompts, kohya_prompts
from cmp.disk.tensors import without_waiting
from cmp.errors import CmpError, NotFound, Unreadable

FOLDERS = ("validation", "samples", "sample", "validation_images")
LARGEST = 64 << 20  # bytes of one picture
MOST_FOLDERS = 256  # of prompts
_END = r"\.(?:png|jpg|jpeg|webp)"
_PICTURE = re.compile(rf".+{_END}", re.IGNORECASE | re.DOTALL)
# the name of the folder, and of the pictures in it
_ORIGIN = re.compile(
    rf"(?:epoch(?P<epoch>[0-9]{{1,9}})_)?step(?P<step>[0-9]{{1,18}})_prompt(?P<prompt>[0-9]{{1,9}})_img(?P<image>[0-9]{{1,9}}){_END}"
)
_KOHYA = re.compile(
    rf"(?:(?P<name>.+)_)?(?:e(?P<epoch>[0-9]{{6,18}})|(?P<step>[0-9]{{6,18}}))_(?P<prompt>[0-9]{{2,9}})_[0-9]{{14}}(?:_[0-9]+)?{_END}",
    re.ASCII | re.DOTALL,
)
_TOOLKIT = re.compile(
    rf"(?:rank[0-9]+_sample(?P<prompt>[0-9]{{1,9}})_)?[0-9]+__(?P<step>[0-9]{{1,18}})_(?P<count>[0-9]{{1,9}}){_END}", re.ASCII
)
_ONETRAINER = re.compile(rf".+-training-sample-(?P<step>[0-9]{{1,18}})-[0-9]+-[0-9]+{_END}", re.ASCII | re.DOTALL)
_SIMPLETUNER = re.compile(
    rf"step_(?P<step>[0-9]{{1,18}})_(?P<text>.+?)(?:_(?P<image>[0-9]{{1,9}}))?_[0-9]+x[0-9]+{_END}", re.ASCII | re.DOTALL
)
_TRAINERS = {"validation": _ORIGIN, "sample": _KOHYA, "samples": _TOOLKIT, "validation_images": _SIMPLETUNER}
# what names of nobody's have in common
_STEP, _EPOCH, _PROMPT, _IMAGE = (
    re.compile(rf"(?:{words})[-_ =]?([0-9]{{1,{most}}})(?![0-9])", re.ASCII | re.IGNORECASE)
    for words, most in (("global_step|steps?", 18), ("epoch", 9), ("prompt", 9), ("img|image|idx", 9))
)


def read_samples(
    folder: Folder, series: str | None, checkpoints: Iterable[Checkpoint], settings: Mapping[str, Setting]
) -> tuple[Sample, ...]:
    """The pictures of the run in this folder, ascending by name; of one series if several lie here.

    Without a step are those that only count epochs, where nothing tells how long one is, and those whose names tell nothing.
    """
    found = [sample for name in FOLDERS if name in folder.folders for sample in _below(folder, name, series)]
    return apart(placed(found, checkpoints, settings))


def of_run(run: Run) -> tuple[Sample, ...]:
    """The pictures of a run as its folder is now; none if it has gone."""
    try:
        return read_samples(list_folder(run.folder), run.series, run.checkpoints, run.settings)
    except CmpError:
        return ()


def _below(folder: Folder, name: str, series: str | None) -> Iterator[Sample]:
    inner = _listed(folder.path / name)
    if inner is None:
        return
    if name == "sample":
        texts = kohya_prompts(folder, inner)
        for sample in _named(inner, name, series):
            yield replace(sample, text=texts.get(sample.prompt)) if sample.prompt in texts else sample
    elif series is None:
        yield from _named(inner, name, None)
        if name == "samples":
            yield from _prompt_folders(folder, inner)


def _listed(path: Path) -> Folder | None:
    try:
        return list_folder(path)
    except CmpError:
        return None


def _named(inner: Folder, name: str, series: str | None) -> Iterator[Sample]:
    """The pictures that lie in a folder directly."""
    numbers: dict[str, int] = {}  # SimpleTuner's prompts have short names: each new one gets the next number
    for file in sorted(inner.files):
        told = _TRAINERS[name].fullmatch(file)
        if told is None:
            if series is None and (sample := _anybodys(inner.path / file)):
                yield sample
            continue
        parts = told.groupdict()
        if series is not None and (parts.get("name") or "") != series:
            continue
        text, count = parts.get("text"), parts.get("count")
        prompt = numbers.setdefault(text, len(numbers)) if text else int(parts.get("prompt") or count or 0)
        image = int(parts.get("image") or (count if parts.get("prompt") and count else 0))
        step, epoch = (int(parts[key]) if parts.get(key) else None for key in ("step", "epoch"))
        yield Sample(inner.path / file, step, prompt, image, epoch, None, text)


def _anybodys(file: Path) -> Sample | None:
    """A picture whose name may tell step or epoch in some way of its own."""
    if not _PICTURE.fullmatch(file.name) or file.name.startswith("."):
        return None
    step, epoch, prompt, image = (
        int(found[1]) if (found := known.search(file.stem)) else None for known in (_STEP, _EPOCH, _PROMPT, _IMAGE)
    )
    return Sample(file, step, prompt or 0, image or 0, epoch)


def _prompt_folders(folder: Folder, inner: Folder) -> Iterator[Sample]:
    """OneTrainer's pictures: a folder `NUMBER - PROMPT` for each prompt, and `custom` for what was asked for by hand."""
    prompts = folder_prompts(folder, inner)
    for name in sorted(inner.folders)[:MOST_FOLDERS]:
        if (of_prompt := _listed(inner.path / name)) is None or name not in prompts:
            continue
        number, text, variant = prompts[name]
        for file in sorted(of_prompt.files):
            if told := _ONETRAINER.fullmatch(file):
                yield Sample(of_prompt.path / file, int(told["step"]), number, 0, None, None, text, variant)


def stamp_of(run: Run) -> str:
    """Equal while a run's folders of pictures are as they were: their names, sizes and times. No picture is opened."""
    seen = hashlib.sha256()
    for path in (run.folder / name for name in FOLDERS):
        for line in _entries(path, 1 if path.name == "samples" else 0):
            seen.update(line.encode("utf-8", "surrogateescape"))
    return seen.hexdigest()


def _entries(path: Path, deeper: int) -> Iterator[str]:
    try:
        if path.is_symlink():
            return
        with os.scandir(path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in listed:
        try:
            if deeper and entry.is_dir(follow_symlinks=False):
                yield entry.name
                yield from _entries(Path(entry.path), deeper - 1)
            elif entry.is_file(follow_symlinks=False):
                now = entry.stat(follow_symlinks=False)
                yield f"{entry.name}|{now.st_size}|{now.st_mtime_ns}\n"
        except OSError:  # it went meanwhile
            continue


def written_at(samples: Iterable[Sample]) -> dict[Path, float]:
    """When the files were written, Unix seconds; those that have gone are left out."""
    times: dict[Path, float] = {}
    for sample in samples:
        try:
            times[sample.path] = os.lstat(sample.path).st_mtime
        except OSError:
            continue
    return times


def digest_of(sample: Sample) -> str | None:
    """A name for a picture as it is now, which changes when its file is written anew; None if it has gone.

    A log only grows, so that what lies at a place in it stays.
    """
    if (within := sample.within) is not None:
        told = f"{sample.path}|{within}"
    else:
        try:
            now = os.lstat(sample.path)
        except OSError:
            return None
        told = f"{sample.path}|{now.st_mtime_ns}|{now.st_size}"
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()


def read_bytes(path: Path, within: Within | None = None) -> bytes:
    """A picture's bytes, alone if it lies within a log; raises NotFound, or Unreadable for a link, a FIFO and what is far too large."""
    try:
        with open(path, "rb", opener=_not_linked) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable(f"{path} is not a regular file", "Only pictures are shown.")
            size = within.size if within else found.st_size
            if size > LARGEST:
                raise Unreadable(f"{path}: the picture has {size:,} bytes", f"At most {LARGEST:,} are read.")
            file.seek(within.at if within else 0)
            return file.read(size)
    except FileNotFoundError as fault:
        raise NotFound(f"{path} is not there any more", "Reload the page.") from fault
    except OSError as fault:
        raise Unreadable(f"cannot read {path}: {fault.strerror}", "Links are not followed; check its permissions.") from fault


def _not_linked(path: str, flags: int) -> int:
    return without_waiting(path, flags | getattr(os, "O_NOFOLLOW", 0))
