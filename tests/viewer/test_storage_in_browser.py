"""The Storage tab's two parts in a real browser."""

from __future__ import annotations

from typing import Any

import pytest

from cmp.ui.storage_values import empty_plan


def part(key: str, share: float) -> dict[str, object]:
    return {"key": key, "label": key, "text": "1 MB", "share": share}


def overview(count: int) -> dict[str, object]:
    """Runs that all have the same name."""
    runs = [
        {
            "key": f"{number}/RUN", "label": "RUN", "sub": f"{number}/RUN", "live": False, "text": "1 MB", "share": 1,
            "parts": [part("checkpoints", 1)], "checkpoints": [], "could": "", "forecast": None,
        }
        for number in range(count)
    ]  # fmt: skip
    return {"disks": [], "runs": runs, "undo": [], "begun": [], "writable": True, "busy": None, "note": ""}


def show(page: Any, made_by: str, value: dict[str, Any]) -> None:
    page.evaluate(
        """([name, value]) => { const root = document.createElement("div"); root.id = "storage"; document.body.replaceChildren(root);
            window.shown = window[name](root, { onPick: (what) => picked.push(what), onEdit: () => {} }); shown.update(value); }""",
        [made_by, value],
    )


@pytest.mark.parametrize("width", [390, 1400])
def test_the_list_of_runs_keeps_its_place_and_the_focus_when_one_is_ticked_and_when_it_is_told_anew(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    show(page, "cmpStorage", value := overview(40))
    page.evaluate("document.querySelector('.cmp-runs').scrollTop = 600")
    box = page.locator('li[data-key="20/RUN"] input')
    box.scroll_into_view_if_needed()
    before = page.evaluate("document.querySelector('.cmp-runs').scrollTop")
    box.click()
    page.evaluate("value => shown.update(value)", value)
    assert page.evaluate("document.querySelector('.cmp-runs').scrollTop") == before > 0
    assert page.evaluate("document.activeElement.closest('li').dataset.key") == "20/RUN"
    assert page.evaluate("picked.map(what => what.ticked)") == [["20/RUN"]] and box.is_checked()


def test_a_reason_stands_above_all_that_it_is_true_of_and_is_counted_as_no_item(page: Any) -> None:
    items = [
        {"label": f"run/{n}", "why": "", "head": "starred" if n == 0 else "the last" if n == 3 else "", "text": "1 MB"} for n in range(20)
    ]
    kept = {"key": "keep", "label": "20 things that stay", "text": "20 MB", "notes": [], "items": items}
    show(page, "cmpStoragePlan", empty_plan("") | {"kept": kept})
    page.locator(".cmp-kept > summary").click()
    rows = page.locator(".cmp-kept > ul > li").all_inner_texts()
    assert [row.split("\n")[0] for row in rows[:5]] == ["starred", "run/0", "run/1", "run/2", "the last"]
    assert page.locator(".cmp-kept details summary").inner_text() == "8 more"
