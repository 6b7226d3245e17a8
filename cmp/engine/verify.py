"""Reads a written LoRA file as its user's tools will: with diffusers and PEFT, into a model of the base's architecture, and compares.

The model is built without weights, so that this costs little memory and time whatever the size of the base.
"""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft
from safetensors import safe_open
from torch.overrides import TorchFunctionMode

from cmp.core.names import read_part
from cmp.core.progress import Progress
from cmp.core.weights import ADAPTER_NAMES
from cmp.disk.bases import read_index
from cmp.disk.json_table import read_json_table
from cmp.engine.pipeline import ADAPTER, plain_name, prove_worn
from cmp.errors import Refused, Unreadable

_STEP = Progress(2, 3, "reading it with diffusers")
_FILLING = frozenset(("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"))
_ATTACH = {"unet": "load_lora_into_unet", "transformer": "load_lora_into_transformer"}


def verify_lora_file(path: Path, expected: Mapping[str, np.ndarray], base: Path | None) -> Generator[Progress, None, str]:
    """The proof in words that `path`, read by the libraries, is the adapter `expected` (diffusers' name → float32, scale folded in).

    With a `base` it is attached to that architecture, and every tensor and scale is looked up in the model. Without, the names and values
    that diffusers reads are compared. Raises Refused and names the first tensor that is lost, strange or different.
    """
    named = {plain_name(name): values for name, values in expected.items()}
    named_kind = str(read_index(base).get("_class_name")) if base else ""
    kind: Any = getattr(diffusers, named_kind, None) or StableDiffusionPipeline
    if not hasattr(kind, "lora_state_dict"):
        raise Refused(f"{base} is a pipeline that takes no LoRA", "Give the base model itself with --base.")
    components = {name.partition(".")[0] for name in named}
    why = "no base is at hand" if base is None else _without_settings(base, components)
    models: dict[str, torch.nn.Module] = {}
    for name in sorted(components):
        if base is not None and not why:
            yield _STEP
            models[name] = _empty_model(base, name)
    yield _STEP
    try:
        with _readable(path) as copy:
            state, alphas, metadata = _read(kind, copy, models.get("unet"))
        if base is None or why:
            _compare(path, state, alphas, metadata, named)
            return f"read by diffusers: all {len(named)} tensors are there; not attached to a model, since {why}"
        for name, model in models.items():
            yield _STEP
            _attach(kind, name, model, state, alphas, metadata)
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as fault:
        raise Refused(f"diffusers cannot attach {path.name}: {fault}", "It was made for another model architecture.") from fault
    yield _STEP
    prove_worn(models, named, 1.0)
    return f"read by diffusers and attached to {base.name}'s architecture: all {len(named)} tensors are in the model, at the right scale"


@contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """The file under a name that the libraries can spell: bytes that are not UTF-8 they cannot. It is a few MB at most."""
    try:
        str(path).encode()
        yield path
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(shutil.copyfile(path, Path(folder) / "adapter.safetensors"))


def _read(kind: Any, path: Path, unet: Any) -> tuple[dict[str, torch.Tensor], Any, Any]:
    """State, network alphas and metadata; the pipelines differ in what they ask and give."""
    known = inspect.signature(kind.lora_state_dict).parameters
    asked: dict[str, Any] = {"local_files_only": True, "return_lora_metadata": True}
    if "unet_config" in known and unet is not None:
        asked["unet_config"] = unet.config
    if "return_alphas" in known:
        asked["return_alphas"] = True
    found = kind.lora_state_dict(path.parent, weight_name=path.name, **asked)
    return found if len(found) == 3 else (found[0], None, found[1])


def _attach(kind: Any, name: str, model: torch.nn.Module, state: Any, alphas: Any, metadata: Any) -> None:
    asked = {"state_dict": state, "network_alphas": alphas, "adapter_name": ADAPTER, "metadata": metadata, "low_cpu_mem_usage": True}
    if name in _ATTACH:
        attach = getattr(kind, _ATTACH[name])
        known = inspect.signature(attach).parameters
        if alphas and "network_alphas" not in known:
            raise Refused("diffusers reads an alpha that it does not hand on", "This is a fault of ours; please report it.")
        attach(**{key: value for key, value in asked.items() if key in known}, **{name: model})
    else:
        kind.load_lora_into_text_encoder(**asked, text_encoder=model, prefix=name)


