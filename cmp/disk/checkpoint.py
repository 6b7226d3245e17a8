"""Reads what one checkpoint holds, from names and headers alone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from cmp.core.names import COMPONENTS, guess_component, split_component, unwrap
from cmp.core.reading import read_weights
from cmp.core.runs import COMPACT, Checkpoint, Stage
from cmp.core.weights import Weights
from cmp.disk.folders import Folder, is_file, list_folder, size_and_time, size_below
from cmp.disk.shards import open_header
from cmp.disk.tensors import Header, join_headers, read_tensors
from cmp.errors import CmpError, Unreadable

TRAINED_PARTS = tuple(name for name in COMPONENTS if name != "vae")
_SMALL = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_COMPONENT = (
    "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.bin",
    "model.safetensors", "model.compact.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_OTHERS = ("pytorch_model_fsdp.bin", "lora.safetensors", "lora/lora.safetensors")
_REFUSED = {
    "pytorch_model_fsdp_0": "it is a sharded FSDP checkpoint: `accelerate merge-weights FOLDER/pytorch_model_fsdp_0 OUT` makes it readable",
    "zero_to_fp32.py": "it is a DeepSpeed checkpoint: its own zero_to_fp32.py makes it readable, if you trust it",
    "mp_rank_00_model_states.pt": "it is a DeepSpeed checkpoint: DeepSpeed's zero_to_fp32.py makes it readable",
    ".metadata": "it is a sharded torch checkpoint: `python -m torch.distributed.checkpoint.format_utils dcp_to_torch` makes it readable",
}
# Accelerate calls the second and further models model_1, model_2 …
_FURTHER_MODEL = re.compile(r"(?:model|pytorch_model)_([0-9]{1,3})(?:(?:\.compact)?\.safetensors|\.bin)(?:\.index\.json)?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint's weights with their table of contents and what that says."""

    header: Header
    weights: Weights


def open_weights(*files: Path) -> Opened:
    """Header and reading of the files that make up a checkpoint; raises Unreadable or Refused. What has not changed is read once.

    Several files hold several models; each one's tensors get their component's name in front.
    """
    return _opened(tuple((file, open_header(file).subject) for file in files))


@lru_cache(maxsize=1024)  # small where runs are alike, since these share what they say
def _opened(files: tuple[tuple[Path, str], ...]) -> Opened:
    headers = [(file, open_header(file)) for file, _ in files]
    joined = headers[0][1] if len(headers) == 1 else join_headers(_prefixed(headers))
    if len(headers) == 1 and (component := _of_folder(headers[0][0])):
        joined = join_headers([(f"{component}.", joined)])
    weights = _read_weights(tuple(joined.shapes.items()))
    idle = _idle_adapters(joined, weights)
    return Opened(joined, read_weights(joined.shapes, idle) if idle else weights)


def _idle_adapters(header: Header, weights: Weights) -> list[str]:
    """Of several adapters in one dump those that change nothing, whether they are active or not; one adapter is always left."""
    shown = [(name, ups) for name, ups in sorted(weights.rivals.items()) if ups]
    zero = [name for name, ups in shown if not any(values.any() for _, values in read_tensors(header, ups))]
    return zero[1:] if len(zero) == len(weights.rivals) else zero


