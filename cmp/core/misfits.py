"""What does not fit between a machine, its settings and the runs on it: each with why it matters and what to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from cmp.core.present import counted, size_text

MEMORY_SHARE = 1.25  # of a model's weights: the rest is what drawing needs beside them
_GB = 10**9
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Misfit:
    """One misfit: `what` there is, `why` that is so or matters, and in `do` what to type. `kind` is for scripts."""

    kind: str
    what: str
    why: str
    do: str

    def as_json(self) -> dict[str, str]:
        return {"kind": self.kind, "what": self.what, "why": self.why, "type": self.do}


def device_misfit(cards: Sequence[str], build: str | None, works: bool | None, wanted: str = "auto") -> Misfit | None:
    """What stands against a graphics card. `build` as in `torch_build`; `works` is what torch itself says, None where it is not known."""
    if wanted in ("cpu", "mps") or works or build is None:
        return None
    if not cards:
        return Misfit(
            "cpu-only",
            "this machine has no NVIDIA card that it tells of: the processor draws",
            "a picture of Stable Diffusion 1.5 then takes minutes instead of seconds; lists, curves and conversions are as fast as ever",
            "python -m cmp grid RUN --prompt TEXT --preview",
        )
    if not build.startswith("cuda"):
        return Misfit(
            "no-cuda",
            f"there is a {cards[0]}, and torch cannot use it",
            f"the installed torch was built for {build}",
            "pip install --force-reinstall 'torch>=2.8,<2.14' (on Windows with the --index-url that pytorch.org names for CUDA)",
        )
    if works is None:
        return None
    return Misfit(
        "no-cuda",
        f"there is a {cards[0]}, torch was built for {build}, and it finds no card",
        "the driver is older than this CUDA wants, CUDA_VISIBLE_DEVICES hides the card, or a container was started without it",
        "nvidia-smi (its first lines name the newest CUDA that the driver knows); in a container: docker run --gpus all …",
    )


def memory_misfit(base: str, parameters: int, memory: int | None, free: int | None, card: int | None = None) -> Misfit | None:
    """Whether a base model fits into memory; with `card`, the bytes of the graphics card that draws, it counts in half precision there.

    A model that does not fit on its card is moved there part by part, so that the machine's memory is what counts in any case.
    """
    needed = int(parameters * (2 if card else 4) * MEMORY_SHARE)
    if memory is None or not parameters:
        return None
    if needed > memory:
        return Misfit(
            "out-of-memory",
            f"{base} needs about {size_text(needed)} of memory, and this machine lets it have {size_text(memory)}",
            "drawing would be ended by the system, or swap for hours",
            "python -m cmp grid RUN --prompt TEXT --ray ADDRESS (draws where it is); convert --to lora needs no base in memory",
        )
    if free is not None and needed > free:
        return Misfit(
            "little-memory",
            f"{base} needs about {size_text(needed)} of memory, and {size_text(free)} are free now",
            "other programs have the rest; drawing beside them may be ended by the system",
            "ps -eo rss,comm --sort=-rss | head (shows who has it)",
        )
    return None


def base_misfit(base: str | None, runs: Sequence[str], example: str, below: str = "") -> Misfit:
    """A base model that is not where base models are sought, with the runs that need it; `example` is one of their checkpoints, `below` a
    pipeline of its name that lies in the runs folder.
    """
    named = f"{', '.join(runs[:3])}{f' and {len(runs) - 3} more' if len(runs) > 3 else ''}"
    if base and below:
        return Misfit(
            "base-missing",
            f"{named}: the base model {base!r} is missing, and one of its name was found at {below}, below your runs folder",
            "a model of the same name may be another one; it is taken once base models are said to lie there",
            f"python -m cmp --bases {shlex.quote(str(PurePath(below).parent))} show {shlex.quote(example)}",
        )
    if base and _HUB_ID.match(base):
        return Misfit(
            "base-not-in-cache",
            f"the base model {base!r} of {named} is not on this disk",
            "the run recorded it by its name on the hub, and this program is offline: nothing is downloaded unasked",
            f"HF_HUB_OFFLINE=0 hf download {shlex.quote(base)}",
        )
    told = f"{base!r}, which is not on this disk" if base else "none"
    name = base.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] if base else ""
    below = f"; or, where DIR holds a folder {name}: python -m cmp --bases DIR show {shlex.quote(example)}" if name else ""
    return Misfit(
        "base-missing",
        f"{named}: the base model is missing; recorded is {told}",
        "drawing, merging and measuring need it; lists, curves and LoRA files do not",
        f"python -m cmp show {shlex.quote(example)} --base ID_OR_DIR{below}",
    )


def hub_misfit(place: str, error: str, *, offline: bool) -> Misfit:
    """Runs that lie on the Hub and were never brought here."""
    again = f"python -m cmp --runs {shlex.quote(place)} list"
    if offline:
        return Misfit(
            "hub-offline", f"{place} is not here, and the Hub is not asked: HF_HUB_OFFLINE is set",
            "none of its runs is listed; what was fetched before would be shown", f"HF_HUB_OFFLINE=0 {again}",
        )  # fmt: skip
    return Misfit("hub-unreachable", f"{place} is not here: {error}", "none of its runs is listed", f"hf auth whoami; {again}")


def home_misfits(home: str, fault: str | None, of_another_machine: str) -> list[Misfit]:
    """What stands against the folder of state. `fault` is why nothing can be kept there, `of_another_machine` its file system if so."""
    elsewhere = "CMP_HOME=/var/tmp/cmp python -m cmp …"
    found = []
    if fault:
        found.append(
            Misfit("home-unwritable", f"nothing can be kept in {home}: {fault}", "pictures and votes would be forgotten", elsewhere)
        )
    if of_another_machine:
        found.append(
            Misfit(
                "home-on-network", f"{home} lies on {of_another_machine}, a file system of another machine",
                "SQLite's log needs memory that all its processes share: over a network its file can be damaged", elsewhere,
            )
        )  # fmt: skip
    return found


def runs_misfit(folder: str, why: str) -> Misfit:
    """A folder of runs that cannot be looked at."""
    return Misfit(
        "runs-unreadable", f"{folder} cannot be looked at: {why}", "no run below it is listed",
        f"ls -ld {shlex.quote(folder)} (shows whose it is); python -m cmp --runs DIR list",
    )  # fmt: skip


def disk_misfit(where: str, free: int, checkpoint: int) -> Misfit | None:
    """A disk with less room than two checkpoints of the largest kind on it, or a gigabyte."""
    if free >= max(_GB, 2 * checkpoint):
        return None
    told = f"a checkpoint here has {size_text(checkpoint)}" if checkpoint else "a conversion may not fit"
    return Misfit(
        "disk-nearly-full", f"{where} has {size_text(free)} free", f"{told}; a trainer whose disk is full stops or leaves half a file",
        "python -m cmp storage",
    )  # fmt: skip


def version_misfit(name: str, wanted: str, installed: str | None) -> Misfit:
    """A package that is not what requirements.txt asks for."""
    told = f"{name} {installed} is installed" if installed else f"{name} is not installed"
    return Misfit("version", f"{told}, and {wanted} is wanted", "with others it was not tried", "pip install -r requirements.txt")


# -- one folder ------------------------------------------------------------------------------------------------------------


def silent_misfit(run: str, checkpoint: str, layout: str, tensors: int, of_adapter: int) -> Misfit | None:
    """What other tools say about a checkpoint while they load nothing of it, and what is done instead."""
    if layout == "accelerate-peft":
        missing = tensors - of_adapter
        return Misfit(
            "missing-keys",
            f"“Missing keys: {missing}, Unexpected keys: {tensors}” is what load_state_dict(strict=False) says of {checkpoint}",
            "it is not normal: PEFT has wrapped every name, so that none is a plain UNet's. Nothing is loaded, and each result is the base "
            "model, byte for byte. Here every tensor is accounted for, or the conversion is refused",
            f"python -m cmp convert {shlex.quote(run)} --to lora",
        )
    if layout == "peft-adapter":
        return Misfit(
            "no-lora-keys",
            f"“No LoRA keys found with the prefix 'unet'” is what load_lora_weights says of {checkpoint}",
            "PEFT's own names lack that prefix: nothing is loaded, and pictures are the base model's. What is made here is loaded whole",
            f"python -m cmp convert {shlex.quote(checkpoint)} --to lora",
        )
    return None


def empty_misfit(run: str, pipeline: str, base: str, components: Sequence[str], tensors: int) -> Misfit:
    """A pipeline under a checkpoint's name that holds nothing of it."""
    return Misfit(
        "is-the-base",
        f"{pipeline} is the base model: {equal_text(base, components, tensors)}",
        "it was made by a converter that loaded nothing of the checkpoint; every picture of it is the base model's",
        f"python -m cmp convert {shlex.quote(run)} --to pipeline --force (what is there goes to the trash)",
    )


