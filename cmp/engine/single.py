"""Proves a file in the original layout: diffusers reads it, and every tensor of every component is compared with the pipeline's."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import safe_open

from cmp.core.progress import Progress, counted_from
from cmp.disk.json_table import read_json_table
from cmp.disk.replacing import replacing
from cmp.disk.single_file import plan_single_file, write_single_draft
from cmp.disk.tensors import Header, read_header
from cmp.disk.writing import ENDING
from cmp.engine.stopping import stoppable
from cmp.errors import Refused

_TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_OLD_ATTENTION = re.compile(r"\.(query|key|value|proj_attn)\.")  # in VAEs saved by diffusers before 0.17
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def convert_to_single_file(
    pipeline: Path, target: Path, metadata: Mapping[str, str], dtype: str | None = None
) -> Generator[Progress, None, str]:
    """Writes the file and gives its proof in words; it takes its name only once it is proven."""
    plan = plan_single_file(pipeline, dtype)
    with replacing(target, ENDING) as draft:
        syncing = yield from write_single_draft(plan, draft, metadata)
        proof = yield from counted_from(plan.bytes, verify_single_file(draft, pipeline))
        whole = Progress(4, 4, "giving it its name", 2 * plan.bytes)
        yield from syncing.wait(whole)
        yield whole
    return proof


def verify_single_file(target: Path, pipeline: Path) -> Generator[Progress, None, str]:
    """Reads the file back with diffusers' `from_single_file` and compares it with the pipeline that it was made of; the proof in words.

    diffusers is given the pipeline's settings in a folder without any weights, so that none can come from anywhere but the file. Raises
    Refused and names the first tensor that differs, is missing, or is in the file and in no component.
    """
    header = read_header(target)
    types = {entry.dtype for entry in header.tensors.values() if entry.dtype.startswith(("F", "BF")) and 0 not in entry.shape}
    one = types.pop() if len(types) == 1 and types <= set(_TORCH) else None
    dtype = _TORCH[one or "F32"]  # which holds all narrower ones exactly
    plan = plan_single_file(pipeline, one)
    if wrong := sorted(set(plan.described) ^ set(header.tensors)):
        raise Refused(f"{wrong[0]} is {'missing in' if wrong[0] in plan.described else 'too much in'} {target}", "Convert again.")
    with tempfile.TemporaryDirectory() as folder:
        settings = copy_settings(pipeline, Path(folder), plan.components)
        so_far = Progress(3, 4, "reading the one file back", 0, plan.bytes)
        loaded = yield from stoppable(lambda: _load(target, settings, dtype), so_far)
    compared = 0
    for name, component in plan.components.items():
        state = {_plain(inner): values for inner, values in getattr(loaded, name).state_dict().items()}
        for inner, values in _stored(component.header):
            yield so_far
            _compare(f"{name}.{inner}", values, state.pop(inner, None), dtype)
            compared += 1
            so_far = replace(so_far, done_bytes=so_far.done_bytes + values.numel() * dtype.itemsize)
        if state:
            raise Refused(
                f"{name}.{min(state)} came out of {target} and is not in the pipeline", "This is a fault of ours; please report it."
            )
    _check_positions(target)
    return f"read back with from_single_file: all {compared} tensors equal the pipeline's"


def copy_settings(pipeline: Path, folder: Path, components: Iterable[str]) -> Path:
    """A copy of the pipeline's settings and words, without weights, and with an index that names nothing but the libraries' classes."""
    index = read_json_table(pipeline / "model_index.json")
    kept = {*components, "scheduler", "tokenizer", "tokenizer_2"}
    for name, parts in index.items():
        if isinstance(parts, list) and (name not in kept or parts[0] is None):
            index[name] = [None, None]
        elif isinstance(parts, list) and parts[0] not in ("diffusers", "transformers"):
            raise Refused(f"{pipeline} wants {name} from {parts[0]!r}, which is code of its own", "Only the libraries' classes are loaded.")
    for file in sorted(pipeline.glob("*/*")):
        if file.parent.name in kept and file.suffix in (".json", ".txt") and file.is_file():
            (folder / file.parent.name).mkdir(exist_ok=True)
            shutil.copyfile(file, folder / file.parent.name / file.name)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _load(target: Path, settings: Path, dtype: torch.dtype) -> Any:
    kind = getattr(diffusers, read_json_table(settings / "model_index.json")["_class_name"])
    try:
        return kind.from_single_file(str(target), config=str(settings), local_files_only=True, dtype=dtype)
    except (SingleFileComponentError, OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError) as fault:
        raise Refused(f"diffusers cannot read {target}: {fault}", "Use the form pipeline.") from fault


def _stored(header: Header) -> Iterator[tuple[str, torch.Tensor]]:
    """A component's tensors as they lie on disk, under the names that the library's class has today; counted positions are left out."""
    for path, _ in header.files:
        if path.suffix != ".safetensors":
            raise Refused(f"{path} cannot be compared with: it is no safetensors file", "Save the pipeline with safe_serialization.")
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is no mapping)
                if not name.endswith("position_ids"):
                    yield _plain(name), file.get_tensor(name)


def _check_positions(target: Path) -> None:
    """Counted positions reach no model of today's libraries, and older tools still read them."""
    with safe_open(target, framework="pt") as file:
        for name in [name for name in file.keys() if name.endswith("position_ids")]:  # noqa: SIM118
            counted = file.get_tensor(name).flatten()
            if not torch.equal(counted.to(torch.int64), torch.arange(counted.numel())):
                raise Refused(f"{name} in {target} does not count from 0", "The model is damaged; use the form pipeline.")


def _plain(name: str) -> str:
    """The name without what differs between versions of the libraries."""
    return _OLD_ATTENTION.sub(lambda found: f".{_NEW_ATTENTION[found[1]]}.", name.removeprefix("text_model."))


def _compare(name: str, stored: torch.Tensor, landed: torch.Tensor | None, dtype: torch.dtype) -> None:
    """Bit by bit, after rounding what the pipeline holds to the file's type as torch does it."""
    if landed is None or landed.is_meta:
        raise Refused(f"{name} did not come out of the file", "This is a fault of ours; please report it.")
    meant = stored.to(dtype).contiguous().reshape(-1).view(torch.uint8)
    if landed.shape != stored.shape or not torch.equal(landed.contiguous().reshape(-1).view(torch.uint8), meant):
        raise Refused(f"{name} came out of the file with other values than the pipeline has", "The disk may be failing; convert again.")
