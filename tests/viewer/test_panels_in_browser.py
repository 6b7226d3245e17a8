"""The bar of the matrix: what its buttons open lies over the pictures and goes as a menu goes, and on a phone the bar is one row."""

from __future__ import annotations

from typing import Any

import pytest

from tests.viewer.test_axe_in_browser import grid

TOOLS = ["Arrange", "Step slider", "Look"]
MORE = ["Swap axes", "Fit width", "1:1", "Zoom", "Export", "Change", "?"]


@pytest.fixture
def shown(page: Any) -> Any:
    page.evaluate("value => M.update(value)", grid() | {"export": "cmp/export/x"})
    page.wait_for_function("document.querySelectorAll('td img.is-loaded').length === 6")
    return page


@pytest.fixture
def phone(shown: Any) -> Any:
    shown.set_viewport_size({"width": 390, "height": 844})
    shown.locator(".cmp-matrix.is-narrow").wait_for()
    return shown


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def panel(page: Any, name: str) -> Any:
    return page.get_by_role("group", name=name, exact=True)


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")


def tops(page: Any) -> list[float]:
    return page.evaluate("[...document.querySelectorAll('td.cmp-cell')].map((cell) => cell.getBoundingClientRect().top)")


@pytest.mark.parametrize(("name", "width"), [("Arrange", 1200), ("Look", 1200), ("Arrange", 390), ("Look", 390), ("More", 390)])
def test_a_panel_lies_over_the_pictures_and_escape_gives_the_focus_back(shown: Any, name: str, width: int) -> None:
    shown.set_viewport_size({"width": width, "height": 844})
    button(shown, name).wait_for()
    before = tops(shown)
    button(shown, name).focus()
    shown.keyboard.press("Enter")
    assert panel(shown, name).is_visible() and button(shown, name).get_attribute("aria-expanded") == "true"
    assert tops(shown) == before
    box = panel(shown, name).bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 844
    assert panel(shown, name).evaluate("""(node) => { const { left, right, top, bottom } = node.getBoundingClientRect();
        const spots = [[(left + right) / 2, bottom - 4], [left + 4, top + 4]];
        return spots.every((spot) => node.contains(document.elementFromPoint(...spot))); }""")
    shown.keyboard.press("Tab")
    assert panel(shown, name).evaluate("(node) => node.contains(document.activeElement)"), "the panel comes next to its button"
    shown.keyboard.press("Escape")
    assert not panel(shown, name).is_visible() and focused(shown) == name
    assert button(shown, name).get_attribute("aria-expanded") == "false"
    assert shown.locator("dialog[open]").count() == 0


def test_one_panel_is_open_at_a_time_and_a_press_beside_it_closes_it_and_opens_no_picture(shown: Any) -> None:
    button(shown, "Arrange").click()
    shown.get_by_label("Where Prompt runs").select_option("x")
    assert panel(shown, "Arrange").is_visible(), "it stays while it is used"
    button(shown, "Look").click()
    assert not panel(shown, "Arrange").is_visible() and panel(shown, "Look").is_visible()
    cell = shown.locator("td.cmp-cell").last
    cell.click()
    assert not panel(shown, "Look").is_visible() and shown.locator("dialog[open]").count() == 0
    cell.click()
    assert shown.locator("dialog[open]").count() == 1


def test_a_panel_that_the_keyboard_leaves_hides_nothing(shown: Any) -> None:
    button(shown, "Look").click()
    shown.locator("td.cmp-cell").first.focus()
    assert not panel(shown, "Look").is_visible() and focused(shown).startswith("step 0")


def visible_tools(page: Any) -> list[str]:
    return page.evaluate("""[...document.querySelectorAll('.cmp-tools :is(button, summary)')]
        .filter((node) => node.checkVisibility() && !node.closest('.cmp-panel .cmp-menu')).map((node) => node.innerText)""")


