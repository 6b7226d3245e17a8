"""Writes a full diffusers pipeline with the adapter merged in: W + scale·B·A, tensor by tensor, everything else as the base has it."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from cmp.core.conversion import Conversion, ConversionPlan
from cmp.core.progress import Progress, counted_from
from cmp.disk.bases import CONTROL, component_of, is_added
from cmp.disk.checkpoint import Opened
from cmp.disk.cloning import clone
from cmp.disk.converted import METADATA, RECORD, read_record
from cmp.disk.lora_file import conversion_record
from cmp.disk.merging import MergedComponent, merge
from cmp.disk.numbers import WIDTHS
from cmp.disk.planning import changed_parts, taken_over
from cmp.disk.raw import STRIDE, RawReader
from cmp.disk.ready import trained_tensors
from cmp.disk.replaced import make_way, put_back
from cmp.disk.replacing import cannot_write, sweep
from cmp.disk.single_file import plan_single_file
from cmp.disk.writing import write_draft
from cmp.engine.control import add_control
from cmp.engine.single import convert_to_single_file
from cmp.engine.words import write_words
from cmp.errors import Refused

_BATCH = 250_000_000  # bytes


def convert_to_pipeline(
    plan: ConversionPlan, opened: Opened, proofs: tuple[str, ...], digest: str, *, passing: bool = False
) -> Generator[Progress, None, Conversion]:
    """Carries out a plan for the form "pipeline". The folder appears whole and proven under its name, or not at all.

    `opened` is what the plan was made for, `proofs` are those that it has passed, in words, `digest` is that of what was trained. One that
    is `passing` is only read and goes again.
    """
    started = time.monotonic()
    assert plan.base is not None
    checks = list(proofs)
    yield Progress(0, 4, "reading what was trained")
    merged = {n: merge(opened, n, component_of(opened, n, plan.base.path), plan.scale, plan.writing) for n in opened.weights.components}
    draft, done = None, 0
    try:
        plan.target.parent.mkdir(parents=True, exist_ok=True)
        sweep(plan.target.parent)
        draft = Path(tempfile.mkdtemp(prefix=".tmp-", dir=plan.target.parent))
        yield Progress(1, 4, "taking over the untouched parts of the base")
        os.chmod(draft, plan.target.parent.stat().st_mode & 0o777)
        done = yield from _take_over(plan.base.path, draft, changed_parts(opened.weights), passing)
        for name, component in merged.items():
            checks.append((yield from counted_from(done, _write_component(name, component, draft / name))))
            done += 2 * component.bytes
        checks += yield from counted_from(done, _complete(plan, opened, merged, draft))
        yield Progress(3, 4, "writing the record", done)
        _write_record(conversion_record(plan, opened, digest) | {"checks": checks}, draft / METADATA)
        _take_name(draft, plan)
    except OSError as fault:
        raise cannot_write(plan.target, fault) from fault
    finally:
        if draft:
            shutil.rmtree(draft, ignore_errors=True)
    return Conversion(
        plan.checkpoint.id, plan.form, plan.target, plan.bytes, time.monotonic() - started,
        len(opened.header.tensors), len(trained_tensors(opened, plan.whole)), plan.left_out, plan.scale, tuple(checks),
    )  # fmt: skip


def _complete(
    plan: ConversionPlan, opened: Opened, merged: Mapping[str, MergedComponent], draft: Path
) -> Generator[Progress, None, list[str]]:
    """Writes what is no weights of a component of the base; what there is to say of it, and of weights that change nothing."""
    assert plan.base is not None
    if opened.weights.embeddings:
        return [write_words(opened, plan.base.path, draft)]
    if CONTROL in merged and is_added(CONTROL, plan.base.path):
        return [add_control(merged[CONTROL].base.folder, plan.base.path, draft, plan.writing.strength)]
    for component in merged.values():
        if (yield from component.changes()):
            return []
    return ["identical to the base model: nothing that was trained changes a tensor"]


def _take_name(draft: Path, plan: ConversionPlan) -> None:
    """Gives the finished folder its name. What is to be replaced goes to the trash at this last moment, and comes back if that fails."""
    old = make_way(plan.target, plan.run.folder) if plan.replaces else None
    try:
        os.replace(draft, plan.target)
    except OSError as fault:
        if old is not None:
            put_back(old, plan.target)
        if fault.errno in (errno.ENOTEMPTY, errno.EEXIST):
            told = f"{plan.target} has appeared since the conversion was planned"
            raise Refused(told, "Another process may have made it; plan again.") from fault
        raise


def _take_over(base: Path, draft: Path, changed: Collection[str], passing: bool) -> Generator[Progress, None, int]:
    """Gives the draft every file of the base but the changed components' weights; what was read and written for it, in bytes.

    They are files of their own, that share their blocks with the base's where the disk lets them. Hard links would cost nothing anywhere,
    but then `save_pretrained` into the pipeline, or an editor, would change the base in place, with it the Hugging Face cache and every
    other pipeline. That links are read-only stops neither root nor who owns them, and the mode would be the base's too. Whoever wants one
    file of both has `storage --share hardlink`, which says so. A `passing` folder, that nobody gets to see, has links to large files.
    """
    done = 0
    for real, inside in sorted(taken_over(base, changed), key=lambda file: -file[0].stat().st_size):  # by these the pace is judged
        target = draft / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        if passing and real.suffix in (".safetensors", ".bin"):
            with suppress(OSError, NotImplementedError):
                target.symlink_to(real)
                continue
        with open(real, "rb") as read, open(target, "wb") as written:
            if clone(real, written.fileno()):
                continue
            while block := read.read(STRIDE):
                yield Progress(1, 4, "taking over the untouched parts of the base", done)
                written.write(block)
                done += 2 * len(block)
            written.flush()
            os.fsync(written.fileno())
    return done


def _write_component(name: str, merged: MergedComponent, folder: Path) -> Generator[Progress, None, str]:
    """Writes one component's weights and reads them back, and can be left at every tensor; gives the proof in words."""
    stem = "diffusion_pytorch_model" if name in ("unet", "transformer", "controlnet", "vae") else "model"
    target = folder / f"{stem}.safetensors"
    folder.mkdir(exist_ok=True)  # a base may have weights alone
    target.unlink(missing_ok=True)
    with RawReader(merged.opened.header) as own, RawReader(merged.base.header) as base:

        def blocks(tensor: str) -> Iterator[memoryview] | None:
            return merged.copied(tensor, own, base)

        syncing = yield from write_draft(target, name, merged.described, merged.read, {"format": "pt"}, blocks)
        proof = yield from counted_from(merged.bytes, _read_back(target, merged, blocks))
        yield from syncing.wait(Progress(2, 4, "", 2 * merged.bytes))
        return proof


