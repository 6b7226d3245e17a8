"""In whose request a row is drawn, where a card is lent for requests."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from cmp import __version__
from cmp.core.errands import Errand
from cmp.core.grids import Cell, GridSpec, Prompt, Sampling, Tile
from cmp.disk.ready import Answers
from cmp.errors import Refused
from cmp.settings import Settings
from cmp.workbench import lending as module
from cmp.workbench.callers import Caller, acting_for
from cmp.workbench.errands import run_errand
from cmp.workbench.lending import Gone, Lending
from cmp.workbench.zero import Row
from tests.support import bench_of, origin_run

WHO: ContextVar[str] = ContextVar("who", default="nobody")
SPEC = GridSpec((None,), (Prompt("a shoe"),), samplings=(Sampling(1, 3.0),))
CELLS = SPEC.cells()


class Library:
    """In the place of what lends a card: notes in whose request it was asked to."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.asked: list[str] = []
        self.fault, self.only = fault, ""

    def __call__(self, row: Row) -> tuple[Tile, ...]:
        self.asked.append(WHO.get())
        if self.fault and self.only in ("", WHO.get()):
            raise self.fault
        return tuple(Tile(cell, "key") for cell in row.cells)


def row() -> Row:
    return Row(Settings(Path("nowhere")), SPEC, (), Answers(), tuple(CELLS), 20)


def begin(lending: Lending, page: str = "tab") -> Future[tuple[Tile, ...]]:
    """The row, drawn by a job that a page began, in the request that began it."""

    def work() -> tuple[Tile, ...]:
        WHO.set("who began it")
        asked = row()
        with acting_for(Caller(page=page)):
            for _ in lending.offering(asked):
                pass
            return lending.draw(asked)

    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def lends(library: Library) -> Lending:
    return Lending(library, lambda request: None)


def ask(lending: Lending, page: str = "tab") -> str:
    with acting_for(Caller(owner=False, page=page)):
        return lending.wanted()


def carry_out(lending: Lending, name: str, page: str = "tab") -> None:
    with acting_for(Caller(owner=False, page=page)):
        lending.carry_out(name)


def offered(lending: Lending, page: str = "tab") -> str:
    for _ in range(500):
        if found := ask(lending, page):
            return found
        time.sleep(0.01)
    raise AssertionError("no row was offered")


def cell_keys(tiles: tuple[Tile, ...]) -> list[tuple[Cell, str]]:
    return [(tile.cell, tile.key) for tile in tiles]


ALL = [(cell, "key") for cell in CELLS]


def test_where_its_page_is_not_open_a_row_is_drawn_at_once_in_the_request_that_began_it() -> None:
    library = Library()
    lending = lends(library)
    ask(lending, "another tab")
    assert cell_keys(begin(lending).result(5)) == ALL and library.asked == ["who began it"]
    assert cell_keys(begin(lending, page="").result(5)) == ALL, "no page has begun it"
    assert ask(lending, "") == ""


def test_the_page_that_began_a_grid_has_it_drawn_in_an_event_of_its_own_and_no_other_page_does() -> None:
    library = Library()
    lending = lends(library)
    assert ask(lending) == ""
    drawn = begin(lending)
    name = offered(lending)
    assert not drawn.done() and ask(lending, "another tab") == ask(lending, "") == "", "others are not told of it"
    WHO.set("who looks")
    carry_out(lending, "another id")
    carry_out(lending, name, "another tab")
    carry_out(lending, name, "")
    assert library.asked == [], "nobody pays for a grid of somebody else's, nor spoils it"
    carry_out(lending, name)
    assert cell_keys(drawn.result(5)) == ALL and library.asked == ["who looks"]
    carry_out(lending, name)
    assert library.asked == ["who looks"] and ask(lending) == "", "it is drawn once"


def test_pages_that_look_at_other_grids_take_nothing_from_each_other() -> None:
    library = Library()
    lending = lends(library)
    for page in ("one", "other", "other"):
        ask(lending, page)
    for page in ("one", "other"):
        drawn = begin(lending, page)
        carry_out(lending, offered(lending, page), page)
        assert cell_keys(drawn.result(5)) == ALL
    assert "who began it" not in library.asked


def test_of_several_events_of_a_page_one_draws() -> None:
    library = Library()
    lending = lends(library)
    ask(lending)
    drawn = begin(lending)
    name = offered(lending)
    events = [threading.Thread(target=carry_out, args=(lending, name)) for _ in range(8)]
    for event in events:
        event.start()
    for event in events:
        event.join()
    assert cell_keys(drawn.result(5)) == ALL and len(library.asked) == 1


def test_a_page_that_was_closed_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TO_COME", 2.0)
    library = Library()
    lending = lends(library)
    ask(lending)
    drawn = begin(lending)
    name = offered(lending)
    assert cell_keys(drawn.result(30)) == ALL and library.asked == ["who began it"]
    carry_out(lending, name)
    assert library.asked == ["who began it"]
    monkeypatch.setattr(module, "_SEEN", 600.0)
    assert cell_keys(begin(lending).result(30)) == ALL, "its next row is not"


@pytest.mark.parametrize(("fault", "told"), [(Refused("no card", "Wait."), "no card"), (ValueError("ours"), "not drawn to its end")])
def test_what_went_wrong_in_the_event_is_told_to_the_job(fault: Exception, told: str) -> None:
    lending = lends(Library(fault))
    ask(lending)
    drawn: Any = begin(lending)
    name = offered(lending)
    if isinstance(fault, Refused):
        carry_out(lending, name)
    else:
        with pytest.raises(ValueError, match="ours"):
            carry_out(lending, name)
    with pytest.raises(Refused, match=told):
        drawn.result(5)


def test_where_its_page_is_closed_while_it_waits_for_a_card_the_row_is_drawn_in_the_request_that_began_it() -> None:
    library = Library(Gone("the page was closed", "Press Draw again."))
    lending = lends(library)
    ask(lending)
    drawn = begin(lending)
    name = offered(lending)
    WHO.set("who looks")
    library.only = "who looks"
    carry_out(lending, name)
    assert cell_keys(drawn.result(5)) == ALL and library.asked == ["who looks", "who began it"]


def test_a_wait_that_is_left_takes_the_row_back() -> None:
    library = Library()
    lending = lends(library)
    ask(lending)
    with acting_for(Caller(page="tab")):
        waiting = lending.offering(row())
        next(waiting)
        name = offered(lending)
        waiting.close()
    carry_out(lending, name)
    assert library.asked == [] and ask(lending) == ""


def test_what_needs_a_card_of_its_own_is_refused_in_words(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    bench.lending = lends(Library())
    run = bench.library().runs[0]
    errand = Errand(__version__, "0" * 64, "fast")
    for what in (
        lambda: bench.start_watch(run.id, SPEC),
        lambda: bench.own_studio(),
        lambda: next(run_errand(bench, errand)),
    ):
        with pytest.raises(Refused, match="a graphics card is lent here for rows of grids alone"):
            what()
    assert bench.why_busy() is None, "no card is looked for"
