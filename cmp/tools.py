"""The verbs as tools of the Model Context Protocol, over standard input and output: list, show, curves and best look, grid draws.

Runs are named by their ids, never by paths. Where CMP_TOKEN is set, looking tells no places of this machine and drawing wants the token.
A read-only server has no tool that draws.
"""

from __future__ import annotations

import hmac
import secrets
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

from cmp.core.asking import Asked, to_spec
from cmp.core.grids import USUAL_MODE, Tile
from cmp.core.prompts import parse_prompt_line
from cmp.errors import BadInput, CmpError, NotFound, Refused
from cmp.workbench import Workbench
from cmp.workbench.callers import Caller, acting_for
from cmp.workbench.curtain import Curtain
from cmp.workbench.targets import choose_columns, run_at
from cmp.workbench.telling import best_json, curves_json, list_json

MOST_CELLS = 64  # of one call: whoever asks waits for all of them
MOST_POINTS = 5000  # of one curve
ABOUT = "Training runs of diffusion models: their checkpoints, loss curves, and pictures drawn with them. Runs and checkpoints have ids."


def serve_tools(bench: Workbench) -> None:
    """Serves until the client closes its end; raises BadInput where the protocol's package is not installed."""
    server_of(bench).run("stdio")


def server_of(bench: Workbench) -> Any:
    """The server with its tools."""
    try:
        from mcp.server.fastmcp import FastMCP
        from mcp.types import ToolAnnotations
    except ImportError as fault:
        raise BadInput(
            f"the Model Context Protocol cannot be used: {fault}", "Install it: `pip install -r requirements-mcp.txt`."
        ) from fault
    server, verbs = FastMCP("cmp", instructions=ABOUT, log_level="WARNING"), Tools(bench)
    for verb in (verbs.list, verbs.show, verbs.curves, verbs.best):
        server.tool(annotations=ToolAnnotations(readOnlyHint=True, openWorldHint=False), structured_output=False)(verb)
    if not bench.settings.read_only:
        server.tool(annotations=ToolAnnotations(readOnlyHint=False, destructiveHint=False, openWorldHint=False), structured_output=False)(
            verbs.grid
        )
    return server


class Tools:
    """What the tools do. Docstrings and parameters are what the client is told of them."""

    def __init__(self, bench: Workbench) -> None:
        if bench.settings.makes_token:
            told = "CMP_TOKEN is auto, and here nobody would be told the token that is made"
            raise BadInput(told, "Set CMP_TOKEN to a token of your own, or to nothing.")
        self._bench = bench

    def list(self) -> dict[str, Any]:
        """Every run and checkpoint, with ids, steps, sizes, and why one cannot be used."""
        return self._asked(lambda: list_json(self._bench))

    def show(self, target: str) -> dict[str, Any]:
        """One run or checkpoint by its id: settings, tensors by kind, scale and where it was found, what it can become."""
        return self._asked(lambda: self._bench.show(target))

    def curves(self, run: str, tags: tuple[str, ...] = (), points: int = 200) -> dict[str, Any]:
        """The logged curves of a run, each thinned to at most so many points that draw the same picture; without tags all of them."""
        if not 5 <= points <= MOST_POINTS:
            raise _refused(BadInput(f"points is {points}", f"Use 5 to {MOST_POINTS}."))
        return self._asked(lambda: self._curves(run, tags, points))

    def best(self, run: str, by: str | None = None, gate: str | None = None) -> dict[str, Any]:
        """Which checkpoint of a run is the best, which cannot be told from it, and by what. gate: "A vs B"."""
        return self._asked(lambda: best_json(self._bench, run_at(self._bench, run), by, None, gate))

    def grid(
        self, targets: tuple[str, ...], prompts: tuple[str, ...], checkpoints: str = "all", seeds: str = "0", strengths: str | None = None,
        steps: str | None = None, guidance: str | None = None, size: str | None = None, base_column: bool = False, token: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Draws the same prompts and seeds with every chosen checkpoint, and tells where each picture lies.

        Axes are texts: "500, 1000", "1-5", "all", "last 4". What was drawn before is not drawn again. token: where the server has one.
        """
        asked = Asked(
            prompts=tuple(map(parse_prompt_line, prompts)), seeds=seeds, strengths=strengths, steps=steps, guidance=guidance, size=size,
        )  # fmt: skip
        return self._asked(lambda: self._grid(targets, asked, checkpoints, base_column), token, draws=True)

    def _asked(self, answer: Callable[[], dict[str, Any]], token: str = "", *, draws: bool = False) -> dict[str, Any]:
        """What a verb answers to whoever shows this token; its errors as the protocol tells them."""
        own = self._bench.settings.token
        known = not own or hmac.compare_digest(token.encode("utf-8", "surrogatepass"), own.encode())
        # on standard output only the protocol is spoken, and libraries print there
        with acting_for(Caller(owner=known, by_id=True)), redirect_stdout(sys.stderr):
            try:
                if draws and not known:
                    raise Refused("drawing needs this server's token", "Give it as token; it is what CMP_TOKEN says where it was started.")
                told = answer()
                return told if known else Curtain(self._bench).public(told)
            except CmpError as fault:
                raise _refused(fault if known else type(fault)(*map(Curtain(self._bench).hide, (fault.message, fault.hint)))) from fault

    def _curves(self, run: str, tags: tuple[str, ...], points: int) -> dict[str, Any]:
        from cmp.core.thinning import thin

        found, logged = self._bench.curves_at(run, tags)
        thinned = []
        for curve in logged.curves:
            kept = thin(curve.steps, curve.values, points)
            times = None if curve.wall_times is None else curve.wall_times[kept]
            thinned.append(replace(curve, steps=curve.steps[kept], values=curve.values[kept], wall_times=times))
        told = curves_json(found, replace(logged, curves=tuple(thinned)))
        points_of = {curve.tag: int(curve.steps.size) for curve in logged.curves}
        return told | {"points": points_of, "reading": curves_json(found, logged)["reading"]}

    def _grid(self, targets: tuple[str, ...], asked: Asked, checkpoints: str, base_column: bool) -> dict[str, Any]:
        if not targets:
            raise NotFound("no run or checkpoint was given", "The tool list tells their ids.")
        bench = self._bench
        columns = choose_columns(bench, targets, checkpoints, only_ids=True)
        spec = to_spec(
            asked, (*((None,) if base_column else ()), *columns.checkpoints), draw=lambda: secrets.randbelow(2**32),
            usual=bench.usual_sampling(columns.runs), mode=USUAL_MODE,
        )  # fmt: skip
        if spec.size > MOST_CELLS:
            raise BadInput(f"the grid has {spec.size} cells", f"At most {MOST_CELLS} are drawn in one call; choose fewer values.")
        tiles = {item.cell: item for item in bench.follow_grid(spec, columns.runs) if isinstance(item, Tile)}
        return {
            "tiles": [tile.as_json() for tile in tiles.values()],
            "passed_over": [{"checkpoint": c.id, "why": c.flaw} for c in columns.flawed],
        }


def _refused(fault: CmpError) -> Exception:
    from mcp.server.fastmcp.exceptions import ToolError

    return ToolError(fault.told)