def _compare(path: Path, state: Mapping[str, torch.Tensor], alphas: Any, metadata: Any, named: Mapping[str, np.ndarray]) -> None:
    """Compares what diffusers reads, as far as that decides what it would attach: names, values, alphas."""
    with safe_open(path, framework="np") as file:
        styles = {part.style if (part := read_part(name)) else "" for name in file.keys() if not name.endswith(".alpha")}  # noqa: SIM118
    if len(styles) != 1:  # diffusers goes by the first name, and passes over the others
        raise Refused(f"{path.name} names its tensors in {len(styles)} ways", "This is a fault of ours; please report it.")
    ranks = {float(values.shape[0]) for name, values in named.items() if name.endswith(".lora_A.weight")}
    if metadata or (alphas and ranks != set(map(float, alphas.values()))):  # the scale is folded in, and alpha = rank makes the rest 1
        raise Refused("diffusers reads another alpha than was written", "This is a fault of ours; please report it.")
    read = {_plain(name): values for name, values in _as_attached(state)}
    if set(read) != set(named):
        raise Refused(f"diffusers reads other tensors: {min(set(read) ^ set(named))}", "This is a fault of ours; please report it.")
    for name, values in read.items():
        if not np.array_equal(values.float().numpy(), named[name]):
            raise Refused(f"diffusers reads another {name}", "This is a fault of ours; please report it.")


def _as_attached(state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """What diffusers would attach, as it names it then: a text encoder's tensors it renames only on the way into the model.

    It knows their older names by one of them (`to_out_lora`), so that this too decides what would be in the model.
    """
    components: dict[str, dict[str, torch.Tensor]] = {}
    for name, values in state.items():
        if not name.endswith(".alpha"):
            component, _, rest = name.partition(".")
            components.setdefault(component, {})[rest] = values
    for component, own in components.items():
        if component.startswith("text_encoder"):
            own = convert_state_dict_to_peft(convert_state_dict_to_diffusers(own))
        yield from ((f"{component}.{name}", values) for name, values in own.items())


def _plain(name: str) -> str:
    """The name of today for what diffusers hands out under one of its older names where it has converted a file."""
    part = read_part(name)
    return plain_name(f"{part.component}.{part.module}.{ADAPTER_NAMES[part.role]}") if part and part.role in ADAPTER_NAMES else name


def _without_settings(base: Path, components: Iterable[str]) -> str | None:
    """Why no model of this base's architecture can be made; weights alone are enough for converting."""
    missing = [name for name in sorted(components) if not (base / name / "config.json").is_file()]
    return f"{base.name} has no settings of its {missing[0]}" if missing else None


class _Unfilled(TorchFunctionMode):
    """Models made in this block, by this thread, keep the memory of their weights as it comes: nothing is filled with random numbers."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if getattr(func, "__name__", "") in _FILLING:
            return args[0] if args else dict(kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _empty_model(base: Path, name: str) -> torch.nn.Module:
    """A component of a base's architecture, without weights."""
    parts = read_index(base).get(name)
    if not isinstance(parts, list) or len(parts) != 2:
        raise Refused(f"the base model {base.name} has no {name}, which the checkpoint adapts", "Give its own base with --base.")
    library = diffusers if parts[0] == "diffusers" else transformers
    kind: Any = getattr(library, str(parts[1]), None)
    settings = read_json_table(base / name / "config.json")
    try:
        with _Unfilled():  # memory that is never written to is never taken
            model: torch.nn.Module
            model = kind.from_config(settings) if library is diffusers else kind(kind.config_class.from_dict(settings))
        return model
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as fault:
        raise Unreadable(f"cannot read the settings of {base / name}: {fault}", "Check that the folder is complete.") from fault
