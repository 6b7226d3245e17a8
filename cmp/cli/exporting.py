"""What the grid verb writes beside its pictures: sheet, page, animation, archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cmp.cli.output import in_trouble
from cmp.core.grids import GridSpec, Tile
from cmp.core.matrices import grid_matrix
from cmp.core.present import path_text
from cmp.core.runs import Checkpoint
from cmp.errors import CmpError
from cmp.workbench import Workbench
from cmp.workbench.exporting import Matrix, check_target, write_export


@dataclass(frozen=True, slots=True)
class Wanted:
    """The files that were asked for, by what they are; `force` replaces what lies there."""

    files: Mapping[str, Path | None]
    force: bool
    ours: set[str] = field(default_factory=set)  # what was written before the end, and may be replaced

    def _asked(self) -> Iterator[tuple[str, Path]]:
        return ((what, target) for what, target in self.files.items() if target is not None)

    def check(self) -> None:
        """Raises what stands against them, before hours are spent on drawing."""
        for what, target in self._asked():
            check_target(what, target, force=self.force)

    def folders(self) -> list[Path]:
        return [target.absolute().parent for _, target in self._asked()]

    def show_previews(self, bench: Workbench, spec: GridSpec, tiles: Sequence[Tile]) -> None:
        """Writes the sheet, where one was asked for, with what is there so far."""
        if sheet := self.files.get("sheet"):
            small = replace(spec, title=f"{spec.title} (previews)".strip())
            write_export("sheet", Matrix(bench, grid_matrix(small, tiles, _Names(bench, spec).of)), sheet, force=self.force)
            self.ours.add("sheet")
            in_trouble(f"wrote {sheet} with the previews")

    def write(self, bench: Workbench, spec: GridSpec, tiles: Sequence[Tile]) -> dict[str, object]:
        """Writes them, and gives for the JSON where they are. One that cannot be written does not cost the others; its fault is raised."""
        names = _Names(bench, spec)
        matrix = Matrix(bench, grid_matrix(spec, tiles, names.of) | {"verdict": bench.verdict_line(spec.checkpoints)})
        told: dict[str, object] = dict.fromkeys(self.files)
        notes: list[str] = []
        faults: list[CmpError] = []
        for what, target in self._asked():
            try:
                made = write_export(what, matrix, target, force=self.force or what in self.ours)
            except CmpError as fault:
                faults.append(fault)
                in_trouble(f"no {what}: {fault.told}")
                continue
            told[what] = path_text(made.files[0].absolute())
            notes += [f"{what}: {note}" for note in made.notes]
            in_trouble(f"wrote {', '.join(map(str, made.files))}{''.join(f'; {note}' for note in made.notes)}")
        if faults and not any(tile.fault for tile in tiles):  # otherwise it is told why cells could not be drawn
            raise faults[0]
        return told | {"notes": notes}


class _Names:
    """What a column is called, and of which run it is where there are several."""

    def __init__(self, bench: Workbench, spec: GridSpec) -> None:
        self._bench = bench
        self._several = len({c.run_id for c in spec.checkpoints if c}) > 1

    def of(self, checkpoint: Checkpoint | None) -> tuple[str, str]:
        return self._bench.column_name(checkpoint), checkpoint.run_id if checkpoint and self._several else ""
