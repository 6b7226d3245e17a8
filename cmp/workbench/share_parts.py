"""What a run has to show elsewhere: its pictures as matrices, its loss, its verdicts and settings, without a folder of the user's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cmp.core.arranging import Cell, read_matrix
from cmp.core.curves import LossCurve
from cmp.core.handover import hand_over, without_folders
from cmp.core.progress import Progress
from cmp.core.publishing import IMAGES, PICTURE, SharedFile
from cmp.core.runs import Checkpoint, Run
from cmp.errors import CmpError
from cmp.workbench.exporting import Matrix

if TYPE_CHECKING:
    from cmp.core.votes import Shown
    from cmp.workbench.shelf import Shelf

LARGE, SMALL = 512, 256  # pixels of pictures as they are opened and as they stand in the matrix
_UPWARDS = re.compile(r"(?<![\w./])(?:\.\./)+(?:[^\s/,;:'\"]+/)*")  # what lies beside a run
_UNREADABLE = "This picture could not be read."


@dataclass(slots=True)
class Draft:
    """A folder of ours that is being filled; `places` are the folders that nothing in it may tell."""

    folder: Path
    places: tuple[Path, ...]
    files: dict[str, SharedFile] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def cut(self, text: str) -> str:
        return _UPWARDS.sub("", without_folders(text, self.places))

    def write(self, path: str, content: bytes, what: str) -> str:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        self.files.setdefault(path, SharedFile(path, len(content), what))
        return path

    def add_image(self, content: bytes, ending: str, what: str) -> str:
        """Under a name that says what is in it, so that no file's own name is told and two equal pictures are one."""
        return self.write(f"{IMAGES}/{hashlib.sha256(content).hexdigest()}.{ending}", content, what)

    @property
    def listed(self) -> tuple[SharedFile, ...]:
        return tuple(self.files[path] for path in sorted(self.files))


def places_of(bench: Shelf, run: Run) -> tuple[Path, ...]:
    """The user's folders: as they are named, and as they really are."""
    settings = bench.settings
    named = (*settings.runs, *bench.added_folders(), *bench.bases, settings.home, Path.home(), run.root, run.folder)
    return tuple(dict.fromkeys((*named, *(place.resolve() for place in named))))


# -- matrices --------------------------------------------------------------------------------------------------------------


def drawn_values(
    run: Run, shown: Sequence[Shown], label: Callable[[Checkpoint | None], tuple[str, str]], path_of: Callable[[str], Path],
    known: Callable[[str], dict[str, Any]], bases: Mapping[tuple[Any, ...], str] = MappingProxyType({}),
) -> Iterator[tuple[str, dict[str, Any]]]:  # fmt: skip
    """The pictures drawn of a run as matrices, one for each way of drawing, the largest first: what it is called, and its value.

    `bases` are the keys of the base model's pictures by what `row_of` gives.
    """
    from cmp.core.grids import Cell as Drawn
    from cmp.core.grids import GridSpec, Prompt, Tile
    from cmp.core.matrices import grid_matrix

    groups: dict[tuple[Any, ...], list[Shown]] = {}
    for one in shown:
        groups.setdefault(one.row[3:], []).append(one)  # strength, sampling, stack, base
    for (strength, sampling, _, base), its in sorted(groups.items(), key=lambda item: -len(item[1])):
        own = [c for c in run.checkpoints if any(one.checkpoint == c.id for one in its)]
        prompts, seeds = dict.fromkeys(Prompt(one.prompt, one.negative) for one in its), sorted({one.seed for one in its})
        by_id = {c.id: c for c in own}
        tiles = [
            Tile(Drawn(by_id[one.checkpoint], Prompt(one.prompt, one.negative), one.seed, strength, sampling), one.key, path_of(one.key))
            for one in its
        ]
        beside = {(p, seed): key for p in prompts for seed in seeds if (key := bases.get((p.text, p.negative, seed, sampling, base)))}
        tiles += [Tile(Drawn(None, p, seed, strength, sampling), key, path_of(key)) for (p, seed), key in beside.items()]
        columns = (None, *own) if beside else tuple(own)
        for prompt_group in _within_bounds(tuple(prompts), len(columns) * len(seeds)):
            spec = GridSpec(columns, prompt_group, tuple(seeds), (strength,), (sampling,))
            value = grid_matrix(spec, [t for t in tiles if t.cell.prompt in prompt_group], label, known=known)
            drawn = [cell for cell in value["cells"] if cell["state"] == "done"]  # of a product of rows some may never have been asked for
            told = f"{sampling.steps} steps, guidance {sampling.guidance:g}" + ("" if strength == 1 else f", strength {strength:g}")
            value |= {"cells": drawn, "rerolls": [], "done": 0, "total": 0}
            yield told, value | {"common": [*value["common"], ["base", str(base)]]}


