"""The table of runs and checkpoints in a real browser."""

from __future__ import annotations

from typing import Any

import pytest

NAME = "Lora Casual Shoes 3000steps Full"
LONG = "model.safetensors is incomplete: 1,500,000,000 of 3,200,000,000 bytes are there"
BROKEN = r"""() => [...document.querySelectorAll("#table tr[data-key] td")].flatMap((cell) => {
  const node = (cell.querySelector("button") ?? cell).firstChild;
  const words = [...(node?.textContent ?? "").matchAll(/[^\s/-]+/g)];
  return words.filter((found) => {
    const range = document.createRange();
    range.setStart(node, found.index);
    range.setEnd(node, found.index + found[0].length);
    return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1;
  }).map((found) => found[0]);
})"""


def row(key: str, *cells: object, flaw: str | None = None) -> dict[str, object]:
    return {"key": key, "usable": flaw is None, "cells": cells, "flaw": flaw}


def cells(name: str) -> tuple[object, ...]:
    figures = [{"text": text, "sort": 1} for text in ("500–3000", "6", "56.5 MB", "0.04439")]
    return (name, "accelerate", "cmp-demo/tiny-shapes", *figures, "idle", "lora_casual_shoes_3000steps_full")


def show(page: Any, *rows: dict[str, object], many: bool = False) -> None:
    columns = ["run", "trainer", "base model", "steps", "checkpoints", "size", "last loss", "state", "id"]
    value = {"columns": columns, "rows": rows, "ticked": [], "many": many, "note": ""}
    page.evaluate(
        """value => { const root = document.createElement("div"); root.id = "table"; document.body.replaceChildren(root);
            cmpTable(root, { onPick: (what) => picked.push(what) }).update(value); }""",
        value,
    )


