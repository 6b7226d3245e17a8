"""Runs that are nothing but weights files in a folder, whoever wrote them.

Those who train with kohya's sd-scripts keep all their networks in one folder, where each name is a run. So a folder with files of one
name is one run and is called by the folder's path, as any other; with several names, or beside another run, each is a run called
`FOLDER/NAME`. A file without a number is the last of its name; alone it is a run if its tensors are those of an adapter or its header
says who trained it, since anything may be called `something.safetensors`. Hand-made ones may lie in `checkpoints/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cmp.core.runs import Setting
from cmp.core.stages import FINAL, read_file_name
from cmp.disk.folders import Folder, list_folder
from cmp.disk.logs.sessions import merged
from cmp.disk.trainers import ai_toolkit, kohya, onetrainer
from cmp.disk.trainers.found import Found
from cmp.disk.trainers.series import FactsReader, Member, newest_facts, read_member, weights_files
from cmp.errors import CmpError

READERS: tuple[FactsReader, ...] = (ai_toolkit.read_facts, onetrainer.read_facts, kohya.read_facts)
_OF_A_MODEL = ("config.json", "model_index.json")  # what stands beside a component of a model


def recognise(run_id: str, folder: Folder, others: tuple[Found, ...] = ()) -> tuple[Found, ...]:
    """The runs of this folder, none if it has none. `others` are those that other readers have found in it."""
    groups: dict[str, list[Member]] = {}
    taken = {file for other in others for c in other.checkpoints for file in (c.file, *c.more)}
    for file in (file for file in _files(folder) if file not in taken):
        member = read_member(run_id, file, READERS)
        groups.setdefault(member.series, []).append(member)
    groups = {name: members for name, members in groups.items() if any(m.numbered or m.facts or m.adapter for m in members)}
    if any(other.whole for other in others):  # that run has its own files, and maybe copies of them in other forms
        groups = {name: members for name, members in groups.items() if any(m.trainer for m in members)}
    if len(groups) == 2 and "" in groups:
        nameless = groups.pop("")
        groups = {name: nameless + members for name, members in groups.items()}
    alone = len(groups) == 1 and not others
    found = tuple(_run(run_id, folder, name, members, alone) for name, members in sorted(groups.items()))
    return found or (() if others else _only_resumable(run_id, folder))


def _files(folder: Folder) -> Iterator[Path]:
    of_model = any(name in folder.files for name in _OF_A_MODEL)
    for name in weights_files(folder.files):
        if not of_model or read_file_name(Path(name).stem).stage != FINAL:
            yield folder.path / name
    if "checkpoints" in folder.folders:
        try:
            inner = list_folder(folder.path / "checkpoints")
        except CmpError:  # told by the reader of checkpoint folders
            return
        yield from (inner.path / name for name in weights_files(inner.files))


def _run(run_id: str, folder: Folder, name: str, members: list[Member], alone: bool) -> Found:
    facts = newest_facts(members)
    checkpoints = [m.checkpoint for m in members]
    states, resumable = kohya.state_checkpoints(run_id, folder, checkpoints, None if alone else name)
    checkpoints += states
    settings = dict(facts.settings) if facts else {}
    if resumable:
        settings["resume_folders"] = Setting(tuple(resumable), str(folder.path))
    named = next((m.trainer for m in members if m.trainer), "unknown")
    return Found(
        trainer=facts.trainer if facts else named,
        checkpoints=tuple(checkpoints),
        warnings=tuple(m.warning for m in members if m.warning),
        settings=settings,
        sessions=merged(m.facts.session for m in members if m.facts and m.facts.session),
        series=None if alone else name or checkpoints[0].path.stem,
        claimed=frozenset(resumable),
        whole=any(c.path.parent != folder.path for c in checkpoints),
    )


def _only_resumable(run_id: str, folder: Folder) -> tuple[Found, ...]:
    """The run of which nothing is left but folders to resume from."""
    states, names = kohya.state_checkpoints(run_id, folder, ())
    return (Found("kohya", tuple(states), claimed=frozenset(names), whole=False),) if states else ()
