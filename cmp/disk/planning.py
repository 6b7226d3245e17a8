"""Plans conversions from headers alone: what would be written where, from which base, at which scale, and whether it fits."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import cast

from cmp.core.conversion import GENERATOR, LORA_FORMS, Base, ConversionPlan, LeftOut, Writing, check_form
from cmp.core.runs import Checkpoint, Run
from cmp.core.weights import Weights
from cmp.disk.bases import CONTROL, component_of, files_below, is_pipeline
from cmp.disk.checkpoint import Opened, open_weights
from cmp.disk.cloning import can_clone
from cmp.disk.converted import default_target, is_ours, read_record
from cmp.disk.numbers import FLOATS, WIDTHS
from cmp.disk.ready import Answers, Ready, digest_of, ready_checkpoint, unlike_lora
from cmp.disk.single_file import plan_single_file
from cmp.disk.store import Store
from cmp.disk.tensors import Entry, Identity
from cmp.errors import BadInput, NoSpace, Refused

WITH_WORDS = ("text_encoder", "tokenizer")
_RECORD, _IN_HEADER = 2_000, 64  # bytes, about: of what a file says of itself, and in its header of a tensor beside the name
_MARGIN = 16_000_000  # bytes that stay free: headers, records, and other programs' small writes


def plan_conversion(
    run: Run,
    checkpoint: Checkpoint,
    form: str,
    bases: Iterable[Path],
    store: Store,
    given: Answers = Answers(),
    *,
    output: Path | None = None,
    force: bool = False,
    writing: Writing | None = None,
) -> ConversionPlan:
    """The plan for one checkpoint; raises what stands against it, before anything is written."""
    writing = writing or Writing()
    check_form(form)
    target = output or default_target(run, checkpoint, form, _writable_home(run, store))
    _check_place(run, target, form, output is not None)
    ready = ready_checkpoint(run, checkpoint, bases, store, given, need_base=form not in LORA_FORMS)
    if why := unlike_lora(ready) if form in LORA_FORMS else _unlike_one_file(ready) if form == "single" else None:
        raise Refused(f"{checkpoint.id}: {why}", "Convert it with --to pipeline.")
    if form == "single" and ready.opened.weights.embeddings:
        raise Refused(f"{checkpoint.id} is a learned word, and one file has no tokenizer to know it by", "Convert it with --to pipeline.")
    there = os.path.lexists(target)
    done = _why_done(target, ready, store, writing) if there and not force else None
    return ConversionPlan(
        run, checkpoint, form, target, ready.opened.weights, ready.scale, ready.base,
        _bytes(ready, form, writing, target), done, there and not done, _left_out(ready, form),
        planned_source(ready.opened, ready.base), writing, ready.replaced,
    )  # fmt: skip


def _unlike_one_file(ready: Ready) -> str | None:
    """Why one file in the original layout cannot hold what was trained, None if it can."""
    if ready.opened.weights.embeddings:
        return "it is a learned word, which needs a tokenizer that knows it, and one file has no tokenizer"
    return "a ControlNet has no place in one file of the whole model" if CONTROL in ready.opened.weights.components else None


def _why_done(target: Path, ready: Ready, store: Store, writing: Writing) -> str | None:
    """Why what is at the target may stay; None if it was made of other weights or at another scale. Raises Refused if it is not ours."""
    if not is_ours(target):
        raise Refused(
            f"{target} exists and was not made by this program: nothing proves what is in it",
            "Another converter may have left the base model there. With --force it is moved to .cmp-trash and made anew.",
        )
    record = read_record(target)
    wanted = ready.scale.as_json() if ready.scale else {}
    scale = record.get("scale")
    same = isinstance(scale, dict) and all(scale.get(key) == value for key, value in wanted.items() if key != "source")
    if any(record.get(key, value) != value for key, value in writing.as_json().items()):
        return None
    # the step may have been trained anew since; of full weights it is not known without reading all of them
    if ready.scale and not (same and record.get("digest") == digest_of(ready.opened, store, ready.replaced)):
        return None
    return "already converted, use --force to redo"


def _check_place(run: Run, target: Path, form: str, named: bool) -> None:
    """Refuses targets that --force must not move away, and ways out of the run that the user has not named."""
    if named and form != "pipeline" and target.is_dir():
        raise BadInput(f"{target} is a folder", "Name the file that is to be written.")
    if named and target.is_dir() and any(target.iterdir()) and not is_pipeline(target):
        raise BadInput(f"{target} is a folder that holds something else than a pipeline", "Name a new folder, or one that held a pipeline.")
    inside = () if named else (path for path in target.parents if path.is_relative_to(run.folder) and path != run.folder)
    if link := next((path for path in inside if path.is_symlink()), None):
        raise Refused(f"{link} is a link, and nothing is written through links", "Name the place with --output.")


def _writable_home(run: Run, store: Store) -> Path | None:
    """None where the run's own folder can be written, else the place below CMP_HOME that stands in for it."""
    return None if os.access(run.folder, os.W_OK | os.X_OK) else store.stand_in(run.place)


