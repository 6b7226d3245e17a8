"""Runs and checkpoints: what they are, how they are named, and how a name finds them again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cmp.core.samples import Sample
from cmp.errors import BadInput, NotFound

COMPACT = ".compact.safetensors"  # what is left of a dump whose frozen tensors are held elsewhere, see disk.compact
TRAINING_WITHIN = 600  # seconds since the newest log entry

# eighteen digits are as many as every JSON reader and every array of integers takes
_STEP_FOLDER = re.compile(r"checkpoint-([0-9]{1,18})(?:-rolling)?\Z", re.ASCII)  # SimpleTuner's rolling ones are whole as well
_COUNTER_FOLDER = re.compile(r"checkpoint_([0-9]{1,18})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved state of a run.

    `key` is unique within the run: the step, "final", "epoch-10" or "save-3". `layout` says how the weights lie on disk, `holds` what
    they are ("lora", "full", …). `file` holds the weights, `more` those of further models beside it; None where there are none that can be
    read. `flaw` says why the checkpoint cannot be used, in words for the user. `image` is a picture that the trainer drew at this step.
    `step_source` is what says the step, None where the name does.
    """

    run_id: str
    key: str
    path: Path
    layout: str
    holds: str
    step: int | None = None
    epoch: int | None = None
    file: Path | None = None
    more: tuple[Path, ...] = ()
    bytes: int = 0
    written_at: float = 0.0
    flaw: str | None = None
    aliases: tuple[str, ...] = ()
    converted: tuple[tuple[str, Path], ...] = ()
    image: Path | None = None
    step_source: str | None = None

    @property
    def id(self) -> str:
        return f"{self.run_id}@{self.key}"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that hold its weights."""
        return (self.file, *self.more) if self.file else ()

    @property
    def compacted(self) -> bool:
        """Whether it holds what was trained alone, so that no training can be resumed from it as it is."""
        return any(file.name.endswith(COMPACT) for file in self.files)

    @property
    def sort_key(self) -> tuple[bool, int, bool, int, str]:
        """Ascending by step, then by epoch; what has neither comes last, counted saves by their number."""
        plain = self.key.isascii() and self.key.isdigit()
        counted = self.key.zfill(18) if plain else re.sub(r"[0-9]+", lambda digits: digits[0].zfill(18), self.key)
        return (self.step is None, self.step or 0, self.epoch is None, self.epoch or 0, counted)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that a run recorded, and the file that says so."""

    value: object
    source: str


@dataclass(frozen=True, slots=True)
class Run:
    """One training run; `checkpoints` ascend by step.

    `last_loss` is the newest logged training loss (it may be nan), `last_logged` the newest wall time in the logs, Unix seconds,
    `grew_at` when two scans last saw its checkpoints grow. `series` is the name that its weights files begin with, where several runs
    lie in one folder. `starts` are the settings of each start by itself, oldest first, as the training script logged them: only these
    speak of how the weights are scaled, since other trainers fold an alpha into the weights or ignore it.
    """

    id: str
    folder: Path
    root: Path
    trainer: str
    base_model: str | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict)
    checkpoints: tuple[Checkpoint, ...] = ()
    logs: tuple[Path, ...] = ()
    samples: tuple[Sample, ...] = ()
    bytes: int = 0
    last_loss: float | None = None
    last_logged: float | None = None
    grew_at: float | None = None
    warnings: tuple[str, ...] = ()
    starts: tuple[Mapping[str, Setting], ...] = ()
    series: str | None = None

    @property
    def name(self) -> str:
        """What people call it: its folder's name, or that of its files."""
        return self.series or self.folder.name

    @property
    def place(self) -> Path:
        """What no other run has: the folder, or where several runs share one, what its files are called in it."""
        return self.folder / f"{self.series}.*" if self.series else self.folder

    def state(self, now: float) -> str:
        """Whether it is being trained: its own log is fresh, or its checkpoints were seen growing. File times alone say nothing, since
        copying a run changes them. The clock that wrote the log may be another machine's, and a little ahead.
        """
        signs = (self.last_logged, self.grew_at)
        return "training" if any(sign is not None and abs(now - sign) < TRAINING_WITHIN for sign in signs) else "idle"

    def checkpoint(self, key: str) -> Checkpoint:
        """The checkpoint of that key, or the one that has it as an alias; raises NotFound and names the keys there are."""
        wanted = f"{self.id}@{key}"
        for checkpoint in self.checkpoints:
            if key == checkpoint.key or wanted in checkpoint.aliases:
                return checkpoint
        known = ", ".join(c.key for c in self.checkpoints) or "none"
        raise NotFound(f"run {self.id!r} has no checkpoint {key!r}", f"It has: {known}.")


@dataclass(frozen=True, slots=True)
class Problem:
    """A path that was passed over, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Library:
    """Everything found below the given folders. `unread` of them were told by names alone so far: what is not here may still be found."""

    runs: tuple[Run, ...] = ()
    problems: tuple[Problem, ...] = ()
    unread: int = 0

    def run(self, run_id: str) -> Run:
        for run in self.runs:
            if run.id == run_id:
                return run
        known = ", ".join(r.id for r in self.runs[:8]) or "none"
        raise NotFound(f"there is no run {run_id!r}", f"Found: {known}. `python -m cmp list` shows them all.")

    def find(self, target: str) -> tuple[Run, Checkpoint | None]:
        """The run of `RUN`, or run and checkpoint of `RUN@KEY`."""
        run_id, at, key = target.rpartition("@")
        if not at:
            return self.run(target), None
        run = self.run(run_id)
        return run, run.checkpoint(key)


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a checkpoint folder's name says the training had come."""

    key: str
    step: int | None = None
    epoch: int | None = None


