"""What leaves a matrix as a file: sheet, animation, archive, page. Each appears whole under its name, or not at all."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmp.core.arranging import Arranged, Cell, arrange, over_steps, read_matrix
from cmp.core.handover import hand_over, view_json
from cmp.core.packing import pack, table
from cmp.core.views import View
from cmp.disk.replacing import cannot_write, replacing
from cmp.errors import BadInput, CmpError, NotFound, Refused
from cmp.workbench.shelf import Shelf

if TYPE_CHECKING:
    from cmp.pictures.layouts import Subject

ENDINGS = {"sheet": (".png", ".webp", ".jpg", ".jpeg"), "animation": (".gif", ".webp"), "zip": (".zip",), "html": (".html", ".htm")}
_ADDRESS = re.compile(r"cmp/(cell|sample)/([0-9a-f]{64}(?:\.png|\.(?:256|512)\.webp))", re.ASCII)
_DIGEST = 64  # characters of it
_THUMB, _SMALL = 256, 320  # pixels; pictures up to the second need no thumbnail


@dataclass(frozen=True, slots=True)
class Export:
    """The files that were written, and in words what they do not show as it is."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix's value, how it is arranged, and where its pictures lie."""

    bench: Shelf
    value: Mapping[str, Any]
    view: View = field(default_factory=View)
    as_drawn: bool = False  # a page holds its pictures as WebP, which is smaller, unless they are to be as they were drawn
    scratch: Path | None = None  # a folder of ours for pictures that lie within logs: without one these are not here
    retell: Callable[[bytes, str], bytes] | None = None  # makes of a picture, by its media type, what others are handed; into `scratch`
    handed: dict[Path, Path | None] = field(default_factory=dict, compare=False)  # what was made of each by now

    def path_of(self, cell: Cell) -> Path | None:
        """The picture of a cell by the address under which it is served; None where it is not here."""
        urls, record = self.value.get("urls") or {}, cell.record
        address = str(record.get("full") or str(urls.get("full") or "").replace("{key}", cell.key))
        found = _ADDRESS.fullmatch(address)
        try:
            path = self.bench.picture_path(found[1], found[2]) if found else None
        except NotFound:
            path = self._copied(found[2][:_DIGEST]) if found and found[1] == "sample" else None
        if path is None or self.retell is None:
            return path
        if path not in self.handed:
            self.handed[path] = self._retold(path, self.retell)
        return self.handed[path]

    def _retold(self, path: Path, retell: Callable[[bytes, str], bytes]) -> Path | None:
        """The picture as others are handed it, where need be a file of its own; None where it cannot be taken apart."""
        from cmp.pictures.files import whole

        assert self.scratch is not None
        with suppress(CmpError):
            content, media_type = whole(path)
            if (made := retell(content, media_type)) is content:
                return path
            named = hashlib.sha256(os.fsencode(path)).hexdigest()  # pictures of two folders may have one name
            told = self.scratch / "told" / f"{named}{path.suffix}"
            told.parent.mkdir(parents=True, exist_ok=True)
            told.write_bytes(made)
            return told
        return None

    def _copied(self, digest: str) -> Path | None:
        """A picture within a log as a file of its own; None where it cannot be read."""
        if self.scratch is None:
            return None
        copy = self.scratch / f"{digest}.png"
        if not copy.is_file():
            with suppress(CmpError):
                content, _ = self.bench.gallery.picture(digest, None)
                self.scratch.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)
        return copy if copy.is_file() else None

    def told(self, arranged: Arranged) -> tuple[str, ...]:
        """What holds for all that is shown: the common details, axes with one value, what was picked, and the verdict on the run."""
        single = [(one, 0) for one in arranged.axes if len(one.axis.values) == 1 and not one.place]
        picked = [(one, one.picked) for one in arranged.picks if one.picked is not None]
        of_axes = [str(one.axis.values[at].get("label") or "") for one, at in (*picked, *single)]
        common = [f"{name}: {value}" for name, value in self.value.get("common") or ()]
        return tuple(filter(None, (" · ".join(filter(None, of_axes)), " · ".join(common), str(self.value.get("verdict") or ""))))

    def subject(self, arranged: Arranged, stamp: str = "") -> Subject:
        from cmp.pictures.layouts import Subject

        return Subject(arranged, self.path_of, str(self.value.get("title") or ""), self.told(arranged), stamp)


def check_target(what: str, target: Path, *, force: bool = False) -> None:
    """Raises BadInput for an ending that `what` cannot have, and unless `force` Refused where something lies already."""
    if target.suffix.lower() not in ENDINGS[what]:
        raise BadInput(f"the {what} is to be {target.name!r}", f"End it with {' or '.join(ENDINGS[what])}.")
    if not force and os.path.lexists(target):
        raise Refused(f"{target} is there already", "Give another name, or --force to replace it.")
    if target.is_dir():
        raise BadInput(f"{target} is a folder", "Give the name of a file.")


