"""A workbench with a grid whose pictures are there though nothing has drawn them: what exports need, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from cmp.core.grids import Fault, GridSpec, Prompt, Tile
from cmp.core.infotext import to_infotext
from cmp.core.matrices import grid_matrix
from cmp.core.runs import Checkpoint
from cmp.pictures.files import save_png
from cmp.settings import Settings
from cmp.workbench import Workbench

STEPS = tuple(Checkpoint("shoes", str(step), Path("/r"), "x", "lora", step=step) for step in (500, 1000, 1500))
SCRIPT = "</script><script>window.pwned = 1</script><!--"


@dataclass
class Shown:
    bench: Workbench
    spec: GridSpec
    tiles: list[Tile]
    value: dict[str, Any]


def shown(home: Path, *, side: int = 64, faults: bool = False, prompts: tuple[str, ...] = ("a shoe", SCRIPT), seeds: int = 2) -> Shown:
    """Two prompts, the base model and three steps; with `faults` one cell has failed and one was never drawn."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "runs").mkdir(exist_ok=True)
    bench = Workbench(Settings(home, (home / "runs",)))
    spec = GridSpec((None, *STEPS), tuple(map(Prompt, prompts)), tuple(range(seeds)), title=f"My <b>shoes</b> {SCRIPT}")
    tiles = []
    for i, cell in enumerate(spec.cells()):
        key = f"{i:064x}"
        path = bench.store.cell_path(key)
        save_png(Image.new("RGB", (side, side), _colour(i)), path, to_infotext(cell, (side, side), "tiny", None, "0"), {})
        tiles.append(Tile(cell, key, path, seconds=0.5))
    if faults:
        tiles[1] = Tile(tiles[1].cell, "", fault=Fault(f"cannot read {home}/runs/shoes/x.pt", "Look there."))
        del tiles[2]
    value = grid_matrix(spec, tiles, lambda c: (f"step {c.key}", "") if c else ("base model", ""))
    return Shown(bench, spec, tiles, value)


def _colour(i: int) -> tuple[int, int, int]:
    return 20 + i * 29 % 200, 30 + i * 53 % 200, 40 + i * 97 % 200
