"""Finds base models on this disk and reads their components. Nothing is ever downloaded."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cmp.core.conversion import Base
from cmp.core.progress import Progress, run_through
from cmp.core.runs import Run
from cmp.disk.checkpoint import Opened
from cmp.disk.json_table import read_json_table
from cmp.disk.raw import STRIDE
from cmp.disk.shards import open_header
from cmp.disk.store import Store
from cmp.disk.tensors import Header, identify
from cmp.errors import CmpError, NotFound, Refused, Unreadable

CONTROL = "controlnet"  # the one component that stands beside a base model and is no part of it
NEVER_LOADED = ("safety_checker", "feature_extractor", "image_encoder")  # parts of a pipeline that drawing goes without
_NO_MODEL = re.compile("Tokenizer|Scheduler|Processor|Extractor")  # in the names of classes that hold no weights
_COMPONENT_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")


@dataclass(frozen=True, slots=True)
class Component:
    """One component of a pipeline folder: its folder and the table of its tensors."""

    folder: Path
    header: Header

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.header.shapes


def find_base(run: Run, bases: Iterable[Path], given: str | None = None, remembered: str | None = None) -> Base:
    """The base model of a run: what was given, else what was remembered, else what the run recorded, sought in all known places.

    Raises NotFound and says where it looked and how to name one.
    """
    places = tuple(bases)
    for wanted, source in ((given, "given by the user"), (remembered, "remembered answer"), (run.base_model, "recorded by the run")):
        if wanted:
            folder = next(_candidates(wanted, places), None)
            if folder is not None:
                return Base(wanted, folder, "user", source)
            if source == "given by the user":
                raise NotFound(f"the base model {wanted!r} is not on this disk", _how(places))
    recorded = f"the run recorded {run.base_model!r}, which is not on this disk" if run.base_model else "the run recorded none"
    raise NotFound(f"no base model for {run.id!r}: {recorded}", _how(places))


def _candidates(wanted: str, places: tuple[Path, ...]) -> Iterator[Path]:
    spots = [Path(os.path.expanduser(wanted))]  # Path.expanduser raises for the home of nobody
    for place in places:
        name = wanted.replace("\\", "/").rstrip("/")
        spots += [place / name] if not name.startswith("/") else []
        spots += [place / name.rsplit("/", 1)[-1]]
    for spot in spots:
        if is_pipeline(spot):
            yield spot.absolute()
    if not Path(wanted).is_absolute() and wanted.count("/") == 1:
        yield from _from_hub_cache(wanted)


def _from_hub_cache(repository: str) -> Iterator[Path]:
    from huggingface_hub import snapshot_download  # slow to import, and needed only for ids that lie in no given folder
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError):
        return
    if is_pipeline(folder):
        yield folder


def named_below(run: Run, wanted: str | None) -> Iterator[Path]:
    """Pipelines at most two levels below the runs folder of a run that bear the last part of a base model's name. Nothing says that they
    are that model: they are told, or proven by tensors.
    """
    name = (wanted or "").replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    yield from (folder for folder in pipelines_below([run.root]) if name and folder.name == name)


def with_place(missing: NotFound, run: Run, wanted: str | None) -> NotFound:
    """The same with where a base model of that name lies below the runs folder, if one does."""
    found = next(named_below(run, wanted), None)
    if found is None:
        return missing
    told = f"A pipeline of that name was found at {found}, below your runs folder; use --bases {shlex.quote(str(found.parent))}."
    return NotFound(missing.message, told)


def is_pipeline(folder: Path) -> bool:
    try:
        return (folder / "model_index.json").is_file()
    except OSError:
        return False


def read_index(folder: Path) -> dict[str, object]:
    """What a pipeline's model_index.json says; raises Unreadable, and Refused where it wants code of its own, which is never run."""
    try:
        index = read_json_table(folder / "model_index.json")
    except Unreadable as fault:
        raise Unreadable(f"{folder} is no diffusers pipeline: {fault.message}", "Give a folder that has a model_index.json.") from fault
    for name, parts in index.items():
        library = parts[0] if isinstance(parts, list) and parts else None
        if library not in (None, "diffusers", "transformers") and name != "safety_checker":
            raise Refused(
                f"{folder} wants {name} from {library!r}, which is code of its own",
                "Only diffusers' and transformers' classes are loaded.",
            )
    return index


def pipelines_below(places: Iterable[Path]) -> list[Path]:
    """The pipeline folders in the given places, at most two levels down (`NAME` and `ORG/NAME`)."""
    found = []
    for place in places:
        for pattern in ("*/model_index.json", "*/*/model_index.json"):
            found += [path.parent for path in sorted(place.glob(pattern))]
    return found


