"""Has grids drawn on a card that Hugging Face's ZeroGPU lends, where this process runs there."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from cmp.core.grids import Tile
from cmp.errors import Refused
from cmp.workbench import Workbench
from cmp.workbench.lending import Gone, Lending
from cmp.workbench.zero import DrawRow, Row, row_drawer, row_seconds

log = logging.getLogger(__name__)
_IN_WORKER = "ZeroGPU worker error"  # how the platform's library titles what went wrong once a card was lent
_LATER = "Try again later, or sign in to Hugging Face for a larger share."
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
    bench.lending = lending = Lending(in_words(spaces.GPU(row_drawer(), duration=row_seconds), lambda: lending.page), in_name_of)
    return bench


def in_name_of(request: Any) -> None:
    """Has the card be lent to whoever sent a request of ours: gradio tells the platform so of its events alone."""
    from gradio import Request
    from gradio.context import LocalContext

    LocalContext.request.set(Request(request))


def in_words(draw_row: DrawRow, page: Callable[[], Any]) -> DrawRow:
    """The same, with what the platform has against it as an error of ours: a visitor's share may be used up, or a card not free.

    By the page it finds the server's connections, which the process that it forks must not keep open.
    """

    def draw(row: Row) -> tuple[Tile, ...]:
        from gradio import Error  # after the server has told it its settings
        from gradio.context import LocalContext
        from httpx import HTTPError

        if LocalContext.blocks.get(None) is None:  # not within an event
            LocalContext.blocks.set(page())
        try:
            return draw_row(row)
        except Error as fault:
            told = _TAGS.sub("", str(fault.message))[:300]
            if fault.title == _IN_WORKER:
                raise Refused(f"drawing this row failed where the card is: {told}", "Draw it again; what came of it is kept.") from fault
            raise Refused(f"no graphics card was lent: {told}", _LATER) from fault
        except RuntimeError as fault:
            if "by visitor" in str(fault):  # as the library says of an event whose page was closed while it waited
                raise Gone("the page was closed before a graphics card was lent", "Press Draw again.") from fault
            raise _failed(fault) from fault
        except (OSError, ValueError, AssertionError, HTTPError) as fault:  # its network, or what it answers
            raise _failed(fault) from fault

    return draw


def _failed(fault: Exception) -> Refused:
    log.error("the platform lent no card", exc_info=fault)
    return Refused(f"no graphics card was lent: the platform failed with {type(fault).__name__}", _LATER)
