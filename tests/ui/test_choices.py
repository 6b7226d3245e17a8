"""What the Compare tab offers before anybody has said what to draw."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.core.runs import Checkpoint, Run, Setting
from cmp.errors import Refused
from cmp.ui.choices import BASE, first_picks, first_prompts, picks_at, prompts_for, spread, told_picks


def run(name: str = "r", steps: int = 3, broken: tuple[int, ...] = (), **settings: object) -> Run:
    checkpoints = tuple(
        Checkpoint(name, str(step), Path(f"/{name}/{step}"), "diffusers-lora", "lora", step, flaw="half a file" if step in broken else None)
        for step in range(1, steps + 1)
    )
    return Run(name, Path(f"/{name}"), Path("/"), "t", settings={k: Setting(v, "f") for k, v in settings.items()}, checkpoints=checkpoints)


def nothing(_: Run) -> tuple[str, ...]:
    return ()


@pytest.mark.parametrize(
    ("settings", "offered"),
    [
        ({"validation_prompt": "a cat | a dog | a cow", "instance_prompt": "sks cat"}, ("a cat", "a dog")),
        ({"instance_prompt": "a photo of sks cat", "trigger_words": ("ohwx",)}, ("a photo of sks cat",)),
        ({"trigger_words": ("ohwx", "zwx", "third")}, ("ohwx", "zwx")),
        ({"instance_prompt": "", "validation_prompt": None}, ("used last",)),
        ({}, ("used last",)),
    ],
)
def test_a_run_is_first_drawn_with_what_its_trainer_knew_and_else_with_what_was_used_last(settings: dict, offered: tuple[str, ...]) -> None:
    assert first_prompts(run(**settings), ["used last"]) == offered


def test_what_was_offered_goes_with_its_run_and_what_was_written_stays() -> None:
    cat, dog, silent = run("cat", instance_prompt="sks cat"), run("dog", instance_prompt="sks dog"), run("silent")
    assert prompts_for([cat], nothing, None, None) == ("sks cat", "sks cat")
    assert prompts_for([dog], nothing, "sks cat", "sks cat") == ("sks dog", "sks dog")
    assert prompts_for([silent], nothing, "sks cat", "sks cat") == ("", "")
    assert prompts_for([silent, dog], nothing, "  ", "sks cat") == ("sks dog", "sks dog")
    assert prompts_for([dog], nothing, "a cat in rain", "sks cat") == ("a cat in rain", "sks cat")


def test_nothing_ticked_means_the_base_and_steps_that_fit_a_screen() -> None:
    assert first_picks([run(steps=3)], [], fill=False) == [BASE, "r@1", "r@2", "r@3"]
    assert first_picks([run(steps=60)], [], fill=False) == [BASE, "r@1", "r@13", "r@25", "r@36", "r@48", "r@60"]
    assert first_picks([run(steps=3, broken=(2,))], [], fill=False) == [BASE, "r@1", "r@3"]
    assert first_picks([], [], fill=True) == []


def test_another_run_brings_its_own_steps_and_takes_none_away() -> None:
    first, second = run("a"), run("b", steps=60)
    assert first_picks([second], [BASE, "a@1", "a@2"], fill=True)[1:] == ["b@1", "b@13", "b@25", "b@36", "b@48", "b@60"]
    assert first_picks([first, second], [BASE, "a@2"], fill=True) == [BASE, "a@2", "b@1", "b@31", "b@60"]
    assert first_picks([first, second], ["a@2"], fill=False) == ["a@2"], "who has taken the base and a run's steps away wants it so"


def test_who_ticked_nothing_is_told_what_is_ticked_now() -> None:
    assert [told_picks(n).rpartition("ow the ")[2] for n in (0, 1, 6)] == [
        "base model is.",
        "base model and 1 checkpoint are.",
        "base model and 6 checkpoints are.",
    ]


def test_a_mark_means_its_step_beside_the_base_and_is_refused_with_its_flaw() -> None:
    assert picks_at(run(), 2) == [BASE, "r@2"]
    with pytest.raises(Refused, match="half a file"):
        picks_at(run(broken=(2,)), 2)


@pytest.mark.parametrize("count", range(20))
def test_a_spread_has_the_first_and_the_last_and_nothing_twice(count: int) -> None:
    chosen = spread(list(range(count)), 6)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(count, 6)
    assert not count or (chosen[0], chosen[-1]) == (0, count - 1)
