"""What `show` and `doctor` tell: one run, one checkpoint, one folder, this machine."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from cmp import __version__
from cmp.core.conversion import FORMS, LORA_FORMS
from cmp.core.present import checkpoint_json, path_text, run_json, size_text
from cmp.core.runs import Checkpoint, Run, plain_text
from cmp.disk.bases import pipelines_below
from cmp.disk.folders import list_folder
from cmp.disk.ready import Answers, open_checkpoint, ready_checkpoint, unlike_lora
from cmp.disk.scan import scan
from cmp.disk.single_file import plan_single_file
from cmp.disk.store import Store
from cmp.errors import CmpError, NotFound

_PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "gradio",
    "tensorboard",
    "pandas",
    "matplotlib",
    "plotly",
)


def describe_run(run: Run, answers: Answers) -> dict[str, object]:
    """A run's settings with their sources, and what was answered for it."""
    told = run_json(run, time.time())
    values: Mapping[str, object] = told["settings"]  # type: ignore[assignment]
    told["settings"] = {key: {"value": value, "source": plain_text(run.settings[key].source)} for key, value in values.items()}
    told["answers"] = {"alpha": answers.alpha, "base": answers.base}
    return told


def describe_checkpoint(run: Run, checkpoint: Checkpoint, bases: Iterable[Path], store: Store, given: Answers) -> dict[str, object]:
    """A checkpoint's tensors by kind, its scale and base with their sources, and each form it can become or why not."""
    told = checkpoint_json(checkpoint)
    try:
        opened = open_checkpoint(checkpoint)
    except CmpError as fault:
        return told | {"usable": False, "why": fault.message, "hint": fault.hint}
    weights = opened.weights
    types = Counter(entry.dtype for entry in opened.header.tensors.values())
    told["tensors"] = {
        "total": len(opened.header.tensors),
        "pairs": len(weights.adapted),
        "frozen": len([n for n in weights.plain.values() if n.partition(".")[0] in weights.dumped]),
        "whole": len([n for n in weights.plain.values() if n.partition(".")[0] not in weights.dumped]),
        "types": dict(types),
    }
    told |= {
        "component": weights.component,
        "components": list(weights.components),
        "rank": list(weights.ranks),
        "targets": list(weights.targets),
    }
    forms = {}
    for form in FORMS:
        try:
            ready = ready_checkpoint(run, checkpoint, bases, store, given, need_base=form not in LORA_FORMS)
            forms[form] = (unlike_lora(ready) if form in LORA_FORMS else None) or "can be made"
            if form == "single" and ready.base:
                plan_single_file(ready.base.path)
            told["scale"] = ready.scale.as_json() if ready.scale else None
            told["base"] = ready.base.as_json() if ready.base else told.get("base")
        except CmpError as fault:
            forms[form] = f"{fault.message} {fault.hint}"
    return told | {"forms": forms}


def why_not_listed(path: Path) -> list[str]:
    """In words, what a scan makes of a folder; raises NotFound if there is none."""
    if not os.path.lexists(path):
        raise NotFound(f"there is nothing at {path}", "Check the path as this computer knows it.")
    if os.path.isfile(path):
        return [plain_text(f"{path} is a file, and runs are folders: `python -m cmp show` tells what a weights file holds")]
    library = scan([path])
    told = [f"{problem.path}: {problem.reason}" for problem in library.problems]
    for run in library.runs:
        told.append(f"{run.folder} is listed as run {run.id!r} ({run.trainer}), {len(run.checkpoints)} checkpoints")
        told += [f"{c.path}: {c.flaw}" for c in run.checkpoints if c.flaw]
    if not library.runs:
        told += _what_lies_in(path)
    return list(map(plain_text, told))


def _what_lies_in(path: Path) -> list[str]:
    try:
        folder = list_folder(path)
    except CmpError:
        return []
    names = sorted(folder.folders)[:8] + sorted(folder.files)[:8]
    told = [f"it holds: {', '.join(names) or 'nothing'}"]
    told += [f"{name} is a link, and links are not followed" for name in sorted(folder.links)[:8]]
    told.append("a run has folders checkpoint-N, here or in checkpoints/, or a weights file such as pytorch_lora_weights.safetensors")
    return told


def describe_machine(roots: Iterable[Path], bases: tuple[Path, ...], home: Path) -> dict[str, object]:
    """Memory, disk, versions, and the base models found."""
    return {
        "cmp": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "memory": _memory(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "runs": [path_text(root) for root in roots],
        "home": path_text(home),
        "disk_free": size_text(shutil.disk_usage(_existing(home)).free),
        "bases": [path_text(folder) for folder in pipelines_below(bases)],
    }


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _memory() -> str | None:
    try:
        return size_text(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _version(name: str) -> str | None:
    import importlib.metadata  # slow, and `list` needs nothing of it

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
