"""A run in training whose loss breaks: the page says so, and the address that was named at the start hears of it."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import NOW, origin_run, write_log
from tests.test_alerting import Hook

from .conftest import start_server
from .watched import Watched


@pytest.mark.browser
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


def test_a_command_that_was_named_at_the_start_hears_of_it_and_nobody_names_another_later(tmp_path: Path) -> None:
    made, heard = origin_run(tmp_path), tmp_path / "heard.jsonl"
    (old,) = tmp_path.rglob("*tfevents*")
    start = int(time.time()) - NOW - 34
    write_log(old.parent, [(start + number, 0.1 if number < 30 else math.nan) for number in range(33)])
    script = tmp_path / "hear it.py"
    script.write_text(f"import sys\nopen({str(heard)!r}, 'a').write(sys.stdin.read() + '\\n')\n")
    command = shlex.join([sys.executable, str(script), "; touch pwned $(touch pwned)"])
    for server in start_server(tmp_path / "home", "--runs", str(made.outputs), "serve", "--port", "0", "--alert-command", command):
        for _ in range(600):
            if heard.is_file() and heard.read_text().strip():
                break
            time.sleep(0.1)
        (told,) = map(json.loads, heard.read_text().splitlines())
        assert told["kind"] == "not-finite" and "lora_casual_shoes" in told["what"]
        schemas = server.get("/openapi.json")[1]["components"]["schemas"].values()
        fields = {name for schema in schemas for name in schema.get("properties", {})}
        fields |= {str(one["props"].get("elem_id")) for one in server.get("/config")[1]["components"]}
        told_of = {name for name in fields if "alert" in name or "webhook" in name or "command" in name}
        assert len(fields) > 100 and told_of == {"alerts", "measure-command"}, "where alerts stand, and what to type for a measurement"
    assert not list(Path.cwd().glob("pwned")) and not list(tmp_path.rglob("pwned"))