def write_export(what: str, matrix: Matrix, target: Path, *, force: bool = False, milliseconds: int | None = None) -> Export:
    """Writes a "sheet", "animation", "zip" or "html" of a matrix.

    Raises what `check_target` raises, NotFound where nothing is shown, NoSpace, and BadInput for a place that cannot be written.
    """
    check_target(what, target, force=force)
    try:
        if what == "sheet":
            return _write_sheet(matrix, target, force)
        with replacing(target) as draft:
            if what == "animation":
                return Export((target,), _write_animation(matrix, draft, milliseconds))
            return Export((target,), (_write_zip if what == "zip" else _write_html)(matrix, draft))
    except OSError as fault:
        raise cannot_write(target, fault) from fault


def _write_sheet(matrix: Matrix, target: Path, force: bool) -> Export:
    from cmp.pictures.sheets import write_sheet

    def place(part: int) -> Path:
        path = target.with_name(f"{target.stem}-{part}{target.suffix}") if part else target
        check_target("sheet", path, force=force)
        return path

    arranged = arrange(*read_matrix(matrix.value), matrix.view)
    return Export(*write_sheet(matrix.subject(arranged), target, place))


def _write_animation(matrix: Matrix, draft: Path, milliseconds: int | None) -> tuple[str, ...]:
    from cmp.pictures.animations import USUAL, write_animation

    steps = over_steps(*read_matrix(matrix.value), matrix.view)
    if not steps:
        raise NotFound("nothing that is shown has steps, so there is no animation", "Show the checkpoints of a run.")
    frames = [matrix.subject(arranged, str(head.get("label") or head.get("key"))) for head, arranged in steps]
    return write_animation(frames, draft, USUAL if milliseconds is None else milliseconds)


def _write_zip(matrix: Matrix, draft: Path) -> tuple[str, ...]:
    """Pictures as they are; only one at a time is read, and only a piece of it."""
    from cmp.pictures.files import media_type_of

    handed, view = hand_over(matrix.value, matrix.view, _folders(matrix.bench))
    axes, cells = read_matrix(handed)
    named, missing = [], 0
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
        for name, cell in pack(axes, cells, view):
            path = matrix.path_of(cell) if cell.record.get("state") == "done" else None
            ending = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}.get(media_type_of(path)) if path else None
            if path and ending:
                archive.write(path, name + ending)
                named.append((name + ending, cell))
            else:
                missing += 1
                named.append(("", cell))
        if missing == len(named):
            raise NotFound("no cell that is shown was drawn, so there is nothing to pack", "See what stands against the cells.")
        out = io.StringIO(newline="")
        csv.writer(out).writerows(table(axes, named, handed["common"]))
        archive.writestr("cells.csv", out.getvalue().encode("utf-8", "replace"))
    return (f"{missing} of {len(named)} cells have no picture; cells.csv says why",) if missing else ()


def _write_html(matrix: Matrix, draft: Path) -> tuple[str, ...]:
    from cmp.viewer.alone import write_alone

    handed, view = hand_over(matrix.value, matrix.view, _folders(matrix.bench))
    _, cells = read_matrix(handed)
    if not cells:
        raise NotFound("no cell is shown, so there is no page", "Show some.")
    plain = [{name: told for name, told in cell.record.items() if name not in ("thumb", "full")} for cell in cells]
    still = [cell | {"state": "waiting"} if cell["state"] == "drawing" else cell for cell in plain]
    value = handed | {"cells": still}
    with draft.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        write_alone(file, value, view_json(view), _pictures(matrix, cells))
    return ()


def _pictures(matrix: Matrix, cells: tuple[Cell, ...]) -> Iterator[tuple[int, dict[str, tuple[bytes, str]]]]:
    """One cell's after the other; those that cannot be read are left out."""
    from cmp.pictures.files import LONGEST_SIDES, longest_side, thumbnail, whole

    for number, cell in enumerate(cells):
        path = matrix.path_of(cell) if cell.record.get("state") == "done" else None
        if path is None:
            continue
        with suppress(CmpError):
            shown = {"full": whole(path) if matrix.as_drawn else (thumbnail(path, LONGEST_SIDES["WEBP"], 90), "image/webp")}
            if longest_side(path) > _SMALL:
                shown["thumb"] = (thumbnail(path, _THUMB), "image/webp")
            yield number, shown


def _folders(bench: Shelf) -> tuple[Path, ...]:
    """Folders of the user's, which nothing that is handed over names."""
    return (*bench.settings.runs, *bench.added_folders(), *bench.bases, bench.settings.home, Path.home())
