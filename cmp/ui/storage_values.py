"""The Storage tab's values: what is occupied, what would go, and what became of it. No widget is known here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cmp.core.pace import duration_text
from cmp.core.present import counted, size_text
from cmp.core.progress import Progress
from cmp.core.runs import path_text, plain_text
from cmp.core.storage import CleanupPlan, Item
from cmp.jobs import Job
from cmp.workbench.reclaiming import Preview
from cmp.workbench.storing import NotDone, Restored

DISK_PARTS = (("runs", "runs"), ("converted", "converted forms"), ("cells", "drawn pictures"), ("trash", "trash"))
RUN_PARTS = (
    ("checkpoints", "checkpoints"), ("optimizer", "optimizer state"), ("converted", "converted forms"), ("logs", "logs"),
    ("samples", "trainer's pictures"), ("other", "other files"), ("trash", "trash"),
)  # fmt: skip
FREED = {"converted": "converted forms", "compact": "frozen weights", "optimizer": "optimizer state", "trash": "trash"}
GROUPS = (  # in this order: what costs nothing to lose stands first
    ("converted", "Converted forms that can be made again, to the trash"),
    ("compact", "Frozen weights that are held elsewhere to the bit"),
    ("share", "Equal files, to lie on the disk once"),
    ("optimizer", "Optimizer state, to the trash"),
    ("checkpoint", "Checkpoints, to the trash"),
    ("delete", "Deleted for good"),
)
LEFT: dict[str, Any] = {"run": "no run is left there", "folder": "", "compacted": ()}
NOTHING = "Choose what may go, and look at the preview. Nothing is changed before you have seen it and said so twice."
_DONE = {"compact": "compacted", "trash": "moved to the trash", "delete": "deleted", "share": "shared"}
_MOST_FAULTS = 5


def busy(progress: Progress | None) -> dict[str, Any] | None:
    """How far a look has come."""
    return {"text": progress.what, "share": progress.done / progress.total if progress.total else 0.0} if progress else None


# -- what is occupied ------------------------------------------------------------------------------------------------------


def overview_value(plan: CleanupPlan | None, names: Mapping[str, str], writable: bool, progress: Progress | None) -> dict[str, Any]:
    """What the overview shows; without a plan yet only how far measuring has come. `names` are the runs' by id."""
    if plan is None:
        return {"disks": [], "runs": [], "undo": [], "writable": writable, "busy": busy(progress), "note": ""}
    runs: list[Any] = sorted(plan.runs, key=lambda run: -_total(run))
    most = max(map(_total, runs), default=0)
    note = "" if runs else "No runs were found: there is nothing that this program knows of."
    return {
        "disks": [_disk(disk, plan.cells or {}) for disk in plan.disks],
        "runs": [_run(run, names.get(str(run["run"]), str(run["run"])), most) for run in runs],
        "undo": list(_undo([*runs, LEFT | {"trash": plan.left}])) if writable else [],
        "begun": [f"{line}; the next clean-up ends it" for line in plan.begun],
        "writable": writable,
        "busy": busy(progress),
        "note": note,
    }


def _total(run: Mapping[str, Any]) -> int:
    return sum(run["parts"].values())


def _beside(run: Mapping[str, Any]) -> str:
    """Why the list of runs, which counts a folder, or of several runs in one their checkpoints, tells another size."""
    listed, whole = run["listed_bytes"], _total(run)
    if size_text(listed) == size_text(whole):
        return ""
    why = "leaves out logs, training states and trash beside it" if listed < whole else "counts a file once for each of its names"
    return f"{size_text(listed)} in the list of runs, which {why}"


def _part(key: str, label: str, size: int, whole: int) -> dict[str, Any]:
    return {"key": key, "label": label, "text": size_text(size), "share": size / whole if whole else 0.0}


def _disk(disk: Mapping[str, Any], cells: Mapping[str, Any]) -> dict[str, Any]:
    total, free = disk["total_bytes"], disk["free_bytes"]
    known = [(key, label, disk[f"{key}_bytes"]) for key, label in DISK_PARTS]
    other = max(0, total - free - sum(size for *_, size in known))
    parts = [*((key, label, size) for key, label, size in known if size), ("rest", "everything else", other), ("free", "free", free)]
    coming = disk["forecast"]
    return {
        "label": f"Disk {disk['path']}",
        "text": f"{size_text(free)} of {size_text(total)} free",
        "parts": [_part(key, label, size, total) for key, label, size in parts],
        "forecast": _forecast(coming, counted(coming["trainings"], "training")) if coming else None,
    }


def _forecast(coming: Mapping[str, Any], who: str) -> dict[str, Any]:
    told = f"Still to come from {who}: {counted(coming['checkpoints'], 'checkpoint')}, {size_text(coming['needed_bytes'])} more"
    free = f"{size_text(coming['free_bytes'])} are free"
    return {"text": f"{told}; {free}." if coming["fits"] else f"{told}, and only {free}: that is not enough.", "bad": not coming["fits"]}