def test_a_wide_bar_shows_every_tool_and_a_phone_one_row_with_the_rest_behind_one_button(shown: Any) -> None:
    assert visible_tools(shown) == [*TOOLS, *MORE]
    shown.set_viewport_size({"width": 390, "height": 844})
    button(shown, "More").wait_for()
    assert visible_tools(shown) == [*TOOLS, "More"]
    rows = shown.evaluate(
        """[...document.querySelectorAll('.cmp-tools button')]
        .filter((node) => node.checkVisibility()).map((node) => node.getBoundingClientRect())"""
    )
    assert len({round(row["y"]) for row in rows}) == 1 and max(row["right"] for row in rows) <= 390
    assert shown.locator(".cmp-tools").bounding_box()["height"] < 40
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    button(shown, "More").click()
    assert visible_tools(shown) == [*TOOLS, "More", *MORE]
    shown.set_viewport_size({"width": 1200, "height": 844})
    button(shown, "More").wait_for(state="hidden")
    assert visible_tools(shown) == [*TOOLS, *MORE]


def test_a_bar_without_room_beside_the_title_begins_at_the_left_edge_and_no_menu_leaves_the_page(shown: Any) -> None:
    edge = shown.locator(".cmp-title").bounding_box()["x"]
    for width in (1200, 900, 800, 740):
        shown.set_viewport_size({"width": width, "height": 844})
        shown.evaluate("document.querySelector('.cmp-title').textContent = 'a long title '.repeat(8)")
        tools = shown.locator(".cmp-tools").bounding_box()
        assert tools["x"] == pytest.approx(edge, abs=1) and tools["x"] + tools["width"] <= width
        shown.locator(".cmp-export summary").click()
        menu = shown.locator(".cmp-export .cmp-menu")
        menu.wait_for()
        shown.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        box = menu.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        shown.locator(".cmp-export summary").click()


def test_on_a_phone_the_keyboard_meets_the_tools_in_the_order_in_which_they_stand(phone: Any) -> None:
    button(phone, "Arrange").focus()
    met = [focused(phone)]
    for key in ("Tab", "Tab", "Tab", "Enter", *["Tab"] * 8):
        phone.keyboard.press(key)
        met.append(focused(phone))
    assert met == [
        *TOOLS,
        "More",
        "More",
        "Swap axes",
        "Fit width",
        "Size of a cell in pixels",
        "1:1",
        "Zoom",
        "Export",
        "Change",
        "Keyboard help",
    ]
    phone.keyboard.press("Enter")
    assert phone.locator("dialog.cmp-help[open]").count() == 1
    phone.keyboard.press("Escape")
    phone.wait_for_function("document.activeElement.innerText === 'More'")


def test_on_a_phone_what_is_chosen_behind_more_is_done_and_shown(phone: Any) -> None:
    button(phone, "More").click()
    button(phone, "Change").click()
    phone.wait_for_function("document.querySelectorAll('.cmp-change-dot').length === 4")
    assert not panel(phone, "More").is_visible() and focused(phone) == "More"
    button(phone, "More").click()
    phone.locator("summary", has_text="Export").click()
    assert phone.get_by_role("menuitem", name="Sheet (PNG)").is_visible()


def test_whatever_a_finger_is_to_hit_has_24_pixels(phone: Any) -> None:
    small = """() => [...document.querySelectorAll('.cmp-matrix :is(button, summary, select, input)')]
        .filter((node) => node.checkVisibility()).map((node) => node.matches('label input') ? node.closest('label') : node)
        .map((node) => [node.innerText || node.ariaLabel, node.getBoundingClientRect()])
        .filter(([, box]) => box.width < 23.9 || box.height < 23.9).map(([name, box]) => `${name} ${box.width} ${box.height}`)"""
    button(phone, "Step slider").click()
    assert phone.evaluate(small) == []
    for name in ("Arrange", "Look", "More"):
        button(phone, name).click()
        assert phone.evaluate(small) == []
    phone.locator("summary", has_text="Export").click()
    assert phone.evaluate(small) == []
