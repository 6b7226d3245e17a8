"""The contract's JSON values of runs and checkpoints, and figures as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timezone
from types import MappingProxyType

from cmp.core.conversion import FORMS, Conversion
from cmp.core.marks import NONE, Mark, Marks
from cmp.core.runs import Checkpoint, Library, Run, path_text, plain_text

COMPACTED = "compacted: resuming needs `restore`"
_DOUBTS = ("not attached to a model", "identical to the base model", "but ")  # how a check begins that says what is not as usual


def iso_time(seconds: float) -> str | None:
    """ISO 8601 in UTC, None for a time that is not known or that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None
    except (ValueError, OverflowError, OSError):
        return None


def _plain(value: object) -> object:
    return plain_text(value) if isinstance(value, str) else list(map(_plain, value)) if isinstance(value, (tuple, list)) else value


def checkpoint_json(checkpoint: Checkpoint, mark: Mark = NONE) -> dict[str, object]:
    made = dict(checkpoint.converted)
    return {
        "id": checkpoint.id,
        "step": checkpoint.step,
        "epoch": checkpoint.epoch,
        "path": path_text(checkpoint.path),
        "step_source": plain_text(checkpoint.step_source) if checkpoint.step_source else None,
        "layout": checkpoint.layout,
        "holds": checkpoint.holds,
        "bytes": checkpoint.bytes,
        "written_at": iso_time(checkpoint.written_at),
        "compacted": checkpoint.compacted,
        "flaw": plain_text(checkpoint.flaw) if checkpoint.flaw else None,
        "aliases": list(checkpoint.aliases),
        "converted": {form: path_text(made[form]) if form in made else None for form in FORMS},
        **mark.as_json(),
    }


def run_json(run: Run, now: float, marks: Marks = MappingProxyType({})) -> dict[str, object]:
    loss = run.last_loss
    return {
        "id": run.id,
        "name": marks.get(run.id, NONE).name,
        "folder": path_text(run.folder),
        "trainer": run.trainer,
        "base_model": _plain(run.base_model),
        "settings": {key: _plain(setting.value) for key, setting in run.settings.items()},
        "bytes": run.bytes,
        "state": run.state(now),
        "checkpoints": [checkpoint_json(c, marks.get(c.id, NONE)) for c in run.checkpoints],
        "last_loss": loss if loss is not None and math.isfinite(loss) else None,
        "logs": [path_text(file) for file in run.logs],
        "images": len(run.samples),
        "warnings": list(map(plain_text, run.warnings)),
    }


def library_json(library: Library, now: float, marks: Marks = MappingProxyType({})) -> dict[str, object]:
    problems = [{"path": path_text(p.path), "reason": plain_text(p.reason)} for p in library.problems]
    return {"runs": [run_json(run, now, marks) for run in library.runs], "problems": problems}


def conversion_text(made: Conversion) -> str:
    """Form, size and proof of a conversion in one line, and each doubt that its checks tell of; they have the rest."""
    doubts = (part for check in made.checks for part in check.split("; ") if part.startswith(_DOUBTS) or "were NOT" in part)
    proven = f"all {made.applied:,} trained tensors of it proven"
    return "; ".join((f"{made.form}, {size_text(made.bytes)}, {made.seconds:.1f} s: {proven}", *doubts))


def size_text(size: float) -> str:
    """Bytes as people say them: 3.4 GB. Thousands, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def loss_text(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.4g}"


def steps_text(run: Run) -> str:
    """The span of a run's steps: `500–3000`, `500`, or `–`."""
    steps = [c.step for c in run.checkpoints if c.step is not None]
    if not steps:
        return "–"
    return f"{steps[0]}–{steps[-1]}" if len(steps) > 1 else str(steps[0])


def alias_names(aliases: Iterable[str]) -> list[str]:
    """What checkpoints of the same weights are called, from their ids."""
    keys = [alias.rpartition("@")[2] for alias in aliases]
    return [key.partition("~")[2] or key for key in keys]  # of a second final its folder says more than its key


def alias_text(checkpoint: Checkpoint) -> str:
    """What else holds these weights, in words: `final and final_pipeline`; "" if nothing does."""
    names = alias_names(checkpoint.aliases)
    return " and ".join([", ".join(names[:-1]), *names[-1:]] if len(names) > 1 else names)


def counted(count: int, noun: str) -> str:
    """`1 cell`, `1,200 cells`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def mark_text(mark: Mark, most: int = 60) -> str:
    """A name and a note as they stand beside others."""
    return shortened(", ".join(part for part in (f"“{mark.name}”" if mark.name else "", mark.note) if part), most)


def shortened(text: str, most: int) -> str:
    """The text, cut where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
