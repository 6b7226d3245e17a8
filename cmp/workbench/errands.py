"""Draws what another instance of this program asks for, with the LoRA that it sends, and proves what was drawn."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmp import __version__
from cmp.core.errands import Errand, read_cells
from cmp.disk.bases import digest_base, pipelines_below
from cmp.disk.locate import locate
from cmp.disk.ready import Answers
from cmp.errors import CmpError, NotFound, Refused, Unreadable, why_not

if TYPE_CHECKING:
    from cmp.core.grids import Cell, Tile
    from cmp.workbench import Workbench

_FILE = "pytorch_lora_weights.safetensors"


def run_errand(bench: Workbench, errand: Errand) -> Iterator[dict[str, Any]]:
    """First what pictures depend on here, then the progress and one tile for each cell: a picture with its proof, or a fault.

    Raises Refused for another version of this program, NotFound for a base model that is not here.
    """
    bench.require_writing()
    if errand.version != __version__:
        told = f"this is version {__version__} of the program, and {errand.version[:40]!r} asks"
        raise Refused(told, "Both must be the same, since others may draw other pictures.")
    bench.require_own_card()
    base = base_of(bench, errand.base)
    yield {"cmp": __version__, "base": errand.base, "circumstances": bench.studio().circumstances(base)}
    if not errand.cells:
        return
    try:
        above = bench.settings.home / "received"
        above.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=above) as folder:
            file = Path(folder) / _FILE
            file.write_bytes(errand.weights)
            yield from _drawn(bench, errand, base, file)
    except OSError as fault:
        raise Refused(f"nothing can be kept in {bench.settings.home}: {why_not(fault)}", "Make room there.") from fault


def _drawn(bench: Workbench, errand: Errand, base: Path, file: Path) -> Iterator[dict[str, Any]]:
    from cmp.core.grids import GridSpec, Prompt, Tile

    found = locate(str(file))
    if found is None or found[1] is None:
        raise Unreadable("what was sent is no LoRA", "Send one as a safetensors file.")
    run, checkpoint = found[0], found[0].checkpoint(found[1])
    cells = read_cells(errand.cells, checkpoint)
    spec = GridSpec((checkpoint,), (Prompt(""),), mode=errand.mode)  # for its mode: the cells are no grid
    places: dict[Cell, list[int]] = {}
    for number, cell in enumerate(cells):
        places.setdefault(cell, []).append(number)
    with closing(bench.drawing(spec, (run,), Answers(errand.alpha, str(base))).draw(tuple(places))) as items:
        for item in items:
            if isinstance(item, Tile):
                yield from ({"cell": number, **_told(item, errand.base)} for number in places[item.cell])
            else:
                yield {"done": item.done, "total": item.total, "what": item.what}


def _told(tile: Tile, base: str) -> dict[str, Any]:
    if tile.fault or tile.path is None:
        fault = tile.fault
        return {"fault": {"error": fault.error, "hint": fault.hint, "code": fault.code} if fault else {}}
    picture = base64.b64encode(tile.path.read_bytes()).decode()
    return {"key": tile.key, "mode": tile.mode, "base": base, "seconds": tile.seconds, "png": picture}


def base_of(bench: Workbench, digest: str) -> Path:
    """The base model of that digest among those that lie below the known places; raises NotFound. Each is read through once."""
    for folder in pipelines_below(bench.bases):
        try:
            if digest_base(folder, bench.store) == digest:
                return folder
        except CmpError:  # an incomplete one is none that was asked for
            continue
    told = f"no base model here is the one that was asked for ({digest[:12]}…)"
    raise NotFound(told, "Put the very same files below --bases DIR / CMP_BASES of the instance that draws.")