@pytest.mark.parametrize("width", [420, 1400])
def test_no_word_of_a_name_is_broken_however_narrow_the_page(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    show(page, row("a", *cells(NAME)), row("b", *cells("Cat"), flaw=LONG))
    assert page.evaluate(BROKEN) == []
    heights = page.evaluate("[...document.querySelectorAll('#table tbody tr')].map(row => row.offsetHeight)")
    assert max(heights) < 140, "a row that fills the screen hides the others"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the table scrolls, not the page"


def test_a_flaw_stands_below_its_row_in_view_and_belongs_to_it(page: Any) -> None:
    page.set_viewport_size({"width": 420, "height": 800})
    show(page, row("a", *cells(NAME), flaw=f"{LONG}, {'x' * 200}"), row("b", *cells("Cat")))
    page.evaluate("document.querySelector('#table .cmp-box').scrollLeft = 300")
    box = page.locator("#table .cmp-flaw").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 420
    page.locator("#table .cmp-flaw").click()
    assert page.evaluate("picked.map(what => what.ticked)") == [["a"]]
    assert page.locator("#table tr[data-key]").count() == 2


def test_a_dash_among_figures_stands_where_they_stand(page: Any) -> None:
    none = {"text": "–", "sort": None}
    show(page, row("a", *cells("Cat")), row("b", "Dog", "accelerate", "–", none, *cells("")[4:]))
    edges = "[...document.querySelectorAll('#table td:nth-child(4)')].map(cell => getComputedStyle(cell).textAlign)"
    assert page.evaluate(edges) == ["right", "right"]


def test_a_name_without_an_end_does_not_push_the_rest_away(page: Any) -> None:
    show(page, row("a", *cells("x" * 300)))
    assert page.evaluate("document.querySelector('#table tbody td').offsetWidth") < 400


def test_a_row_is_looked_at_by_its_name_and_ticked_by_its_box(page: Any) -> None:
    show(page, row("a", *cells(NAME)), row("b", *cells("Cat"), flaw=LONG), many=True)
    page.locator('#table tr[data-key="b"] .cmp-look').click()
    page.locator('#table tr[data-key="a"] input').click()
    page.locator('#table tr[data-key="a"] .cmp-tick').click(position={"x": 2, "y": 2})  # beside the box, as a finger does
    assert page.evaluate("picked.map(what => what.looked ?? what.ticked)") == ["b", ["a"], []]
    assert page.locator('#table tr[data-key="b"].is-looked').count() == 1


def test_a_chosen_row_far_down_is_in_sight_and_nothing_is_scrolled_for_it(page: Any) -> None:
    page.set_viewport_size({"width": 900, "height": 600})
    rows = [row(f"r{i}", *cells(f"run {i}")) for i in range(40)]
    inside = """() => { const [box, row, head] = ["#table .cmp-box", "#table tr.is-ticked", "#table thead"]
        .map((one) => document.querySelector(one).getBoundingClientRect());
        return box.height > 0 && row.top >= head.bottom - 1 && row.bottom <= box.bottom + 1 && scrollY === 0; }"""
    page.evaluate(
        """value => { const root = document.createElement("div"); root.id = "table"; document.body.replaceChildren(root);
            root.hidden = true; window.table = cmpTable(root, { onPick: () => {} }); window.value = value;
            table.update({ ...value, rows: [], ticked: [] }); table.update(value); root.hidden = false; }""",
        {"columns": ["run"], "rows": rows, "ticked": ["r30"], "many": False, "note": "", "title": "a title"},
    )
    page.wait_for_function(inside)
    assert page.evaluate("document.querySelector('#table .cmp-box').scrollTop") == 0
    page.evaluate("document.querySelector('#table .cmp-box').scrollTop = 800")
    page.wait_for_function(inside)
    page.evaluate("table.update({ ...value, ticked: ['r2'] })")
    page.wait_for_function(inside)
    assert page.evaluate("document.querySelector('#table .cmp-box').scrollTop") == 800, "it stays where somebody scrolled"
    assert page.locator("#table .cmp-title").inner_text() == "a title"


# -- many rows -------------------------------------------------------------------------------------------------------------

FOUND = {"find": "runs", "remember": "cmp.test", "downs": ["size"], "unsorted": ""}


def many(page: Any, count: int, **more: object) -> None:
    """A table of so many runs, the newest the smallest; every third one has no loss."""
    losses = [{"text": "–", "sort": None} if i % 3 == 0 else {"text": f"{i}", "sort": i} for i in range(count)]
    rows = [
        row(f"r{i}", f"run {i}", {"text": f"{count - i} B", "sort": count - i}, loss)
        | {"find": f"run {i} r{i} {'kohya' if i % 5 == 0 else 'diffusers'} sd-{i % 2}"}
        for i, loss in enumerate(losses)
    ]
    value = {"columns": ["run", "size", "loss"], "rows": rows, "ticked": ["r3"], "many": False, "note": "", **FOUND, **more}
    page.evaluate(
        """value => { const root = document.createElement("div"); root.id = "table"; document.body.replaceChildren(root);
            window.table = cmpTable(root, { onPick: (what) => picked.push(what) }); window.value = value; table.update(value); }""",
        value,
    )


def names(page: Any) -> list[str]:
    return page.locator("#table tr[data-key]:visible .cmp-look").all_inner_texts()


def test_a_field_leaves_the_rows_with_all_its_words_and_counts_them(page: Any) -> None:
    many(page, 35)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Filter runs"
    page.keyboard.type("KOHYA sd-1")
    assert names(page) == ["run 5", "run 15", "run 25"] and page.locator("#table .cmp-find-count").inner_text() == "3 of 35 runs"
    page.evaluate("table.update({ ...value, ticked: ['r5'] })")  # told anew, as every few seconds
    assert names(page) == ["run 5", "run 15", "run 25"]
    page.keyboard.type(" /")
    assert names(page) == [] and page.locator("#table .cmp-find-count").inner_text() == "0 of 35 runs"
    page.keyboard.press("Escape")
    assert len(names(page)) == 35 and page.locator("#table .cmp-find-count:visible").count() == 0


def test_a_few_rows_have_no_field_and_leave_the_key_alone(page: Any) -> None:
    many(page, 7)
    assert page.locator("#table .cmp-find:visible").count() == 0
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.tagName") == "BODY"


def test_a_click_anywhere_on_a_head_sorts_what_has_no_value_stays_last_and_the_order_is_remembered(page: Any) -> None:
    many(page, 35)
    loss = page.locator('#table th[data-column="loss"]')
    loss.click(position={"x": 2, "y": 2})
    assert loss.get_attribute("aria-sort") == "ascending" and names(page)[:2] == ["run 1", "run 2"] and names(page)[-1] == "run 33"
    loss.click()
    assert loss.get_attribute("aria-sort") == "descending" and names(page)[0] == "run 34" and names(page)[-1] == "run 33"
    page.locator('#table th[data-column="size"] button').focus()
    page.keyboard.press("Enter")
    assert page.locator("#table th[aria-sort=descending]").get_attribute("data-column") == "size", "of sizes the largest is asked for first"
    page.keyboard.press("Enter")  # who sorts with the keyboard stays at the head
    assert names(page)[0] == "run 34" and page.locator('#table th[data-column="loss"]').get_attribute("aria-sort") == "none"
    many(page, 35)  # as after a reload
    assert names(page)[0] == "run 34" and page.locator('#table th[data-column="size"]').get_attribute("aria-sort") == "ascending"
    page.locator("#table .cmp-find-sort").select_option("null", force=True)
    assert names(page)[0] == "run 0"


def test_a_row_that_is_told_as_it_was_stays_the_same_node(page: Any) -> None:
    many(page, 35)
    page.evaluate("window.before = document.querySelector('#table tr[data-key=r20]')")
    page.locator('#table tr[data-key="r21"]').click()
    page.evaluate("table.update({ ...value, ticked: ['r21'] })")
    assert page.evaluate("before === document.querySelector('#table tr[data-key=r20]')"), "its pictures would load again"
    assert page.locator("#table tr.is-ticked").get_attribute("data-key") == "r21"


def test_until_a_verdict_is_known_the_pick_tab_says_that_it_is_being_read(page: Any) -> None:
    page.evaluate(
        """() => { const root = document.createElement("div"); root.id = "pick"; document.body.replaceChildren(root);
            window.pick = cmpPick(root, { onPick: () => {}, onEdit: () => {} }); pick.update(null); }"""
    )
    assert page.locator("#pick").inner_text().strip() == "Reading …"
    assert page.locator("#pick :is(select, button, a):visible").count() == 0
    page.evaluate("pick.update({ runs: [], panels: [], picks: [], next: [], empty: 'No run.' })")
    assert page.locator("#pick").inner_text().strip() == "No run."
