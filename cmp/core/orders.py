"""Grids as JSON and back: what is kept of one, so that another process can draw it. Checkpoints are told by id and path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cmp.core.grids import GridSpec, Prompt
from cmp.core.present import counted, shortened
from cmp.core.runs import Checkpoint, Run
from cmp.errors import BadInput

T = TypeVar("T")
Find = Callable[[Mapping[str, object]], Checkpoint]
_HINT = "It is what `python -m cmp jobs ID --json` shows as `grid`; a prompt may also be plain text."


def checkpoint_reference(checkpoint: Checkpoint) -> dict[str, object]:
    """By what a checkpoint is found again: an id means another one once other folders are looked at, so that its path must agree."""
    return {"id": checkpoint.id, "path": str(checkpoint.file or checkpoint.path)}


def run_reference(run: Run) -> dict[str, object]:
    """The same for a run."""
    return {"id": run.id, "path": str(run.folder / run.series if run.series else run.folder)}


def grid_title(spec: GridSpec, runs: Iterable[str]) -> str:
    """What a grid is called where it is one of many: its title, how large it is, of which runs, and the first prompt."""
    names = list(dict.fromkeys(runs))
    of = f" of {', '.join(names[:3])}{' …' if names[3:] else ''}" if names else ""
    first, more = spec.prompts[0], len(spec.prompts) - 1
    said = f"“{shortened(first.name or first.text, 60)}”{f' and {more} more' if more else ''}"
    return f"{f'{spec.title}: ' if spec.title else ''}{counted(spec.size, 'cell')}{of}, {said}"


def grid_to_json(spec: GridSpec) -> dict[str, Any]:
    """All of a grid; see grid_from_json."""
    told = _to_json(spec)
    assert isinstance(told, dict)
    return told


def _to_json(value: object) -> object:
    if isinstance(value, Checkpoint):
        return checkpoint_reference(value)
    if is_dataclass(value):
        return {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}
    return list(map(_to_json, value)) if isinstance(value, tuple) else value


def grid_from_json(told: object, find: Find) -> GridSpec:
    """The grid; `find` gives the checkpoint of a reference. Raises BadInput, and what `find` raises."""
    return _read_dataclass(GridSpec, told, "the grid", find)


def pattern_from_json(told: object, find: Find) -> GridSpec:
    """A grid's prompts, seeds and sampling without its checkpoints, to be drawn with others; also of a file that names none."""
    if not isinstance(told, dict):
        raise BadInput(f"the grid is {told!r:.60}, and a JSON object is wanted", _HINT)
    return grid_from_json({**told, "checkpoints": [None]}, find)


def _read(hint: Any, told: object, where: str, find: Find) -> Any:
    """The value of a type as annotated: tuples, unions, our dataclasses and plain values."""
    if get_origin(hint) is tuple:
        if not isinstance(told, list):
            raise BadInput(f"{where} is {told!r:.60}, and a list is wanted", _HINT)
        return tuple(_read(get_args(hint)[0], item, where, find) for item in told)
    kinds = get_args(hint) or (hint,)
    if told is None and type(None) in kinds:
        return None
    if Checkpoint in kinds:
        if not isinstance(told, dict):
            raise BadInput(f"{where} is {told!r:.60}, and a checkpoint is told by its id and path", _HINT)
        return find(told)
    for kind in kinds:
        if is_dataclass(kind):
            return _read_dataclass(kind, told, where, find)  # type: ignore[arg-type]
    if float in kinds and type(told) is int:
        return float(told)
    if type(told) not in kinds:  # not isinstance: True is no seed
        raise BadInput(f"{where} is {told!r:.60}, and {' or '.join(getattr(kind, '__name__', '?') for kind in kinds)} is wanted", _HINT)
    return told


def _read_dataclass(kind: type[T], told: object, where: str, find: Find) -> T:
    if kind is Prompt and isinstance(told, str):
        told = {"text": told}
    if not isinstance(told, dict):
        raise BadInput(f"{where} is {told!r:.60}, and a JSON object is wanted", _HINT)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if strange := [name for name in told if name not in known]:
        raise BadInput(f"{where} has {strange[0]!r}, which is not known", f"Known are: {', '.join(known)}.")
    if missing := [n for n, f in known.items() if n not in told and f.default is MISSING and f.default_factory is MISSING]:
        raise BadInput(f"{where} has no {missing[0]!r}", _HINT)
    hints = get_type_hints(kind)
    return kind(**{name: _read(hints[name], value, f"{where}'s {name}", find) for name, value in told.items()})
