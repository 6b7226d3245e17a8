"""Whether another program has the graphics card, from what NVIDIA's tool prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cmp.disk.occupied import Card, ask_nvidia, read_cards, who_holds

FIRST, SECOND = "GPU-5c8a8f1e-0000-1111-2222-333344445555", "GPU-77777777-0000-1111-2222-333344445555"
CARDS = f"{FIRST}, 18123, 24564\n{SECOND}, 12, 24564\n"


def answers(cards: str | None, programs: str | None) -> Callable[[tuple[str, ...]], str | None]:
    return lambda arguments: cards if arguments[0].startswith("--query-gpu") else programs


def test_a_trainer_is_named_with_what_it_uses() -> None:
    cards = read_cards(answers(CARDS, f"{FIRST}, 4242, 17000, /opt/venv/bin/python, really\n"))
    assert who_holds(cards, FIRST, own_pid=1) == "python, really (process 4242) uses 17.8 GB of the GPU"
    assert who_holds(cards, SECOND, own_pid=1) is None, "it is on another card"
    assert who_holds(cards, FIRST.removeprefix("GPU-"), own_pid=1) == who_holds(cards, FIRST, own_pid=1)


def test_a_program_that_the_driver_does_not_name_is_seen_by_the_memory_it_takes() -> None:
    cards = read_cards(answers(CARDS, ""))
    assert who_holds(cards, FIRST, own_pid=1) == "another program uses 19.0 GB of the GPU's 25.8 GB"


def test_a_desktop_keeps_nobody_from_drawing() -> None:
    cards = read_cards(answers(f"{FIRST}, 900, 24564\n", f"{FIRST}, 77, 300, gnome-shell\n"))
    assert who_holds(cards, FIRST, own_pid=1) is None


def test_where_the_driver_does_not_say_how_much_a_program_uses_the_card_tells() -> None:
    cards = read_cards(answers(CARDS, f"{FIRST}, 4242, [N/A], python\n"))
    assert who_holds(cards, FIRST, own_pid=1) == "python (process 4242) uses 19.0 GB of the GPU"


def test_a_training_counts_only_where_nothing_tells_of_the_card() -> None:
    assert who_holds((), FIRST, 1, ["shoes"]) == "run shoes is being trained"
    assert who_holds((Card(SECOND, 0, 24),), FIRST, 1, ["shoes"]) == "run shoes is being trained"
    assert who_holds((Card(FIRST, 0, 24),), FIRST, 1, ["shoes"]) is None, "it is trained somewhere else"
    assert who_holds((), FIRST, 1) is None


@pytest.mark.parametrize("told", [None, "", "No devices were found\n", "a, b, c\n", f"{FIRST}, [N/A], [N/A]\n", ", , \n"])
def test_what_tells_nothing_gives_no_card(told: str | None) -> None:
    assert read_cards(answers(told, told)) == ()


def test_the_real_tool_is_asked_and_may_be_missing_or_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_nvidia(("--query-gpu=uuid",)) is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "$@"\n')
    tool.chmod(0o755)
    assert ask_nvidia(("--query-gpu=uuid", "--format=csv")) == "--query-gpu=uuid --format=csv\n"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert ask_nvidia(("--query-gpu=uuid",)) is None