def row_of(shown: Shown) -> tuple[Any, ...]:
    """What a picture of the base model has in common with one that stands beside it."""
    prompt, negative, seed, _, sampling, _, base = shown.row
    return prompt, negative, seed, sampling, base


def _within_bounds(prompts: tuple[Any, ...], others: int) -> Iterator[tuple[Any, ...]]:
    """The prompts in groups that a grid can hold."""
    from cmp.core.grids import MOST_CELLS

    most = max(1, MOST_CELLS // max(others, 1))
    return (prompts[start : start + most] for start in range(0, len(prompts), most))


def samples_of(bench: Shelf, run: Run, name: str) -> dict[str, Any] | None:
    """The pictures that the trainer left, as a matrix; None for none."""
    from cmp.core.losses import losses_at
    from cmp.core.sample_values import samples_value, step_marks

    its = bench.gallery.samples(run)
    value = samples_value([(run, its)], lambda item: name, bench.gallery.name)
    if not value["cells"]:
        return None
    loss = bench.gallery.loss(run)
    losses = losses_at([loss] if loss else [], {sample.step for sample in its if sample.step is not None})
    return value | {"title": "", "run": run.id, "marks": step_marks(value, [(run, its)], {run.id: losses}, {})}


def handed_over(matrix: Matrix, draft: Draft) -> dict[str, Any]:
    """A matrix's value without folders, its addresses still those of here."""
    handed, _ = hand_over(matrix.value, matrix.view, draft.places)
    return handed | {"urls": matrix.value.get("urls") or {}, "run": matrix.value.get("run")}


def laid_out(matrix: Matrix, draft: Draft, *, png: bool) -> Iterator[Progress | dict[str, Any]]:
    """The pictures of a matrix as files of the draft, one after the other; at the end the value that shows them."""
    handed = handed_over(matrix, draft)
    plain = replace(matrix, value=handed)
    _, cells = read_matrix(handed)
    told = []
    for done, cell in enumerate(cells):
        yield Progress(done, len(cells), "preparing pictures")
        told.append(_with_picture(plain, cell, draft, png))
    missing = sum(cell["state"] == "fault" for cell in told)
    draft.notes += [f"{missing} of {len(told)} pictures could not be read"] if missing else []
    yield {name: value for name, value in handed.items() if name != "urls"} | {"cells": told}


def _with_picture(matrix: Matrix, cell: Cell, draft: Draft, png: bool) -> dict[str, Any]:
    from cmp.pictures.bare import bare_picture

    record = {name: told for name, told in cell.record.items() if name not in ("thumb", "full", "key")}
    path = matrix.path_of(cell) if cell.record.get("state") == "done" else None
    if path is not None:
        with suppress(CmpError):
            large = bare_picture(path, None, "PNG") if png else bare_picture(path, LARGE)
            full = draft.add_image(large, "png" if png else "webp", PICTURE)
            thumb = draft.add_image(bare_picture(path, SMALL), "webp", f"{PICTURE}, small")
            return record | {"key": Path(full).stem, "full": full, "thumb": thumb}
    return record | {"key": "", "state": "fault", "fault": record.get("fault") or _UNREADABLE}


# -- the loss --------------------------------------------------------------------------------------------------------------


def loss_of(run: Run, curves: Iterable[LossCurve], name: str, kind: str) -> tuple[bytes, tuple[str, ...]] | None:
    """Training and held-out loss as an "svg" or "png", and how to read them; None where none was logged."""
    from cmp.core.curve_reading import read_curve
    from cmp.core.curves import is_epoch_axis, loss_tag
    from cmp.core.evidence import held_out_tags
    from cmp.pictures.figures import curve_picture

    known = {curve.tag: curve for curve in curves if not is_epoch_axis(curve.tag) and curve.steps.size}
    loss = known.get(loss_tag(known) or "")
    held = [known[tag] for tag in held_out_tags(tuple(known)) if loss is None or tag != loss.tag]
    drawn = [replace(curve, run_id=name) for curve in ([loss] if loss else []) + held]
    if not drawn:
        return None
    steps = [c.step for c in run.checkpoints if c.step is not None]
    reading = read_curve(loss, steps, held[0] if held else None) if loss else ()
    return curve_picture(drawn, kind, markers=steps), reading


def settings_of(run: Run, cut: Callable[[str], str]) -> tuple[tuple[str, str], ...]:
    """What the run was trained with: only what `run_settings` lists, and no folder."""
    from cmp.core.run_settings import side_by_side
    from cmp.disk.datasets import read_data_set

    data = read_data_set(run)
    rows = side_by_side([run], {run.id: data} if data else {})
    return tuple((row.name, cut(row.values[0])) for row in rows if row.name != "data: folder")


def heads_shared(heads: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of what is known of checkpoints what is for others to see: no notes, and not what was converted here."""
    return {name: {key: told[key] for key in ("loss", "score", "window") if key in told} for name, told in heads.items()}
