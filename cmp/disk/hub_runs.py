"""Runs on the Hugging Face Hub, mirrored below CMP_HOME as far as they are looked at: logs and LoRA bytes, nothing else.

Of a repository its names, sizes and headers are read. A LoRA file is fetched as it is. Of a dump of the whole model only the adapter's
tensors are, by ranges, into a file of the same name: its frozen tensors stay where they are, so that nothing compares them with the base.
That, and what is not fetched at all, is told as a problem of its path. The mirror is a folder like any other from then on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cmp.core.present import size_text
from cmp.core.progress import Progress
from cmp.core.reading import read_weights
from cmp.core.runs import Problem
from cmp.disk.hub_files import Hub, HubFile, HubPlace
from cmp.disk.replacing import replacing
from cmp.disk.table import Entry, read_table
from cmp.disk.tensors import LONGEST_HEADER, PART_OF
from cmp.disk.writing import ENDING, head_of
from cmp.errors import CmpError, Locked, NoSpace, NotFound, Refused, Unreadable

MOST = 8_000_000_000  # bytes of one repository
_MOST_TEXT = 4_000_000  # bytes of a configuration
_MOST_LOG = 500_000_000
_PIECE = 16_000_000  # bytes that are asked for at once
_GAP = 1_000_000  # bytes that are read along rather than asked around
_FIRST = 100_000  # bytes of a weights file that are read first: most headers fit
_ASKING = 6  # requests at once
_LOG = re.compile(r"events\.out\.tfevents|\.(?:jsonl|csv|tsv)\Z|(?:\A|/)(?:trainer_state\.json|loss_log\.db|.*\.wandb)\Z")
_TEXT = re.compile(
    r"(?:\A|/)(?:adapter_config|hparams|args|training_args|training_config|config|model_config|metadata)\.(?:json|ya?ml|toml)\Z"
)
_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.safetensors\Z")
_NEVER = re.compile(r"(?:\A|/)(?:optimizer|scheduler|random_states|scaler|ema_only)[^/]*\Z|\.index\.json\Z")
_OTHER_WEIGHTS = re.compile(r"\.(?:bin|pt|pth|ckpt)\Z")
_LEFT_OUT = "left_out.json"


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where a place is mirrored, at which commit, and what of it is not there, each with the reason."""

    root: Path
    commit: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """What is fetched of a weights file: the tensors `names` of its table, or all of it where they are None."""

    table: dict[str, Entry]
    names: tuple[str, ...] | None


def mirror_folder(place: HubPlace, home: Path) -> Path:
    """Where the mirrors of a place are kept, one for each commit."""
    return home / "hub" / place.kind / place.owner / f"{place.name}{_digest(place)}"


def mirroring(place: HubPlace, home: Path, hub: Hub | None) -> Generator[Progress, None, Mirror]:
    """Brings the mirror of a place to its newest commit. Where the Hub does not show it, cannot be asked, or must not be (`hub` is None),
    the one that was fetched last is given, with a note.

    Raises NotFound, Unreadable, Refused, Locked or NoSpace; what was fetched until then is not fetched again.
    """
    above = mirror_folder(place, home)
    if hub is None:
        hint = "Unset it to have it fetched; what was fetched before is shown with it."
        return _fetched_before(above, place, Refused(f"HF_HUB_OFFLINE is set, so {place} is not asked for", hint))
    try:
        commit, files = hub.look(place)
    except (Unreadable, NotFound) as fault:  # NotFound: also where a token has expired
        return _fetched_before(above, place, fault)
    done = above / commit
    if not done.is_dir():
        from filelock import FileLock, Timeout

        try:
            above.mkdir(parents=True, exist_ok=True)
            with FileLock(above / ".lock", timeout=0):
                yield from _Fetching(place, commit, above / f"{commit}.part", hub).fetch(files)
                os.replace(above / f"{commit}.part", done)
        except Timeout as fault:
            raise Locked(f"{place} is being fetched by another process", "Try again when it is done.") from fault
        except OSError as fault:
            raise NoSpace(f"cannot keep {place} in {above}: {fault.strerror}", "Set CMP_HOME to a folder that has room.") from fault
    os.utime(done)
    return _read_mirror(done, place.name)