def read_component(base: Path, component: str) -> Component:
    """The headers of a component's weights, whether in one file or in several; raises Unreadable or NotFound."""
    folder = base / component
    there = [n for name in _COMPONENT_FILES for n in (name, f"{name}.index.json") if os.path.isfile(folder / n)]
    if len(there) > 1:  # the libraries choose differently between them
        raise Unreadable(f"{folder} holds both {there[0]} and {there[1]}: which of them is the model?", "Remove the one that is not.")
    if there:
        return Component(folder, open_header(folder / there[0], links=True))
    raise NotFound(f"the base model {base} has no {component} weights", "Give a complete diffusers pipeline folder as --base.")


def component_of(opened: Opened, name: str, base: Path) -> Component:
    """The component that a checkpoint changes: the base's, or of a ControlNet, which a base has not, the checkpoint's own."""
    if not is_added(name, base):
        return read_component(base, name)
    tensors = {inner: opened.header.tensors[stored] for stored, inner in opened.weights.plain_of(name).items()}
    if not tensors:
        raise Refused("it adapts a ControlNet, and the base model has none", "Give a pipeline with that ControlNet as --base.")
    first = opened.header.files[next(iter(tensors.values())).file][0]
    return Component(first.parent, replace(opened.header, tensors=tensors))


def is_added(name: str, base: Path) -> bool:
    """Whether a component comes to the base model instead of replacing a part of it."""
    return name == CONTROL and not (base / CONTROL).is_dir()


def _how(places: tuple[Path, ...]) -> str:
    looked = ", ".join(map(str, places)) or "no extra folder"
    return f"Give it with --base ID_OR_DIR, or put it below --bases DIR / CMP_BASES (looked in: {looked}, and the Hugging Face cache)."


def digest_base(base: Path, store: Store) -> str:
    """SHA-256 over all files of a pipeline that decide what it draws; each file is hashed once and remembered.

    Raises Refused where a model of the pipeline has no weights among them: pictures would be taken for those of other weights.
    """
    return run_through(digesting_base(base, store))


def digesting_base(base: Path, store: Store) -> Generator[Progress, None, str]:
    """The same in steps; who leaves it early has those files remembered that were read to their end."""
    total, weighed = hashlib.sha256(), set()
    for path in files_below(base):
        if path.suffix in (".safetensors", ".json", ".txt", ".model"):
            inside = path.relative_to(base)
            digest = yield from _file_digest(path, base, store)
            total.update(f"{inside.as_posix()}\0{digest}\n".encode())
            weighed |= {inside.parts[0]} if path.suffix == ".safetensors" else set()
    for name, told in read_index(base).items():
        kind = str(told[1]) if isinstance(told, list) and len(told) == 2 and told[1] else None
        if kind and name not in NEVER_LOADED and not _NO_MODEL.search(kind) and name not in weighed:
            raise Refused(
                f"the base model {base} has no .safetensors file of its {name} ({kind})",
                "Only such weights are read; save it anew with diffusers' save_pretrained, or give a complete pipeline folder as --base.",
            )
    return total.hexdigest()


def _file_digest(path: Path, base: Path, store: Store) -> Generator[Progress, None, str]:
    subject = f"{path}|{(identity := identify(path))}"
    if isinstance(known := store.get("file-digest", subject), str):
        return known
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(STRIDE):
            yield Progress(0, 1, f"hashing {path.relative_to(base)} of {base.name}", done, identity.size)
            digest.update(block)
            done += len(block)
    with suppress(Refused):
        store.put("file-digest", subject, digest.hexdigest())
    return digest.hexdigest()


def files_below(base: Path) -> list[Path]:
    """Every file of a pipeline that is not hidden, sorted. Linked folders are entered, as the libraries do, but no folder in itself."""
    return sorted(_files_below(base, ()))


def _files_below(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError:  # as if it were empty: the weights that are missed then are told by their component
        return
    for entry in entries:
        if entry.is_dir():
            yield from _files_below(folder / entry.name, (*above, real))
        elif entry.is_file():
            yield folder / entry.name


def native_size(base: Path) -> tuple[int, int]:
    """Width and height in pixels that a pipeline draws when none are asked for; 512 where it does not say.

    As diffusers' pipelines have it: the denoiser's `sample_size` times the VAE's reduction, which is 2 for each block but the first.
    """
    sides: tuple[object, ...] = (64, 64)
    for name in ("unet", "transformer"):
        size = _setting(base / name / "config.json", "sample_size")
        sides = tuple(size[::-1]) if isinstance(size, list) and len(size) == 2 else (size, size) if isinstance(size, int) else sides
    blocks = _setting(base / "vae" / "config.json", "block_out_channels")
    factor = 2 ** (len(blocks) - 1) if isinstance(blocks, list) and blocks else 8
    width, height = (int(side) * factor if isinstance(side, int) and side > 0 else 512 for side in sides)
    return width, height


def sampler_of(base: Path) -> str:
    """The sampler that a pipeline comes with, as diffusers calls it; "" where it does not say."""
    name = _setting(base / "scheduler" / "scheduler_config.json", "_class_name")
    return name.removesuffix("Scheduler") if isinstance(name, str) else ""


def _setting(file: Path, key: str) -> object:
    try:
        return read_json_table(file).get(key)
    except CmpError:
        return None
