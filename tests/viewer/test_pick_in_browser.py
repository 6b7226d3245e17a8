"""The verdicts on a run in a real browser: which checkpoint is gone on with."""

from __future__ import annotations

from typing import Any

STEPS = ("500", "1500", "3000")


def verdict(pick: str, run: str = "shoes") -> dict[str, object]:
    picks = [{"id": f"{run}@{step}", "label": f"step {step}", "star": False} for step in STEPS]
    return {
        "runs": [{"key": name, "label": name} for name in ("shoes", "cats")], "run": run, "name": run, "told": "A rule says step 1500.",
        "agree": None, "panels": [], "next": [], "picks": picks, "pick": f"{run}@{pick}", "ends": [picks[0]["id"], picks[2]["id"]],
        "actions": ["convert", "star"], "vote": "", "scores": "", "share": "",
    }  # fmt: skip


def show(page: Any, value: dict[str, object]) -> None:
    page.evaluate(
        """value => { let root = document.querySelector("#pick");
            if (!root) { root = document.createElement("div"); root.id = "pick"; document.body.append(root); }
            window.P ??= cmpPick(root, { onPick: (what) => picked.push(what), onEdit: (what) => picked.push(what) });
            P.update(value); }""",
        value,
    )


def gone_on_with(page: Any) -> tuple[str, str]:
    return page.get_by_label("Checkpoint to go on with").input_value(), page.locator("#pick [data-do=convert]").inner_text()


def test_what_nobody_picked_follows_the_verdict(page: Any) -> None:
    show(page, verdict("3000"))
    assert gone_on_with(page) == ("shoes@3000", "Convert step 3000")
    show(page, verdict("1500"))  # measured meanwhile
    assert gone_on_with(page) == ("shoes@1500", "Convert step 1500")


def test_what_somebody_picked_stays_until_another_run_is_shown(page: Any) -> None:
    show(page, verdict("3000"))
    page.get_by_label("Checkpoint to go on with").select_option("shoes@500")
    show(page, verdict("1500"))
    assert gone_on_with(page) == ("shoes@500", "Convert step 500")
    show(page, verdict("3000", "cats"))
    show(page, verdict("1500", "cats"))
    assert gone_on_with(page) == ("cats@1500", "Convert step 1500")
