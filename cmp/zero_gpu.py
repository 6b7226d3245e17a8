"""Has grids drawn on a card that Hugging Face's ZeroGPU lends, where this process runs there."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cmp.core.grids import Tile
from cmp.errors import Refused
from cmp.workbench import Workbench
from cmp.workbench.zero import DrawRow, Row, row_drawer, row_seconds

_TAGS = re.compile("<[^<>]*>")


def lend_card(bench: Workbench, environ: Mapping[str, str]) -> Workbench:
    """The workbench, told how a card is lent; as it is anywhere else. Call it before torch is imported, and before the page is launched.

    The platform stops a Space in which nothing was decorated when it starts.
    """
    if environ.get("SPACES_ZERO_GPU", "").lower() not in ("1", "true", "t"):
        return bench
    try:
        import spaces
    except ImportError:
        return bench
    bench.draw_row = in_words(spaces.GPU(row_drawer(), duration=row_seconds))
    return bench


def in_words(draw_row: DrawRow) -> DrawRow:
    """The same, with what the platform has against it as an error of ours: a visitor's share may be used up, or a card not free."""

    def draw(row: Row) -> tuple[Tile, ...]:
        from gradio import Error  # after the server has told it its settings

        try:
            return draw_row(row)
        except Error as fault:
            told = _TAGS.sub("", str(fault.message))[:300]
            raise Refused(
                f"no graphics card was lent: {told}", "Try again later, or sign in to Hugging Face for a larger share."
            ) from fault

    return draw
