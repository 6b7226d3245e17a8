"""In whose request a row is drawn, where a card is lent for requests."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cmp.core.grids import Cell, GridSpec, Prompt, Sampling, Tile
from cmp.disk.ready import Answers
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import lending as module
from cmp.workbench.lending import Lending
from cmp.workbench.zero import Row

WHO: ContextVar[str] = ContextVar("who", default="nobody")
SPEC = GridSpec((None,), (Prompt("a shoe"),), samplings=(Sampling(1, 3.0),))
OTHER = replace(SPEC, prompts=(Prompt("a boot"),))
CELLS = SPEC.cells()


class Library:
    """In the place of what lends a card: notes in whose request it was asked to."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.asked: list[str] = []
        self.fault = fault

    def __call__(self, row: Row) -> tuple[Tile, ...]:
        self.asked.append(WHO.get())
        if self.fault:
            raise self.fault
        return tuple(Tile(cell, "key") for cell in row.cells)


def row(spec: GridSpec = SPEC) -> Row:
    return Row(Settings(Path("nowhere")), spec, (), Answers(), tuple(spec.cells()), 20)


def begin(lending: Lending, spec: GridSpec = SPEC) -> Future[tuple[Tile, ...]]:
    """The row, drawn by a job, in the request that began it."""

    def work() -> tuple[Tile, ...]:
        WHO.set("who began it")
        return lending.draw(row(spec))

    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def lends(library: Library) -> Lending:
    return Lending(library, lambda request: None)


def offered(lending: Lending, spec: GridSpec = SPEC) -> str:
    for _ in range(500):
        if found := lending.wanted(spec):
            return found
        time.sleep(0.01)
    raise AssertionError("no row was offered")


def cell_keys(tiles: tuple[Tile, ...]) -> list[tuple[Cell, str]]:
    return [(tile.cell, tile.key) for tile in tiles]


ALL = [(cell, "key") for cell in CELLS]


def test_where_no_page_shows_the_grid_its_row_is_drawn_at_once_in_the_request_that_began_it() -> None:
    library = Library()
    lending = lends(library)
    lending.wanted(OTHER)  # a page that shows another
    assert cell_keys(begin(lending).result(5)) == ALL and library.asked == ["who began it"]


def test_a_page_that_shows_the_grid_has_it_drawn_in_an_event_of_its_own() -> None:
    library = Library()
    lending = lends(library)
    assert lending.wanted(SPEC) == ""
    drawn = begin(lending)
    name = offered(lending)
    assert not drawn.done() and lending.wanted(OTHER) == "", "another page is not told of it"
    WHO.set("who looks")
    lending.carry_out("another id")
    assert library.asked == []
    lending.carry_out(name)
    assert cell_keys(drawn.result(5)) == ALL and library.asked == ["who looks"]
    lending.carry_out(name)
    assert library.asked == ["who looks"] and lending.wanted(SPEC) == "", "it is drawn once"


def test_of_several_pages_one_draws() -> None:
    library = Library()
    lending = lends(library)
    lending.wanted(SPEC)
    drawn = begin(lending)
    name = offered(lending)
    pages = [threading.Thread(target=lending.carry_out, args=(name,)) for _ in range(8)]
    for page in pages:
        page.start()
    for page in pages:
        page.join()
    assert cell_keys(drawn.result(5)) == ALL and len(library.asked) == 1


def test_a_page_that_was_closed_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    library = Library()
    lending = lends(library)
    lending.wanted(SPEC)
    drawn = begin(lending)
    name = offered(lending)
    assert cell_keys(drawn.result(5)) == ALL and library.asked == ["who began it"]
    lending.carry_out(name)
    assert library.asked == ["who began it"]


@pytest.mark.parametrize(("fault", "told"), [(Refused("no card", "Wait."), "no card"), (ValueError("ours"), "not drawn to its end")])
def test_what_went_wrong_in_the_event_is_told_to_the_job(fault: Exception, told: str) -> None:
    lending = lends(Library(fault))
    lending.wanted(SPEC)
    drawn: Any = begin(lending)
    name = offered(lending)
    if isinstance(fault, Refused):
        lending.carry_out(name)
    else:
        with pytest.raises(ValueError, match="ours"):
            lending.carry_out(name)
    with pytest.raises(Refused, match=told):
        drawn.result(5)