def _digest(place: HubPlace) -> str:
    told = f"{place.revision}/{place.folder}"
    return "" if told == "main/" else f"-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _fetched_before(above: Path, place: HubPlace, fault: CmpError) -> Mirror:
    """The mirror that was fetched last, with a note of why it is not renewed; raises the fault where there is none."""
    if (known := _newest(above, place.name)) is None:
        raise fault
    return Mirror(known.root, known.commit, (*known.problems, Problem(known.root, f"shown as it was fetched before: {fault.message}")))


def _newest(above: Path, name: str) -> Mirror | None:
    known = [path for path in above.glob("[0-9a-f]*") if path.is_dir() and not path.suffix] if above.is_dir() else []
    return _read_mirror(max(known, key=lambda path: path.stat().st_mtime), name) if known else None


def _read_mirror(done: Path, name: str) -> Mirror:
    told = json.loads((done / _LEFT_OUT).read_text("utf-8"))
    return Mirror(done / name, done.name, tuple(Problem(done / name / path, why) for path, why in told))


class _Fetching:
    """One mirror on its way. `left_out`: path → why it is not there, or not as a whole."""

    def __init__(self, place: HubPlace, commit: str, draft: Path, hub: Hub) -> None:
        self.place, self.commit, self.draft, self.hub = place, commit, draft, hub
        self.left_out: dict[str, str] = {}

    def fetch(self, files: Iterable[HubFile]) -> Generator[Progress, None, None]:
        """Fetches what is wanted of these files, and notes what is not."""
        wanted = [file for file in sorted(files, key=lambda f: f.path) if self._is_wanted(file)]
        parts: dict[str, _Part | None] = {}
        for done, file in enumerate(wanted):
            yield Progress(done, len(wanted), f"looking into {self.place}/{file.path}")
            parts[file.path] = self._part(file) if file.path.endswith(ENDING) else None
        wanted = [file for file in wanted if not file.path.endswith(ENDING) or parts[file.path]]
        total = sum(_bytes(file, parts[file.path]) for file in wanted)
        self._check_room(total)
        so_far = 0
        for done, file in enumerate(wanted):
            size = _bytes(file, parts[file.path])
            yield Progress(done, len(wanted), f"fetching {self.place}/{file.path}, {size_text(size)}", so_far, total)
            target = self.draft / self.place.name / self._inside(file)
            if not target.is_file():  # of an earlier try
                target.parent.mkdir(parents=True, exist_ok=True)
                self._write(file, parts[file.path], target)
            so_far += size
        (self.draft / self.place.name).mkdir(parents=True, exist_ok=True)
        (self.draft / _LEFT_OUT).write_text(json.dumps(sorted(self.left_out.items())), "utf-8")

    def _inside(self, file: HubFile) -> str:
        return file.path.removeprefix(f"{self.place.folder}/") if self.place.folder else file.path

    def _is_wanted(self, file: HubFile) -> bool:
        if any(part.startswith(".") for part in file.path.split("/")) or _NEVER.search(file.path):
            return False
        if _SHARD.search(file.path) or _OTHER_WEIGHTS.search(file.path):
            self._leave_out(file, "is not read from the Hub: shards and torch files do not tell by a part of them what they hold")
            return False
        if _LOG.search(file.path) and file.size > _MOST_LOG:
            self._leave_out(file, f"is not fetched: it is a log of {size_text(file.size)}")
            return False
        return file.path.endswith(ENDING) or bool(_LOG.search(file.path)) or (bool(_TEXT.search(file.path)) and file.size <= _MOST_TEXT)

    def _leave_out(self, file: HubFile, why: str) -> None:
        self.left_out[self._inside(file)] = why

    def _check_room(self, total: int) -> None:
        if total > MOST:
            hint = f"Name a folder in it: {self.place}/FOLDER."
            raise NoSpace(f"{self.place} has {size_text(total)} of logs and LoRA, and at most {size_text(MOST)} are fetched", hint)
        above = self.draft.parent
        if total > shutil.disk_usage(above).free:
            raise NoSpace(f"{size_text(total)} of {self.place} do not fit into {above}", "Make room, or set CMP_HOME to another folder.")

    # -- weights -------------------------------------------------------------------------------------------------------

    def _part(self, file: HubFile) -> _Part | None:
        """What to fetch of a weights file, by its header; None and a note where that is nothing."""
        if (raw := self._raw_header(file)) is None:
            self._leave_out(file, "is not a whole safetensors file")
            return None
        try:
            table = dict(read_table(raw, 8 + len(raw), file.size)[0])
        except Unreadable as fault:
            self._leave_out(file, fault.message)
            return None
        weights = read_weights({name: entry.shape for name, entry in table.items()})
        if weights.dumped:
            frozen = {n for n, own in weights.plain.items() if own.partition(".")[0] in weights.dumped and ".modules_to_save." not in n}
            count = f"{len(frozen)} frozen tensors stay on the Hub: nothing compares them with the base model"
            self._leave_out(file, f"only its LoRA was fetched. {count}")
            return _Part(table, tuple(name for name in table if name not in frozen))
        if weights.adapted or weights.embeddings:
            return _Part(table, None)
        self._leave_out(file, f"is not fetched: its {size_text(file.size)} hold no LoRA")
        return None

    def _raw_header(self, file: HubFile) -> bytes | None:
        """The table as it stands in the file, None where there is none."""
        first = self._read(file, 0, min(_FIRST, file.size))
        length = int.from_bytes(first[:8], "little")
        if len(first) < 8 or length > LONGEST_HEADER or 8 + length > file.size:
            return None
        return first[8 : 8 + length] + (self._read(file, len(first), 8 + length) if 8 + length > len(first) else b"")

    def _read(self, file: HubFile, start: int, end: int) -> bytes:
        return self.hub.read(self.place, self.commit, file.path, start, end)

    def _write(self, file: HubFile, part: _Part | None, target: Path) -> None:
        with replacing(target, ENDING if part else target.suffix or ".part") as draft, open(draft, "wb") as out:
            if part is None or part.names is None:
                digest = hashlib.sha256()
                for start in range(0, file.size, _PIECE):
                    piece = self._read(file, start, min(file.size, start + _PIECE))
                    digest.update(piece)
                    out.write(piece)
                if file.sha256 and self.place.kind != "buckets" and digest.hexdigest() != file.sha256:
                    raise Unreadable(f"{self.place}/{file.path} came with other bytes than the Hub tells", "Try again later.")
                return
            where = f"{self.place}@{self.commit}/{file.path}"
            ordered, head = head_of({name: (part.table[name].dtype, part.table[name].shape) for name in part.names}, {PART_OF: where})
            found = self._tensors(file, [part.table[name] for name in ordered])
            out.write(head)
            for raw in found:
                out.write(raw)

    def _tensors(self, file: HubFile, entries: list[Entry]) -> list[bytes]:
        """The bytes of these tensors, in this order. What lies close together is read as one."""
        spans: list[list[int]] = []
        for entry in sorted(entries, key=lambda e: e.start):
            if spans and entry.start - spans[-1][1] <= _GAP and entry.end - spans[-1][0] <= _PIECE:
                spans[-1][1] = entry.end
            else:
                spans.append([entry.start, entry.end])
        with ThreadPoolExecutor(_ASKING) as threads:
            read = list(threads.map(lambda span: self._read(file, *span), spans))

        def bytes_of(entry: Entry) -> bytes:
            at = next(i for i, (start, end) in enumerate(spans) if start <= entry.start and entry.end <= end)
            return read[at][entry.start - spans[at][0] : entry.end - spans[at][0]]

        return [bytes_of(entry) for entry in entries]


def _bytes(file: HubFile, part: _Part | None) -> int:
    if part is None or part.names is None:
        return file.size
    return sum(part.table[name].end - part.table[name].start for name in part.names)
