"""Writes a diffusers pipeline as one file in the original layout, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmp.core.original_family import family_of, marks_of, unusual
from cmp.core.original_names import Renamed, change_values, stack, to_original
from cmp.core.progress import Progress
from cmp.disk.bases import Component, read_component
from cmp.disk.json_table import read_json_table
from cmp.disk.numbers import NUMPY_TYPES, WIDTHS, narrowed
from cmp.disk.tensors import Entry, Header, read_tensor
from cmp.disk.writing import Syncing, write_draft
from cmp.errors import BadInput, Refused

DTYPES = ("F32", "F16", "BF16")
_BLOCK = 1 << 18  # numbers that are cast at once: they stay in the processor's cache
# what belongs to a pipeline and not into one file: settings, words, and what only looks at pictures
_BESIDE = ("tokenizer", "tokenizer_2", "scheduler", "feature_extractor", "safety_checker", "image_encoder")


@dataclass(frozen=True, slots=True)
class Source:
    """One tensor of a component and its place in the file."""

    header: Header
    name: str
    place: Renamed

    @property
    def entry(self) -> Entry:
        return self.header.tensors[self.name]


@dataclass(frozen=True, slots=True)
class SinglePlan:
    """What the one file will hold; made from headers alone.

    `made` gives the sources of each tensor in the file, `described` its type and shape. `left_out` are tensors without information that
    the layout does not keep. `unusual` says, in words, what A1111 and ComfyUI would take otherwise than this pipeline has it.
    """

    family: str
    components: Mapping[str, Component]
    made: Mapping[str, tuple[Source, ...]]
    described: Mapping[str, tuple[str, tuple[int, ...]]]
    left_out: tuple[Source, ...]
    unusual: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(math.prod(shape) * WIDTHS[dtype] for dtype, shape in self.described.values())


def plan_single_file(pipeline: Path, dtype: str | None = None) -> SinglePlan:
    """Reads the headers of a pipeline folder and gives every tensor its place.

    `dtype` is one of DTYPES, None keeps each tensor's own. Raises Refused, and names what stands against it, where not every tensor has
    a place of its own.
    """
    if dtype not in (None, *DTYPES):
        raise BadInput(f"weights cannot be written as {dtype!r}", f"Give one of {', '.join(DTYPES)}.")
    index = read_json_table(pipeline / "model_index.json")
    used = {name: parts for name, parts in index.items() if isinstance(parts, list) and parts and parts[0] and name not in _BESIDE}
    classes = {name: str(parts[-1]) for name, parts in used.items()}
    files = {name: pipeline / name / "config.json" for name in classes} | {"scheduler": pipeline / "scheduler" / "scheduler_config.json"}
    configs = {name: read_json_table(file) for name, file in files.items() if file.is_file()}
    family = family_of(str(index.get("_class_name")), classes, configs)
    _require_different_widths(configs)
    components = {name: read_component(pipeline, name) for name in classes}
    made: dict[str, tuple[Source, ...]] = {}
    left_out: list[Source] = []
    for name, component in components.items():
        placed = to_original(name, component.shapes, family)
        for target, names in stack(placed).items():
            made[target] = tuple(Source(component.header, source, placed[source]) for source in names)
        left_out += [Source(component.header, source, place) for source, place in placed.items() if place.change == "left out"]
    described = {target: _describe(sources, dtype) for target, sources in made.items()}
    described |= dict.fromkeys(marks_of(family, configs), ("F32", (0,)))
    return SinglePlan(family, components, made, described, tuple(left_out), unusual(family, configs))


def _require_different_widths(configs: Mapping[str, Mapping[str, object]]) -> None:
    """diffusers knows the second text encoder by its width alone, and would fill it from the first; published SDXL has 768 and 1280."""
    widths = [configs[name].get("hidden_size") for name in ("text_encoder", "text_encoder_2") if name in configs]
    if len(widths) == 2 and widths[0] == widths[1]:
        raise Refused(f"both text encoders are {widths[0]} wide, and from_single_file would mix them up", "Use the form pipeline.")


def _describe(sources: tuple[Source, ...], dtype: str | None) -> tuple[str, tuple[int, ...]]:
    """The type and shape of one tensor in the file. Whole numbers keep their type."""
    types = {source.entry.dtype for source in sources}
    if len(types) > 1 and not dtype:
        raise Refused(
            f"{', '.join(source.name for source in sources)} become one tensor and are stored as {' and '.join(sorted(types))}",
            "Choose one type for the whole file, for example fp32.",
        )
    own = types.pop()
    shapes = [source.place.shape(source.entry.shape) for source in sources]
    if len({shape[1:] for shape in shapes}) > 1:
        raise Refused(f"{', '.join(source.name for source in sources)} do not fit together: {shapes}", "The model is damaged.")
    whole = own.startswith(("I", "U", "BOOL"))
    return own if whole or not dtype else dtype, (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()


def write_single_draft(plan: SinglePlan, draft: Path, metadata: Mapping[str, str]) -> Generator[Progress, None, Syncing]:
    """Writes the one file of a plan; memory is that of the largest tensor. Raises Refused for values that its type cannot hold."""
    for source in plan.left_out:
        values = read_tensor(source.header, source.name).reshape(-1)
        if not np.array_equal(values, np.arange(values.size)):
            raise Refused(f"{source.name} does not count from 0 as it should", "The model is damaged; use the form pipeline.")

    def read(name: str) -> np.ndarray:
        wanted, shape = plan.described[name]
        if not (sources := plan.made.get(name)):
            return np.empty(shape, NUMPY_TYPES[wanted])
        parts = [change_values(_cast(source, wanted), source.place) for source in sources]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return write_draft(draft, "the one file", plan.described, read, {"format": "pt", **metadata})


def _cast(source: Source, wanted: str) -> np.ndarray:
    """The tensor as `wanted` stores it, block by block; raises Refused where a finite value becomes infinite."""
    stored, values = source.entry.dtype, read_tensor(source.header, source.name)
    if stored == wanted:
        return values
    flat, cast = values.reshape(-1), np.empty(values.size, NUMPY_TYPES[wanted])
    for start in range(0, flat.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        cast[block] = narrowed(source.name, flat[block], stored, wanted)
    return cast.reshape(values.shape)
