"""A run in training whose loss breaks: the page says so, and the address that was named at the start hears of it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import NOW, origin_run, write_log
from tests.test_alerting import Hook

from .conftest import start_server
from .watched import Watched

pytestmark = pytest.mark.browser


def test_a_broken_loss_is_told_on_the_page_and_to_the_webhook(browser: Any, tmp_path: Path) -> None:
    made, hook = origin_run(tmp_path), Hook()
    (old,) = tmp_path.rglob("*tfevents*")
    start = int(time.time()) - NOW - 34
    write_log(old.parent, [(start + number, 0.1 if number < 30 else math.nan) for number in range(33)])
    serving = start_server(tmp_path / "home", "--runs", str(made.outputs), "serve", "--port", "0", "--alert-webhook", hook.url)
    try:
        watched = Watched(browser.new_page(), next(serving))
        bar = watched.page.locator("#alerts .cmp-alert")
        bar.wait_for(timeout=60_000)
        assert "lora_casual_shoes: the loss is not a number from step" in bar.inner_text()
        watched.picture("alert")
        watched.page.get_by_role("button", name="Dismiss: lora_casual_shoes").click()
        with watched.page.expect_response("**/cmp/alerts"):
            watched.reload()
        assert watched.page.locator("#alerts .cmp-alert").count() == 0 and watched.complaints == []
    finally:
        serving.close()  # type: ignore[attr-defined]
        hook.server.shutdown()
        hook.server.server_close()
    assert [told["kind"] for told in hook.got] == ["not-finite"]
