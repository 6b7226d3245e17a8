"""Writes a full diffusers pipeline with the adapter merged in: W + scale·B·A, tensor by tensor, everything else as the base has it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from cmp.core.conversion import Conversion, ConversionPlan
from cmp.core.progress import Progress
from cmp.core.weights import find_module
from cmp.disk.base_proof import compare_with_base
from cmp.disk.bases import Component, read_component
from cmp.disk.checkpoint import Opened, open_weights
from cmp.disk.converted import METADATA
from cmp.disk.lora_file import conversion_record, read_folded, require_same_base
from cmp.disk.ready import require_fit
from cmp.disk.replacing import cannot_write
from cmp.disk.tensors import cast_bits, digest_tensors, read_tensors, write_tensors
from cmp.errors import Refused

Merge = Callable[[str], np.ndarray]


def convert_to_pipeline(plan: ConversionPlan) -> Generator[Progress, None, Conversion]:
    """Carries out a plan for the form "pipeline". The folder appears whole and proven under its name, or not at all."""
    started = time.monotonic()
    assert plan.base is not None and plan.checkpoint.file is not None
    opened = open_weights(plan.checkpoint.file)
    checks = []
    yield Progress(0, 4, "comparing with the base")
    trained = trained_components(plan, opened)
    if opened.weights.layout == "accelerate-peft":
        comparison = compare_with_base(opened, trained[str(opened.weights.component)])
        checks.append(require_same_base(comparison, plan.base.id))
    draft = None
    try:
        plan.target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".tmp-", dir=plan.target.parent))
        yield Progress(1, 4, "linking the untouched parts of the base")
        os.chmod(draft, plan.target.parent.stat().st_mode & 0o777)
        _link_base(plan.base.path, draft, set(trained))
        for name, component in trained.items():
            yield Progress(2, 4, f"writing {name}")
            checks.append(_write_component(plan, opened, name, component, draft / name))
        yield Progress(3, 4, "writing the record")
        _write_record(plan, opened, checks, draft / METADATA)
        os.replace(draft, plan.target)
    except OSError as fault:
        raise cannot_write(plan.target, fault) from fault
    finally:
        if draft:
            shutil.rmtree(draft, ignore_errors=True)
    yield Progress(4, 4, "done")
    return Conversion(
        plan.checkpoint.id, plan.form, plan.target, plan.bytes, time.monotonic() - started,
        len(opened.header.tensors), len(opened.weights.canonical), plan.left_out, plan.scale, tuple(checks),
    )  # fmt: skip


def trained_components(plan: ConversionPlan, opened: Opened) -> dict[str, Component]:
    """The base's components that the checkpoint changes, by name; raises Refused where they do not fit."""
    assert plan.base is not None
    weights = opened.weights
    names = {pair.component for pair in weights.pairs} or {str(weights.component)}
    components = {name: read_component(plan.base.path, name) for name in sorted(names)}
    require_fit(opened, plan.base)  # again: the files may have changed since the plan was made
    if weights.layout == "full":
        for name, component in components.items():
            _check_same_shape(opened, name, component.shapes)
    return components


