"""How long work is told on a terminal: a line for what comes, and where nothing comes for a while how far it is."""

from __future__ import annotations

import itertools

import pytest

from cmp.cli import telling
from cmp.core.progress import Progress


def test_progress_is_told_only_where_nothing_came_for_a_while(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = itertools.count(100.0, 2.0)  # two seconds pass between any two looks at the clock
    monkeypatch.setattr(telling.time, "monotonic", lambda: next(clock))
    work = [Progress(0, 9, "loading"), "one", *[Progress(n, 9, "measuring") for n in range(1, 5)], "two", Progress(5, 9, "measuring")]
    assert list(telling.at_times(work)) == ["one", "two"]
    assert capsys.readouterr().err.splitlines() == ["0/9 loading", "3/9 measuring"]
    list(telling.at_times([Progress(0, 9, "loading")], next(clock)))
    assert capsys.readouterr().err == "", "what was told a moment ago is not told again"