def validation_prompts(run: Run) -> tuple[str, ...]:
    """The prompts that the trainer drew its samples with, by their number; empty where it recorded none.

    TensorBoard's hparams take no lists, so that scripts join several prompts with a bar.
    """
    found = run.settings.get("validation_prompts") or run.settings.get("validation_prompt")
    if found is None or not found.value:
        return ()
    if isinstance(found.value, (list, tuple)):
        return tuple(map(str, found.value))
    return tuple(part.strip() for part in str(found.value).split(" | "))


def read_stage(folder_name: str) -> Stage | None:
    """The stage in a checkpoint folder's name, None if it is no such name.

    `checkpoint-500` is step 500. `checkpoint_3` is Accelerate's own numbering, which counts saves and not steps. Only ASCII digits
    count: Python's `int` also takes '٣' and '1_000', which no trainer writes.
    """
    if found := _STEP_FOLDER.match(folder_name):
        step = int(found[1])
        return Stage(str(step), step=step)
    if found := _COUNTER_FOLDER.match(folder_name):
        return Stage(f"save-{int(found[1])}")
    return None


def plain_text(text: str) -> str:
    """`text` as JSON and a database can hold it: bytes that are not UTF-8, as os.fsdecode brings them, come as %XX."""
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else "\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)


def path_text(path: Path) -> str:
    """A path for JSON, see plain_text."""
    return plain_text(str(path))


def escape_id(text: str) -> str:
    """`text` with everything that ids give a meaning to, control characters and undecodable bytes written as %XX."""
    out = []
    for character in text:
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode brings it
            out.append(f"%{code - 0xDC00:02X}")
        elif character in "%@:~" or code < 0x20 or 0x7F <= code < 0xA0:
            out.extend(f"%{byte:02X}" for byte in character.encode())
        else:
            out.append(character)
    return "".join(out)


def run_id(folder: Path, root: Path) -> str:
    """The folder's path relative to its root, or its own name if it is the root; escaped, with / between the parts."""
    parts = folder.relative_to(root).parts or (folder.name,)
    return "/".join(escape_id(part) for part in parts)


def with_unique_keys(checkpoints: Iterable[Checkpoint]) -> tuple[Checkpoint, ...]:
    """Sorted by step, else in the given order; a second checkpoint of the same key gets `~FOLDER` behind it."""
    taken: set[str] = set()
    out = []
    for checkpoint in sorted(checkpoints, key=lambda c: c.sort_key):
        key = checkpoint.key
        while key in taken:
            key = f"{key}~{escape_id(checkpoint.path.name)}"
        taken.add(key)
        out.append(replace(checkpoint, key=key) if key != checkpoint.key else checkpoint)
    return tuple(out)


def with_unique_ids(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Runs whose ids are equal under several roots all get their root's name in front (`ROOT~2:` where root names repeat too)."""
    runs = tuple(runs)
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.id, []).append(run)
    labels = _root_labels(dict.fromkeys(run.root for run in runs))
    return tuple(rename_run(r, f"{labels[r.root]}:{r.id}") if len(groups[r.id]) > 1 else r for r in runs)


def rename_run(run: Run, new_id: str) -> Run:
    """The same run under another id, its checkpoints and their aliases with it."""

    def moved(alias: str) -> str:
        return new_id + alias[len(run.id) :]

    checkpoints = tuple(replace(c, run_id=new_id, aliases=tuple(map(moved, c.aliases))) for c in run.checkpoints)
    return replace(run, id=new_id, checkpoints=checkpoints)


def _root_labels(roots: Iterable[Path]) -> dict[Path, str]:
    seen: dict[str, int] = {}
    labels = {}
    for root in roots:
        name = escape_id(root.name)
        seen[name] = seen.get(name, 0) + 1
        labels[root] = name if seen[name] == 1 else f"{name}~{seen[name]}"
    return labels


def folder_name(text: str) -> str:
    """A run's folder name as it is, for a page: of a path its last part, with nothing that JSON cannot hold."""
    return plain_text(text).rsplit("/", 1)[-1] or plain_text(text)


def origin_title(text: str) -> str:
    """A run's folder name as the origin's API says it: `lora_shoes_3000steps` → `Lora Shoes 3000Steps`."""
    words = plain_text(text).rsplit("/", 1)[-1].replace("_", " ").replace("-", " ")
    return " ".join(re.sub(r"[^\W\d_]+", lambda word: word[0][:1].upper() + word[0][1:], words).split())


def origin_name(checkpoint: Checkpoint) -> str:
    """The name that the origin's API gives a checkpoint: `RUN/checkpoint-500`, `RUN/final`."""
    label = f"checkpoint-{checkpoint.step}" if checkpoint.key == str(checkpoint.step) else checkpoint.key
    return f"{checkpoint.run_id}/{label}"


def parse_number(text: str, what: str) -> int:
    """A whole number in ASCII digits, or BadInput that quotes it."""
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise BadInput(f"{what} is {text!r}, which is no whole number", "Write it in digits, for example 1500.")
    return int(text)