def _bytes(ready: Ready, form: str, writing: Writing, target: Path) -> int:
    """What has to be written; of what a pipeline takes over from its base that is nothing where the disk lets both share their blocks."""
    weights = ready.opened.weights
    if form in LORA_FORMS:
        return _lora_bytes(ready, form, writing)
    assert ready.base is not None
    replaced = weights.components or ("text_encoder",)  # a learned word is written into that
    tensors = [e for name in replaced for e in component_of(ready.opened, name, ready.base.path).header.tensors.values()]
    if form == "pipeline":
        taken = [real for real, _ in taken_over(ready.base.path, changed_parts(weights))]
        return sum(_size(entry, writing.dtype) for entry in tensors) + _to_copy(taken, _existing_parent(target))
    between = sum(_size(entry, None) for entry in tensors)  # the merged components lie beside the file for a while
    return between + plan_single_file(ready.base.path, writing.dtype).bytes


def _lora_bytes(ready: Ready, form: str, writing: Writing) -> int:
    """The size of a LoRA file, in which all pairs have the largest rank, but for a few hundred bytes of what it says of itself."""
    weights, entries = ready.opened.weights, ready.opened.header.tensors
    most, total = max((module.rank for module in weights.adapted), default=0), _RECORD
    for module in weights.adapted:
        for role, stored in module.parts.items():
            if role == "alpha":
                continue
            filled = most / module.rank if module.rank and role in ("down", "up") else 1
            size = _size(entries[stored], writing.dtype or "F32") * module.share(role, entries[stored].shape)
            total += round(size * filled) + len(module.canonical[stored]) + _IN_HEADER
        total += len(module.key) + _IN_HEADER if form == "webui" else 0  # its alpha
    return total


def changed_parts(weights: Weights) -> frozenset[str]:
    """The components of a pipeline that are written anew."""
    return frozenset((*weights.components, *(WITH_WORDS if weights.embeddings else ())))


def taken_over(base: Path, changed: Collection[str]) -> list[tuple[Path, Path]]:
    """The files of a base that a pipeline made on it has too, each with its place inside: all but the `changed` components' weights."""
    found = []
    for source in files_below(base):
        inside = source.relative_to(base)
        replaced = inside.parts[0] == "tokenizer" or source.name.endswith((".safetensors", ".bin", ".index.json"))
        if inside.parts[0] in changed and (replaced or (WITH_WORDS[1] in changed and inside.parts[0] in WITH_WORDS)):
            continue
        found.append((source.resolve(), inside))  # the Hugging Face cache holds links into its blobs
    return found


def _to_copy(files: Iterable[Path], folder: Path) -> int:
    """Bytes of those files that a copy in a folder cannot share blocks with; tried with one file of each disk that they lie on."""
    disks: dict[int, list[tuple[int, Path]]] = {}
    for file in files:
        found = file.stat()
        disks.setdefault(found.st_dev, []).append((found.st_size, file))
    return sum(sum(size for size, _ in held) for held in disks.values() if not can_clone(max(held)[1], folder))