def empty_checkpoint_misfit(checkpoint: str, path: str, base: str, components: Sequence[str], tensors: int) -> Misfit:
    """A checkpoint whose whole weights are the base model's."""
    above, _, _ = path.rpartition("/")
    run = above.removesuffix("/checkpoint_pipelines")
    return Misfit(
        "is-the-base",
        f"{checkpoint}: its weights ARE the base model's: {equal_text(base, components, tensors)}",
        "whatever wrote it put nothing of a training into it; every picture of it is the base model's",
        f"python -m cmp convert {shlex.quote(run)} --to pipeline --force (where its training lies; what is there goes to the trash)"
        if run != above
        else f"ls -l {shlex.quote(path)} (the trained weights are elsewhere, or were not saved)",
    )


def equal_text(base: str, components: Sequence[str], tensors: int) -> str:
    """In words how weights are those of a base model."""
    return f"all {tensors:,} tensors of its {' and '.join(components)} equal those of {base}"


def space_misfit(run: str, count: int, each: int, free: int, where: str) -> Misfit | None:
    """Whether pipelines of all checkpoints that have none fit beside a run."""
    if not count or count * each <= free:
        return None
    return Misfit(
        "no-space",
        f"{counted(count, 'pipeline')} of {run} would take {size_text(count * each)}, and {where} has {size_text(free)} free",
        "each holds the whole model; what does not fit is refused before its first byte. LoRA files of the same checkpoints take a few MB",
        f"python -m cmp storage {shlex.quote(run)}; python -m cmp convert {shlex.quote(run)} --to lora",
    )


def listing_misfit(path: str, listed: bool, found: int) -> Misfit | None:
    """A folder that a list does not have: no run was recognised in it, or it lies outside the folders that are looked at."""
    if found and listed:
        return None
    if found:
        return Misfit(
            "not-listed", f"{path} holds {counted(found, 'run')} and is not below a folder that is looked at",
            "only the folders of --runs or CMP_RUNS are", f"python -m cmp --runs {shlex.quote(path)} list",
        )  # fmt: skip
    return Misfit(
        "not-listed", f"no run was recognised in {path}",
        "a run has folders checkpoint-N, here or in checkpoints/, or a weights file such as pytorch_lora_weights.safetensors",
        f"ls {shlex.quote(path)} (what is there stands above); python -m cmp --runs DIR list one level higher or lower",
    )  # fmt: skip
