"""A grid of which one row is drawn again with another seed, all other pictures staying what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cmp.core.grids import Cell, GridSpec, Own, Prompt, Sampling
from cmp.errors import NotFound


@dataclass(frozen=True, slots=True)
class Row:
    """What the cells beside each other have in common, wherever in a grid's description it came from."""

    text: str
    negative: str
    name: str
    seed: int
    sampling: Sampling

    @property
    def key(self) -> str:
        """Equal for equal rows, also of two grids."""
        return repr((self.text, self.negative, self.name, self.seed, tuple(self.sampling.as_json().items())))


def row_of(cell: Cell) -> Row:
    return Row(cell.prompt.text, cell.prompt.negative, cell.prompt.name, cell.seed, cell.sampling)


def rows_of(spec: GridSpec) -> tuple[Row, ...]:
    """The rows in the order in which they come."""
    return tuple(dict.fromkeys(map(row_of, spec.cells())))


def with_new_seed(spec: GridSpec, key: str, seed: int, *, beside: bool) -> GridSpec:
    """The grid with another seed in the row of that key, or with `beside` in a row of its own below it. Raises NotFound.

    Rows that differ from it in the VAE alone go with it: a prompt of a grid cannot have a VAE of its own.
    """
    rows = rows_of(spec)
    meant = next((row for row in rows if row.key == key), None)
    if meant is None:
        raise NotFound("this row is not in the grid any more", "Another grid has been drawn since; choose the row there.")
    listed: list[Row] = []
    for row in rows:
        alike = _without_vae(row) == _without_vae(meant)
        listed += [row] if beside or not alike else []
        listed += [replace(row, seed=seed)] if alike else []
    vaes = dict.fromkeys(row.sampling.vae for row in rows)
    prompts = tuple(dict.fromkeys(map(_as_prompt, listed)))
    return replace(spec, prompts=prompts, seeds=(rows[0].seed,), samplings=tuple(Sampling(vae=vae) for vae in vaes))


def _without_vae(row: Row) -> Row:
    return replace(row, sampling=replace(row.sampling, vae=None))


def _as_prompt(row: Row) -> Prompt:
    """The row as a prompt that brings all of its values itself."""
    s = row.sampling
    return Prompt(row.text, row.negative, row.name, Own(row.seed, s.steps, s.guidance, s.width, s.height, s.scheduler, s.clip_skip))


def common_seeds(rows: Sequence[Row]) -> tuple[int, ...] | None:
    """The seeds that every prompt is drawn with; None where they differ."""
    found = set(map(tuple, seeds_by_prompt(rows).values()))
    return found.pop() if len(found) == 1 else None


def seeds_by_prompt(rows: Sequence[Row]) -> dict[str, list[int]]:
    """The seeds of each prompt, in their order."""
    found: dict[str, dict[int, None]] = {}
    for row in rows:
        found.setdefault(row.text, {})[row.seed] = None
    return {text: list(seeds) for text, seeds in found.items()}
