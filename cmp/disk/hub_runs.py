"""Runs on the Hugging Face Hub, mirrored below CMP_HOME as far as they are looked at: logs and LoRA bytes, nothing else.

Of a repository its names, sizes and headers are read. A LoRA file is fetched as it is. Of a dump of the whole model only the adapter's
tensors are, by ranges, into a file of the same name: its frozen tensors stay where they are, so that nothing compares them with the base.
That, and what is not fetched at all, is told as a problem of its path. The mirror is a folder like any other from then on.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cmp.core.present import size_text
from cmp.core.progress import Progress
from cmp.core.reading import read_weights
from cmp.disk.hub_files import Hub, HubFile, HubPlace
from cmp.disk.hub_mirrors import Mirror, Note, fetched_before, inside, known_mirror, mark_of, mirror_folder, read_note, write_note
from cmp.disk.replacing import replacing
from cmp.disk.table import Entry, read_table
from cmp.disk.tensors import LONGEST_HEADER, PART_OF
from cmp.disk.writing import ENDING, head_of
from cmp.errors import Locked, NoSpace, NotFound, Refused, Unreadable

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


@dataclass(frozen=True, slots=True)
class _Part:
    """What is fetched of a weights file: the tensors `names` of its table, or all of it where they are None."""

    table: dict[str, Entry]
    names: tuple[str, ...] | None


def mirroring(place: HubPlace, home: Path, hub: Hub | None) -> Generator[Progress, None, Mirror]:
    """Brings the mirror of a place to its newest commit: what has changed is fetched, and what has gone there goes here. Where the Hub does
    not show it, cannot be asked, or must not be (`hub` is None), the mirror is given as it was fetched last, with a note; as well while
    another process fetches it.

    Raises NotFound, Unreadable, Refused, Locked or NoSpace; what was fetched until then is not fetched again.
    """
    above = mirror_folder(place, home)
    if hub is None:
        hint = "Unset it to have it fetched; what was fetched before is shown with it."
        return fetched_before(above, place, Refused(f"HF_HUB_OFFLINE is set, so {place} is not asked for", hint))
    try:
        commit = hub.commit(place)
        if not read_note(above).has(commit):
            yield from _locked(place, commit, above, hub)
    except (Unreadable, NotFound, Locked) as fault:  # NotFound: also where a token has expired
        return fetched_before(above, place, fault)
    mirror = known_mirror(above, place)
    assert mirror is not None
    return mirror


def _locked(place: HubPlace, commit: str, above: Path, hub: Hub) -> Generator[Progress, None, None]:
    from filelock import FileLock, Timeout

    try:
        above.mkdir(parents=True, exist_ok=True)
        with FileLock(above / ".lock", timeout=0):
            yield from _Fetching(place, commit, above, hub).fetch(hub.files(place, commit))
    except Timeout as fault:
        raise Locked(f"{place} is being fetched by another process", "Try again when it is done.") from fault
    except OSError as fault:
        raise NoSpace(f"cannot keep {place} in {above}: {fault.strerror}", "Set CMP_HOME to a folder that has room.") from fault


class _Fetching:
    """One mirror on its way to a commit."""

    def __init__(self, place: HubPlace, commit: str, above: Path, hub: Hub) -> None:
        self.place, self.commit, self.above, self.hub = place, commit, above, hub
        self.before, self.kept = read_note(above), set[str]()
        self.note = Note(self.before.commit, going_on=True)

    def fetch(self, files: Iterable[HubFile]) -> Generator[Progress, None, None]:
        """Fetches what is new of these files, and notes what is left out."""
        asked = [file for file in sorted(files, key=lambda f: f.path) if self._is_wanted(file)]
        wanted = [file for file in asked if not self._keeps(file)]
        parts: dict[str, _Part | None] = {}
        for done, file in enumerate(wanted):
            yield Progress(done, len(wanted), f"looking into {self.place}/{file.path}")
            parts[file.path] = self._part(file) if file.path.endswith(ENDING) else None
            if file.path.endswith(ENDING) and parts[file.path] is None:
                self.note.marks[file.path] = mark_of(file)
        wanted = [file for file in wanted if not file.path.endswith(ENDING) or parts[file.path]]
        self._remove(self.before.marks.keys() - self.kept - {file.path for file in wanted})
        yield from self._fetch(wanted, parts)
        (self.above / self.place.name).mkdir(parents=True, exist_ok=True)
        self.note.commit, self.note.going_on = self.commit, False
        write_note(self.above, self.note)

    def _fetch(self, wanted: Sequence[HubFile], parts: Mapping[str, _Part | None]) -> Generator[Progress, None, None]:
        total = sum(_bytes(file, parts[file.path]) for file in wanted)
        self._check_room(total)
        so_far = 0
        for done, file in enumerate(wanted):
            size = _bytes(file, parts[file.path])
            yield Progress(done, len(wanted), f"fetching {self.place}/{file.path}, {size_text(size)}", so_far, total)
            self._write(file, parts[file.path], self._target(file.path))
            self.note.marks[file.path] = mark_of(file)
            # what is kept of before stays known, should this be left midway
            known = self.before.marks | self.note.marks, self.before.left_out | self.note.left_out
            write_note(self.above, Note(self.note.commit, True, *known))
            so_far += size

    def _target(self, path: str) -> Path:
        return self.above / self.place.name / inside(self.place, path)

    def _keeps(self, file: HubFile) -> bool:
        """Whether the mirror has this content of it already, or has known it for one that is left out."""
        mark, why, here = mark_of(file), self.before.left_out.get(inside(self.place, file.path)), self._target(file.path).is_file()
        if not mark or self.before.marks.get(file.path) != mark or not (why or here):
            return False
        self.note.marks[file.path] = mark
        if here:
            self.kept.add(file.path)
        if why:
            self.note.left_out[inside(self.place, file.path)] = why
        return True

    def _remove(self, gone: set[str]) -> None:
        """Takes away what was fetched once and is not there any more, and nothing else: conversions lie beside it."""
        for path in gone:
            target = self._target(path)
            with suppress(OSError):
                target.unlink(missing_ok=True)
                for folder in target.relative_to(self.above / self.place.name).parents[:-1]:
                    (self.above / self.place.name / folder).rmdir()  # until one that is not empty

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
        self.note.left_out[inside(self.place, file.path)] = why

    def _check_room(self, total: int) -> None:
        if total > MOST:
            hint = f"Name a folder in it: {self.place}/FOLDER."
            raise NoSpace(f"{self.place} has {size_text(total)} of logs and LoRA, and at most {size_text(MOST)} are fetched", hint)
        if total > shutil.disk_usage(self.above).free:
            raise NoSpace(
                f"{self.above} has no room for {size_text(total)} of {self.place}", "Make room, or set CMP_HOME to another folder."
            )

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
