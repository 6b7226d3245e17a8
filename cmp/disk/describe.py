"""What `show` and `doctor` tell: one run, one checkpoint, one folder, this machine."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from cmp import __version__
from cmp.core.conversion import FORMS, LORA_FORMS
from cmp.core.describing import CAN_BE_MADE, kind_text
from cmp.core.marks import NONE, Mark, Marks
from cmp.core.present import alias_text, checkpoint_json, counted, path_text, run_json, size_text
from cmp.core.runs import Checkpoint, Run, plain_text
from cmp.core.scale import Scale
from cmp.core.weights import Weights
from cmp.disk.base_proof import compared
from cmp.disk.bases import find_base, is_pipeline, pipelines_below, with_place
from cmp.disk.checkpoint import Opened
from cmp.disk.converted import read_record
from cmp.disk.folders import list_folder, size_below
from cmp.disk.machine import existing, memory_total
from cmp.disk.plain_pipeline import KIND, is_plain_pipeline, places_below
from cmp.disk.ready import Answers, Ready, open_checkpoint, ready_checkpoint, remembered_answers, unlike_lora
from cmp.disk.scan import scan
from cmp.disk.single_file import plan_single_file
from cmp.disk.store import Store
from cmp.disk.unchanged import unchanged_checkpoint
from cmp.disk.update_sizes import quick_update_size
from cmp.errors import CmpError, NotFound

INSTEAD = "Use pipeline or single, which hold the whole model."
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


def describe_run(run: Run, answers: Answers, marks: Marks) -> dict[str, object]:
    """A run's settings with their sources, and what was answered for it."""
    told = run_json(run, time.time(), marks)
    values: Mapping[str, object] = told["settings"]  # type: ignore[assignment]
    told["settings"] = {key: {"value": value, "source": plain_text(run.settings[key].source)} for key, value in values.items()}
    told["answers"] = {"alpha": answers.alpha, "base": answers.base}
    return told | _trigger_words(run)


def _trigger_words(run: Run, opened: Opened | None = None) -> dict[str, object]:
    """The words that call up what was trained, and what says so: learned ones of the weights file itself, else those of its run."""
    own = opened and (*opened.weights.embeddings, *opened.weights.bundled)
    if opened and own:
        file = opened.header.path  # webui's files do not name their word: there it is the file's name
        return {
            "trigger_words": [plain_text(file.stem if word == "emb_params" else word) for word in own],
            "trigger_source": path_text(file),
        }
    found = run.settings.get("trigger_words")
    words = found.value if found and isinstance(found.value, (tuple, list)) else ()
    return {"trigger_words": [plain_text(str(word)) for word in words], "trigger_source": plain_text(found.source) if found else None}


def describe_checkpoint(
    run: Run, checkpoint: Checkpoint, bases: Iterable[Path], store: Store, given: Answers, mark: Mark = NONE
) -> dict[str, object]:
    """A checkpoint's tensors by kind, its scale and base with their sources, what it can become or why not, and what was made of it."""
    told = checkpoint_json(checkpoint, mark)
    folder = (checkpoint.file or checkpoint.path / "-").parent.name
    told |= _trigger_words(run) | {
        "kind": kind_text(checkpoint.layout, checkpoint.holds, folder),
        "made": [_made(*form) for form in checkpoint.converted],
    }
    try:
        opened = open_checkpoint(checkpoint)
    except CmpError as fault:
        return told | {"usable": False, "why": fault.message, "hint": fault.hint}
    weights, places = opened.weights, tuple(bases)
    told |= _trigger_words(run, opened)
    dora = any({"dora_scale", "magnitude"} & set(module.parts) for module in weights.adapted)
    told |= {
        "kind": KIND if is_plain_pipeline(run) else kind_text(weights.layout, weights.holds, folder, dora),
        "component": weights.component,
        "components": list(weights.components),
        "rank": list(weights.ranks),
        "targets": list(weights.targets),
    }
    forms: dict[str, str] = {}
    ready: Ready | None = None
    for alike in (LORA_FORMS, [form for form in FORMS if form not in LORA_FORMS]):
        try:
            ready = ready_checkpoint(run, checkpoint, places, store, given, need_base=alike is not LORA_FORMS)
            forms |= {form: _can_become(form, ready) for form in alike}
        except CmpError as fault:
            forms |= dict.fromkeys(alike, fault.told)
    if ready is None and weights.adapted:
        told["question"] = _question(run, checkpoint, weights, store, given)
    told |= {"scale": ready.scale.as_json() if ready and ready.scale else None, "is_base": _is_base(run, checkpoint, places, store, given)}
    told["base"] = ready.base.as_json() if ready and ready.base else None
    told["base_missing"] = None if told["base"] else _why_no_base(run, places, given, store)
    told["modules"] = _modules(weights, ready.scale if ready else None)
    told["update"] = _update(ready, store) if ready else None
    return told | {"tensors": _tensors(opened, ready, store), "forms": forms}


def _update(ready: Ready, store: Store) -> dict[str, object] | None:
    """The size of what was trained, where measuring it takes no time."""
    size = quick_update_size(ready, store)
    return size.as_json() if size and size.blocks else None


def _is_base(run: Run, checkpoint: Checkpoint, places: tuple[Path, ...], store: Store, given: Answers) -> dict[str, object] | None:
    """Which base model's its whole weights are, None where they are of none."""
    same = unchanged_checkpoint(run, checkpoint, places, store, given.base)
    return same.as_json() if same else None