def _check_same_shape(opened: Opened, name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A full component must be the base's component in every name and shape; raises Refused and names the first that is not."""
    mine = {
        canonical.removeprefix(f"{name}."): opened.header.tensors[stored].shape for stored, canonical in opened.weights.canonical.items()
    }
    for tensor in sorted(set(mine) | set(shapes)):
        ours, theirs = mine.get(tensor), shapes.get(tensor)
        if ours != theirs:
            said = (f"{name}.{tensor} is {list(ours or ())} in the checkpoint", f"{list(theirs or ())} in the base")
            told = " and ".join(said)
            raise Refused(
                told, "It was trained on another base; give it with --base. A text encoder with new words needs its own tokenizer."
            )


def _link_base(base: Path, draft: Path, changed: set[str]) -> None:
    """Every file of the base but the changed components' weights: as hard links where the disk can, else as copies."""
    for source in sorted(base.rglob("*")):
        inside = source.relative_to(base)
        if any(part.startswith(".") for part in inside.parts) or not source.is_file():
            continue
        if inside.parts[0] in changed and source.name.endswith((".safetensors", ".bin", ".index.json")):
            continue
        target = draft / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        real = source.resolve()  # the Hugging Face cache holds links into its blobs
        try:
            os.link(real, target)
        except OSError:
            shutil.copyfile(real, target)


def _write_component(plan: ConversionPlan, opened: Opened, name: str, base: Component, folder: Path) -> str:
    """Writes one component's weights and reads them back; gives the proof in words."""
    described = {n: (e.dtype, e.shape) for header in base.headers for n, e in header.tensors.items()}
    merge = _merged(plan, opened, name, base) if opened.weights.pairs else _taken(opened, described)
    stem = "diffusion_pytorch_model" if name in ("unet", "transformer") else "model"
    target = folder / f"{stem}.safetensors"
    write_tensors(target, described, merge, {"format": "pt"})
    meant = "W + scale·B·A, computed a second time" if opened.weights.pairs else "the checkpoint's"
    return _read_back(target, merge, described, meant)


def _merged(plan: ConversionPlan, opened: Opened, name: str, base: Component) -> Merge:
    """Gives each of the component's tensors with its adapter added, in the base's own type."""
    assert plan.scale is not None
    folded = {n: torch.from_numpy(v) for n, v in read_folded(opened, plan.scale.value).items()}
    adapted = {f"{find_module(p.module, base.names)}.weight": f"{name}.{p.module}" for p in opened.weights.pairs if p.component == name}

    trained_in = {n: opened.header.tensors[s].dtype for s, n in (opened.weights.frozen or {}).items()}

    def merge(tensor: str) -> np.ndarray:
        owner = base.owner(tensor)
        assert owner is not None
        _, array = next(iter(read_tensors(owner, [tensor])))
        dtype = owner.tensors[tensor].dtype
        if narrow := trained_in.get(tensor):  # what was trained on is the base rounded to the dump's type
            array = cast_bits(cast_bits(array, dtype, narrow), narrow, dtype)
        if tensor not in adapted:
            return array
        down, up = folded[f"{adapted[tensor]}.lora_A.weight"], folded[f"{adapted[tensor]}.lora_B.weight"]
        weight = torch.from_numpy(cast_bits(array, dtype, "F32"))
        merged = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        return cast_bits(merged.numpy(), "F32", dtype)

    return merge


def _taken(opened: Opened, described: Mapping[str, tuple[str, tuple[int, ...]]]) -> Merge:
    """Gives each tensor of a full fine-tune as the checkpoint has it, in the base's own type."""
    stored = {name.split(".", 1)[1]: s for s, name in opened.weights.canonical.items()}

    def take(tensor: str) -> np.ndarray:
        _, array = next(iter(read_tensors(opened.header, [stored[tensor]])))
        return cast_bits(array, opened.header.tensors[stored[tensor]].dtype, described[tensor][0])

    return take


def _read_back(target: Path, merge: Merge, described: Mapping[str, tuple[str, tuple[int, ...]]], meant: str) -> str:
    """Reads the file with the safetensors library and compares every tensor with a second computation."""
    with safe_open(target, framework="pt") as file:
        if set(file.keys()) != set(described):
            raise Refused(f"{target} does not hold what was written", "The disk may be failing; convert again.")
        for name in described:
            written = file.get_tensor(name).contiguous().reshape(-1).view(torch.uint8).numpy()
            if not np.array_equal(written, np.ascontiguousarray(merge(name)).reshape(-1).view(np.uint8)):
                raise Refused(f"{target} came back with another {name}", "The disk may be failing; convert again.")
    return f"read back: all {len(described)} tensors of {target.parent.name} equal {meant}"


def _write_record(plan: ConversionPlan, opened: Opened, checks: list[str], file: Path) -> None:
    digest = digest_tensors(opened.header, opened.weights.canonical)
    record = conversion_record(plan, digest, opened.weights) | {"checks": checks, "strength": 1.0}
    file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
