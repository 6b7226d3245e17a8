"""Plans conversions from headers alone: what would be written where, from which base, at which scale, and whether it fits."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from cmp.core.conversion import FORMS, ConversionPlan, LeftOut
from cmp.core.runs import Checkpoint, Run
from cmp.disk.bases import read_component
from cmp.disk.converted import default_target, is_ours
from cmp.disk.ready import Answers, Ready, ready_checkpoint
from cmp.disk.store import Store
from cmp.errors import BadInput, NoSpace, Refused

_MARGIN = 16_000_000  # bytes that stay free: headers, records, and other programs' small writes


def plan_conversion(
    run: Run,
    checkpoint: Checkpoint,
    form: str,
    bases: Iterable[Path],
    store: Store,
    given: Answers = Answers(),
    *,
    output: Path | None = None,
    force: bool = False,
) -> ConversionPlan:
    """The plan for one checkpoint; raises what stands against it, before anything is written."""
    if form not in FORMS:
        raise BadInput(f"the form is {form!r}", f"Use one of: {', '.join(FORMS)}.")
    target = output or default_target(run, checkpoint, form, _writable_home(run, store))
    ready = ready_checkpoint(run, checkpoint, bases, store, given, need_base=form == "pipeline")
    if form != "pipeline" and ready.scale is None:
        raise Refused(f"{checkpoint.id} is a full fine-tune and holds no LoRA", "Convert it with --to pipeline.")
    there = target.exists() or target.is_symlink()
    done = None
    if there and not force:
        if not is_ours(target):
            raise Refused(
                f"{target} exists and was not made by this program: nothing proves what is in it",
                "Another converter may have left the base model there. With --force it is moved to .cmp-trash and made anew.",
            )
        done = "already converted, use --force to redo"
    return ConversionPlan(
        run,
        checkpoint,
        form,
        target,
        ready.opened.weights,
        ready.scale,
        ready.base,
        _bytes(ready, form),
        done,
        there and not done,
        _left_out(ready, form),
    )


def _writable_home(run: Run, store: Store) -> Path | None:
    """None where the run's own folder can be written, else the place below CMP_HOME that stands in for it."""
    return None if os.access(run.folder, os.W_OK | os.X_OK) else store.home / "converted-runs" / run.id.replace("/", "__")


def _bytes(ready: Ready, form: str) -> int:
    entries = ready.opened.header.tensors
    if form != "pipeline":
        return sum(4 * (entries[n].end - entries[n].start) // _width(entries[n].dtype) for n in ready.opened.weights.canonical)
    assert ready.base is not None
    components = {pair.component for pair in ready.opened.weights.pairs} or {str(ready.opened.weights.component)}
    return sum(header.identity.size for name in components for header in read_component(ready.base.path, name).headers)


def _width(dtype: str) -> int:
    return {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}.get(dtype, 1)


def _left_out(ready: Ready, form: str) -> tuple[LeftOut, ...]:
    weights = ready.opened.weights
    if weights.layout != "accelerate-peft":
        return ()
    why = "frozen: the base model has it" if form != "pipeline" else "frozen: taken from the base model, which it equals"
    return tuple(LeftOut(name, why) for name in weights.frozen or {})


def check_space(plans: Iterable[ConversionPlan]) -> None:
    """Raises NoSpace, with both sizes, if the disk cannot hold all of the plans together."""
    needed: dict[int, tuple[int, Path]] = {}
    for plan in plans:
        folder = _existing_parent(plan.target)
        device = folder.stat().st_dev
        needed[device] = (needed.get(device, (0, folder))[0] + (0 if plan.done else plan.bytes), folder)
    for size, folder in needed.values():
        free = shutil.disk_usage(folder).free
        if size and size + _MARGIN > free:
            raise NoSpace(f"this needs {size:,} bytes and {folder} has {free:,} free", "Make room, or convert fewer checkpoints.")


def _existing_parent(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def make_way(target: Path, run_folder: Path) -> Path | None:
    """Moves what lies at `target` into a `.cmp-trash/` on the same disk, and says where it is now; None if nothing was there."""
    if not (target.exists() or target.is_symlink()):
        return None
    home = run_folder if target.is_relative_to(run_folder) else target.parent
    trash = home / ".cmp-trash" / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{target.name}"
    trash.parent.mkdir(parents=True, exist_ok=True)
    os.replace(target, trash)
    return trash