@lru_cache(maxsize=64)
def _read_weights(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Weights:
    return read_weights(dict(shapes))


def _of_folder(file: Path) -> str | None:
    """The component that a folder's name says: `unet_ema/` holds a UNet."""
    if not file.name.startswith(("diffusion_pytorch_model", "model.", "adapter_model")):
        return None
    name = re.sub(r"_(?:ema|non_ema)\Z", "", file.parent.name)
    return name if name in COMPONENTS else None


def _prefixed(headers: list[tuple[Path, Header]]) -> Iterator[tuple[str, Header]]:
    """Each file with its component, which its folder or its names tell; "" where the names say it themselves."""
    taken: set[str] = set()
    for file, header in headers:
        named = {split_component(name)[0] for name in header.tensors}
        if None not in named:
            components = {str(name) for name in named}
        else:
            guessed = _of_folder(file) or guess_component(unwrap(name)[0] for name in header.tensors)
            if guessed in taken and guessed == "text_encoder":  # Accelerate numbers models in the order of the pipeline
                guessed = next((c for c in ("text_encoder_2", "text_encoder_3") if c not in taken), guessed)
            components = {guessed} if guessed else set()
        if not components or components & taken:
            what = f"a second {min(components)}" if components else "a model that nobody can name"
            raise Unreadable(f"{file} holds {what}", "Several models lie here whose names do not tell which is which.")
        taken |= components
        yield "" if None not in named else f"{min(components)}.", header


def read_checkpoint(
    run_id: str, folder: Path, stage: Stage, *, open_files: Callable[..., Opened] = open_weights, beside: bool = False
) -> Checkpoint:
    """The checkpoint in `folder`. Never raises for what lies on disk: a damaged one comes back with its flaw.

    `beside`: the folder is the run's own, and only its weights file belongs to the checkpoint.
    """
    draft = Checkpoint(run_id, stage.key, folder, "unknown", "unknown", step=stage.step, epoch=stage.epoch)
    try:
        listing = list_folder(folder)
        files = find_files(listing)
        size = sum(size_and_time(file)[0] for file in files) if beside and files else size_below(folder)
        written_at = size_and_time(files[0] if files else folder)[1]
        if not files:
            draft = replace(draft, bytes=size, written_at=written_at)
            refused = next((why for name, why in _REFUSED.items() if name in listing), None)
            return replace(draft, layout="sharded" if refused else "unknown", flaw=refused or _why_nothing(listing))
        path = files[0] if beside else folder
        draft = replace(draft, path=path, file=files[0], more=files[1:], bytes=size, written_at=written_at)
        weights = open_files(*files).weights
        flaws = (*weights.flaws, *_left_aside(listing, files, weights, open_files))
    except CmpError as fault:
        return replace(draft, flaw=fault.message)
    except OSError as fault:
        return replace(draft, flaw=f"cannot read {folder}: {fault.strerror}")
    return replace(draft, layout=weights.layout, holds=weights.holds, flaw="; ".join(flaws) or None)


def read_loose(run_id: str, file: Path, stage: Stage, *, open_files: Callable[..., Opened] = open_weights) -> Checkpoint:
    """The checkpoint that is one weights file, as kohya and others write them. Never raises for what lies on disk."""
    draft = Checkpoint(run_id, stage.key, file, "unknown", "unknown", step=stage.step, epoch=stage.epoch)
    try:
        size, written_at = size_and_time(file)
        draft = replace(draft, bytes=size, written_at=written_at, file=file)
        weights = open_files(file).weights
    except CmpError as fault:
        return replace(draft, flaw=fault.message)
    except OSError as fault:
        return replace(draft, flaw=f"cannot read {file}: {fault.strerror}")
    return replace(draft, layout=weights.layout, holds=weights.holds, flaw="; ".join(weights.flaws) or None)


def find_weights(listing: Folder) -> Path | None:
    """The first file that holds trained weights, None if there is none of a known name."""
    return next(iter(find_files(listing)), None)


def find_files(listing: Folder) -> tuple[Path, ...]:
    """The files that hold the trained weights, those directly in the folder first; empty if there are none of a known name.

    Where a folder has both a small LoRA file and the whole wrapped model (diffusers' script before November 2025), the small one holds
    the same adapter. In a whole pipeline an adapter is what was trained, and the full parts around it are the base's.
    """
    closed = _closed(listing)
    inner = [list_folder(listing.path / name) for name in COMPONENTS if name in listing.folders and name not in closed]
    small = _first(listing, (*_SMALL, *ADAPTER_FILES))
    if "model_index.json" in listing.files:
        adapters = [file for folder in inner if (file := _first(folder, ADAPTER_FILES))]
        components = [file for folder in inner if (file := _first(folder, _COMPONENT))]
        return tuple(([small] if small else []) + adapters or components)
    own = [small] if small else _dumped(listing)
    parts = [f for folder in inner if folder.path.name != "vae" and (f := _first(folder, (*ADAPTER_FILES, *_COMPONENT)))]
    other = _first(listing, _OTHERS)
    return tuple([*own, *parts] or ([other] if other else []))


def _dumped(listing: Folder) -> list[Path]:
    """The models that lie directly in the folder, as Accelerate dumps and numbers them."""
    own = _first(listing, _COMPONENT)
    further = sorted((int(found[1]), name) for name in listing.files if (found := _FURTHER_MODEL.match(name)))
    return [*([own] if own else []), *_without_doubles([listing.path / name for _, name in further])]


def _without_doubles(files: list[Path]) -> list[Path]:
    """Of `model_1.safetensors`, `model_1.compact.safetensors` and `model_1.bin` the first."""
    first: dict[str, Path] = {}
    for file in sorted(files, key=lambda f: (f.suffix, not f.name.endswith(COMPACT)), reverse=True):
        first.setdefault(file.name.partition(".")[0].removeprefix("pytorch_"), file)
    return sorted(first.values(), key=lambda f: int(f.name.partition(".")[0].rpartition("_")[2]))


def _first(folder: Folder, names: tuple[str, ...]) -> Path | None:
    for name in names:
        head, _, rest = name.rpartition("/")
        if head in folder.folders:
            candidate = folder.path / head / rest
            if is_file(candidate):
                return candidate
        elif not head and rest in folder.files:
            return folder.path / rest
    return None


def _left_aside(listing: Folder, files: tuple[Path, ...], weights: Weights, open_files: Callable[..., Opened]) -> Iterator[str]:
    """What Accelerate dumped beside a small adapter file that does not hold it. Nothing where no such file was preferred."""
    for name in _closed(listing):
        yield f"its folder {name} cannot be read: Permission denied"
    if files[0].name not in (*_SMALL, *ADAPTER_FILES) or "model_index.json" in listing.files:
        return
    for file in _dumped(listing):
        missing = set(open_files(file).weights.components) - set(weights.components)
        if missing:
            yield f"it also holds {file.name}: {files[0].name} alone would leave out its {', '.join(sorted(missing))}"


def _closed(listing: Folder) -> list[str]:
    return [name for name in COMPONENTS if name in listing.folders and not os.access(listing.path / name, os.R_OK | os.X_OK)]


def _why_nothing(listing: Folder) -> str:
    if "model.safetensors" in listing.folders:
        return "model.safetensors is a folder, not a file"
    if "model.safetensors" not in listing.links and os.path.lexists(listing.path / "model.safetensors"):
        return "model.safetensors is not a regular file"
    if closed := [name for name in sorted(listing.folders) if not os.access(listing.path / name, os.X_OK)]:
        return f"its folder {closed[0]} cannot be read: Permission denied"
    if any(name.startswith(".tmp") for name in listing.files):
        return "it is incomplete: still being written (a temporary file is there and no weights yet)"
    if links := sorted(listing.links):
        return f"its weights may lie behind a link ({links[0]}), and links are not followed"
    return "it holds no weights file of a known name"