def _read_back(
    target: Path, merged: MergedComponent, blocks: Callable[[str], Iterator[memoryview] | None]
) -> Generator[Progress, None, str]:
    """Reads the file with the safetensors library and compares every tensor with its source, or with a second computation."""
    so_far = Progress(2, 4, f"reading {target.parent.name} back")
    with safe_open(target, framework="pt") as file:
        if set(file.keys()) != set(merged.described):
            raise Refused(f"{target} does not hold what was written", "The disk may be failing; convert again.")
    for names in _batches(merged):
        with safe_open(target, framework="pt") as file:  # anew, since what was read of a mapped file counts as memory until it is closed
            for name in names:
                yield so_far
                raw = blocks(name)
                meant = raw if raw is not None else [np.ascontiguousarray(merged.read(name)).reshape(-1).view(np.uint8).data]
                written = file.get_tensor(name).reshape(-1).view(torch.uint8).numpy()
                if not (yield from _same(written, meant, so_far)):
                    raise Refused(f"{target} came back with another {name}", "The disk may be failing; convert again.")
                so_far = replace(so_far, done_bytes=so_far.done_bytes + len(written))
    changed, own = len(merged.adapted), len(merged.own)
    told = [f"{own} are the checkpoint's"] if own else []
    told += [f"{changed} have its adapter merged in, computed a second time"] if changed else []
    return f"read back: all {len(merged.described)} tensors of {target.parent.name} are as meant ({', '.join(told)})"


def _batches(merged: MergedComponent) -> Iterator[list[str]]:
    """The component's tensors, a few hundred MB at a time."""
    batch: list[str] = []
    size = 0
    for name, (dtype, shape) in merged.described.items():
        batch.append(name)
        size += math.prod(shape) * WIDTHS[dtype]
        if size > _BATCH:
            yield batch
            batch, size = [], 0
    yield batch


def _same(written: np.ndarray, meant: Iterable[memoryview], so_far: Progress) -> Generator[Progress, None, bool]:
    done = 0
    for block in meant:
        if not np.array_equal(written[done : done + len(block)], np.frombuffer(block, np.uint8)):
            return False
        done += len(block)
        if done % STRIDE == 0:
            yield replace(so_far, done_bytes=so_far.done_bytes + done)
    return done == len(written)


def _write_record(record: Mapping[str, object], file: Path) -> None:
    file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def convert_to_single(plan: ConversionPlan, opened: Opened, proofs: tuple[str, ...], digest: str) -> Generator[Progress, None, Conversion]:
    """Carries out a plan for the form "single": a merged pipeline beside the target, and out of it the one file, proven."""
    started = time.monotonic()
    try:
        plan.target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=plan.target.parent) as folder:
            between = replace(plan, form="pipeline", target=Path(folder) / "pipeline", writing=replace(plan.writing, dtype=None))
            merged = yield from convert_to_pipeline(between, opened, proofs, digest, passing=True)
            record = read_record(between.target) | {"form": plan.form, **plan.writing.as_json()}
            metadata = {"format": "pt", RECORD: json.dumps(record)}
            single = plan_single_file(between.target, plan.writing.dtype)
            work = convert_to_single_file(between.target, plan.target, metadata, plan.writing.dtype)
            proof = yield from counted_from(2 * (plan.bytes - single.bytes), work)
    except OSError as fault:
        raise cannot_write(plan.target, fault) from fault
    size = plan.target.stat().st_size
    checks = (*merged.checks, proof, *(f"but {note}" for note in single.unusual))
    return replace(merged, form="single", output=plan.target, bytes=size, seconds=time.monotonic() - started, checks=checks)