def _run(run: Mapping[str, Any], name: str, most: int) -> dict[str, Any]:
    whole = _total(run)
    parts = [_part(key, label, run["parts"][key], whole) for key, label in RUN_PARTS if run["parts"].get(key)]
    sizes = [one["bytes"] for one in run["checkpoints"]]
    compacted = {one["checkpoint"] for one in run["compacted"]}
    rows = [
        _part("compacted" if one["checkpoint"] in compacted else "", str(one["checkpoint"]).rpartition("@")[2], one["bytes"], max(sizes))
        for one in run["checkpoints"]
    ]
    sub = " · ".join(filter(None, (run["run"] if name != run["run"] else "", _beside(run))))
    could = [f"{label} {size_text(size)}" for key, label in FREED.items() if (size := run["could_be_freed"][key])]
    if run["could_be_freed"]["compact"] and (when := run.get("compact_from")):
        could.append(f"frozen weights only from {when.replace('T', ' ').removesuffix('Z')} UTC on, being too young now")
    return {
        "key": run["run"], "label": name, "sub": sub, "live": run["state"] == "training",
        "text": size_text(whole), "share": whole / most if most else 0.0, "parts": parts, "checkpoints": rows,
        "could": f"Could be freed: {', '.join(could)}." if could else "", "forecast": _forecast(run["forecast"], "this training")
        if run["forecast"] else None,
    }  # fmt: skip


