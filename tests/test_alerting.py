"""Alerts of a server: each once, also by a process that comes after, and to the targets that were named at its start."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cmp.errors import BadInput, NotFound, Refused
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.alerting import Alerting
from cmp.workbench.sending import Command, Webhook, targets_of
from tests.support import NOW, bench_of, origin_run, write_log

JUST_NOW = NOW + 1000
ALERT = {"id": "a", "kind": "disk", "about": "shoes", "what": "shoes: $(touch /tmp/x) `id`", "hint": "h", "severe": True, "at": None}


class Hook:
    """A server that takes alerts; it answers with `status`."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        hook = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if hook.status == 200:
                    hook.got.append(json.loads(body))
                self.send_response(hook.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.server.shutdown()
    made.server.server_close()


def training(tmp_path: Path, values: list[float]) -> Workbench:
    """A workbench over a run that logged its last value at JUST_NOW."""
    made = origin_run(tmp_path)
    (old,) = tmp_path.rglob("*tfevents*")
    start = JUST_NOW - NOW - len(values)
    write_log(old.parent, [(start + number, value) for number, value in enumerate(values, start=1)])
    return bench_of(made)


def test_a_broken_loss_of_a_run_in_training_is_told_once_by_all_processes_and_shown_by_each(tmp_path: Path, hook: Hook) -> None:
    bench = training(tmp_path, [0.1] * 30 + [float("nan")] * 3)
    alerting = Alerting(bench, targets_of(hook.url, None))
    (alert,) = alerting.look(JUST_NOW + 1)
    assert alert.kind == "not-finite" and alerting.look(JUST_NOW + 1) == () and [shown.id for shown in alerting.shown()] == [alert.id]
    after = Alerting(Workbench(bench.settings), targets_of(hook.url, None))
    assert after.look(JUST_NOW + 1) == () and [shown.id for shown in after.shown()] == [alert.id]
    assert [(told["kind"], told["about"], told["text"] == told["content"]) for told in hook.got] == [
        ("not-finite", "lora_casual_shoes", True)
    ]


def test_a_run_that_is_not_being_trained_is_not_looked_at(tmp_path: Path) -> None:
    bench = training(tmp_path, [0.1] * 30 + [float("nan")] * 3)
    assert Alerting(bench).look(JUST_NOW + 86400) == ()


def test_a_job_that_ends_is_told_whoever_has_it_and_earlier_ones_are_not(tmp_path: Path) -> None:
    bench = Workbench(Settings(tmp_path / "home", (tmp_path,)))

    def failing() -> Iterator[object]:
        yield "tile"
        raise Refused("the secret prompt cannot be drawn")

    with pytest.raises(Refused):
        list(bench.jobs.follow("grid", "before", 2, failing))
    alerting = Alerting(Workbench(bench.settings))
    with pytest.raises(Refused):
        list(bench.jobs.follow("grid", "after", 2, failing))
    (alert,) = alerting.look()
    assert (alert.kind, alert.about) == ("job-failed", bench.jobs.all()[1].id) and "secret" not in alert.what + alert.hint


def test_a_target_that_cannot_be_reached_is_logged_once_and_told_all_later(
    tmp_path: Path, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    alerting = Alerting(training(tmp_path, [0.1] * 30 + [float("nan")]), targets_of(hook.url, None))
    hook.status = 503
    with caplog.at_level(logging.INFO, "cmp.alerts"):
        for _ in range(4):
            alerting.look(JUST_NOW + 1)
        hook.status = 200
        alerting.look(JUST_NOW + 1)
    assert len(hook.got) == 1
    told = [record.getMessage() for record in caplog.records]
    assert told.count("alert not sent") == 1 and told[-1] == "alerts are sent again"
    assert "secret-token" not in str([vars(record) for record in caplog.records])


def test_a_webhook_that_points_elsewhere_is_not_followed(hook: Hook) -> None:
    hook.status = 302
    with pytest.raises(Refused, match="HTTP 302"):
        Webhook(hook.url).send(ALERT)


def test_a_webhook_whose_name_cannot_be_looked_up_is_refused_like_one_that_does_not_answer() -> None:
    with pytest.raises(Refused, match="UnicodeError"):
        Webhook("http://a..example.org/").send(ALERT)


class Breaking:
    """A target with a fault of its own: the first alert makes it raise what nobody expects."""

    name = "breaking"

    def __init__(self) -> None:
        self.tried, self.got = 0, threading.Event()

    def send(self, told: Mapping[str, object]) -> None:
        self.tried += 1
        if self.tried == 1:
            raise RuntimeError("broken")
        self.got.set()


def test_alerts_go_on_after_a_look_that_failed_and_the_fault_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cmp.workbench.alerting._EVERY", 0.01)
    bench = Workbench(Settings(tmp_path / "home", (tmp_path,)))
    target = Breaking()
    alerting = Alerting(bench, (target,))
    with pytest.raises(Refused):
        list(bench.jobs.follow("grid", "one", 1, _refusing))
    alerting.start()
    assert target.got.wait(20)
    alerting.stop()
    assert [record.getMessage() for record in caplog.records].count("looking for alerts failed") == 1


def _refusing() -> Iterator[object]:
    yield "tile"
    raise Refused("it cannot be drawn")


def test_a_command_gets_the_alert_on_its_input_and_no_shell_reads_it(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    script = tmp_path / "take.py"
    script.write_text("import sys, pathlib\npathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())\nsys.exit(int(sys.argv[2]))\n")
    (target,) = targets_of(None, f"{sys.executable} {script} '{out}' 0")
    target.send(ALERT)
    assert json.loads(out.read_text()) == ALERT
    with pytest.raises(Refused, match="ended with 3"):
        Command((sys.executable, str(script), str(out), "3")).send(ALERT)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "hooks.example.org/secret",
        "ftp://x/secret",
        "http:///secret",
        "http://[secret",
        "http://x:secret/",
        "http://x:70000/secret",
        "http://hööks.example.org/secret",
        "http://x/a b?secret",
        "http://a..example.org/secret",
        "http://user:secret@example.org/",
    ],
)
def test_only_web_addresses_are_taken_and_an_error_gives_no_secret_away(url: str) -> None:
    with pytest.raises(BadInput) as fault:
        targets_of(url, None)
    assert "secret" not in fault.value.told


def test_a_command_that_cannot_be_is_told_at_the_start() -> None:
    with pytest.raises(NotFound, match="no program"):
        targets_of(None, "no-such-program-anywhere --now")
    with pytest.raises(BadInput, match="No closing quotation"):
        targets_of(None, "mail 'unfinished")