def _size(entry: Entry, dtype: str | None) -> int:
    """Bytes of a tensor when it is written as `dtype`, None for its own."""
    if dtype is None or entry.dtype not in FLOATS:
        return entry.end - entry.start
    return (entry.end - entry.start) // WIDTHS[entry.dtype] * WIDTHS[dtype]


def _left_out(ready: Ready, form: str) -> tuple[LeftOut, ...]:
    weights = ready.opened.weights
    aside = [LeftOut(name, why) for name, why in weights.aside.items()]
    named = dict.fromkeys(m.parts["alpha"] for m in weights.adapted if "alpha" in m.parts)
    alphas = [LeftOut(name, "alpha: folded into the weights") for name in named]
    why = "frozen: the base model has it" if form in LORA_FORMS else "frozen: taken from the base model, which it equals"
    frozen = weights.dumped - set(ready.replaced)
    return (*aside, *alphas, *(LeftOut(name, why) for name, inner in weights.plain.items() if inner.partition(".")[0] in frozen))


Sources = tuple[tuple[Path, Identity | None], ...]


def planned_source(opened: Opened, base: Base | None) -> Sources:
    """What the files of a checkpoint, and those of its base that it changes, are now."""
    theirs = (component_of(opened, name, base.path).header for name in opened.weights.components) if base else ()
    return tuple(one for header in (opened.header, *theirs) for one in (*header.files, *header.references))


def open_planned(plan: ConversionPlan) -> Opened:
    """The weights that a plan was made for; raises Refused if they are others by now, since everything in the plan speaks of those."""
    opened = open_weights(*plan.checkpoint.files)
    then, now = cast(Sources, plan.source), planned_source(opened, plan.base)
    # a file that gets another name meanwhile, as in a backup of hard links, is still the same
    if len(then) != len(now) or not all(map(_became, then, now)):
        raise Refused(f"{plan.checkpoint.id} has changed since the conversion was planned", "Plan it again when nothing writes to it.")
    return opened


def _became(then: tuple[Path, Identity | None], now: tuple[Path, Identity | None]) -> bool:
    same = then[1].became(now[1]) if then[1] and now[1] else then[1] == now[1]
    return then[0] == now[0] and same


def made_meanwhile(plan: ConversionPlan, digest: str) -> bool:
    """Whether what has appeared at a plan's target is what it was to make: of the same weights, base and scale, and in the same way.

    `digest` is that of what was trained (disk.ready.digest_of).
    """
    record = read_record(plan.target)
    wanted = {
        "generator": GENERATOR, "form": plan.form, "digest": digest, "scale": plan.scale.as_json() if plan.scale else None,
        "base": plan.base.as_json() if plan.base else None, **plan.writing.as_json(),
    }  # fmt: skip
    return all(_bare(record.get(name)) == _bare(value) for name, value in json.loads(json.dumps(wanted)).items())


def _bare(value: object) -> object:
    """Without the words on how it was known."""
    return {k: v for k, v in value.items() if k not in ("source", "proof")} if isinstance(value, dict) else value


def check_space(plans: Iterable[ConversionPlan]) -> None:
    """Raises NoSpace, with both sizes, if the disk cannot hold all of the plans together."""
    needed: dict[int, tuple[int, Path]] = {}
    for plan in plans:
        folder = _existing_parent(plan.target)
        device = folder.stat().st_dev
        needed[device] = (needed.get(device, (0, folder))[0] + (0 if plan.done else plan.bytes), folder)
    for size, folder in needed.values():
        free = shutil.disk_usage(folder).free
        if size and size + _MARGIN > free:
            raise NoSpace(f"this needs {size:,} bytes and {folder} has {free:,} free", "Make room, or convert fewer checkpoints.")


def _existing_parent(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