def _undo(runs: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What can be brought back: each thing in a trash once, though runs of one folder share one; then what was compacted."""
    seen: set[str] = set()
    for run in runs:
        for each in run["trash"]:
            if each["trash_id"] not in seen:
                seen.add(each["trash_id"])
                path = each["path"] and (os.path.relpath(each["path"], run["folder"]) if run["folder"] else each["path"])
                path = path or each["trash_id"]
                when = f"in the trash since {str(each['moved_at'] or '').replace('T', ' ').replace('Z', ' UTC')}"
                sub = " · ".join(part for part in (run["run"], each["why"], when) if part)
                act = "Bring back" if each["path"] else ""
                yield {"key": each["trash_id"], "kind": "trash", "label": path, "sub": sub, "text": size_text(each["bytes"]), "act": act}
    for run in runs:
        if len(run["compacted"]) > 1:
            size = size_text(sum(one["restore_bytes"] for one in run["compacted"]))
            sub = f"all {len(run['compacted'])} compacted checkpoints; restoring takes this much room"
            yield {"key": run["run"], "kind": "compact", "label": run["run"], "sub": sub, "text": size, "act": "Restore all"}
        for one in run["compacted"]:
            sub, text = "compacted; restoring takes this much room", size_text(one["restore_bytes"])
            yield {"key": one["checkpoint"], "kind": "compact", "label": one["checkpoint"], "sub": sub, "text": text, "act": "Restore"}


# -- what would go ---------------------------------------------------------------------------------------------------------


def plan_value(preview: Preview) -> dict[str, Any]:
    """What would go, what stays and why, bytes before and after."""
    plan = preview.plan
    kinds = _kinds(preview)
    groups = [
        _group(key, label, [item for item in plan.changes if kinds[item.path, item.action] == key])
        for key, label in GROUPS
    ]  # fmt: skip
    kept = [item for item in plan.items if item.action == "keep"]
    return {
        "summary": summary_of(plan),
        "bars": [_bar("now", plan.before, plan.trash_before, plan.before), _bar("afterwards", plan.after, plan.trash_bytes, plan.before)],
        "groups": [group for group in groups if group["items"]],
        "kept": _kept(kept) if kept else None,
        "busy": None,
        "note": "" if plan.changes else "Nothing would go.",
    }


def empty_plan(note: str, progress: Progress | None = None) -> dict[str, Any]:
    return {"summary": "", "bars": [], "groups": [], "kept": None, "busy": busy(progress), "note": note}


def summary_of(plan: CleanupPlan) -> str:
    """`24.1 GB now, 14.2 GB afterwards, 3.1 GB of that in the trash`."""
    told = f"{size_text(plan.before)} now, {size_text(plan.after)} afterwards"
    return f"{told}, {size_text(plan.trash_bytes)} of that in the trash" if plan.trash_bytes else told


def _bar(label: str, size: int, trash: int, most: int) -> dict[str, Any]:
    return {"label": label, "text": size_text(size), "share": size / most if most else 0.0, "trash": trash / most if most else 0.0}


def _kinds(preview: Preview) -> dict[tuple[object, str], str]:
    made = {target for run in preview.runs for c in run.checkpoints for _, target in c.converted}
    whole = {c.path for run in preview.runs for c in run.checkpoints}

    def kind(item: Item) -> str:
        if item.action != "trash":
            return item.action
        return "converted" if item.path in made else "checkpoint" if item.path in whole else "optimizer"

    return {(item.path, item.action): kind(item) for item in preview.plan.changes}


def _kept(items: list[Item]) -> dict[str, Any]:
    """What stays, by the reason, so that each is read once. A dump within a checkpoint that stays is no further bytes."""
    whys = [_plainly(item.why) for item in items]
    order = {why: place for place, why in enumerate(dict.fromkeys(whys))}
    told = sorted(range(len(items)), key=lambda place: order[whys[place]])
    group = _group("keep", f"{counted(len(items), 'thing')} that stay{'' if len(items) > 1 else 's'}", [items[place] for place in told])
    places = {item.path for item in items}
    size = sum(item.bytes for item in items if places.isdisjoint(item.path.parents))
    return group | {"text": size_text(size)}


def _reason_once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where most neighbours have the same reason it stands once above them, as `head` of the first."""
    before = ["", *(row["why"] for row in rows)]
    heads = [row["why"] if row["why"] != last else "" for row, last in zip(rows, before, strict=False)]
    if 2 * sum(map(bool, heads)) > len(rows):
        return rows
    return [row | {"why": "", "head": head} for row, head in zip(rows, heads, strict=True)]


def _group(key: str, label: str, items: list[Item]) -> dict[str, Any]:
    """What is the same for all of them is said once, and beside each what is not."""
    size = size_text(sum(item.bytes for item in items))
    whys = dict.fromkeys(_plainly(item.why) for item in items)
    undos = dict.fromkeys(_undo_of(item) for item in items)
    alike = len(items) > 1 and len(whys) == 1, len(items) > 1 and len(undos) == 1
    notes = ["; ".join([*(whys if alike[0] else ()), *(undo for undo in undos if undo and alike[1])])] if any(alike) else []
    rows = [_item(item, not alike[0], not alike[1]) for item in items]
    return {
        "key": key,
        "label": label,
        "text": size if key == "keep" else f"{len(items)} · {size}",
        "notes": list(filter(None, notes)),
        "items": _reason_once(rows),
    }


def _item(item: Item, why: bool, undo: bool) -> dict[str, Any]:
    inside = _named(item)
    told = [_plainly(item.why) if why else "", _undo_of(item) if undo else ""]
    return {"label": plain_text(inside), "why": "; ".join(filter(None, told)), "text": size_text(item.bytes)}


def _named(item: Item) -> str:
    """Where a thing lies, as the run is called: several may have folders of one name."""
    if item.home is None:
        return path_text(item.path)
    run = (item.checkpoint or "").rpartition("@")[0]
    known = run.rpartition("/")[2] == item.home.name
    return os.path.join(run, os.path.relpath(item.path, item.home)) if known else os.path.relpath(item.path, item.home.parent)


def _undo_of(item: Item) -> str:
    """How it is undone on this page."""
    if item.action == "share":
        return f"undo: {plain_text(item.undo or '')}"
    return {"compact": "undone by Restore", "trash": "undone by Bring back, until the trash is emptied", "delete": "this is final"}.get(
        item.action, ""
    )


def _plainly(why: str) -> str:
    return plain_text(why).replace("`restore`", "Restore")


def confirmation(preview: Preview) -> str:
    """What is asked before it is done."""
    plan = preview.plan
    counts = {action: sum(item.action == action for item in plan.changes) for action in ("compact", "share", "trash", "delete")}
    told = [
        f"compact {counted(counts['compact'], 'file')}, which Restore makes again to the last byte" if counts["compact"] else "",
        f"have {counted(counts['share'], 'file')} share bytes with another" if counts["share"] else "",
        f"move {counted(counts['trash'], 'thing')} to the trash, from where they can be brought back" if counts["trash"] else "",
        f"DELETE {counted(counts['delete'], 'thing')} for good. This is final: nothing brings them back" if counts["delete"] else "",
    ]
    return f"This will {'; '.join(filter(None, told))}. Go on?"


# -- what became of it -----------------------------------------------------------------------------------------------------


def job_text(job: Job) -> str:
    """How far a job has come, or how it ended."""
    done = [item for item in job.items if isinstance(item, Item)]
    failed = [item for item in job.items if isinstance(item, NotDone)]
    lines = [f"{job.state}: {_counted(done)}" if job.kind == "storage" else f"{job.state}: {job.title}"]
    if job.over:
        lines[0] += f", in {duration_text((job.ended or 0) - job.started)}" if job.started else ""
        lines += [f"restored {path_text(item.path)}" for item in job.items if isinstance(item, Restored)]
    elif job.state == "waiting":
        lines.append("other work has its turn first")
    elif job.progress:
        share = f" ({100 * job.progress.done_bytes // job.progress.total_bytes} %)" if job.progress.total_bytes else ""
        lines.append(f"{job.progress.what}{share}{' · stopping' if job.cancelled.is_set() else ''}")
    lines += [f"not done: {path_text(one.item.path)}: {one.error.told}" for one in failed[:_MOST_FAULTS]]
    lines += [f"and {len(failed) - _MOST_FAULTS} more that were not done"] if len(failed) > _MOST_FAULTS else []
    return "\n".join([*lines, *([job.error.told] if job.error else [])])


def _counted(done: list[Item]) -> str:
    counts = {word: [item.bytes for item in done if item.action == action] for action, word in _DONE.items()}
    told = [f"{word} {len(sizes)} ({size_text(sum(sizes))})" for word, sizes in counts.items() if sizes]
    return ", ".join(told) or "nothing yet"
