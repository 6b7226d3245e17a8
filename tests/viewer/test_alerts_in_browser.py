"""The bar of alerts: what is told stands there as text, what is dismissed stays away, and nobody hears one twice."""

from __future__ import annotations

import json
from typing import Any

from axe_playwright_python.sync_playwright import Axe

HOSTILE = "<img src=x onerror='window.pwned=1'> ${window.pwned=1} {{x}}"


def alert(number: int, **more: object) -> dict[str, object]:
    told = {
        "id": f"a{number}",
        "kind": "disk",
        "about": "shoes",
        "what": f"alert {number}",
        "hint": "do this",
        "at": "2026-11-27T00:00:00Z",
    }
    return told | {"severe": True} | more


def shown(page: Any, *alerts: dict[str, object]) -> Any:
    """The bar on a page of its own, over these alerts."""
    page.unroute_all()
    page.route("**/cmp/alerts", lambda route: route.fulfill(json={"alerts": list(alerts)}))
    page.evaluate("""() => {
      document.body.innerHTML = '<main><h1>x</h1><div id="alerts"></div></main>';
      window.A = cmpAlerts(document.querySelector("#alerts"));
    }""")
    return page.locator("#alerts")


def test_alerts_stand_in_a_status_region_the_newest_three_first_and_as_text(page: Any) -> None:
    bar = shown(page, alert(1, what=HOSTILE, hint=HOSTILE), *(alert(n, severe=n != 2) for n in range(2, 6)))
    bar.locator(".cmp-alert").first.wait_for()
    texts = bar.locator(".cmp-alert strong").all_inner_texts()
    assert texts == [HOSTILE, "alert 2", "alert 3"] and bar.get_by_text("and 2 more").is_visible()
    assert bar.get_by_role("status").count() == 1 and bar.locator("img").count() == 0
    found = Axe().run(page, options={"rules": {"document-title": {"enabled": False}, "html-has-lang": {"enabled": False}}})
    assert found.violations_count == 0, found.generate_report()


def test_what_is_dismissed_is_gone_for_good_and_the_next_one_comes_up(page: Any) -> None:
    alerts = [alert(n) for n in range(1, 6)]
    bar = shown(page, *alerts)
    bar.get_by_role("button", name="Dismiss: alert 1").click()
    assert bar.locator(".cmp-alert strong").all_inner_texts() == ["alert 2", "alert 3", "alert 4"]
    again = shown(page, *alerts)
    again.locator(".cmp-alert").first.wait_for()
    assert again.locator(".cmp-alert strong").all_inner_texts() == ["alert 2", "alert 3", "alert 4"]
    again.get_by_role("button", name="Dismiss all").click()
    assert again.locator(".cmp-alert").count() == 0 and len(json.loads(page.evaluate("localStorage['cmp-alerts-dismissed']"))) == 5