def _can_become(form: str, ready: Ready) -> str:
    """That a form can be made of what is ready for it, or why not."""
    if form in LORA_FORMS and (why := unlike_lora(ready)):
        return f"{why}. {INSTEAD}"
    try:
        if form == "single" and ready.base:
            plan_single_file(ready.base.path)
    except CmpError as fault:
        return fault.told
    return CAN_BE_MADE


def _tensors(opened: Opened, ready: Ready | None, store: Store) -> dict[str, object]:
    """Every tensor of the checkpoint, counted by what becomes of it. Where a base is at hand, frozen are those that equal it."""
    weights = opened.weights
    frozen = [n for n in weights.plain.values() if n.partition(".")[0] in weights.dumped]
    trained = 0
    if ready and ready.base and ready.base.proof == "tensors":
        trained = sum(len(compared(opened, name, ready.base.path, store).differing) for name in weights.dumped)
    left = Counter(weights.aside.values())
    first = {why: name for name, why in reversed(list(weights.aside.items()))}
    return {
        "total": len(opened.header.tensors),
        "pairs": len(weights.adapted),
        "adapted": len({stored for module in weights.adapted for stored in module.parts.values()}),
        "frozen": len(frozen) - trained,
        "whole": len(weights.plain) - len(frozen) + trained,
        "embeddings": len(weights.embeddings),
        "left_out": [{"why": plain_text(why), "count": count, "example": plain_text(first[why])} for why, count in left.items()],
        "types": dict(Counter(entry.dtype for entry in opened.header.tensors.values())),
    }


def _modules(weights: Weights, scale: Scale | None) -> list[dict[str, object]]:
    """How many modules have which rank and scale."""
    groups = Counter((m.component, m.method, m.rank, scale.of(m.key) if scale else None) for m in weights.adapted)
    return [
        {"component": component, "method": method, "rank": rank, "scale": value, "count": count}
        for (component, method, rank, value), count in sorted(groups.items(), key=str)
    ]


def _question(run: Run, checkpoint: Checkpoint, weights: Weights, store: Store, given: Answers) -> dict[str, object] | None:
    """What the user is asked where an alpha would help: None if it is something else that stands against the scale."""
    faults = []
    for answers in (given, replace(given, alpha=1.0)):
        try:
            ready_checkpoint(run, checkpoint, (), store, answers, need_base=False)
            faults.append("")
        except CmpError as fault:
            faults.append(fault.message)
    ranks = Counter(module.rank for module in weights.adapted if module.rank).most_common(1)
    return {"alpha": None, "rank": ranks[0][0], "why": faults[0]} if ranks and faults[0] and faults[0] != faults[1] else None


def _why_no_base(run: Run, places: tuple[Path, ...], given: Answers, store: Store) -> str | None:
    try:
        find_base(run, places, given.base, remembered := remembered_answers(run, store).base)
    except NotFound as fault:
        return with_place(fault, run, given.base or remembered or run.base_model).told
    except CmpError as fault:
        return fault.told
    return None


def _made(form: str, target: Path) -> dict[str, object]:
    """A converted form with the checks that it passed when it was made."""
    record = read_record(target)
    checks = record.get("checks")
    return {
        "form": form,
        "path": path_text(target),
        "bytes": size_below(target) if target.is_dir() else target.stat().st_size,
        "made_at": plain_text(str(record.get("made_at", ""))),
        "checks": [plain_text(str(check)) for check in checks] if isinstance(checks, list) else [],
    }


def why_not_listed(path: Path, bases: Iterable[Path] = (), completed: Callable[[Run], Run] = lambda run: run) -> list[str]:
    """In words, what a scan makes of a folder; raises NotFound if there is none. `completed` has equal weights as one, as in a list."""
    if not os.path.lexists(path):
        raise NotFound(f"there is nothing at {path}", "Check the path as this computer knows it.")
    if os.path.isfile(path):
        return [plain_text(f"{path} is a file, and runs are folders: `python -m cmp show` tells what a weights file holds")]
    bases = tuple(bases)
    library = scan([path], bases)
    told = [f"{problem.path}: {problem.reason}" for problem in library.problems]
    for run in map(completed, library.runs):
        told.append(f"{run.folder} is listed as run {run.id!r} ({run.trainer}), {counted(len(run.checkpoints), 'checkpoint')}")
        told += [f"{c.path}: the same weights as {alias_text(c)}, so that they count once" for c in run.checkpoints if c.aliases]
        told += [f"{run.folder}: {warning}" for warning in run.warnings]
        told += [f"{c.path}: {c.flaw}" for c in run.checkpoints if c.flaw]
    places = places_below(path, bases)
    pipelines = (f for f in (path, *pipelines_below([path])) if is_pipeline(f) and any(map(f.is_relative_to, places)))
    known = {run.folder for run in library.runs}
    told += [f"{f} is a base model and no run: it lies where base models were said to" for f in pipelines if f not in known]
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
        "memory": size_text(memory) if (memory := memory_total()) is not None else None,
        "packages": {name: _version(name) for name in _PACKAGES},
        "runs": [path_text(root) for root in roots],
        "home": path_text(home),
        "disk_free": size_text(shutil.disk_usage(existing(home)).free),
        "bases": [path_text(folder) for folder in pipelines_below(bases)],
    }


def _version(name: str) -> str | None:
    import importlib.metadata  # slow, and `list` needs nothing of it

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
